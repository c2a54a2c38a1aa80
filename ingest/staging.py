"""From source files to judged rows on disk: what a load will write, made without a lock or a warehouse.

In:     source files and how to read them.
Out:    a folder of Parquet files (COMMANDS, FAILED), which every engine can read, and for each file
        what was counted.
Blocks of lines are judged independently, by several processes where there is enough to do; memory does not depend on
the size of a file, since only a few blocks are in flight, nor on what a block becomes: rows are written when they are
many.
Faults: what raises while it is judged, and is neither the world's doing nor foreseen, is a fault of the program. The
        file in which it happens is put off and says so; its neighbours go on.
"""

import gc
import logging
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import lru_cache
from hashlib import sha256
from multiprocessing import current_process, get_context, parent_process
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir
from traceback import format_exc
from typing import Any, cast

import orjson
import pyarrow as pa
from pyarrow import parquet

from ingest.core.commands import Item, Rules
from ingest.core.formats import Fast, open_format
from ingest.core.rows import Columns, Row
from ingest.core.rows import row as to_row
from ingest.core.source import SourceFile
from ingest.documents import documents
from ingest.errors import ConfigError, IngestError, ObjectGone, TransientError
from ingest.ports import COUNTED, Counts, FailedLine, StagedFile, Staging
from ingest.reading import HEAD_BYTES, Block, Digest, blocks, decompressed, peek

_log = logging.getLogger(__name__)
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

_UNGUARDED = 'A script that loads has to do so below `if __name__ == "__main__":`, since judging processes import it.'
_REPEATING = ["item", "kind", "people_space", "person", "person_key", "event", "event_key", "time_source"]
_KIND = COMMANDS.get_field_index("kind") - 1  # among the columns of a row
_PROPERTIES = COMMANDS.get_field_index("properties") - 1
_BATCH_BYTES = 1 << 20
_LINES_AT_ONCE = 512  # what they become fits the caches
_ROWS_BYTES = 16 << 20  # when what waits to be written comes to so much, it is
_ROW_BYTES = 1 << 10  # what a row takes beside its texts
_POOL_FROM_BYTES = 16 << 20  # below this, starting processes costs more than it saves

_NOT_OURS = (IngestError, OSError, MemoryError, BrokenExecutor)  # a full disk, say: no fault of the program's
_FOLDER_PREFIX = "landfall-"
_OWNED = "owned"  # locked for as long as the process that made the folder lives

Read = Callable[[SourceFile], Iterator[bytes]]  # `ObjectStore.read`
Progress = Callable[[int], None]  # called with the bytes of the stored files that were read since the last call


@dataclass(frozen=True, slots=True)
class _Part:
    """A block of one file, on its way to be judged."""

    staged_no: int
    format: str
    rules: Rules
    block: Block


@dataclass(slots=True)
class _Tally:
    """What judging a part adds to its file."""

    staged_no: int
    counts: Counts = field(default_factory=Counts)
    all_timed: bool = True
    fault: tuple[str, str] | None = None  # what went wrong with the program: a sentence, and where


