"""Failed lines that are handed out to be fixed elsewhere, and taken back: as text, or as CSV for a spreadsheet.

Text:  LINE[/ITEM], a tab, the line.
CSV:   place, problem, remedy, raw. Of what comes back only `place` and `raw` are read, in any order of columns.
Safe:  what a spreadsheet would run begins with a space (text) or an apostrophe (CSV, which is taken off again), and
       what a terminal would obey is written as in JSON. To JSON both mean the same. In CSV a carriage return is a
       space, since a spreadsheet may take it for the end of a row: JSON has none but between its values.
Exact: a line that comes back as it was handed out is the line as it was, whatever stood for it: see `changed`. What
       somebody has edited is taken byte for byte.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from ingest.core.placed import Place, on_one_line, place_of, placed, read_placed
from ingest.core.schema import Meaning
from ingest.errors import IngestError

_COLUMNS: Final = ("place", "problem", "remedy", "raw")
_CHUNK_BYTES: Final = 64 << 10
_BOM: Final = b"\xef\xbb\xbf"
_TEXT_FORMULA: Final = re.compile(rb"(\A|\t)([=+\-@])")
_CELL_FORMULA: Final = tuple("=+-@\t\r'")
# Where numbers have a decimal comma, spreadsheets end a cell with a semicolon. In JSON it stands in texts only.
_NEXT_CELL: Final = re.compile(r"(;[\"\s]*)([=+\-@])")
_TERMINAL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]")  # C1 controls in UTF-8
csv.field_size_limit(64 << 20)  # a line may have a megabyte


def inert(raw: bytes) -> bytes:
    """A line as it may be opened anywhere."""
    return _shown(_TEXT_FORMULA.sub(rb"\1 \2", raw))


def as_text(lines: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Failed lines (`line`, `item`, `raw`) as text, in pieces."""
    return _pieces(placed((line["line"], line["item"]), inert(on_one_line(line["raw"]))) for line in lines)


def as_csv(lines: Iterable[Mapping[str, Any]], meanings: Mapping[str, Meaning]) -> Iterator[bytes]:
    """Failed lines with what is wrong with each, in pieces. One that is not UTF-8 is left out: a spreadsheet would
    change it."""
    return _pieces(_csv(lines, meanings))


def changed(returned: Mapping[Place, bytes], lines: Iterable[Mapping[str, Any]]) -> dict[Place, bytes]:
    """What of `returned` somebody has edited; `lines` are those that may have been handed out."""
    same = set()
    for line in lines:
        place = (line["line"], line["item"])
        if place in returned:
            raw = on_one_line(line["raw"])
            handed_out = {raw, inert(raw), _cell_text(raw)}
            if returned[place] in handed_out | {one.removesuffix(b"\r") for one in handed_out}:
                same.add(place)
    return {place: raw for place, raw in returned.items() if place not in same}


def parse_fixed(fixed: bytes) -> dict[Place, bytes]:
    """Fixed lines by their places, from text or CSV.

    Raises:
        IngestError: a line is not in the shape, two have one place and differ, or there is none: an empty file is never
            what somebody means.
    """
    fixed = fixed.removeprefix(_BOM)
    separator = _separator(fixed)
    mended: dict[Place, bytes] = {}
    for place, raw in _rows(fixed, separator) if separator else read_placed(fixed):
        if mended.setdefault(place, raw) != raw:
            raise IngestError(f"Line {place[0]}{place[1]} stands twice in what was sent, with two texts. Keep one.")
    if not mended:
        raise IngestError(
            "There is no line in what was sent, so nothing was changed. Send lines in the shape in which they are"
            " handed out; or send nothing at all, and the kept lines are judged again."
        )
    return mended


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for part in parts:
        chunk += part
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _shown(raw: bytes) -> bytes:
    return _TERMINAL.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), raw)


def _csv(lines: Iterable[Mapping[str, Any]], meanings: Mapping[str, Meaning]) -> Iterator[bytes]:
    yield _BOM + _row(_COLUMNS)
    for line in lines:
        raw = on_one_line(line["raw"])
        if not is_text(raw):
            continue
        # Not 2/1 alone, which a spreadsheet takes for a day.
        place = f"line {line['line']}{line['item']}" if line["item"] else str(line["line"])
        failures = orjson.loads(line["failures"] or b"[]")
        problem = " ".join(_problem(one, meanings.get(one["code"])) for one in failures)
        remedy = " ".join(dict.fromkeys(filter(None, (_remedy(one, meanings.get(one["code"])) for one in failures))))
        yield _row((place, *map(_cell, (problem, remedy, _cell_text(raw).decode()))))


def _problem(failure: Mapping[str, Any], meaning: Meaning | None) -> str:
    said = str(failure["message"]).removesuffix(meaning.remedy if meaning else "").strip()
    return f"{failure['code']}{' at ' if failure['pointer'] else ''}{failure['pointer']}: {said}"


def _remedy(failure: Mapping[str, Any], meaning: Meaning | None) -> str:
    value = f" Send {failure['send']}." if "send" in failure else ""
    return f"{meaning.remedy if meaning else ''}{value}".strip()


def _row(cells: Iterable[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow(cells)
    return text.getvalue().encode()


def _cell(text: str) -> str:
    """Text that no spreadsheet runs, whatever it takes for the end of a cell."""
    shown = _one_row(_shown(text.encode(errors="backslashreplace")).decode())
    shown = _NEXT_CELL.sub(r"\1'\2", shown)
    return f"'{shown}" if shown.lstrip(" ").startswith(_CELL_FORMULA) else shown


def _one_row(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _cell_text(raw: bytes) -> bytes:
    if not is_text(raw):
        return raw
    text = _one_row(_shown(raw).decode())
    return _NEXT_CELL.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", text).encode()


def is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _separator(fixed: bytes) -> str:
    """What stands between the cells of a CSV; nothing where this is none."""
    first = re.split(rb"[\r\n]", fixed[:1_000], maxsplit=1)[0].decode(errors="replace")
    return next((one for one in ",;\t" if {"place", "raw"} <= set(next(csv.reader([first], delimiter=one), []))), "")


def _rows(fixed: bytes, separator: str) -> Iterator[tuple[Place, bytes]]:
    text = io.StringIO(fixed.decode(errors="surrogateescape"), newline="")
    reader = csv.DictReader(text, delimiter=separator)
    try:
        for number, row in enumerate(reader, 2):
            told, raw = (row["place"] or "").strip(), (row["raw"] or "").removeprefix("'")
            if not told and not raw.strip():
                continue
            place = place_of(told.removeprefix("line "))
            if not place:
                raise IngestError(f"Row {number} of the table does not say which line it is: its place is {told!r}.")
            if "\n" in raw:
                raise IngestError(f"Row {number} of the table: a fixed line has to stay one line, without line breaks.")
            yield place, raw.encode(errors="surrogateescape")
    except csv.Error as error:
        raise IngestError(f"The table cannot be read near row {reader.line_num}: {error}.") from error
