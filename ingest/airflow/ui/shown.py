"""How values become text for people: sizes, ages, and raw lines with the offending place marked.

Pure. A raw line may hold anything: what is returned are pieces of text with the kind of each, for a template that
escapes them. Nothing invisible stays so: bytes that are no text, control characters and those that turn the direction
of writing are told as what they are.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final, Literal

from ingest.core.jsontext import place
from ingest.text import count

_SHOWN_AT_MOST: Final = 2_000  # characters of one line; the rest is in the download
_BEFORE_MARK: Final = 200  # characters of it before the first mark
_MARKS_AT_MOST: Final = 20  # a line may break a rule at each of a thousand places
_LONG: Final = 65_536  # characters: finding a place takes its time, so of a long line one is enough
_CHARACTER: Final = re.compile(r"at character (\d+)")
# Controls, surrogates that stand for bytes, zero widths, directions, line and paragraph separators, tags, BOM.
_INVISIBLE: Final = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]+"
)
_SEVERAL: Final = "bytes that are no UTF-8, and characters that cannot be seen"

Kind = Literal["text", "mark", "odd", "cut"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some characters of a line: as they are, the offending place, what cannot be seen, or a place that is cut."""

    kind: Kind
    text: str
    title: str = ""


def raw_pieces(raw: bytes, failures: Iterable[Mapping[str, Any]] = ()) -> list[Piece]:
    """A raw line for a page, short enough to be read, the places of its failures marked."""
    text = raw.decode("utf-8", "surrogateescape")
    marks = _marks(text, failures)
    begin = max(0, marks[0][0] - _BEFORE_MARK) if marks and len(text) > _SHOWN_AT_MOST else 0
    end = min(len(text), begin + _SHOWN_AT_MOST)
    pieces = [Piece("cut", f"… {begin:,} characters …")] if begin else []
    at = begin
    for first, last in marks:
        start, stop = max(first, at), min(last, end)
        if start < stop:
            pieces += [*_visible(text[at:start], "text"), *_visible(text[start:stop], "mark")]
            at = stop
    pieces += _visible(text[at:end], "text")
    return [*pieces, Piece("cut", f"… {len(text) - end:,} more characters …")] if end < len(text) else pieces


def _marks(text: str, failures: Iterable[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """Where the failures point, in order; those without a place of their own mark nothing."""
    found = []
    for failure in islice(failures, 1 if len(text) > _LONG else _MARKS_AT_MOST):
        at = _CHARACTER.search(str(failure.get("message", "")))
        if failure.get("pointer"):
            found.append(place(text, str(failure["pointer"])))
        elif at and failure.get("code") == "not_json":
            end = min(int(at[1]), len(text))  # what is missing at the end is marked at its last character
            found.append((end - 1, end))
        elif failure.get("code") == "not_utf8":
            found += [(odd.start(), odd.end()) for odd in re.finditer("[\udc80-\udcff]+", text)][:20]
    return sorted(mark for mark in found if mark)


def _visible(text: str, kind: Kind) -> list[Piece]:
    pieces, at = [], 0
    for odd in _INVISIBLE.finditer(text):
        if at < odd.start():
            pieces.append(Piece(kind, text[at : odd.start()]))
        names, titles = zip(*map(_named, odd[0]), strict=True)
        pieces.append(Piece("odd", "".join(names), titles[0] if len(set(titles)) == 1 else _SEVERAL))
        at = odd.end()
    if at < len(text):
        pieces.append(Piece(kind, text[at:]))
    return pieces


def _named(character: str) -> tuple[str, str]:
    """What cannot be seen, in letters, and what it is."""
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02X}", "a byte that is no UTF-8"
    return {"\r": "\\r", "\n": "\\n"}.get(character, f"U+{number:04X}"), "a character that cannot be seen"


def plain(text: object) -> str:
    """Text on one line in which nothing is invisible: for keys, names and messages."""
    return "".join(f"⟨{piece.text}⟩" if piece.kind == "odd" else piece.text for piece in _visible(str(text), "text"))


def size(number: float | None) -> str:
    """`1.4 MB`."""
    if number is None:
        return ""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def share(part: int, whole: int) -> str:
    """`3.2 %`; never a round 0 or 100 that is none."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return "< 0.1 %"
    if percent > 99.9 and part < whole:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent < 10 or (percent >= 99.5 and part < whole) else f"{percent:.0f} %"


def age(at: datetime | None, now: datetime | None = None) -> str:
    """`4 minutes ago`, `in 2 hours`."""
    if at is None:
        return ""
    passed = (now or datetime.now(UTC)) - at
    later, passed = passed < timedelta(0), abs(passed)
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if number := int(passed.total_seconds() // length):
            return f"in {count(number, unit)}" if later else f"{count(number, unit)} ago"
    return "in a moment" if later else "just now"


def every(length: timedelta) -> str:
    """`every hour`, `every 90 minutes`, `every day`: in the largest unit that leaves no fraction."""
    seconds = length.total_seconds()
    for unit, size_seconds in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if seconds % size_seconds == 0:
            number = int(seconds // size_seconds)
            return f"every {unit}" if number == 1 else f"every {count(number, unit)}"
    return f"every {seconds:,g} seconds"


def moment(at: datetime | None) -> str:
    """`2026-11-24 03:25:20`, UTC."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