@contextmanager
def staging_folder(parent: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards; and what killed processes left of theirs is removed."""
    if parent and not parent.is_dir():
        raise ConfigError(f"staging: there is no folder {parent}. Make it first.")
    parent = parent or Path(gettempdir())
    for left in parent.glob(f"{_FOLDER_PREFIX}*/{_OWNED}"):
        with suppress(OSError), left.open("rb") as file:
            flock(file, LOCK_EX | LOCK_NB)  # its owner, if it lived, would have it
            rmtree(left.parent, ignore_errors=True)
    with TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=parent) as name, Path(name, "new").open("wb") as owned:
        flock(owned, LOCK_EX)
        Path(name, "new").rename(Path(name, _OWNED))  # so that only a locked one is ever seen
        yield Path(name)


def stage(
    files: Sequence[SourceFile],
    read: Read,
    rules_of: Callable[[SourceFile], Rules],
    folder: Path,
    *,
    processes: int = 0,
    progress: Progress | None = None,
    blocks_of: Callable[[SourceFile], Iterable[Block]] | None = None,
) -> Staging:
    """Judge files into `folder`. A file that cannot be read says so in its outcome and holds up nobody.

    With `blocks_of` nothing is read: the lines are given.

    Raises:
        ConfigError: a setting is wrong, such as the credentials. Nothing else is.
    """
    work = _Work(folder)
    staged = [StagedFile(file=file, staged_no=number, counts=Counts()) for number, file in enumerate(files)]
    processes = processes or len(os.sched_getaffinity(0))
    parallel = processes > 1 and sum(file.size_bytes for file in files) >= _POOL_FROM_BYTES
    with _pool(processes if parallel else 0) as pool:
        work.pool, work.in_flight = pool, 2 * processes
        for one in staged:
            try:
                if blocks_of is None:
                    _stage_file(one, read, rules_of(one.file), work, progress or (lambda _: None))
                else:
                    _stage_blocks(one, blocks_of(one.file), rules_of(one.file), work)
            except ObjectGone as gone:
                one.outcome, one.error = "gone", str(gone)
            except TransientError as error:
                one.outcome, one.error = "retrying", str(error)
            except _NOT_OURS:
                raise
            except Exception as error:  # noqa: BLE001  # one file's oddity may not hold up the others
                _put_off(one, *_fault(error))
        work.flush()
        for tally in work.drain():
            _add(staged[tally.staged_no], tally)
    return Staging(folder, staged, sorted(folder.glob("commands-*")), sorted(folder.glob("failed-*")))


class _Work:
    """Parts gathered into batches worth a process's while, and the batches in flight."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool: Executor | None = None
        self.in_flight = 1
        self._parts: list[_Part] = []
        self._bytes = 0
        self._batches = 0
        self._waiting: deque[Future[list[_Tally]]] = deque()
        self._done: list[_Tally] = []

    def add(self, part: _Part) -> None:
        self._parts.append(part)
        self._bytes += len(part.block.data) + 256
        if self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._parts:
            return
        self._batches += 1
        arguments = (self._parts, str(self.folder), f"{self._batches:08d}")
        if self.pool is None:
            self._done += judge_batch(*arguments)
        else:
            self._waiting.append(self.pool.submit(judge_batch, *arguments))
            while len(self._waiting) > self.in_flight:  # memory is what waits here
                self._done += self._waiting.popleft().result()
        self._parts, self._bytes = [], 0

    def drain(self) -> Iterator[_Tally]:
        while self._waiting:
            self._done += self._waiting.popleft().result()
        yield from self._done


def _add(staged: StagedFile, tally: _Tally) -> None:
    ours, theirs = staged.counts, tally.counts
    for name in COUNTED:
        setattr(ours, name, getattr(ours, name) + getattr(theirs, name))
    ours.warnings = dict(Counter(ours.warnings) + Counter(theirs.warnings))
    staged.all_timed &= tally.all_timed
    if tally.fault:
        _put_off(staged, *tally.fault)


def _fault(error: Exception) -> tuple[str, str]:
    """What is said of an exception that nobody foresaw, while it is handled, and where it arose.

    Its own words may hold a producer's values: they are for the log only.
    """
    return f"{type(error).__name__} while it was judged: this is a fault of the program, see its log.", format_exc()


def _put_off(staged: StagedFile, sentence: str, where: str) -> None:
    if staged.outcome != "gone":
        staged.outcome, staged.error = "retrying", sentence
    _log.error("fault of the program file=%s\n%s", staged.file.uri, where)


def _stage_file(staged: StagedFile, read: Read, rules: Rules, work: _Work, progress: Progress) -> None:
    digest = Digest()

    def stored() -> Iterator[bytes]:
        for piece in digest.over(read(staged.file)):
            progress(len(piece))
            yield piece

    staged.people_space, staged.match = rules.people_space, rules.match
    head, content = peek(decompressed(stored()), HEAD_BYTES)
    # Over HTTP each body was looked at when it came: what one of them begins with shall not refuse the others.
    refusal = None if staged.file.is_from_intake else open_format(staged.file.format).refusal(head)
    if refusal:
        _refuse(staged, refusal, content, rules, work.folder)
    else:
        units = (
            documents(content, rules.max_document_bytes)
            if open_format(staged.file.format).documents
            else blocks(content, rules.max_line_bytes)
        )
        _stage_blocks(staged, units, rules, work)
    staged.sha256 = digest.hexdigest()


def _stage_blocks(staged: StagedFile, given: Iterable[Block], rules: Rules, work: _Work) -> None:
    staged.people_space, staged.match = rules.people_space, rules.match
    staged.sha256 = staged.sha256 or staged.file.etag
    for block in given:
        work.add(_Part(staged.staged_no, staged.file.format, rules, block))


def _refuse(staged: StagedFile, refusal: Item, content: Iterator[bytes], rules: Rules, folder: Path) -> None:
    """Enter the whole file as one failed line: its text if it is short, else its beginning and its hash."""
    text, digest = b"", Digest()
    for piece in digest.over(content):
        text += piece[: rules.max_line_bytes + 1 - len(text)]
    whole = len(text) == digest.size_bytes
    failed = FailedLine(
        line=1, item="", byte_offset=0, byte_length=digest.size_bytes, raw=text if whole else text[:HEAD_BYTES],
        raw_sha256=digest.hexdigest(), mendable=False, failures=refusal.failures,
    )  # fmt: skip
    path = folder / f"failed-document-{staged.staged_no:08d}.parquet"
    _write(path, FAILED, [[cell] for cell in _failed_row(staged.staged_no, failed)])
    staged.counts = Counts(lines=1, items=1, failed=1)
    staged.outcome, staged.error = "rejected", refusal.failures[0].message


# --- in the judging process ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Batch:
    """The rows of some parts, on their way into files. `runs` tells how many of each source file follow each other."""

    folder: Path
    name: str
    columns: list[list[object]] = field(default_factory=lambda: [[] for _ in COMMANDS.names[1:]])
    runs: list[tuple[int, int]] = field(default_factory=list)  # (staged_no, rows)
    failed: list[tuple[object, ...]] = field(default_factory=list)
    commands_bytes: int = 0  # of the rows that the judge gave
    failed_bytes: int = 0
    files: int = 0

    def __len__(self) -> int:
        return len(self.columns[0])

    def add(self, columns: Columns) -> None:
        for ours, more in zip(self.columns, columns, strict=True):
            ours.extend(more)

    def fail(self, staged_no: int, line: FailedLine) -> None:
        row = _failed_row(staged_no, line)
        self.failed.append(row)
        self.failed_bytes += _ROW_BYTES + sum(len(cell) for cell in row if isinstance(cell, (bytes, str)))
        if self.failed_bytes >= _ROWS_BYTES:
            self.write_failed()

    def write_commands(self) -> None:
        """Write the rows there are into a file of their own."""
        if len(self):
            runs = [pa.repeat(pa.scalar(staged_no, pa.int32()), rows) for staged_no, rows in self.runs]
            _write(self._path("commands"), COMMANDS, [pa.concat_arrays(runs), *self.columns])
        self.columns, self.runs, self.commands_bytes = [[] for _ in self.columns], [], 0

    def write_failed(self) -> None:
        """Likewise the failed lines."""
        if self.failed:
            _write(self._path("failed"), FAILED, list(zip(*self.failed, strict=True)))
        self.failed, self.failed_bytes = [], 0

    def _path(self, kind: str) -> Path:
        self.files += 1
        return self.folder / f"{kind}-{self.name}-{self.files:06d}.parquet"


def judge_batch(parts: Sequence[_Part], folder: str, name: str) -> list[_Tally]:
    """Judge some blocks into files of commands and of failed lines; of each kind mostly one.

    Where that fails unforeseen, each by itself, to know which of them it is, and without a trace of that one.
    """
    try:
        return _judge_batch(parts, folder, name)
    except _NOT_OURS:
        raise
    except Exception as error:  # noqa: BLE001
        for begun in Path(folder).glob(f"*-{name}-*"):
            begun.unlink()
        if len(parts) == 1:
            return [_Tally(parts[0].staged_no, fault=_fault(error))]
    return [judge_batch([part], folder, f"{name}-{number:06d}")[0] for number, part in enumerate(parts)]


def _judge_batch(parts: Sequence[_Part], folder: str, name: str) -> list[_Tally]:
    batch = _Batch(Path(folder), name)
    with _no_collector():
        tallies = [_Judging(part, batch).run() for part in parts]
        batch.write_commands()
        batch.write_failed()
        del batch  # before the collector looks at every row
    return tallies


class _Judging:
    """One part on its way into a batch."""

    def __init__(self, part: _Part, batch: _Batch) -> None:
        self.part = part
        self.batch = batch
        self.format = open_format(part.format)
        self.tally = _Tally(part.staged_no)
        self.begin = len(batch)  # where its rows begin
        self.late: list[Row] = []  # rows that the judge gave

    def run(self) -> _Tally:
        counts = self.tally.counts
        if self.part.block.data:
            counts.lines = self._document() if self.format.documents else self._lines()
        for long in self.part.block.long:
            failure = self.format.too_long(long.length, self.part.rules)
            self._fail(FailedLine(long.line, "", long.offset, long.length, long.head, long.sha256, False, (failure,)))
            counts.items += 1
            counts.lines += 1
        self._settle()
        return self.tally

    def _settle(self) -> None:
        """Put the rows that there are where the others of the batch are, and count them."""
        counts, batch = self.tally.counts, self.batch
        if self.late:
            batch.add(tuple(zip(*self.late, strict=True)))
            self.late = []
            if not self.format.documents:
                _in_order_of_lines(batch.columns, self.begin)
        kinds = Counter(batch.columns[_KIND][self.begin :])
        counts.records += kinds["record"]
        counts.sets += kinds["set"]
        counts.aliases += kinds["alias"]
        batch.runs.append((self.part.staged_no, len(batch) - self.begin))
        self.begin = len(batch)

    def _document(self) -> int:
        """Judge one document, or one mended item of one."""
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
        counts, batch = self.tally.counts, self.batch
        block, rules = self.part.block, self.part.rules
        accept = _decoder(self.part.format, rules)
        lines = block.data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        doubtful: list[int] = []
        for some in range(0, len(lines), _LINES_AT_ONCE):
            columns, places = accept(lines[some : some + _LINES_AT_ONCE], block.first_line + some)
            batch.add(columns)
            doubtful += [some + place for place in places]
        counts.items = len(lines) - len(doubtful)
        # Afterwards, and together: the judge is large, and in turns the two would push each other out of the caches.
        offset, seen = block.offset, 0  # where line `seen` begins
        for index in doubtful:
            offset += sum(map(len, lines[seen:index])) + index - seen
            seen = index
            unit = lines[index].removesuffix(b"\r")
            if not unit.strip():
                counts.blank += 1
                continue
            for item_no, item in enumerate(self.format.judge(unit, rules)):
                self._take(item, block.first_line + index, item_no, offset, unit)
        return len(lines)

    def _take(self, item: Item, line: int, item_no: int, offset: int, unit: bytes) -> None:
        """Add the outcome of one item of the unit that stands at `offset`."""
        counts, rules = self.tally.counts, self.part.rules
        if item.number is not None:
            item_no = item.number
        counts.items += 1
        counts.repaired += "repaired" in item.warnings
        for code in item.warnings:
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
            self.batch.commands_bytes += _ROW_BYTES + len(cast("bytes", row[_PROPERTIES]))
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


def _failed_row(staged_no: int, line: FailedLine) -> tuple[object, ...]:
    codes = list(dict.fromkeys(failure.code for failure in line.failures))
    return (
        staged_no, line.line, line.item, line.byte_offset, line.byte_length, line.raw, line.raw_sha256, line.mendable,
        codes, orjson.dumps(line.failures).decode(), line.context,
    )  # fmt: skip


def _write(path: Path, schema: pa.Schema, columns: Sequence[Sequence[object]]) -> None:
    arrays = [_array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    # Uncompressed and without statistics: it is read once, soon, from the page cache.
    parquet.write_table(
        pa.table(arrays, names=schema.names), path, compression="none", write_statistics=False, store_schema=False,
        use_dictionary=_REPEATING,
    )  # fmt: skip


def _array(column: Sequence[object], type: pa.DataType) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    if pa.types.is_string(type):
        if column.count(column[0]) == len(column):  # then they cost next to nothing
            if column[0] is None:
                return pa.nulls(len(column), type)
            return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int8()), len(column)), _texts(column[:1]))
        return _texts(column)
    if type == pa.uuid():
        return pa.ExtensionArray.from_storage(type, pa.array(column, pa.binary(16)))
    if type == pa.json_():  # so that the engine need not check what was just written
        return pa.ExtensionArray.from_storage(type, _texts(column))
    return pa.array(column, pa.int64()).cast(type) if pa.types.is_timestamp(type) else pa.array(column, type)


def _texts(column: Sequence[object]) -> pa.Array:
    return pa.array(column, pa.binary()).cast(pa.string()) if isinstance(column[0], bytes) else pa.array(column, _TEXT)


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


@contextmanager
def _pool(processes: int) -> Iterator[Executor | None]:
    if not processes:
        yield None
        return
    if getattr(current_process(), "_inheriting", False):
        # A fresh interpreter first runs the main script as a module: we are in it, and would start more of them.
        raise ConfigError(_UNGUARDED)
    # Fresh interpreters: a forked child would inherit locks and threads of whatever started us.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_die_with_parent) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            # In early Pythons 3.11 the pool writes to its dead processes for ever: python/cpython#94777.
            cast("Any", pool)._call_queue._reader.close()
            sentence = f"A judging process was killed (out of memory?), or could not begin. {_UNGUARDED}"
            raise TransientError(f"{sentence} Nothing was loaded; try again.") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent() -> None:
    """A parent that was killed cannot stop its workers, and they would wait for work for ever."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
