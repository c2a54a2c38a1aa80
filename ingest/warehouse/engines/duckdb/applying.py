"""How staged rows come into a DuckDB file: the engine reads the staged files itself, a piece at a time."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from ingest.plans.changes import Entry
from ingest.ports import FailuresWanted
from ingest.settings import Source
from ingest.warehouse.engines.common.applying import Applying
from ingest.warehouse.engines.common.naming import ROWS_AT_ONCE, name_anew, renamed
from ingest.warehouse.engines.common.session import Session, Value, with_literals
from ingest.warehouse.engines.duckdb.statements import statement

_COMPARED_MB = 256  # of listings that are held beside the ledger; the rest is on disk
_BYTES_AT_ONCE = 320 << 20  # of staged rows that are compared and inserted at once; what takes more memory is on disk


@dataclass(slots=True)
class DuckDBSession(Session):
    """Implements `ingest.warehouse.engines.common.session.Session` on a connection."""

    connection: duckdb.DuckDBPyConnection
    ignored_identities: frozenset[str] = frozenset()

    def statement(self, name: str) -> str:
        return statement(name)

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(*_bound(sql, values)).fetchall()

    def fetch(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        sql, values = _bound(sql, values)
        found: list[dict[str, Any]] = self.connection.sql(sql, params=values).to_arrow_table().to_pylist()
        return found

    def run(self, name: str, **values: Any) -> None:
        self.rows(self.statement(name), **values)

    def listing(self, name: str, path: Path) -> None:
        self.connection.execute(f"SET memory_limit = '{_COMPARED_MB}MB'")
        stage(self.connection, name, [path])

    @contextmanager
    def streamed(self, name: str, **told: Value) -> Iterator[Iterator[dict[str, Any]]]:
        reader = self.connection.sql(with_literals(self.statement(name), told)).to_arrow_reader(1000)
        yield (row for batch in reader for row in batch.to_pylist())

    @contextmanager
    def open_lines(self, wanted: FailuresWanted) -> Iterator[Iterator[dict[str, Any]]]:
        where = {"source": wanted.source, "since": wanted.since, "code": wanted.code, "limit": wanted.limit}
        parts = [", ".join(map(str, rows)) for (rows,) in self.named("open_failures", **where)]
        asked = (self.statement("open_lines").replace("{rows}", part) for part in parts)
        yield (row for sql in asked for row in self.fetch(sql))

    @contextmanager
    def table(self, name: str, table: pa.Table) -> Iterator[None]:
        self.connection.register(name, table)
        try:
            yield
        finally:
            self.connection.unregister(name)

    def name_anew(self, sources: Mapping[str, Source]) -> None:
        """See `ingest.warehouse.engines.common.naming`."""
        name_anew(self, sources, self._rename)

    def _rename(self, _: Session, files: pa.Table) -> None:
        """Another session reads the rows: it sees what was committed, whatever is done here."""
        self.rows("DELETE FROM command_rows WHERE file_no IN (SELECT file_no FROM renamed)")
        with self.connection.cursor() as cursor:
            cursor.register("renamed", files)
            for batch in cursor.sql(self.statement("rows_to_rename")).to_arrow_reader(ROWS_AT_ONCE):
                some_rows = renamed(batch)  # noqa: F841 - the engine finds it by its name
                self.connection.execute("INSERT INTO command_rows BY NAME SELECT * FROM some_rows")


class DuckDBApplying(Applying):
    """Implements `ingest.warehouse.engines.common.applying.Applying`."""

    session: DuckDBSession

    def insert_failed(self, entered: pa.Table) -> None:
        assert self.changes.staging
        stage(self.session.connection, "staged_failed", self.changes.staging.failed)
        with self.session.table("entered", entered):
            self._insert("failed_line_rows", "incoming_failed", "count_staged_failed")

    def insert_commands(self, taken: Sequence[Entry]) -> None:
        assert self.changes.staging
        with self.session.table("taken", places(taken)):
            for some in _in_groups(self.changes.staging.commands):
                stage(self.session.connection, "staged_rows", some)
                for step in ("staged_commands", "staged_times"):
                    self.session.run(step)
                here = "facts_here" if self.may_be_here() else "none_here"
                for step in (here, "files_here", "staged_repeated", "repeated_facts", "not_first"):
                    self.session.run(step)
                self.count_duplicates((staged_no, many) for staged_no, many in self.session.named("count_duplicates"))
                self.session.run("yield_first")
                self._insert("command_rows", "incoming_commands", "count_staged_commands")

    def may_be_here(self) -> bool:
        """Whether any of these facts may be there already."""
        ((may_be_here,),) = self.session.named("may_be_here")
        return bool(may_be_here)

    def put(self, table: str, name: str) -> int:
        """Insert what a statement gives; how many rows."""
        ((inserted,),) = self.session.rows(f"INSERT INTO {table} BY NAME {self.session.statement(name)}")
        return int(inserted)

    def _insert(self, table: str, name: str, count_name: str) -> None:
        counted = [(staged_no, kind, rows) for staged_no, kind, rows in self.session.named(count_name)]
        self.count(counted, self.put(table, name))


def _bound(sql: str, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A statement and its values, lists as JSON: of a list the engine looks for pandas at each value, 70 µs."""
    lists = {name: value for name, value in values.items() if isinstance(value, list) and value}
    for name, value in lists.items():
        kind = "VARCHAR" if isinstance(value[0], str) else "BIGINT"
        sql = re.sub(rf"\${name}\b", f"""from_json(${name}, '["{kind}"]')""", sql)
    return sql, {**values, **{name: orjson.dumps(value).decode() for name, value in lists.items()}}


def stage(connection: duckdb.DuckDBPyConnection, name: str, paths: Sequence[Path]) -> None:
    """Staged rows under a name."""
    files = ", ".join(f"'{quoted}'" for quoted in (str(path).replace("'", "''") for path in paths))
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM read_parquet([{files}])")


def places(taken: Sequence[Entry]) -> pa.Table:
    """Files of a load in their order, as the statements on staged rows know them: `place` is odd, see `files_here`."""
    return pa.table(
        {
            "place": range(1, 2 * len(taken), 2),
            "staged_no": [entry.staged.staged_no for entry in taken],
            "file_no": [entry.row.file_no for entry in taken],
            "position": [entry.row.position for entry in taken],
        }
    )


def _in_groups(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Staged files in their order, some at a time."""
    group: list[Path] = []
    size = 0
    for path in paths:
        group.append(path)
        size += path.stat().st_size
        if size >= _BYTES_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
