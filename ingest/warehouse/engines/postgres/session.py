"""Sessions on a Postgres server, and the schema.

Readers see one moment and hold up nobody. Who changes anything takes one lock of the whole warehouse, at the end and
for some milliseconds: rows come in before. What a killed process had not committed, the server undoes.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import adbc_driver_postgresql
import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import AdbcConnection, AdbcDatabase, Error, dbapi
from pyarrow import parquet

from ingest.errors import ConfigError
from ingest.ports import FailuresWanted
from ingest.settings import Source
from ingest.warehouse.engines.common.session import Session, Value, with_literals
from ingest.warehouse.engines.common.settled import not_settled, settings
from ingest.warehouse.engines.postgres.errors import could_not_read, could_not_write, first_line, not_connected
from ingest.warehouse.engines.postgres.statements import apart, definitions, statement

_LOCK = "SELECT pg_advisory_xact_lock(76717370, hashtext(current_schema()))::text"
# From the table itself: what answers by name may remember that there was none.
_SCHEMA_VERSION = """
    SELECT has_table_privilege(pg_class.oid, 'SELECT'), nspname::text, nspname = current_schema()
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relname = 'schema_version' AND nspname = ANY(current_schemas(false))
    ORDER BY array_position(current_schemas(false), nspname)"""
_MADE_MEANWHILE = frozenset({"23505", "42P07", "42710"})  # a name that another session has committed
_LEAST_VERSION = 150_000
# What the warehouse needs of a server; letters of any alphabet are folded by ICU.
_SERVER = """
    SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'),
        EXISTS (SELECT 1 FROM pg_collation WHERE collname = 'und-x-icu' AND collencoding IN (-1, pg_char_to_encoding(
            current_setting('server_encoding')))), current_schema(),
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"""
_VERSIONS_KEPT = 1_000
_SECRETS = frozenset({"password", "sslpassword"})
_SETTINGS = (
    "SELECT set_config('timezone', 'UTC', false), set_config('jit', 'off', false),"
    " set_config('work_mem', '64MB', false), set_config('lock_timeout', $timeout, false),"
    # What a role or a database may have otherwise, and what this relies on.
    " set_config('client_encoding', 'UTF8', false), set_config('default_transaction_read_only', 'off', false),"
    " set_config('default_transaction_isolation', 'read committed', false),"
    " set_config('statement_timeout', '0', false),"
    " set_config('idle_in_transaction_session_timeout', '0', false),"
    # A host that is gone without a word gives back what it holds after a minute or two, not hours.
    " set_config('tcp_keepalives_idle', '60', false), set_config('tcp_keepalives_interval', '10', false),"
    " set_config('tcp_keepalives_count', '6', false)"
)
_TYPES: Mapping[str, str] = {
    "int64": "bigint", "int32": "integer", "string": "text", "large_string": "text", "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamptz", "binary": "bytea", "extension<arrow.uuid>": "uuid",
}  # fmt: skip


@dataclass(slots=True)
class PostgresSession(Session):
    """Implements `ingest.warehouse.engines.common.session.Session` on a connection, in one transaction."""

    connection: dbapi.Connection
    ignored_identities: frozenset[str] = frozenset()

    def statement(self, name: str) -> str:
        return statement(name)

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        columns = [column.to_pylist() for column in self.arrow(sql, **values).columns]  # whose names may be the same
        return list(zip(*columns, strict=True))

    def fetch(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.arrow(sql, **values).to_pylist()
        return found

    def arrow(self, sql: str, **values: Any) -> pa.Table:
        """The rows of a statement."""
        with self.connection.cursor() as cursor:
            cursor.execute(*numbered(sql, values))
            return plain(cursor.fetch_arrow_table()) if cursor.description else pa.table({})

    @contextmanager
    def reader(self, sql: str, **values: Any) -> Iterator[pa.RecordBatchReader]:
        """The same, streamed. Until it is read no other statement can be run."""
        with self.connection.cursor() as cursor:
            cursor.execute(*numbered(sql, values))
            yield cursor.fetch_record_batch()

    @contextmanager
    def streamed(self, name: str, **told: Value) -> Iterator[Iterator[dict[str, Any]]]:
        with self.reader(with_literals(statement(name), told)) as reader:
            yield (row for batch in reader for row in plain(pa.Table.from_batches([batch])).to_pylist())

    def open_lines(self, wanted: FailuresWanted) -> AbstractContextManager[Iterator[dict[str, Any]]]:
        where = {"source": wanted.source, "since": wanted.since, "code": wanted.code, "limit": wanted.limit}
        return self.streamed("open_failures", **where)

    def listing(self, name: str, path: Path) -> None:
        with parquet.ParquetFile(path) as file:
            self.make(name, pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches()))

    def run(self, name: str, **values: Any) -> None:
        for text in apart(statement(name)):
            self.rows(text, **values)

    @contextmanager
    def table(self, name: str, table: pa.Table) -> Iterator[None]:
        self.make(name, table)
        try:
            yield
        finally:
            with suppress(Error):  # of a failed transaction it is gone already
                self.rows(f"DROP TABLE pg_temp.{name}")

    def make(self, name: str, table: pa.Table | pa.RecordBatchReader) -> None:
        """A temporary table of these rows."""
        columns = ", ".join(f'"{one.name}" {_TYPES[str(one.type)]}' for one in table.schema)
        self.rows(f"CREATE TEMP TABLE {name} ({columns}) ON COMMIT DROP")
        self.ingest(name, _texts(table) if isinstance(table, pa.Table) else table, temporary=True)
        self.rows(f"ANALYZE pg_temp.{name}")

    def ingest(self, name: str, rows: pa.Table | pa.RecordBatchReader, *, temporary: bool = False) -> int:
        """Copy rows into a table, by the names of their columns; how many."""
        with self.connection.cursor() as cursor:
            return cursor.adbc_ingest(name, rows, mode="append", temporary=temporary)

    def lock(self) -> None:
        """Have the warehouse alone, to the end of the transaction. Each statement then sees what others committed."""
        self.rows(_LOCK)

    def version(self) -> int:
        """What differs once anybody has changed anything."""
        return int(self.rows("SELECT max(version) FROM warehouse_version")[0][0])

    def count_up(self, came: Collection[int] | None) -> None:
        """Something is changed. `came`: the files whose commands came; None: commands went or changed, too."""
        files = "NULL" if came is None else f"'{{{', '.join(map(str, came))}}}'"
        self.rows(f"INSERT INTO warehouse_version SELECT max(version) + 1, {files} FROM warehouse_version")
        self.rows(
            "DELETE FROM warehouse_version WHERE version < (SELECT max(version) - $kept FROM warehouse_version)",
            kept=_VERSIONS_KEPT,
        )

    def came_since(self, version: int) -> tuple[int, list[int] | None]:
        """The version of now, and the files whose commands came since another one; None as in `count_up`."""
        now = self.version()
        sql = "SELECT came FROM warehouse_version WHERE version > $version AND version <= $now"
        told = [came for (came,) in self.rows(sql, version=version, now=now)]
        if None in told or len(told) < now - version:
            return now, None
        return now, [file_no for came in told for file_no in came]


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """Where the tables are, and how to get at them."""

    url: str = field(repr=False)  # as libpq takes it; may carry a password
    lock_timeout_seconds: float = 60.0
    load_memory_mb: int = 160  # what comparing staged rows may hold here before it spills to disk
    ignored_identities: frozenset[str] = frozenset()
    sources: Mapping[str, Source] = field(default_factory=dict)
    moment: str | None = None  # an exported snapshot, which all sessions read

    @property
    def name(self) -> str:
        parts = urlsplit(self.url)
        user, at, host = parts.netloc.rpartition("@")
        query = "&".join(
            f"{name}=***" if unquote(name).lower() in _SECRETS else f"{name}{equals}{value}"
            for name, equals, value in (pair.partition("=") for pair in parts.query.split("&"))
        )
        return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query=query))

    @property
    def mode(self) -> int:
        return 0o600

    @property
    def is_there(self) -> bool:
        with self.connected() as session:
            return found(session) is not None

    # --- sessions ----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[PostgresSession]:
        """A session that sees the last committed state, from one moment.

        Where there is no warehouse yet it sees the tables, empty, and leaves none.

        Raises:
            ConfigError: the server refuses this role, or holds another version.
            TransientError: the server does not answer.
        """
        try:
            with self.connected() as session:
                session.rows("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                self._see(session)
                yield session
        except (Error, pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # of whoever uses what was read; an answer's has none
                raise
            raise could_not_read(self.name, error) from error

    def _see(self, session: PostgresSession) -> None:
        """The tables of this version, as they are at one moment, or empty ones for this session alone."""
        if self.moment:
            session.rows(f"SET TRANSACTION SNAPSHOT '{self.moment}'")
        there = found(session)
        if there is None:
            self.demand_room(session)
            try:
                _make(session, 0)
            except Error as error:
                if self.moment or error.sqlstate not in _MADE_MEANWHILE:
                    raise
                session.rows("ROLLBACK AND CHAIN")
                self._see(session)
        elif there[0] != len(definitions()[0]):
            session.rows("ROLLBACK AND CHAIN")  # who looked at a table holds up who changes it
            self._bring_up_to_date()

    @contextmanager
    def writing(self, *, settle: bool = True) -> Iterator[PostgresSession]:
        """A session of one transaction: committed at the end, undone by any exception.

        Raises:
            ConfigError: this role may only read, or the settings are not those of other loaders.
            NotWrittenError: the server failed, or refused something.
        """
        try:
            with self.connected() as session:
                self._prepare(session)
                if settle:
                    self._settle(session)
                yield session
                session.rows("COMMIT")
        except Error as error:
            raise could_not_write(self.name, error) from error

    @contextmanager
    def connected(self) -> Iterator[PostgresSession]:
        with ExitStack() as stack:
            try:
                database = _Kept(_database(self.url, os.getpid()))
                # The driver's own transactions begin another one after each COPY, which the server warns of.
                opened = dbapi.Connection(database, AdbcConnection(database.database), autocommit=True)  # type: ignore[arg-type]
                session = PostgresSession(stack.enter_context(opened), self.ignored_identities)
                session.rows(_SETTINGS, timeout=f"{self.lock_timeout_seconds:g}s")
                session.rows("BEGIN")
            except Error as error:
                raise not_connected(self.name, error) from error
            yield session  # the server undoes what was not committed when the connection ends

    # --- the schema --------------------------------------------------------------------------------------------------

    def _prepare(self, session: PostgresSession) -> None:
        """Tables and views as this version has them; what was settled is what this loader's settings say."""
        wanted = (len(definitions()[0]), definitions()[1])
        there = found(session)
        if there != wanted:
            session.lock()
            there = found(session)
            if there is not None and there[0] > wanted[0]:
                raise ConfigError(f"{self.name} was written by a newer version of Landfall. Upgrade this one.")
            if there is None and (foreign := _foreign(session)):
                raise ConfigError(
                    f"{self.name} is the database of another program, with {', '.join(foreign)} in it. Name another"
                    " database, or a schema of its own: …?options=-csearch_path%3Dlandfall."
                )
            if there is None:
                self.demand_room(session)
            if there != wanted:
                _make(session, there[0] if there else 0)
                session.rows("COMMIT AND CHAIN")

    def _settle(self, session: PostgresSession) -> None:
        if new := self._not_settled(session):
            session.lock()
            for name, value in new.items():
                sql = "INSERT INTO settled VALUES ($name, $value) ON CONFLICT (name) DO NOTHING"
                session.rows(sql, name=name, value=value)
            session.rows("COMMIT AND CHAIN")
            self._not_settled(session)

    def lock(self, session: PostgresSession) -> None:
        """Have the warehouse alone. Raises ConfigError where `rematch` was run meanwhile, with other settings."""
        session.lock()
        self._not_settled(session)

    def _not_settled(self, session: PostgresSession) -> dict[str, str]:
        """Those of our settings that nobody has settled yet. Raises ConfigError where others have settled otherwise."""
        return not_settled(self.name, dict(session.rows("SELECT name, value FROM settled")), self.settings())

    def settings(self) -> dict[str, str]:
        """What all loaders have to agree on: see `ingest.warehouse.engines.common.settled`."""
        return settings(self.ignored_identities, self.sources)

    def check_settled(self) -> None:
        """Raises ConfigError where a load would be refused for its settings."""
        with self.reading() as session:
            self._not_settled(session)

    def demand_room(self, session: PostgresSession) -> str:
        """The schema in which the tables are, or are to be. Raises ConfigError where a warehouse cannot be made."""
        ((version, encoding, has_icu, schema, may_create),) = session.rows(_SERVER)
        if version < _LEAST_VERSION or encoding != "UTF8" or not has_icu:
            icu = "with" if has_icu else "without"
            raise ConfigError(
                f"{self.name} is Postgres {version // 10_000} {icu} ICU, its database in {encoding}: a warehouse needs"
                " Postgres 15 or newer with ICU, and a database in UTF8."
            )
        if schema is None:
            raise ConfigError(f"{self.name}: no schema of its search_path is there. Make it first: CREATE SCHEMA ….")
        if found(session) is None and not may_create:
            raise ConfigError(
                f"{self.name} has no warehouse, and this role may not make tables in the schema {schema}. Name the"
                " database of the warehouse, or let its owner run GRANT CREATE ON SCHEMA."
            )
        return str(schema)

    def _bring_up_to_date(self) -> None:
        """The tables of an older version become those of this one, whoever comes first, if only to read."""
        try:
            with self.connected() as session:
                self._prepare(session)
        except Error as error:
            raise ConfigError(
                f"{self.name} is of an older version of Landfall, and was left so: {first_line(error)} Let who loads"
                " into it run `ingest files`."
            ) from error


