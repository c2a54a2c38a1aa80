"""One judging process: from blocks of lines, or documents, to rows in Parquet files.

In:     parts, each a block of one file with the rules of that file.
Out:    files of commands and of failed lines (COMMANDS, FAILED), and for each part what was counted.
Memory: rows are written when they are many, whatever a block becomes. A part for which it is not enough is reported.
Faults: what raises unforeseen is reported as the fault of the one part in which it happens; the others are judged.
"""

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from traceback import format_exc
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import pyarrow as pa
from pyarrow import parquet

from ingest.core.commands import Item, Rules
from ingest.core.facts import Columns, CommandRow
from ingest.core.facts import row as to_row
from ingest.core.formats import Fast, open_format
from ingest.errors import IngestError
from ingest.ports import Counts, FailedLine, StagedRows
from ingest.reading import HEAD_BYTES, Block

if TYPE_CHECKING:
    from ingest.core.formats.kissmetrics_native import Block as Sure
    from ingest.core.formats.kissmetrics_native import Native

_TEXT = pa.string()
COMMANDS = pa.schema(
    [
        ("staged_no", pa.int32()), ("line", pa.int64()), ("item_no", pa.int32()), ("item", _TEXT), ("kind", _TEXT),
        ("people_space", _TEXT), ("person", _TEXT), ("person_key", _TEXT), ("occurred_at", pa.timestamp("us", "UTC")),
        ("event", _TEXT), ("event_key", _TEXT), ("alias", _TEXT), ("alias_key", _TEXT), ("properties", pa.json_()),
        ("time_source", _TEXT), ("identity", _TEXT), ("command_id", pa.uuid()),
    ]
)  # fmt: skip
FAILED = pa.schema(
    [
        ("staged_no", pa.int32()), ("line", pa.int64()), ("item", _TEXT), ("byte_offset", pa.int64()),
        ("byte_length", pa.int64()), ("raw", pa.binary()), ("raw_sha256", _TEXT), ("mendable", pa.bool_()),
        ("codes", pa.list_(_TEXT)), ("failures", _TEXT), ("context", pa.binary()),
    ]
)  # fmt: skip

_REPEATING = [
    "item", "kind", "people_space", "person", "person_key", "event", "event_key", "time_source", "failures",
]  # fmt: skip
_KIND = CommandRow._fields.index("kind")
_NATIVE_FROM_BYTES = 16 << 10  # of less, handing it over costs more than it saves
_LINES_AT_ONCE = 512  # what they become fits the caches
_ROWS_BYTES = 16 << 20  # when what waits to be written comes to so much, it is
_ROW_BYTES = 1 << 10  # what a row takes beside its texts

NOT_OURS = (IngestError, OSError, BrokenExecutor)  # a full disk, say: no fault of the program's
NO_MEMORY = (
    "A part of it needs more memory than a judging process may take. Send it in smaller documents, or raise"
    " max_process_bytes."
)


class FailedRow(NamedTuple):
    """A failed line as it is staged: see the table `failed_lines`."""

    staged_no: int
    line: int
    item: str
    byte_offset: int
    byte_length: int
    raw: bytes  # of one that cannot be mended, its beginning
    raw_sha256: str
    mendable: bool
    codes: list[str]
    failures: str  # JSON
    context: bytes | None


@dataclass(frozen=True, slots=True)
class Part:
    """A block of one file, on its way to be judged."""

    staged_no: int
    format: str
    rules: Rules
    block: Block


