"""The warehouse in an Iceberg table on a store: open to any number of loaders and readers, on any number of hosts.

A plan is made and applied on the mirror, by the statements of a DuckDB warehouse; what it changes is committed to the
lake against the snapshot that the mirror was of. If somebody else was quicker, the mirror takes that up, and the plan
is made again.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import random
from time import monotonic, sleep
from typing import Any, Self

import duckdb
import pyarrow as pa

from ingest.errors import ConfigError, TransientError
from ingest.plans.changes import Answer, Applied, Plan
from ingest.ports import Audit, QueryLimits, QueryResult, ReadModel, Table
from ingest.settings import Source
from ingest.warehouse.engines.common.applying import TablesReader
from ingest.warehouse.engines.common.naming import name_anew
from ingest.warehouse.engines.common.reconcile import repair
from ingest.warehouse.engines.common.session import Session
from ingest.warehouse.engines.common.settled import not_settled, settings
from ingest.warehouse.engines.common.snapshot import save
from ingest.warehouse.engines.common.warehouse import TablesWarehouse
from ingest.warehouse.engines.duckdb.errors import could_not_write
from ingest.warehouse.engines.duckdb.published import published
from ingest.warehouse.engines.duckdb.query import query
from ingest.warehouse.engines.duckdb.session import MUCH_MEMORY_MB
from ingest.warehouse.engines.iceberg.applying import LakeApplying
from ingest.warehouse.engines.iceberg.lake import ConflictError, Lake, LakeTable
from ingest.warehouse.engines.iceberg.mirror import Brought, Mirror, MirrorSession, fold, is_current
from ingest.warehouse.engines.iceberg.transfer import fill, refused, tables
from ingest.warehouse.engines.iceberg.upkeep import expire, put_together, sweep

_PAGE_SECONDS = 0.5  # that a page waits for the newest
_WAIT_SECONDS = 0.2  # before a plan is made again, at most at first


@dataclass(frozen=True, slots=True)
class IcebergWarehouse(TablesWarehouse):
    """Implements `ingest.ports.Warehouse`."""

    lake: Lake
    mirror: Mirror
    ignored_identities: frozenset[str] = frozenset()
    sources: dict[str, Source] = field(default_factory=dict)
    moment: LakeTable | None = None  # which all sessions read

    @classmethod
    def at(cls, url: str, mirrors: Path, *, lock_timeout_seconds: float = 60.0, **more: Any) -> Self:
        """The warehouse by its URL. `mirrors`: the folder of this host's mirrors, made where it is not there."""
        catalog, _, namespace = url.removeprefix("iceberg://").partition("/")
        try:
            mirrors.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{mirrors}, the folder of this host's mirrors, cannot be made: {error.strerror}. Name another one:"
                " mirrors in ingest.toml, or INGEST_MIRRORS."
            ) from error
        path = mirrors / f"{catalog}-{namespace}.duckdb"
        mirror = Mirror(path, lock_timeout_seconds=lock_timeout_seconds, of=url)
        return cls(Lake(catalog, namespace), mirror, **more)

    @property
    def name(self) -> str:
        return self.lake.name

    @property
    def is_there(self) -> bool:
        return self.lake.find() is not None

    @property
    def mode(self) -> int:
        return self.mirror.mode

    @property
    def lock_timeout_seconds(self) -> float:
        return self.mirror.lock_timeout_seconds

    # --- sessions ----------------------------------------------------------------------------------------------------

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self.reading() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[MirrorSession]:
        """A session that sees what is committed now."""
        for may_be_behind in (self.moment is not None, True):
            if self.mirror.is_there:
                with self.mirror.reading() as connection:  # what is committed while one waits for the mirror counts too
                    table = self.moment or self.lake.find()
                    if table and (may_be_behind or is_current(connection, table)):
                        yield MirrorSession(connection, self.ignored_identities, table).begin()
                        return
            if self.lake.find():
                with self._folded():
                    pass
            else:
                self.mirror.remove()  # that of a former lake
        with self.mirror.reading() as connection:
            yield MirrorSession(connection, self.ignored_identities).begin()

    @contextmanager
    def _connection(self, *, prepared: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:  # noqa: ARG002
        with self.reading() as session:
            yield session.connection

    @contextmanager
    def _folded(self, memory_mb: int | None = None) -> Iterator[MirrorSession]:
        """A transaction on the mirror, which shows the lake as it is now."""
        for _ in range(2):
            with self.mirror.writing(memory_mb) as connection:
                table = self.lake.make()  # what is committed while one waits for the mirror counts, too
                if fold(connection, table):
                    connection.execute("COMMIT; BEGIN")
                    yield MirrorSession(connection, self.ignored_identities, table).begin()
                    return
            self.mirror.remove()

    @contextmanager
    def writing(self, *, settle: bool = True, memory_mb: int | None = None) -> Iterator[MirrorSession]:
        """A session whose changes become visible to all at its end. Raises ConflictError if others were quicker."""
        with self._folded(memory_mb) as session:
            if settle:
                self._settle(session)
            yield session
            session.commit()

    def _settle(self, session: MirrorSession) -> None:
        self._enter_settled(session, self._not_settled(session))

    def _not_settled(self, session: MirrorSession) -> dict[str, str]:
        there = dict(session.rows("SELECT name, value FROM settled"))
        return not_settled(self.name, there, settings(self.ignored_identities, self.sources))

    def _enter_settled(self, session: MirrorSession, own: dict[str, str]) -> None:
        if own:
            with session.table("own", pa.table({"name": list(own), "value": list(own.values())})):
                session.run("settle")

    # --- what changes it ---------------------------------------------------------------------------------------------

    def transact(self, plan: Plan[Answer]) -> tuple[Answer, Applied]:
        try:
            brought = Brought()
            try:
                return self._again(lambda: self._transact(plan, brought))
            except (duckdb.OutOfMemoryException, duckdb.TransactionException):
                return self._again(lambda: self._transact(plan, brought, MUCH_MEMORY_MB))
        except duckdb.Error as error:
            raise could_not_write(self.mirror, error) from error

    def _transact(self, plan: Plan[Answer], brought: Brought, memory_mb: int | None = None) -> tuple[Answer, Applied]:
        with self.writing(memory_mb=memory_mb) as session:
            session.brought = brought
            changes, answer = plan(TablesReader(session))
            return answer, LakeApplying(session, changes).run()

    def _again(self, attempt: Callable[[], Answer]) -> Answer:
        """Until nobody else is quicker. Raises TransientError where others are, for too long."""
        deadline, tries = monotonic() + self.lock_timeout_seconds, 0
        while True:
            try:
                return attempt()
            except ConflictError as error:
                if monotonic() > deadline:
                    raise TransientError(
                        f"{self.name} has been busy for {self.lock_timeout_seconds:g} s: other loaders were quicker"
                        f" {tries + 1} times. Run again, or raise lock_timeout."
                    ) from error
            tries += 1
            sleep(random() * _WAIT_SECONDS * min(tries, 10))  # noqa: S311 - whoever waits less is first

    def repair(self, note: Audit) -> None:
        def attempt() -> None:
            self.mirror.remove()  # it may be what is wrong
            with self.writing() as session:
                repair(session, LakeApplying, note)

        self._again(attempt)

    def rematch(self) -> int:
        def attempt() -> int:
            with self.writing(settle=False) as session:
                session.join_persons_anew()
                files = name_anew(session, self.sources, session.rename)
                self._enter_settled(session, settings(self.ignored_identities, self.sources))
                return files

        return self._again(attempt)

    def upkeep(self) -> list[str]:
        """Keep the lake quick; what was done, in sentences."""

        def attempt() -> list[str]:
            with self._folded() as session:
                return put_together(session)

        if not self.is_there:
            return []
        told = self._again(attempt)
        now = datetime.now(UTC)
        for step in (expire, sweep):
            told += step(self.lake.make(), now)
        return told

    def check_settled(self) -> None:
        """Raises ConfigError where a load would be refused for its settings."""
        with self.reading() as session:
            self._not_settled(session)

    # --- what is asked of it in bulk ---------------------------------------------------------------------------------

    @contextmanager
    def published(self) -> Iterator[ReadModel]:
        seen = datetime.now(UTC)
        impatient = replace(self, mirror=replace(self.mirror, lock_timeout_seconds=_PAGE_SECONDS))
        try:
            with impatient.reading():
                pass
        except TransientError:  # a load holds the mirror, or the catalog does not answer: what is known is shown
            seen = self.mirror.changed_at()
        with published(self.mirror) as model:
            yield replace(model, as_of=min(model.as_of, seen))

    def query(self, sql: str, limits: QueryLimits | None = None) -> AbstractContextManager[QueryResult]:
        return query(self._connection, sql, limits)

    @contextmanager
    def snapshot(self) -> Iterator["IcebergWarehouse"]:
        with self.reading() as session:  # while anybody reads the mirror, nobody takes up anything
            yield replace(self, moment=session.lake)

    def save(self, file: Path) -> tuple[int, int]:
        return save(self, file)

    @contextmanager
    def tables(self) -> Iterator[Iterator[Table]]:
        with self.reading() as session:
            yield tables(session)

    def fill(self, given: Iterable[Table]) -> None:
        try:
            with refused(self.mirror), self.writing(settle=False) as session:
                fill(session, given)
        except ConflictError as error:
            raise TransientError(f"{self.name} was loaded into meanwhile. Copy to a new warehouse.") from error