def found(session: PostgresSession) -> tuple[int, str] | None:
    """(step, views) as they were when the tables were last made; None before."""
    readable = session.rows(_SCHEMA_VERSION)
    if not readable:
        return None
    ((is_readable, schema, is_current), *_) = readable
    if not is_current:
        raise ConfigError(
            f"The warehouse is in the schema {schema}, and another stands before it in the search_path, where nothing"
            f" of it would be found. Name the one that is meant in the URL: …?options=-csearch_path%3D{schema}"
        )
    if not is_readable:  # who may ask views only
        return len(definitions()[0]), definitions()[1]
    ((step, views),) = session.rows("SELECT step, views FROM schema_version")
    return step, views


def _make(session: PostgresSession, done: int) -> None:
    steps, views = definitions()
    for text in (*steps[done:], views):
        for one in apart(text):
            session.rows(one)
    session.rows("CREATE TABLE IF NOT EXISTS schema_version (step integer NOT NULL, views text NOT NULL)")
    session.rows("DELETE FROM schema_version")
    session.rows("INSERT INTO schema_version VALUES ($step::integer, $views)", step=len(steps), views=views)


def _foreign(session: PostgresSession) -> list[str]:
    """What is there under names which our statements make."""
    steps, views = definitions()
    made = re.findall(r"^CREATE (?:OR REPLACE )?(?:TABLE|VIEW) (\w+)", "\n".join((*steps, views)), re.MULTILINE)
    sql = (
        "SELECT relname::text FROM pg_class"
        " WHERE relnamespace = current_schema()::regnamespace AND relname = ANY($made)"
    )
    return sorted(name for (name,) in session.rows(sql, made=made))


