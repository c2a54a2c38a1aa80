"""The warehouse on a Postgres server: any number of loaders, on any number of hosts."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from ingest.plans.changes import Answer, Applied, NotWrittenError, Plan
from ingest.ports import Audit, QueryLimits, QueryResult, ReadModel, Table
from ingest.warehouse.engines.common.applying import TablesReader
from ingest.warehouse.engines.common.naming import name_anew, renamed
from ingest.warehouse.engines.common.reconcile import repair
from ingest.warehouse.engines.common.session import Session
from ingest.warehouse.engines.common.snapshot import save
from ingest.warehouse.engines.common.warehouse import TablesWarehouse
from ingest.warehouse.engines.duckdb.errors import first_line, is_of_disk, is_of_the_world
from ingest.warehouse.engines.postgres.applying import ConflictError, PostgresApplying, beside
from ingest.warehouse.engines.postgres.published import published
from ingest.warehouse.engines.postgres.query import demand_role, query
from ingest.warehouse.engines.postgres.session import PostgresServer, PostgresSession
from ingest.warehouse.engines.postgres.transfer import fill, tables


@dataclass(frozen=True, slots=True)
class PostgresWarehouse(PostgresServer, TablesWarehouse):
    """Implements `ingest.ports.Warehouse`."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self.reading() as session:
            yield session

    def transact(self, plan: Plan[Answer]) -> tuple[Answer, Applied]:
        try:
            try:
                return self._transact(plan, alone=False)
            except ConflictError:
                return self._transact(plan, alone=True)
        except duckdb.Error as error:  # beside the server
            raise NotWrittenError(
                f"What was judged could not be compared: {first_line(error)} Nothing was loaded; run again.",
                reason=first_line(error),
                is_disk=is_of_disk(error),
                is_for_all=False,
                is_of_the_world=is_of_the_world(error),
            ) from error

    def _transact(self, plan: Plan[Answer], *, alone: bool) -> tuple[Answer, Applied]:
        """Rows come in before the lock is taken, unless rows leave: then what is first is decided with nobody else."""
        with self.writing() as session:
            if alone:
                self.lock(session)
            version = session.version()
            changes, answer = plan(TablesReader(session))
            staging = changes.staging
            comes_in = staging is not None and bool(staging.commands or staging.failed)
            with beside(self.load_memory_mb) if comes_in else nullcontext() as staged:
                applying = PostgresApplying(session, changes, staged=staged)
                if alone or not comes_in or changes.leaving:
                    if not alone:
                        self.lock(session)
                        if session.version() != version:
                            changes, answer = plan(TablesReader(session))
                            applying.changes = changes
                    applied = applying.run()
                else:
                    applying.number()
                    applying.bring_failed()
                    applying.bring_commands()
                    looked_at = applying.look_again(version)  # most of what came meanwhile, while nobody waits for us
                    self.lock(session)
                    if session.version() != version:
                        changes, answer = plan(TablesReader(session))
                        applying.plan_again(changes)
                        applying.look_again(looked_at)
                    applying.mark_mended()
                    applied = applying.settle()
                applying.yield_first()
            session.count_up(None if changes.leaving else applying.own)
            return answer, applied

    def repair(self, note: Audit) -> None:
        with self.writing() as session:
            session.lock()
            repair(session, PostgresApplying, note)
            session.count_up(None)

    def rematch(self) -> int:
        with self.writing(settle=False) as session:
            session.lock()
            own = self.settings()
            session.join_persons_anew()
            files = name_anew(session, self.sources, self._rename)
            with session.table("own", pa.table({"name": list(own), "value": list(own.values())})):
                session.rows("DELETE FROM settled WHERE name IN (SELECT name FROM own)")
                session.rows("INSERT INTO settled SELECT name, value FROM own")
            session.count_up(None)
            return files

    def _rename(self, session: Session, files: pa.Table) -> None:
        """Another session reads the rows: it sees what was committed, whatever is done here."""
        assert isinstance(session, PostgresSession)
        session.rows("DELETE FROM command_rows WHERE file_no IN (SELECT file_no FROM renamed)")
        with self.reading() as other:
            other.make("renamed", files)
            with other.reader(other.statement("rows_to_rename")) as rows:
                for batch in rows:
                    session.ingest("command_rows", renamed(batch))

    def check_role(self) -> None:
        """Raises ConfigError for a role of which `query` takes no statement."""
        with self.reading() as session:
            demand_role(self, session)

    def query(self, sql: str, limits: QueryLimits | None = None) -> AbstractContextManager[QueryResult]:
        return query(self, sql, limits)

    @contextmanager
    def snapshot(self) -> Iterator["PostgresWarehouse"]:
        with self.reading() as session:  # as long as it lives, others may read the same moment
            ((moment,),) = session.rows("SELECT pg_export_snapshot()")
            yield replace(self, moment=moment)

    def save(self, file: Path) -> tuple[int, int]:
        return save(self, file)

    def tables(self) -> AbstractContextManager[Iterator[Table]]:
        return tables(self)

    def fill(self, tables: Iterable[Table]) -> None:
        fill(self, tables)

    def published(self) -> AbstractContextManager[ReadModel]:
        return published(self)
