"""What a person reads: the report of a check, failures by code, rows as JSON.

Counts of loaded files come from the ledger, those of a check from the same judging that a load uses.
"""

import base64
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
from pyarrow import parquet

from ingest.core.placed import on_one_line, placed
from ingest.core.schema import Meaning, codes
from ingest.ports import COUNTED, FileResult, Staging

_PREVIEW = ("line", "item", "kind", "people_space", "person", "occurred_at", "event", "alias", "properties")
_PREVIEW_ROWS = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REPORTED = (
    "file_id", "source", "bucket", "key", "version_id", "etag", "size_bytes", "sha256", "format", "state", "error",
    "load_id", "loaded_at", *COUNTED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Most:
    """How much a report may hold, however much its file does. Counts stay whole."""

    failures: int = 1_000
    bytes: int = 4 << 20  # of all failures together, of the preview, and of the names of events
    events: int = 1_000  # the most frequent
    names: int = 100_000  # events that are counted by name: those that come first
    names_bytes: int = 16 << 20


def check_report(staging: Staging, most: Most | None = None) -> dict[str, Any]:
    """The report of the one file in `staging`: what a load would do with it; with `most`, in flat memory."""
    (staged,) = staging.files
    counts = staged.counts
    events: Counter[str] = Counter()
    persons = _Distinct(staging.folder)
    times: list[int] = []  # microseconds since 1970
    preview: list[dict[str, Any]] = []
    names_bytes = 0
    # Counted by the numbers of a dictionary: that is as quick as what pyarrow computes, and loading that takes longer
    # than a small file.
    for batch in batches(staging.commands, dictionaries=["event", "person_key", "person"]):
        numbers, names = _numbered(batch["event"])
        for number, many in Counter(numbers).items():
            if number is None:
                continue
            name = names[number]
            if most and name not in events:
                names_bytes += len(name)
                if len(events) >= most.names or names_bytes > most.names_bytes:
                    continue
            events[name] += many
        (key_numbers, keys), (person_numbers, people) = _numbered(batch["person_key"]), _numbered(batch["person"])
        distinct = set(zip(key_numbers, person_numbers, strict=True))
        persons.add(people[person] if key is None else keys[key] for key, person in distinct)
        moments = batch["occurred_at"].view(pa.int64()).to_pylist()
        times = [min([*times, min(moments)]), max([*times, max(moments)])]
        if len(preview) < _PREVIEW_ROWS:
            rows = batch.slice(0, _PREVIEW_ROWS - len(preview)).select(_PREVIEW).to_pylist()
            own = {"people_space": staged.people_space}
            preview += [plain(row | ({} if row["people_space"] else own), {"properties"}) for row in rows]
    broken: Counter[str] = Counter()
    failures: list[dict[str, Any]] = []
    failures_bytes = 0
    for row in (row for batch in batches(staging.failed) for row in batch.to_pylist()):
        broken.update(row["codes"])
        if most is None or (len(failures) < most.failures and failures_bytes <= most.bytes):
            line = failed_line(row)
            failures_bytes += _size(line) if most else 0
            failures += [line] * (most is None or failures_bytes <= most.bytes)
    return {
        "file": staged.file.uri,
        "format": staged.file.format,
        **{name: getattr(counts, name) for name in COUNTED if name != "duplicates"},
        "warnings": dict(sorted(counts.warnings.items())),
        "events": dict(_first(events.most_common(most.events), most.bytes) if most else events.most_common()),
        "persons": persons.count(),
        "first_time": _time(_EPOCH + timedelta(microseconds=times[0])) if times else None,
        "last_time": _time(_EPOCH + timedelta(microseconds=times[1])) if times else None,
        "rejected": staged.error if staged.outcome == "rejected" else None,
        "preview": _first(preview, most.bytes) if most else preview,
        "codes": dict(broken.most_common()),
        "failures": failures,
    }


def _size(entry: object) -> int:
    return len(orjson.dumps(entry))


def _first(entries: Sequence[Any], most_bytes: int) -> list[Any]:
    """As many of them, from the first on, as together are no longer than that in JSON."""
    ends = accumulate(map(_size, entries))
    return [entry for entry, end in zip(entries, ends, strict=True) if end <= most_bytes]


class _Distinct:
    """How many different texts there were. Beyond a few they wait on disk, as hashes of 64 bits."""

    _HELD = 250_000
    _PARTS = 64  # each is small enough to be held alone

    def __init__(self, folder: Path) -> None:
        self._held: set[int] = set()
        self._paths = [folder / f"distinct-{part}" for part in range(self._PARTS)]
        self._spilled = False

    def add(self, texts: Iterable[str]) -> None:
        self._held.update(map(hash, texts))  # two of ten million share one with a chance of 1 in 300,000
        if len(self._held) > self._HELD:
            self._spill()

    def count(self) -> int:
        if not self._spilled:
            return len(self._held)
        self._spill()
        return sum(len(set(array("q", path.read_bytes()))) for path in self._paths)

    def _spill(self) -> None:
        self._spilled = True
        parts = [array("q") for _ in self._paths]
        for value in self._held:
            parts[value % self._PARTS].append(value)
        for path, part in zip(self._paths, parts, strict=True):
            with path.open("ab") as file:
                part.tofile(file)
        self._held.clear()


def failed_line(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `failed_lines` (or of its staging) for JSON: raw text, and base64 beside it where it is not UTF-8."""
    raw: bytes = row["raw"]
    told = {name: row[name] for name in ("line", "item", "byte_offset", "byte_length", "mendable", "codes")}
    told["failures"] = orjson.loads(row["failures"])
    if "redriven_by" in row:
        told["redriven_by"] = row["redriven_by"]
    try:
        return told | {"raw": raw.decode()}
    except UnicodeDecodeError:
        return told | {"raw": raw.decode(errors="replace"), "raw_base64": base64.b64encode(raw).decode()}


def explained(format: str, counted: Counter[str]) -> list[dict[str, Any]]:
    """Codes of failed lines, each with how many have it and what it means, the most frequent first."""
    known = codes(format)
    return [
        {"code": code, "lines": count, **known.get(code, Meaning("", ""))._asdict()}
        for code, count in counted.most_common()
    ]


def file_report(row: Mapping[str, Any], failed: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """The report of a file with failures (schemas/report.schema.json), in pieces: its ledger row and failed lines."""
    told = plain({name: row[name] for name in _REPORTED} | {"warnings": row["warnings"] or "{}"}, {"warnings"})
    yield orjson.dumps(told)[:-1] + b',"failures":['
    counted: Counter[str] = Counter()
    for number, line in enumerate(failed):
        counted.update(line["codes"])
        redriven_at = line["redriven_at"] and _time(line["redriven_at"])
        yield b",\n" * bool(number) + orjson.dumps(failed_line(line) | {"redriven_at": redriven_at})
    yield b'],"codes":' + orjson.dumps(explained(row["format"], counted)) + b"}\n"


_NO_OPEN_LINES = {  # by state
    "duplicate": "Its bytes are loaded as another file, which holds the failed lines.",
    "undone": "It was undone, and its failed lines went with its rows. To have them, load it again.",
    "held": "It is held, and its lines are kept once it is released. To see them now, check its object.",
    "retrying": "It could not be loaded yet, so none of its lines is kept.",
    "replaced": "Nothing of it is loaded, and none of its lines is kept.",
    "ignored": "Nothing of it is loaded, and none of its lines is kept.",
}


class Elsewhere(NamedTuple):
    """Why no failed line of a file is open, and the file that holds them, if there is one."""

    why: str
    file_id: str | None = None


def no_open_lines(row: Mapping[str, Any]) -> Elsewhere:
    """What to say of a file, by its ledger row, where it has no open failed line to show."""
    why = _NO_OPEN_LINES.get(row["state"], "No failed line of it is open.")
    if row["redrive_of"]:
        why = "It holds lines that were fixed. Those still open are in the file they came in."
        return Elsewhere(why, row["redrive_of"])
    if row["state"] == "duplicate":
        return Elsewhere(why, row["duplicate_of"])
    if row["state"] == "replaced" and row["replaced_by"]:
        why = "Another version took its place, and its failed lines went with its rows."
        return Elsewhere(why, row["replaced_by"])
    return Elsewhere(why)


def line_to_mend(row: Mapping[str, Any]) -> bytes:
    """A failed line as `ingest redrive` takes it back: LINE[/ITEM], a tab, the text."""
    return placed((row["line"], row["item"]), on_one_line(row["raw"]))


def file_summary(result: FileResult) -> dict[str, Any]:
    """A file as `load --json` shows it."""
    return {
        **{name: getattr(result, name) for name in ("file_id", "source", "bucket", "key", "state")},
        **{name: getattr(result.counts, name) for name in COUNTED},
        **{name: getattr(result, name) for name in ("already", "load_id", "duplicate_of", "error")},
    }


def answered(batch: pa.RecordBatch, json_columns: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The rows of an answer of the warehouse, as `plain` gives them, whatever times they hold."""
    columns = [[_value(scalar) for scalar in column] for column in batch.columns]
    return [plain(dict(zip(batch.schema.names, row, strict=True)), json_columns) for row in zip(*columns, strict=True)]


def _value(scalar: Any) -> Any:
    """As Python has it; a time that Python cannot hold (infinity, the year 20000, nanoseconds) as text."""
    try:
        return scalar.as_py()
    except (OverflowError, ValueError):
        match scalar:
            case pa.StructScalar():
                return {name: _value(value) for name, value in scalar.items()}
            case pa.MapScalar():
                return [(_value(entry["key"]), _value(entry["value"])) for entry in scalar.values]
            case pa.ListScalar() | pa.FixedSizeListScalar():
                return [_value(value) for value in scalar]
            case pa.UnionScalar():
                return _value(scalar.value)
        sign = "-" * (scalar.value < 0)
        if abs(scalar.value) in (2**31 - 1, 2**63 - 1):  # DuckDB's, of days and of everything finer
            return f"{sign}infinity"
        text: str = scalar.cast(pa.string()).as_py()
        return text if text.startswith("<") else text.replace(" ", "T")  # <value out of range: …>


def plain(row: Mapping[str, Any], json_columns: Iterable[str] = ()) -> dict[str, Any]:
    """A row for orjson: times as ISO 8601 in UTC, bytes in base64, JSON columns as the JSON they hold."""
    return {name: _plain(value, is_json=name in json_columns) for name, value in row.items()}


def _plain(value: Any, *, is_json: bool = False) -> Any:
    match value:
        case str() if is_json:
            return orjson.Fragment(value) if _is_json(value) else value
        case datetime():
            return _time(value)
        case bytes():
            return base64.b64encode(value).decode()
        case Decimal():
            return orjson.Fragment(str(value)) if value.is_finite() else str(value)
        case dict():
            return plain(value)
        case list() | tuple():
            return [_plain(each) for each in value]
        case None | str() | int() | float():
            if isinstance(value, int) and not -(2**63) <= value < 2**64:
                return orjson.Fragment(str(value))  # orjson stops at 64 bits
            return value
        case _:
            return str(value)  # dates, intervals, uuids


def _is_json(text: str) -> bool:
    """DuckDB's own functions write Infinity and NaN, which JSON does not have."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _time(at: datetime) -> str:
    """ISO 8601 with `Z`; a fraction only where there is one."""
    if at.tzinfo is None:
        return at.isoformat()
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def batches(
    paths: Iterable[Path], columns: Sequence[str] | None = None, dictionaries: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with parquet.ParquetFile(path, read_dictionary=list(dictionaries)) as file:
            yield from file.iter_batches(columns=columns)


def _numbered(column: pa.DictionaryArray) -> tuple[list[Any], list[str]]:
    """Of each row the number of its text, or None, and the texts."""
    return column.indices.to_pylist(), column.dictionary.to_pylist()