@cache
def _database(url: str, _process: int) -> AdbcDatabase:
    """What knows the server's types, for all sessions of this process: to ask for them takes longer than to connect."""
    database: AdbcDatabase = adbc_driver_postgresql.connect(url)
    return database


@dataclass(frozen=True, slots=True)
class _Kept:
    """A database that a connection may not close."""

    database: AdbcDatabase

    def close(self) -> None:
        pass


# --- values and types ------------------------------------------------------------------------------------------------


def numbered(sql: str, values: Mapping[str, Any]) -> tuple[str, pa.RecordBatch | None]:
    """A statement with `$1` in place of `$name`, and its values as the driver takes them."""
    used: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise KeyError(found[1])
        if found[1] not in used:
            used.append(found[1])
        is_time = isinstance(values[found[1]], datetime)
        return f"${used.index(found[1]) + 1}{'::timestamptz' * is_time}"

    if not values:
        return sql, None
    text = re.sub(r"\$([a-z_][a-z_0-9]*)", number, sql)
    if not used:
        return text, None
    return text, pa.RecordBatch.from_arrays([_array(values[name]) for name in used], names=used)


def _array(value: Any) -> pa.Array:
    if isinstance(value, (list, tuple)):
        kind = pa.int64() if value and isinstance(value[0], int) else pa.string()
        return pa.array([[_text(one) for one in value]], pa.list_(kind))
    if isinstance(value, datetime):  # as text: for a time the driver begins and commits a transaction of its own
        return pa.array([value.isoformat()])
    return pa.array([_text(value)])


def _text(value: Any) -> Any:
    """U+0000 is in no text of Postgres', so what holds it is equal to nothing there."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _texts(table: pa.Table) -> pa.Table:
    columns = [
        pc.replace_substring(column, "\0", "\ufffd") if pa.types.is_string(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, table.schema)


def plain(table: pa.Table) -> pa.Table:
    """The same, with texts for what Arrow knows no type of."""
    for number, column in enumerate(table.schema):
        if isinstance(column.type, pa.OpaqueType):
            stored = table.column(number).combine_chunks()
            stored = stored.storage if hasattr(stored, "storage") else stored
            table = table.set_column(number, column.name, stored.cast(pa.string()))
    return table
