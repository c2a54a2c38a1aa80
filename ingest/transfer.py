"""A whole warehouse moved: into another one, or into Parquet files that any program reads.

Both read one moment of the warehouse and hold a few rows at a time, however many there are. A copy is one transaction
of the target; an export is written aside, and put in its place when all of it is there.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.errors import IngestError, TransientError
from ingest.ports import Table, Warehouse

Progress = Callable[[str, int], None]  # of this table so many rows more

EXPORTED = (
    "ledger", "commands", "failed_lines", "history", "events", "identities", "people", "accounts",
    "kissmetrics_events",
)  # fmt: skip
_UNFINISHED, _FORMER = ".unfinished", ".former"
_ROWS_AT_ONCE = 120 << 10  # a row group of DuckDB's, and a good one of Parquet's
_BYTES_AT_ONCE = 16 << 20


def copy(source: Warehouse, target: Warehouse, progress: Progress) -> dict[str, int]:
    """Put all that `source` holds into `target`, which must be empty. The rows of each table.

    Raises:
        IngestError: the target is not empty, or is the source. It was left as it is.
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
        with source.tables() as tables:
            target.fill(counted(tables))
    except (pa.ArrowException, OSError) as error:  # how a reader says that its engine stopped
        raise TransientError(f"Copying from {source.name} broke off, nothing was copied: {error}") from error
    return copied


def export(warehouse: Warehouse, folder: Path, progress: Progress) -> dict[str, int]:
    """Write each table and view to `folder`/<name>.parquet. The rows of each.

    A former export is replaced when the new one is complete: of neither is a file ever beside one of the other. Who is
    killed in that moment leaves the former one in `.former`; the next export puts it back, or another in its place.

    Raises:
        IngestError: the folder holds something else, another export is writing there, or it cannot be written.
    """
    try:
        with _aside(folder) as unfinished, warehouse.snapshot() as still:
            rows = {name: _write(still, name, unfinished / f"{name}.parquet", progress) for name in EXPORTED}
            _swap(unfinished, folder)
    except (pa.ArrowException, OSError) as error:
        former = folder / _FORMER
        now = f"{former} holds what is missing of its former export" if former.exists() else "is as it was before"
        raise IngestError(f"{folder} could not be written, and {now}: {error}") from error
    return rows


def _swap(unfinished: Path, folder: Path) -> None:
    """Put the new files in the place of the former ones: first all of those go, then all of these come."""
    former = folder / _FORMER
    former.mkdir()
    with ExitStack() as back:
        back.callback(former.rmdir)
        for origin, target in ((folder, former), (unfinished, folder)):
            for path in [origin / f"{name}.parquet" for name in EXPORTED]:
                if path.exists():
                    path.replace(target / path.name)
                    back.callback((target / path.name).replace, path)
        former.replace(unfinished / _FORMER)  # from here on nothing of it is wanted any more
        back.pop_all()


def _put_back(folder: Path) -> None:
    """The former export, where a killed one left it."""
    former = folder / _FORMER
    if not former.exists():
        return
    names = [path.name for path in former.iterdir()]
    for name in names:
        (folder / name).unlink(missing_ok=True)  # of the new one
    for name in names:
        (former / name).replace(folder / name)
    former.rmdir()


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder within `folder`, which may be a mounted one, so that a rename puts files in place. Ours alone."""
    folder.mkdir(exist_ok=True)
    other = {path.name for path in folder.iterdir()} - {f"{name}.parquet" for name in EXPORTED} - {_UNFINISHED, _FORMER}
    if other:
        raise IngestError(f"{folder} holds something else than an export ({min(other)!r}). Name a folder of its own.")
    unfinished = folder / _UNFINISHED
    unfinished.mkdir(exist_ok=True)  # a killed export left it behind
    lock = os.open(unfinished / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise IngestError(f"Another export is writing to {folder}. Wait for it, or name another folder.") from None
    try:
        _put_back(folder)
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.close(lock)


def _write(warehouse: Warehouse, name: str, path: Path, progress: Progress) -> int:
    rows = 0
    with warehouse.query(f"SELECT * FROM {name}") as answer:
        schema = pa.schema([(column.name, _exported_type(column)) for column in answer.reader.schema])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in gathered(answer.reader):
                columns = [_exported(batch[column.name], column.type) for column in schema]
                writer.write_batch(pa.record_batch(columns, schema=schema))
                rows += batch.num_rows
                progress(name, batch.num_rows)
    return rows


def _exported_type(column: pa.Field) -> pa.DataType:
    if column.name == "command_id":
        # Not marked as a UUID: Spark refuses files that hold one, up to 4.0 at least.
        return pa.binary(16)
    return column.type.value_type if pa.types.is_dictionary(column.type) else column.type


def _exported(column: pa.Array, type: pa.DataType) -> pa.Array:
    if type == pa.binary(16):
        digits = bytes.fromhex("".join(column.to_pylist()).replace("-", ""))
        return pa.Array.from_buffers(type, len(column), [None, pa.py_buffer(digits)])
    return column.cast(type)


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
