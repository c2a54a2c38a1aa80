"""How staged rows come into Postgres: compared beside the server, copied in, and looked at again under the lock.

The statements that know facts apart are DuckDB's, on the staged files: the server only says which of them it has.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingest.core.lifecycle import KEEPS_LINES
from ingest.disk import FOLDER_PREFIX, private_folder
from ingest.plans.changes import Changes, Entry
from ingest.warehouse.engines.common.applying import Applying
from ingest.warehouse.engines.duckdb.applying import DuckDBSession, places, stage
from ingest.warehouse.engines.duckdb.session import connect
from ingest.warehouse.engines.postgres.session import PostgresSession

_FEW = 10_000  # facts that are looked up one by one
_AT_ONCE = 20_480  # rows of Arrow that are on their way
_MINE = "SELECT occurred_at, command_id FROM staged_commands"
_MARKED = ("occurred_at", "command_id", "file_no", "line", "item_no")
# U+0000 in what is told of a failure: functions of Postgres for JSON would refuse all of it.
_WITHOUT_NUL = r"regexp_replace(regexp_replace({0}, '{1}', '{2}', 'g'), '{1}', '{2}', 'g')".format(
    "failures", r"((?:^|[^\\])(?:\\\\)*)\\u0000", r"\1\\ufffd"
)


class ConflictError(Exception):
    """What was copied is not what is to be entered any more."""


@contextmanager
def beside(memory_mb: int) -> Iterator[DuckDBSession]:
    """An engine of our own for staged rows."""
    with private_folder(Path(gettempdir()), FOLDER_PREFIX) as folder, connect() as connection:
        connection.execute("SET temp_directory = $folder", {"folder": str(folder)})
        connection.execute(
            f"SET memory_limit = '{memory_mb}MB'; SET TimeZone = 'UTC'; SET preserve_insertion_order = false;"
            " SET arrow_lossless_conversion = true; SET enable_progress_bar = false"
        )
        yield DuckDBSession(connection)


@dataclass(slots=True)
class PostgresApplying(Applying):
    """Implements `ingest.warehouse.engines.common.applying.Applying`."""

    session: PostgresSession
    staged: DuckDBSession | None = None  # `beside`; None: nothing comes in
    brought: str = "FALSE"  # which of its facts the server has, as SQL
    many: int = 0  # of them
    here: pa.Table = field(default_factory=lambda: pa.table({}))  # first rows of its facts that others brought
    not_first: pa.Table | None = None  # its own rows that are not first, as it was decided last
    yielding: pa.Table | None = None  # rows of others that are not the first any more
    own: list[int] = field(default_factory=list)  # file_nos whose commands this load brings

    def insert_failed(self, entered: pa.Table) -> None:
        assert self.staged
        assert self.changes.staging
        stage(self.staged.connection, "staged_failed", self.changes.staging.failed)
        with self.staged.table("entered", entered):
            self._copy("failed_line_rows", "incoming_failed", "count_staged_failed", failures=_WITHOUT_NUL)

    def insert_commands(self, taken: Sequence[Entry]) -> None:
        assert self.staged
        assert self.changes.staging
        self.own = [entry.row.file_no for entry in taken]
        self.staged.connection.register("taken", places(taken))
        stage(self.staged.connection, "staged_rows", self.changes.staging.commands)
        for step in ("staged_commands", "staged_times"):
            self.staged.run(step)
        ((first, last),) = self.staged.rows("SELECT first, last FROM staged_times")
        self.session.make("mine", self._arrow(f"{_MINE} LIMIT 0"))
        (there,) = self.session.named("times_there", first=first, last=last)
        if there[0] is not None:
            self._bring_mine("occurred_at BETWEEN '{}' AND '{}'".format(*there))
        self.here = self._facts_here()
        self._decide()
        # By time: so the index of times, the dearest part of a load, is written from its one end to the other.
        self._copy("command_rows", "incoming_commands", "count_staged_commands", order="occurred_at")

    def plan_again(self, changes: Changes) -> None:
        """Others committed while rows were copied. Raises ConflictError: other rows are to come in than those."""
        numbers = [entry.row.file_no for entry in self.entries]
        if changes.leaving or [*map(_rows_of, changes.entries)] != [*map(_rows_of, self.changes.entries)]:
            raise ConflictError
        self.changes = changes
        self.number(numbers)

    def look_again(self, seen: int) -> int:
        """Decide once more which rows are first, by what was committed since a version; the version of now."""
        version, came = self.session.came_since(seen)
        if not self.own or came == []:
            return version
        self._bring_mine("TRUE")
        if came is None or self.many <= _FEW:
            self.here = self._facts_here()
        else:
            self.session.run("plan_hashed")
            found = self.session.arrow(self.session.statement("came_here"), came=came)
            self.session.run("plan_freely")
            if not len(found):
                return version
            self.here = pa.concat_tables([self.here, found])
        before = self.not_first
        self.duplicates.clear()
        self._decide()
        assert self.staged
        with self.staged.table("before", before), self.staged.table("now", self.not_first):
            changed = self._arrow(
                "SELECT *, TRUE AS is_first FROM before ANTI JOIN now USING (command_id, file_no, line, item_no)"
                " UNION ALL SELECT *, FALSE FROM now ANTI JOIN before USING (command_id, file_no, line, item_no)"
            )
        self._set_first(changed)
        return version

    def yield_first(self) -> None:
        """Rows of others that this load comes before are first no more."""
        if self.yielding is not None and len(self.yielding):
            self._set_first(self.yielding)

    def _bring_mine(self, which: str) -> None:
        """Facts of this load, to be looked up; which of them need be, since there is something of their time."""
        if self.brought != which:
            facts = self._arrow(f"{_MINE} WHERE {which} AND NOT ({self.brought}) ORDER BY ALL")
            self.many += self.session.ingest("mine", facts, temporary=True)
            self.session.rows("ANALYZE pg_temp.mine")
            self.brought = which

    def _decide(self) -> None:
        assert self.staged
        numbers = self.here["file_no"].unique().to_pylist()
        sql = "SELECT file_no, position FROM ledger WHERE file_no = ANY($numbers)"
        positions = self.session.fetch(sql, numbers=numbers) if numbers else []
        ledger = pa.Table.from_pylist(positions, pa.schema([("file_no", pa.int64()), ("position", pa.string())]))
        with self.staged.table("here", self.here), self.staged.table("ledger", ledger):
            self.staged.rows(  # Arrow cannot filter UUIDs
                "CREATE OR REPLACE TEMP TABLE facts_here AS SELECT DISTINCT * FROM here"
            )
            for step in ("files_here", "staged_repeated", "repeated_facts", "not_first"):
                self.staged.run(step)
            self.yielding = self._arrow(
                f"SELECT {', '.join(_MARKED)}, FALSE AS is_first FROM facts_here JOIN repeated_facts USING (command_id)"
                " WHERE is_here AND NOT here_is_first"
            )
        self.not_first = self._arrow("FROM not_first")
        self.count_duplicates((staged_no, many) for staged_no, many in self.staged.named("count_duplicates"))

    def _facts_here(self) -> pa.Table:
        """First rows of facts of this load that are there already: command_id, file_no, line, item_no, occurred_at."""
        session = self.session
        session.run("plan_few" if self.many <= _FEW else "plan_many")
        session.run("those_here")
        session.run("plan_few")
        session.rows("ANALYZE pg_temp.those_here")
        found = [session.arrow(session.statement("facts_here"), own=self.own)]
        session.rows("DROP TABLE pg_temp.those_here")
        timeless = self._arrow("SELECT DISTINCT command_id FROM staged_commands WHERE is_timeless")
        if len(timeless):
            with session.table("timeless", timeless):
                found.append(session.arrow(session.statement("timeless_here"), own=self.own))
        session.run("plan_freely")
        return pa.concat_tables(found)

    def _set_first(self, marked: pa.Table) -> None:
        if not len(marked):
            return
        with self.session.table("marked", marked):
            self.session.run("plan_few")
            self.session.run("set_first")
            self.session.run("plan_freely")

    def _arrow(self, sql: str) -> pa.Table:
        assert self.staged
        return booleans(self.staged.connection.sql(sql).to_arrow_reader(_AT_ONCE)).read_all()

    def _copy(self, table: str, name: str, count_name: str, order: str = "", **instead: Any) -> None:
        assert self.staged
        counted = [(staged_no, kind, rows) for staged_no, kind, rows in self.staged.named(count_name)]
        sql = self.staged.statement(name)
        if instead:
            sql = f"SELECT * REPLACE ({', '.join(f'{how} AS {what}' for what, how in instead.items())}) FROM ({sql})"
        reader = self.staged.connection.sql(f"{sql} ORDER BY {order}" if order else sql).to_arrow_reader(_AT_ONCE)
        self.count(counted, self.session.ingest(table, booleans(reader)))


def _rows_of(entry: Entry) -> tuple[object, ...]:
    """What of a file's staged rows comes in with it, and as what."""
    is_loaded = entry.row.state == "loaded"
    return entry.staged.staged_no, is_loaded, entry.row.state in KEEPS_LINES, entry.lines_of, entry.row.position


def booleans(rows: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The engine hands them out as bytes, where it hands out UUIDs as such."""
    kinds = [pa.bool_() if isinstance(one.type, pa.Bool8Type) else one.type for one in rows.schema]
    schema = pa.schema(list(zip(rows.schema.names, kinds, strict=True)))

    def cast(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [pc.not_equal(one.storage, 0) if isinstance(one.type, pa.Bool8Type) else one for one in batch]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, map(cast, rows))
