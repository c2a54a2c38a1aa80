"""A line with the place it has in its file: LINE[/ITEM], a tab, the text. So failed lines are handed out, taken back,
kept until a run has loaded them, and told apart.

In:    places (line from 1, pointer of an item in a document or nothing) and texts.
Out:   bytes, a line each; and from bytes the same again.
"""

import re
from collections.abc import Iterator
from typing import Final

from ingest.core.filetype import HEAD_BYTES, kind_of
from ingest.errors import IngestError

Place = tuple[int, str]  # (line, item)

_PLACE: Final = r"([0-9]{1,15})((?:/[^\t\r\n]*)?)"
_TEXT_PLACE: Final = re.compile(_PLACE)
_SHAPE: Final = re.compile(_PLACE.encode() + rb"\t(.*)", re.DOTALL)
_SHOWN_AT_MOST: Final = 10


def placed(place: Place, raw: bytes) -> bytes:
    """A text, which has no line ends, as a line that says where it stands."""
    return b"%d%b\t%b\n" % (place[0], place[1].encode(), raw)


def on_one_line(raw: bytes) -> bytes:
    """A part of a document without its line ends: in JSON they stand between values only."""
    return raw.replace(b"\r\n", b" ").replace(b"\n", b" ")


def place_of(text: str) -> Place | None:
    """The place that a text names, which is all of it."""
    found = _TEXT_PLACE.fullmatch(text)
    return (int(found[1]), found[2]) if found else None


def read_placed(content: bytes) -> Iterator[tuple[Place, bytes]]:
    """Lines that say where they stand; blank ones are nothing. Raises IngestError after the others, if some do not."""
    wrong: list[int] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        text = line.removesuffix(b"\r")
        if not text.strip():
            continue
        if found := _SHAPE.fullmatch(text):
            yield (int(found[1]), found[2].decode(errors="replace")), found[3]
        else:
            wrong.append(number)
    if not wrong:
        return
    if kind := kind_of(content[:HEAD_BYTES]):
        raise IngestError(
            f"What was sent is {kind.name}. Send the lines as they are handed out: as text, or as a table (CSV)"
            " with the columns place and raw, in UTF-8."
        )
    shown = ", ".join(map(str, wrong[:_SHOWN_AT_MOST])) + " …" * (len(wrong) > _SHOWN_AT_MOST)
    raise IngestError(
        f"Fixed lines begin with their number and a tab, as they are handed out: see line {shown} of what was sent."
    )