@dataclass(slots=True)
class Tally:
    """What judging a part adds to its file."""

    staged_no: int
    counts: Counts = field(default_factory=Counts)
    all_timed: bool = True
    error: str = ""  # why it could not be judged
    fault: str = ""  # where the program went wrong, if it did


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of some parts, in their order, and the files that hold their rows."""

    tallies: list[Tally]
    written: list[StagedRows]


def fault(error: Exception) -> tuple[str, str]:
    """What is said of an exception that nobody foresaw, while it is handled, and where it arose.

    Its own words may hold a producer's values: they are for the log only.
    """
    if isinstance(error, MemoryError):
        return NO_MEMORY, ""
    return f"{type(error).__name__} while it was judged: this is a fault of the program, see its log.", format_exc()


@dataclass(slots=True)
class _Batch:
    """The rows of some parts, on their way into files. `runs` says how many of each source file follow each other."""

    folder: Path
    name: str
    columns: list[list[object]] = field(default_factory=lambda: [[] for _ in COMMANDS.names[1:]])
    chunks: list[list[pa.Array]] = field(default_factory=list)  # rows that stand before those, as arrays
    runs: Counter[int] = field(default_factory=Counter)  # rows by staged_no
    failed: list[FailedRow] = field(default_factory=list)
    commands_bytes: int = 0  # of the rows that the judge gave
    failed_bytes: int = 0
    written: list[StagedRows] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.columns[0])

    def add(self, columns: Columns) -> None:
        for ours, more in zip(self.columns, columns, strict=True):
            ours.extend(more)

    def add_arrays(self, chunk: list[pa.Array]) -> None:
        """Rows as arrays, behind those that are there."""
        self._close_columns()
        self.chunks.append(chunk)

    def _close_columns(self) -> None:
        if len(self):
            self.chunks.append(arrays(self.columns))
            self.columns = [[] for _ in self.columns]

    def fail(self, staged_no: int, line: FailedLine) -> None:
        row = failed_row(staged_no, line)
        self.failed.append(row)
        self.failed_bytes += _ROW_BYTES + len(row.raw) + len(row.failures) + len(row.context or b"")
        if self.failed_bytes >= _ROWS_BYTES:
            self.write_failed()

    def write_commands(self) -> None:
        """Write the rows there are into a file of their own."""
        self._close_columns()
        if self.chunks:
            runs = [pa.repeat(pa.scalar(staged_no, pa.int32()), rows) for staged_no, rows in self.runs.items()]
            of = frozenset(staged_no for staged_no, rows in self.runs.items() if rows)
            columns = [pa.concat_arrays(runs), *joined(self.chunks)]
            self.written.append(write(self._path("commands"), COMMANDS, columns, of))
        self.chunks, self.runs, self.commands_bytes = [], Counter(), 0

    def write_failed(self) -> None:
        """The failed lines, in the same way."""
        if self.failed:
            columns = list(zip(*self.failed, strict=True))
            self.written.append(write(self._path("failed"), FAILED, columns, frozenset(columns[0])))
        self.failed, self.failed_bytes = [], 0

    def _path(self, kind: str) -> Path:
        return self.folder / f"{kind}-{self.name}-{len(self.written) + 1:06d}.parquet"


def judge_batch(parts: Sequence[Part], folder: str, name: str) -> Judged:
    """Judge some blocks into files of commands and of failed lines; of each kind mostly one.

    Where that fails unforeseen, each by itself, to know which of them it is, and without a trace of that one.
    """
    try:
        return _judge_batch(parts, folder, name)
    except NOT_OURS:
        raise
    except Exception as error:  # noqa: BLE001
        for begun in Path(folder).glob(f"*-{name}-*"):
            begun.unlink()
        if len(parts) == 1:
            return Judged([Tally(parts[0].staged_no, Counts(), True, *fault(error))], [])
    alone = [judge_batch([part], folder, f"{name}-{number:06d}") for number, part in enumerate(parts)]
    return Judged([one.tallies[0] for one in alone], [rows for one in alone for rows in one.written])


def _judge_batch(parts: Sequence[Part], folder: str, name: str) -> Judged:
    batch = _Batch(Path(folder), name)
    with _no_collector():
        tallies = [_Judging(part, batch).run() for part in parts]
        batch.write_commands()
        batch.write_failed()
        written = batch.written
        del batch  # before the collector looks at every row
    return Judged(tallies, written)


class _Judging:
    """One part on its way into a batch."""

    def __init__(self, part: Part, batch: _Batch) -> None:
        self.part = part
        self.batch = batch
        self.format = open_format(part.format)
        self.tally = Tally(part.staged_no)
        self.begin = len(batch)  # where its rows begin
        self.sure: Sure | None = None  # what the native core gave
        self.late: list[CommandRow] = []  # rows that the judge gave

    def run(self) -> Tally:
        counts = self.tally.counts
        if self.part.block.data:
            counts.lines = self._document() if self.format.documents else self._lines()
        for long in self.part.block.long:
            failure = self.format.too_long(long.length, long.head, self.part.rules)
            self._fail(FailedLine(long.line, "", long.offset, long.length, long.head, long.sha256, False, (failure,)))
            counts.items += 1
            counts.lines += 1
        self._settle()
        return self.tally

    def _settle(self) -> None:
        """Put the rows that there are where the others of the batch are, and count them."""
        counts, batch = self.tally.counts, self.batch
        if self.sure is not None:
            self._settle_arrays(self.sure)
            return
        if self.late:
            batch.add(tuple(zip(*self.late, strict=True)))
            self.late = []
            if not self.format.documents:
                _in_order_of_lines(batch.columns, self.begin)
        kinds = Counter(batch.columns[_KIND][self.begin :])
        counts.records += kinds["record"]
        counts.sets += kinds["set"]
        counts.aliases += kinds["alias"]
        batch.runs[self.part.staged_no] += len(batch) - self.begin
        self.begin = len(batch)

    def _settle_arrays(self, sure: "Sure") -> None:
        """The same, where the native core gave most rows."""
        counts, batch = self.tally.counts, self.batch
        chunk = with_shared(sure)
        if self.late:
            chunk = joined([chunk, arrays(list(zip(*self.late, strict=True)))])
            numbers = chunk[0].to_pylist()
            order = pa.array(sorted(range(len(numbers)), key=numbers.__getitem__), pa.int64())
            chunk = [column.take(order) for column in chunk]
        kinds = Counter(sure.kinds) + Counter(row.kind for row in self.late)
        counts.records += kinds["record"]
        counts.sets += kinds["set"]
        counts.aliases += kinds["alias"]
        batch.runs[self.part.staged_no] += len(chunk[0])
        if len(chunk[0]):
            batch.add_arrays(chunk)
        self.begin = len(batch)

    def _document(self) -> int:
        """Judge one document, or one fixed item of one."""
        block, rules = self.part.block, self.part.rules
        judged = (
            self.format.judge_item(block.data, block.item, block.context, rules)
            if block.item
            else self.format.judge(block.data, rules)
        )
        for number, item in enumerate(judged):
            self._take(item, block.first_line, number, block.offset, block.data)
            if self.batch.commands_bytes >= _ROWS_BYTES:
                self._settle()
                self.batch.write_commands()
                self.begin = 0
        return 1

    def _lines(self) -> int:
        """Judge whole lines; how many there are."""
        counts, block, rules = self.tally.counts, self.part.block, self.part.rules
        core = _core(self.part.format, rules) if len(block.data) >= _NATIVE_FROM_BYTES else None
        self.sure = core.judge(block.data, block.first_line) if core else None
        many, doubtful = (self.sure.lines, self.sure.doubtful) if self.sure else self._accept()
        counts.items = many - len(doubtful)
        # Afterwards, and together: the judge is large, and in turns the two would push each other out of the caches.
        for place, offset, length in doubtful:
            unit = block.data[offset : offset + length].removesuffix(b"\r")
            if not unit.strip():
                counts.blank += 1
                continue
            for item_no, item in enumerate(self.format.judge(unit, rules)):
                self._take(item, block.first_line + place, item_no, block.offset + offset, unit)
        return many

    def _accept(self) -> tuple[int, list[tuple[int, int, int]]]:
        """Take the lines beyond doubt; how many lines there are, and of the others the place, offset and length."""
        block = self.part.block
        accept = _decoder(self.part.format, self.part.rules)
        lines = block.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        doubtful: list[tuple[int, int, int]] = []
        offset, seen = 0, 0  # where line `seen` begins
        for some in range(0, len(lines), _LINES_AT_ONCE):
            columns, places = accept(lines[some : some + _LINES_AT_ONCE], block.first_line + some)
            self.batch.add(columns)
            for place in map(some.__add__, places):
                offset += sum(map(len, lines[seen:place])) + place - seen
                seen = place
                doubtful.append((place, offset, len(lines[place])))
        return len(lines), doubtful

    def _take(self, item: Item, line: int, item_no: int, offset: int, unit: bytes) -> None:
        """Add the outcome of one item of the unit that stands at `offset`."""
        counts, rules = self.tally.counts, self.part.rules
        if item.number is not None:
            item_no = item.number
        counts.items += 1
        for code in item.warnings:
            counts.repaired += code == "repaired"
            counts.warnings[code] = counts.warnings.get(code, 0) + 1
        if item.failures:
            raw = unit if item.raw is None else item.raw
            kept = raw if len(raw) <= rules.max_line_bytes else raw[:HEAD_BYTES]
            digest = sha256(raw).hexdigest()
            start, whole = offset + item.start, kept is raw
            self._fail(FailedLine(line, item.path, start, len(raw), kept, digest, whole, item.failures, item.context))
        for command in item.commands:
            row = to_row(command, line, item_no, item.path, rules)
            self.late.append(row)
            self.batch.commands_bytes += _ROW_BYTES + len(row.properties)
            self.tally.all_timed &= command.time_source == "event"

    def _fail(self, line: FailedLine) -> None:
        self.batch.fail(self.part.staged_no, line)
        self.tally.counts.failed += 1


def _in_order_of_lines(columns: list[list[object]], begin: int) -> None:
    """Put the rows from `begin` on back in the order of their lines, where some were accepted late."""
    numbers: Any = columns[0][begin:]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    for column in columns:
        column[begin:] = map(column[begin:].__getitem__, order)


def failed_row(staged_no: int, line: FailedLine) -> FailedRow:
    codes = list(dict.fromkeys(failure.code for failure in line.failures))
    return FailedRow(
        staged_no, line.line, line.item, line.byte_offset, line.byte_length, line.raw, line.raw_sha256, line.mendable,
        codes, orjson.dumps([failure.told() for failure in line.failures]).decode(), line.context,
    )  # fmt: skip


def write(path: Path, schema: pa.Schema, columns: Sequence[Sequence[object]], staged_nos: frozenset[Any]) -> StagedRows:
    """Write rows of these files as Parquet. Raises OSError: the disk is full, say."""
    arrays = [
        column if isinstance(column, pa.Array) else _array(column, field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    buffer = pa.BufferOutputStream()
    # Uncompressed and without statistics: it is read once, soon, from the page cache.
    parquet.write_table(
        pa.table(arrays, names=schema.names), buffer, compression="none", write_statistics=False, store_schema=False,
        use_dictionary=_REPEATING,
    )  # fmt: skip
    path.write_bytes(memoryview(buffer.getvalue()))
    return StagedRows.written(path, staged_nos)


def arrays(columns: Sequence[Sequence[object]]) -> list[pa.Array]:
    """Columns of commands (all but the first) as arrays."""
    return [_array(column, field.type) for column, field in zip(columns, list(COMMANDS)[1:], strict=True)]


def joined(chunks: Sequence[list[pa.Array]]) -> list[pa.Array]:
    """Rows of several chunks, one behind the other."""
    if len(chunks) == 1:
        return chunks[0]
    return [
        pa.concat_arrays([one if one.type == field.type else one.cast(field.type) for one in column])
        for column, field in zip(zip(*chunks, strict=True), list(COMMANDS)[1:], strict=True)
    ]


def with_shared(sure: "Sure") -> list[pa.Array]:
    """What the native core gave, with the columns in which its rows are alike."""
    shared = {
        "item_no": pa.repeat(pa.scalar(0, pa.int32()), sure.rows),
        "item": _alike("", sure.rows),
        "people_space": _alike(None, sure.rows),
        "time_source": _alike("event", sure.rows),
        "identity": _alike(None, sure.rows),
    }
    return [
        shared[field.name] if field.name in shared else _array(sure.columns[field.name], field.type)
        for field in list(COMMANDS)[1:]
    ]


def _alike(text: object, many: int) -> pa.Array:
    """One text many times, which costs next to nothing."""
    if text is None:
        return pa.nulls(many, _TEXT)
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int8()), many), pa.array([text], _TEXT))


def _array(column: Sequence[object], type: pa.DataType) -> pa.Array:
    if isinstance(column, pa.Array):
        return pa.ExtensionArray.from_storage(type, column) if isinstance(type, pa.BaseExtensionType) else column
    if not column:
        return pa.array([], type)
    if pa.types.is_string(type) and column.count(column[0]) == len(column):
        return _alike(column[0], len(column))
    if type == pa.uuid():
        return pa.ExtensionArray.from_storage(type, pa.array(column, pa.binary(16)))
    if type == pa.json_():  # so that the engine need not check what was just written
        return pa.ExtensionArray.from_storage(type, pa.array(column, _TEXT))
    # A view, no cast: for that pyarrow would load all that it can compute, which takes longer than a small file.
    return pa.array(column, pa.int64()).view(type) if pa.types.is_timestamp(type) else pa.array(column, type)


@lru_cache(maxsize=4)
def _core(format: str, rules: Rules) -> "Native | None":
    if not rules.native or format != "kissmetrics":
        return None
    from ingest.core.formats.kissmetrics_native import (
        Native,  # here, since a process that judges others has no need of it
    )
    from ingest.core.native import library

    core = library()
    return Native(core, rules) if core else None


@lru_cache(maxsize=4)  # the blocks of one file come one after the other
def _decoder(format: str, rules: Rules) -> Fast:
    return open_format(format).fast(rules)


@contextmanager
def _no_collector() -> Iterator[None]:
    """Judging makes no cycles but many tuples: the cyclic collector would cost a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
