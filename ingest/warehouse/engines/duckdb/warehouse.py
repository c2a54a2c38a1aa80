"""The warehouse in one DuckDB file: its plans are applied here, and what is asked in bulk has its own statements."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from ingest.core.address import is_file_id, meant, split_address
from ingest.core.lifecycle import LONGEST_DELAY
from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.plans.changes import Answer, Applied, Plan, Reader
from ingest.ports import (
    ArchivedCopy,
    FailuresWanted,
    Note,
    OpenFailures,
    Published,
    QueryLimits,
    QueryResult,
    Table,
)
from ingest.warehouse.engines.duckdb.apply import DuckDBReader, apply
from ingest.warehouse.engines.duckdb.errors import could_not_write
from ingest.warehouse.engines.duckdb.failures import open_failures
from ingest.warehouse.engines.duckdb.published import published
from ingest.warehouse.engines.duckdb.query import query
from ingest.warehouse.engines.duckdb.reconcile import disagreements, repair
from ingest.warehouse.engines.duckdb.rows import Rows
from ingest.warehouse.engines.duckdb.session import MUCH_MEMORY_MB, DuckDBFile
from ingest.warehouse.engines.duckdb.snapshot import save
from ingest.warehouse.engines.duckdb.statements import statement
from ingest.warehouse.engines.duckdb.transfer import fill, tables
from ingest.warehouse.warehouse import Warehouse

_LISTED_AT_ONCE = 25_000
_UNTIDIED_AT_ONCE = 5_000
_COMPARED_MB = 256  # of listings that are held beside the ledger; the rest is on disk
_MET = pa.schema(
    [
        ("place", pa.int64()), ("bucket", pa.string()), ("key", pa.string()), ("etag", pa.string()),
        ("version_id", pa.string()), ("size_bytes", pa.int64()), ("last_modified", pa.timestamp("us", "UTC")),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DuckDBWarehouse(DuckDBFile, Warehouse):
    """Implements `ingest.ports.Warehouse`."""

    def unseen(self, listed: Iterable[SourceFile], now: datetime) -> list[SourceFile]:
        listing = iter(listed)
        new: list[SourceFile] = []
        while files := list(islice(listing, _LISTED_AT_ONCE)):  # so that a million objects are never held
            with self.reading() as connection:
                found = _unseen(connection, files, now)
                places = [place for place, is_known in found if not is_known]
                known = recognised(connection, {place: files[place] for place in places})
                again = {place for place, _ in _unseen(connection, list(known.values()), now)}
            settled = {place for number, place in enumerate(known) if number not in again}
            new += [known.get(place, files[place]) for place, _ in found if place not in settled]
        return new

    def recognise(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        with self.reading() as connection:
            ids = {"ids": [file.file_id for file in files]}
            rows = _rows(connection, "SELECT file_id FROM ledger WHERE file_id IN (SELECT unnest($ids))", ids)
            has_row = {row["file_id"] for row in rows}
            met = {place: file for place, file in enumerate(files) if file.file_id not in has_row}
            known = recognised(connection, met)
        return [known.get(place, file) for place, file in enumerate(files)]

    def unknown_copies(self, copies: Iterable[ArchivedCopy]) -> Iterator[ArchivedCopy]:
        listing = iter(copies)
        while some := list(islice(listing, _LISTED_AT_ONCE)):
            begin = [datetime.combine(one.day, datetime.min.time(), UTC) for one in some]
            table = pa.table(
                {
                    "place": range(len(some)),
                    "source": [one.file.source for one in some],
                    "bucket": [one.file.bucket for one in some],
                    "archived_to": [one.copy.key for one in some],
                    "key": [one.file.key for one in some],
                    "plain_key": [one.plain_key for one in some],
                    "etag": [one.file.etag for one in some],
                    "size_bytes": [one.file.size_bytes for one in some],
                    "archived_at": [one.copy.last_modified for one in some],
                    "day_from": begin,
                    "day_until": [day + timedelta(days=1) for day in begin],
                }
            )
            with self.reading() as connection:
                connection.register("copies", table)
                places = connection.execute(statement("unknown_copies")).fetchall()
            yield from (some[place] for (place,) in places)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with self.reading() as connection:
            yield DuckDBReader(Rows(connection, self.ignored_identities))

    def transact(self, plan: Plan[Answer]) -> tuple[Answer, Applied]:
        try:
            try:
                return self._transact(plan)
            except (duckdb.OutOfMemoryException, duckdb.TransactionException):
                # Thousands of lines of hundreds of KB, or rows from all over the tables that leave: rather more memory
                # than not at all. Where such lines are in the table already, it is the commit that holds them.
                return self._transact(plan, MUCH_MEMORY_MB)
        except duckdb.Error as error:
            raise could_not_write(self, error) from error

    def _transact(self, plan: Plan[Answer], memory_mb: int | None = None) -> tuple[Answer, Applied]:
        with self.writing(memory_mb) as connection:
            rows = Rows(connection, self.ignored_identities)
            changes, answer = plan(DuckDBReader(rows))
            return answer, apply(rows, changes)

    def untidied(
        self,
        source: str,
        bucket: str,
        prefix: str,
        *,
        step: Literal["archive", "copy", "delete"],
        file_ids: Sequence[str] | None = None,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        parameters = {
            "source": source, "bucket": bucket, "prefix": prefix, "step": step, "before": before,
            "file_ids": None if file_ids is None else list(file_ids), "limit": _UNTIDIED_AT_ONCE,
        }  # fmt: skip
        with self.reading() as connection:
            return _rows(connection, statement("untidied"), parameters)

    def archives(self) -> list[tuple[str, str, str]]:
        with self.reading() as connection:
            return connection.execute(statement("archives")).fetchall()

    @contextmanager
    def ledger(self, landings: Path, archives: Path, since: datetime) -> Iterator[Iterator[dict[str, Any]]]:
        with self.reading() as connection:
            connection.execute(f"SET memory_limit = '{_COMPARED_MB}MB'")
            for name, path in (("landings", landings), ("archives", archives)):
                quoted = str(path).replace("'", "''")
                connection.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet('{quoted}')")
            yield _streamed(connection, "ledger", since=since)

    def disagreements(self) -> list[dict[str, Any]]:
        return disagreements(self)

    def repair(self, note: Note) -> None:
        repair(self, note)

    def history(self, file_id: str | None = None, run_id: str | None = None) -> list[dict[str, Any]]:
        with self.reading() as connection:
            sql = 'SELECT * FROM history WHERE file_id = $file_id OR run_id = $run_id ORDER BY "at"'
            return _rows(connection, sql, {"file_id": file_id, "run_id": run_id})

    def files(self, where: Mapping[str, object], limit: int | None = None) -> list[dict[str, Any]]:
        conditions = [
            f"{_column(name)} IN (SELECT unnest(${name}))" if isinstance(value, list) else f"{_column(name)} = ${name}"
            for name, value in where.items()
        ] or ["TRUE"]
        limited = "" if limit is None else f"LIMIT {int(limit)}"
        sql = f"SELECT * FROM ledger WHERE {' AND '.join(conditions)} ORDER BY file_no DESC {limited}"
        with self.reading() as connection:
            return _rows(connection, sql, dict(where))

    def find_file(self, reference: str) -> dict[str, Any]:
        if not reference:  # a variable that was not set: each id begins with it
            raise IngestError("A FILE_ID is empty. Give one, the beginning of one, or an s3:// URI.")
        if not is_file_id(reference):
            bucket, key = split_address(reference)
            found = self.files({"bucket": bucket, "key": key}, limit=1)
        else:
            with self.reading() as connection:
                sql = "SELECT * FROM ledger WHERE starts_with(file_id, $prefix) ORDER BY file_id LIMIT 2"
                found = _rows(connection, sql, {"prefix": reference})
        if not found:
            raise IngestError(
                f"No file {reference} is in the ledger. `ingest files` lists those that are.{meant(reference)}"
            )
        if len(found) > 1:
            raise IngestError(
                f"More than one file begins with {reference}. Give more of its id: `ingest files --json`."
            )
        return found[0]

    @contextmanager
    def failed_lines(self, file_id: str) -> Iterator[Iterator[dict[str, Any]]]:
        with self.reading() as connection:
            yield _streamed(connection, "failed_lines_of_file", file_id=file_id)

    def open_failures(self, wanted: FailuresWanted) -> AbstractContextManager[OpenFailures]:
        return open_failures(self, wanted)

    def published(self) -> AbstractContextManager[Published]:
        return published(self)

    def query(self, sql: str, limits: QueryLimits | None = None) -> AbstractContextManager[QueryResult]:
        return query(self, sql, limits)

    @contextmanager
    def snapshot(self) -> Iterator["DuckDBWarehouse"]:
        with self.reading():  # while anybody reads, nobody writes
            yield self

    def save(self, file: Path) -> tuple[int, int]:
        return save(self, file)

    def tables(self) -> AbstractContextManager[Iterator[Table]]:
        return tables(self)

    def fill(self, tables: Iterable[Table]) -> None:
        fill(self, tables)


def _unseen(
    connection: duckdb.DuckDBPyConnection, files: Sequence[SourceFile], now: datetime
) -> list[tuple[int, bool]]:
    """The places of files that are to be dealt with, and whether the ledger has a row of them."""
    if not files:
        return []
    listed = {
        "place": range(len(files)),
        "file_id": [file.file_id for file in files],
        "version_id": pa.array([file.version_id for file in files], pa.string()),
    }
    connection.register("listed", pa.table(listed))
    found = connection.execute(statement("unseen"), {"now": now, "latest": now + LONGEST_DELAY}).fetchall()
    connection.unregister("listed")
    return found


def recognised(connection: duckdb.DuckDBPyConnection, met: Mapping[int, SourceFile]) -> dict[int, SourceFile]:
    """Those of these files that have a row under another id, with that id; by their places, in order."""
    if not met:
        return {}
    columns = ("bucket", "key", "etag", "version_id", "size_bytes", "last_modified")
    rows = [{"place": place} | {name: getattr(file, name) for name in columns} for place, file in met.items()]
    connection.register("met", pa.Table.from_pylist(rows, _MET))
    found = dict(connection.execute(statement("recognise")).fetchall())
    connection.unregister("met")
    return {place: replace(file, known_as=found[place]) for place, file in met.items() if place in found}


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(sql, params=parameters).to_arrow_table().to_pylist()
    return rows


def _streamed(connection: duckdb.DuckDBPyConnection, name: str, **variables: Any) -> Iterator[dict[str, Any]]:
    """The rows of a statement, some at a time. With parameters the engine would hold its whole answer."""
    for variable, value in variables.items():
        connection.execute(f"SET VARIABLE {variable} = $value", {"value": value})
    reader = connection.sql(statement(name)).to_arrow_reader(1000)
    return (row for batch in reader for row in batch.to_pylist())


def _column(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(name)
    return name
