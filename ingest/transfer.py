"""A whole warehouse moved: into another one, or into Parquet files that any program reads.

Both read one moment of the warehouse and hold a few rows at a time, however many there are. A copy is one transaction
of the target; an export to a folder is written aside, under names that nobody takes for Parquet, and put in its place
when all of it is there and on the disk. A store has no such moment: there a marker says whether an export is complete.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import file_digest, sha256
from itertools import chain
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ingest.disk import flush, no_more_open_than
from ingest.errors import IngestError, NotEmpty, TransientError
from ingest.ports import ObjectStore, Table, Warehouse

Progress = Callable[[str, int], None]  # of this table so many rows more
Notice = Callable[[str], None]  # a sentence for whoever watches

EXPORTED = (
    "ledger", "commands", "failed_lines", "history", "events", "identities", "people", "accounts",
    "kissmetrics_events",
)  # fmt: skip
MARKER: Final = "export.manifest"  # no source takes it for a file of events
_UNFINISHED, _FORMER, _LOCK = ".unfinished", ".former", "lock"
_ROWS_AT_ONCE = 120 << 10  # a row group of DuckDB's, and a good one of Parquet's
_BYTES_AT_ONCE = 16 << 20
_SENT_AT_ONCE = 1 << 20


def copy(source: Warehouse, target: Warehouse, progress: Progress, notice: "Notice" = lambda _: None) -> dict[str, int]:
    """Put all that `source` holds into `target`, which must be empty. The rows of each table.

    Raises:
        IngestError: the target is not empty (it says what is there), or is the source. It was left as it is.
        TransientError: one of the two did not answer. The target is still empty.
    """
    if source.name == target.name:
        raise IngestError(f"{target.name} is the warehouse that would be copied. Name another one.")
    copied: dict[str, int] = {}

    def counted(tables: Iterator[Table]) -> Iterator[Table]:
        for name, reader in tables:
            copied[name] = 0
            yield name, pa.RecordBatchReader.from_batches(reader.schema, batches(name, reader))

    def batches(name: str, reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in gathered(reader):
            yield batch
            copied[name] += batch.num_rows
            progress(name, batch.num_rows)

    try:
        with no_more_open_than(source.mode), source.tables() as tables:
            first = next(tables)  # before anything is made: it may not be read
            target.fill(counted(chain([first], tables)))
    except NotEmpty as error:
        copied = _copied_before(source, target, error)
        notice(f"{target.name} holds a complete copy of this warehouse already: nothing is left to be done.")
    except (pa.ArrowException, OSError) as error:  # how a reader says that its engine stopped
        raise TransientError(f"Copying from {source.name} broke off, nothing was copied: {error}") from error
    return copied


def _copied_before(source: Warehouse, target: Warehouse, error: NotEmpty) -> dict[str, int]:
    """The rows of a complete copy that is there: who was stopped while copying runs it again. Raises IngestError."""
    with source.tables() as ours, target.tables() as theirs:
        here, there = _summary(ours), _summary(theirs)
    if here == there:
        return {name: rows for name, (rows, _) in here.items()}
    name = next((name for name in here if here[name] != there.get(name)), "another table")
    rows = [told.get(name, (0,))[0] for told in (there, here)]
    raise IngestError(
        f"{target.name} is not empty, and no copy of this warehouse as it is now (for one, {name} has {rows[0]:,} rows"
        f" there and {rows[1]:,} here). Copy to a new warehouse."
    ) from error


def _summary(tables: Iterator[Table]) -> dict[str, tuple[int, int]]:
    """Of each table the number of rows; of the ledger, which knows all that happens, also what they hold."""
    found: dict[str, tuple[int, int]] = {}
    for name, reader in tables:
        rows, held = 0, 0
        for batch in reader:
            rows += batch.num_rows
            for row in batch.to_pylist() if name == "ledger" else ():
                held ^= int.from_bytes(sha256(repr(row).encode()).digest())  # in whatever order they come
        found[name] = rows, held
    return found


def chosen(tables: Sequence[str]) -> tuple[str, ...]:
    """These tables and views, each once; all if none is named. Raises IngestError for one that is not known."""
    if unknown := sorted(set(tables) - set(EXPORTED)):
        raise IngestError(f"There is no table {', '.join(unknown)} to export. Known: {', '.join(EXPORTED)}.")
    return tuple(name for name in EXPORTED if name in tables or not tables)


def export(
    warehouse: Warehouse, folder: Path, progress: Progress, notice: Notice = lambda _: None, tables: Sequence[str] = ()
) -> dict[str, int]:
    """Write each table and view, or those `tables`, to `folder`/<name>.parquet. The rows of each.

    A former export is replaced when the new one is complete: of neither is a file ever beside one of the other. Who is
    killed in that moment leaves the former one in `.former`; the next export puts it back, or another in its place.
    What a killed one left is removed, with a `notice`.

    Raises:
        IngestError: the folder holds something else, another export is writing there, or it cannot be written; or there
            is no such table.
    """
    names = chosen(tables)
    try:
        with no_more_open_than(warehouse.mode), _aside(folder, notice) as unfinished, warehouse.snapshot() as still:
            rows = {name: _write(still, name, unfinished / name, progress) for name in names}
            _swap(unfinished, folder)
    except (pa.ArrowException, OSError) as error:
        former = folder / _FORMER
        now = f"{former} holds what is missing of its former export" if former.exists() else "is as it was before"
        raise IngestError(f"{folder} could not be written, and {now}: {error}") from error
    return rows


def export_to_store(
    warehouse: Warehouse,
    store: ObjectStore,
    bucket: str,
    prefix: str,
    aside: Path,
    progress: Progress,
    tables: Sequence[str] = (),
) -> dict[str, int]:
    """The same to `prefix`<name>.parquet in a bucket, each object whole. The rows of each. `aside`: a folder of ours.

    The object `prefix``MARKER` is JSON. Put first it says `"complete": false`; put last `"complete": true`, with rows,
    bytes and hash of each object. So a reader that finds one complete marker before and after it reads has one export.

    Raises:
        IngestError: no such table, or the store refused. Then the marker says that the export is not complete.
        TransientError: the store did not answer; the marker as before.
    """
    names = chosen(tables)
    told: dict[str, Any] = {"export": uuid4().hex, "complete": False, "tables": {}}

    def put(name: str, content: Path) -> None:
        with content.open("rb") as file:
            store.receive(bucket, prefix + name, iter(lambda: file.read(_SENT_AT_ONCE), b""))

    def mark() -> None:
        (aside / MARKER).write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        put(MARKER, aside / MARKER)

    with warehouse.snapshot() as still:  # loads wait for the disk, and not for the store
        rows = {name: _write(still, name, aside / name, progress) for name in names}
    mark()
    for name in names:
        path = aside / name
        put(f"{name}.parquet", path)
        with path.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
        told["tables"][name] = {
            "object": f"{name}.parquet", "rows": rows[name], "size_bytes": path.stat().st_size, "sha256": digest,
        }  # fmt: skip
    told["complete"] = True
    mark()
    return rows


def _swap(unfinished: Path, folder: Path) -> None:
    """Put the new files in the place of the former ones: first all of those go, then all of these come."""
    former = folder / _FORMER
    former.mkdir()
    moves = [(folder / f"{name}.parquet", former / name) for name in EXPORTED]
    moves += [(unfinished / name, folder / f"{name}.parquet") for name in EXPORTED]
    with ExitStack() as back:
        back.callback(former.rmdir)
        for origin, target in moves:
            if origin.exists():
                origin.replace(target)
                back.callback(target.replace, origin)
        former.replace(unfinished / _FORMER)  # from here on nothing of it is wanted any more
        back.pop_all()
    flush(folder)


def _put_back(folder: Path) -> None:
    """The former export, where a killed one left it."""
    former = folder / _FORMER
    if not former.exists():
        return
    there = {path: folder / f"{path.name.removesuffix('.parquet')}.parquet" for path in former.iterdir()}
    for target in there.values():
        target.unlink(missing_ok=True)  # of the new one
    for path, target in there.items():
        path.replace(target)
    former.rmdir()


@contextmanager
def _aside(folder: Path, notice: Notice) -> Iterator[Path]:
    """A folder within `folder`, which may be a mounted one, so that a rename puts files in place. Ours alone."""
    if folder.exists() and not folder.is_dir():
        raise IngestError(f"{folder} is a file. Name a folder.")
    folder.mkdir(exist_ok=True)
    other = {path.name for path in folder.iterdir()} - {f"{name}.parquet" for name in EXPORTED} - {_UNFINISHED, _FORMER}
    if other:
        raise IngestError(f"{folder} holds something else than an export ({min(other)!r}). Name a folder of its own.")
    unfinished = folder / _UNFINISHED
    unfinished.mkdir(exist_ok=True)
    lock = os.open(unfinished / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise IngestError(f"Another export is writing to {folder}. Wait for it, or name another folder.") from None
    try:
        if left := [path for path in unfinished.iterdir() if path.name != _LOCK]:
            notice(f"{unfinished} was left by an export that was stopped: it is removed.")
            for path in left:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (folder / _FORMER).exists():
            notice(
                f"{folder / _FORMER} was left by an export that was stopped while it was put in place: it is put back."
            )
            _put_back(folder)
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(lock)


def _write(warehouse: Warehouse, name: str, path: Path, progress: Progress) -> int:
    rows = 0
    with warehouse.query(f"SELECT * FROM {name}") as answer:
        # Ids are text, as `ingest sql` shows them: Spark refuses a UUID, and BI tools cannot join bytes.
        types = ((column.name, column.type) for column in answer.reader.schema)
        schema = pa.schema([(name, one.value_type if pa.types.is_dictionary(one) else one) for name, one in types])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in gathered(answer.reader):
                writer.write_batch(batch.cast(schema))
                rows += batch.num_rows
                progress(name, batch.num_rows)
    flush(path)
    return rows


def gathered(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The same rows in batches that are worth a write, and small enough to be held: a long line is as much as many."""
    waiting: list[pa.RecordBatch] = []
    for batch in reader:
        step = max(1, batch.num_rows * _BYTES_AT_ONCE // max(batch.nbytes, _BYTES_AT_ONCE))
        for start in range(0, batch.num_rows, step):
            waiting.append(batch.slice(start, step))
            if sum(b.num_rows for b in waiting) >= _ROWS_AT_ONCE or sum(b.nbytes for b in waiting) >= _BYTES_AT_ONCE:
                yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
                waiting = []
    if waiting:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
