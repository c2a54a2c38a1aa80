"""Some lines of a loaded file, and what each becomes: source line → commands → rows, for people who want to look.

In:      a ledger row, and the number of the first line.
Out:     lines as they are stored, judged by today's rules. Nothing is loaded.
Memory:  some blocks of lines, whatever the file holds; it is read from its beginning, and no farther than needed. Of
         documents, which may take a hundred times their size, only those of ordinary sizes are judged for a page.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

from ingest.core.commands import Command, Failure, Item, Rules
from ingest.core.facts import row as to_row
from ingest.core.formats import Format, open_format
from ingest.core.jsontext import holds_more
from ingest.core.source import SourceFile
from ingest.documents import documents
from ingest.errors import ConfigError, IngestError
from ingest.pipeline import Pipeline
from ingest.read_access import why_unreadable
from ingest.reading import HEAD_BYTES, Block, blocks, decompressed, peek

READ_AT_MOST: Final = 200 << 20  # unpacked bytes: what lies beyond takes longer than somebody waits for a page
_SHOWN_BYTES: Final = 2 << 20  # of all lines together: lines of 1 MB are few at a time
_ITEMS_AT_MOST: Final = 20  # of one line
_JUDGED_BYTES: Final = 2 << 20  # of one document
_JUDGED_VALUES: Final = 100_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Seen:
    """One item of a line: the rows of the commands that it asks for, or the failures that refuse it."""

    path: str
    rows: tuple[dict[str, Any], ...] = ()  # columns of `commands`
    failures: tuple[dict[str, Any], ...] = ()  # as `failed_lines` has them
    warnings: tuple[str, ...] = ()  # codes


@dataclass(frozen=True, slots=True)
class Line:
    """One line, as stored and as judged. A blank one has no item."""

    number: int
    byte_offset: int
    byte_length: int  # without the line end
    raw: bytes  # of a line that is too long its beginning
    items: tuple[Seen, ...]
    more_items: int = 0  # that are not told


@dataclass(slots=True)
class Preview:
    """Lines that follow each other. `following`: the number of the next one; None at the end of the file."""

    lines: list[Line] = field(default_factory=list)
    following: int | None = None
    refusal: Failure | None = None  # why the file is refused as a whole


def preview(pipeline: Pipeline, row: Mapping[str, Any], first: int, most: int = 20) -> Preview:
    """At most `most` lines of a file from line `first` on. `row` is of the ledger.

    Raises:
        ConfigError: the file may not be read from pages.
        IngestError: it has no object of its own, or the line lies too far in it, or is too large a document.
        ObjectGone: the object is gone, or another one now.
        TransientError: the store did not answer.
    """
    if row["redrive_of"]:
        raise IngestError(
            "This file is made of fixed lines. They have no object of their own: their rows are in the warehouse, the"
            " lines as they came are with the file that they fix, and the text that was sent is not kept."
        )
    file = SourceFile.of_row(row)
    if why := why_unreadable(pipeline.settings, file.bucket, file.key):
        raise ConfigError(why)
    rules, format = pipeline.rules(file), open_format(file.format)
    found = Preview()
    content = _no_farther(decompressed(pipeline.read(file, row)), first)
    head, content = peek(content, HEAD_BYTES)
    if refusal := format.refusal(head):
        return Preview(refusal=refusal.failures[0])
    shown_bytes = 0
    limit = min(rules.max_document_bytes, _JUDGED_BYTES)
    cut = documents(content, limit) if format.documents else blocks(content, rules.max_line_bytes)
    for number, offset, unit, whole_length in _units(cut, first, format):
        if len(found.lines) == most or (found.lines and shown_bytes + len(unit) > _SHOWN_BYTES):
            found.following = number
            break
        if format.documents and _is_large(unit, whole_length, rules):
            if found.lines:
                found.following = number
                break
            raise IngestError(
                f"The document in line {number:,} holds more than is judged for a page ({_JUDGED_BYTES >> 20} MB,"
                f" {_JUDGED_VALUES:,} values). Check the whole file: upload it, or `ingest check`."
            )
        shown_bytes += len(unit)
        found.lines.append(_line(number, offset, unit, whole_length, format, rules))
    return found


def _no_farther(pieces: Iterator[bytes], first: int) -> Iterator[bytes]:
    read_bytes = 0
    for piece in pieces:
        read_bytes += len(piece)
        if read_bytes > READ_AT_MOST:
            raise IngestError(
                f"From line {first:,} on the file lies beyond its first {READ_AT_MOST >> 20} MB, and no more of it is"
                " read for a page: download the object to look there."
            )
        yield piece


def _units(found: Iterator[Block], first: int, format: Format) -> Iterator[tuple[int, int, bytes, int | None]]:
    """(number, offset, text, length of one that is too long to be held) of each line or document from `first` on."""
    for block in found:
        for long in block.long:
            if long.line >= first:
                yield long.line, long.offset, long.head, long.length
        if format.documents and block.data and block.first_line >= first:
            yield block.first_line, block.offset, block.data, None
        if format.documents or block.first_line + block.data.count(b"\n") + 1 <= first:
            continue
        lines = block.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        offset = block.offset
        for number, line in enumerate(lines, block.first_line):
            if number >= first:
                yield number, offset, line.removesuffix(b"\r"), None
            offset += len(line) + 1


def _is_large(document: bytes, whole_length: int | None, rules: Rules) -> bool:
    """Whether judging it takes too much. One over the limit of its source is not judged."""
    if whole_length is not None:
        return whole_length <= rules.max_document_bytes
    return holds_more(document, _JUDGED_VALUES)


def _line(number: int, offset: int, unit: bytes, whole_length: int | None, format: Format, rules: Rules) -> Line:
    if whole_length is not None:
        failure = format.too_long(whole_length, unit, rules)
        return Line(number, offset, whole_length, unit, (Seen("", failures=(failure.told(),)),))
    items = iter(format.judge(unit, rules) if unit.strip() else ())
    seen = tuple(_seen(item, item_no, number, rules) for item_no, item in enumerate(islice(items, _ITEMS_AT_MOST)))
    return Line(number, offset, len(unit), unit, seen, sum(1 for _ in items))


def _seen(item: Item, item_no: int, line: int, rules: Rules) -> Seen:
    rows = tuple(_row(command, line, item_no, item.path, rules) for command in item.commands)
    return Seen(item.path, rows, tuple(one.told() for one in item.failures), item.warnings)


def _row(command: Command, line: int, item_no: int, path: str, rules: Rules) -> dict[str, Any]:
    """A row as the table `commands` shows it; what a `CommandRow` leaves out, since it repeats itself, is given."""
    row = to_row(command, line, item_no, path, rules)
    return {
        "kind": row.kind, "people_space": row.people_space or rules.people_space, "person": row.person,
        "person_key": row.person_key or row.person, "occurred_at": _EPOCH + timedelta(microseconds=row.occurred_at),
        "event": row.event, "event_key": row.event_key or row.event, "alias": row.alias,
        "alias_key": row.alias_key or row.alias, "properties": row.properties, "time_source": row.time_source,
        "command_id": str(UUID(bytes=row.command_id)),
    }  # fmt: skip
