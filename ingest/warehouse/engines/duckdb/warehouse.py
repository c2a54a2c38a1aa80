"""The warehouse in one DuckDB file: its plans are applied here, and what is asked in bulk has its own statements."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from ingest.core.lifecycle import Intent
from ingest.core.source import SourceFile
from ingest.plans.changes import Answer, Applied, Plan
from ingest.ports import Audit, FileResult, QueryLimits, QueryResult, ReadModel, Table
from ingest.warehouse.engines.common.applying import TablesReader
from ingest.warehouse.engines.common.reconcile import repair
from ingest.warehouse.engines.common.session import Session
from ingest.warehouse.engines.common.warehouse import TablesWarehouse
from ingest.warehouse.engines.duckdb.applying import DuckDBApplying, DuckDBSession
from ingest.warehouse.engines.duckdb.errors import could_not_write
from ingest.warehouse.engines.duckdb.published import published
from ingest.warehouse.engines.duckdb.query import query
from ingest.warehouse.engines.duckdb.session import MUCH_MEMORY_MB, DuckDBFile
from ingest.warehouse.engines.duckdb.snapshot import save
from ingest.warehouse.engines.duckdb.transfer import fill, tables


@dataclass(frozen=True, slots=True)
class DuckDBWarehouse(DuckDBFile, TablesWarehouse):
    """Implements `ingest.ports.Warehouse`."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self.reading() as connection:
            yield DuckDBSession(connection, self.ignored_identities)

    # What is in a warehouse that nobody made is known, and asking would make its tables in memory.

    def recognise(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        return TablesWarehouse.recognise(self, files) if self.is_there else list(files)

    def known(self, files: Iterable[SourceFile], intent: Intent = "new") -> dict[str, FileResult]:
        return TablesWarehouse.known(self, files, intent) if self.is_there else {}

    def files(self, where: Mapping[str, object], limit: int | None = None) -> list[dict[str, Any]]:
        return TablesWarehouse.files(self, where, limit) if self.is_there else []

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
            session = DuckDBSession(connection, self.ignored_identities)
            changes, answer = plan(TablesReader(session))
            return answer, DuckDBApplying(session, changes).run()

    def repair(self, note: Audit) -> None:
        try:
            with self.writing() as connection:
                repair(DuckDBSession(connection, self.ignored_identities), DuckDBApplying, note)
        except duckdb.Error as error:
            raise could_not_write(self, error) from error

    def rematch(self) -> int:
        with self.reading():  # which has done it, if there was anything to do
            return 0

    def published(self) -> AbstractContextManager[ReadModel]:
        return published(self)

    def query(self, sql: str, limits: QueryLimits | None = None) -> AbstractContextManager[QueryResult]:
        return query(self.reading, sql, limits)

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
