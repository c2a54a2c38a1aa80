"""One statement of somebody else's: it reads, in a transaction that cannot write, and ends when it has had enough."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
from adbc_driver_manager import Error, dbapi

from ingest.errors import ConfigError, IngestError
from ingest.ports import QueryLimits, QueryResult
from ingest.warehouse.engines.postgres.errors import first_line, is_of_the_world
from ingest.warehouse.engines.postgres.session import PostgresServer, PostgresSession

_READS = re.compile(
    r"(?>\s+|--[^\n]*\n|/\*.*?\*/|\()*+(select|with|values|table|explain|show)\b", re.IGNORECASE | re.DOTALL
)
_STREAMED = "adbc.postgresql.use_copy"
# Who may read the server's files, or run its programs, could do so in any statement.
_MAY_TOO_MUCH = """
    SELECT rolsuper OR pg_has_role('pg_read_server_files', 'MEMBER') OR pg_has_role('pg_write_server_files', 'MEMBER')
        OR pg_has_role('pg_execute_server_program', 'MEMBER')
    FROM pg_roles WHERE rolname = current_user"""
_STOPPED = "57014"


def demand_role(server: PostgresServer, session: PostgresSession) -> None:
    """Raises ConfigError for a role that may do more than a warehouse needs."""
    if session.rows(_MAY_TOO_MUCH)[0][0]:
        raise ConfigError(
            f"{server.name}: this role may read the server's own files, and so could any statement. Name a role"
            " that owns its tables and no more: docs/postgres.md."
        )


@contextmanager
def query(server: PostgresServer, sql: str, limits: QueryLimits | None = None) -> Iterator[QueryResult]:
    """See `ingest.ports.Warehouse.query`."""
    reads = _READS.match(sql)
    if not reads:
        raise IngestError("Only one statement that reads (SELECT, WITH, VALUES, TABLE, EXPLAIN, SHOW) can be run here.")
    with server.reading() as session:
        demand_role(server, session)
        session.rows("SET TRANSACTION READ ONLY")
        if limits:
            session.rows(f"SET LOCAL statement_timeout = {int(limits.seconds * 1000)}")
        with _refused(limits), session.connection.cursor() as cursor:
            is_streamed = reads[1].lower() not in {"explain", "show"}
            cursor.adbc_statement.set_options(**{_STREAMED: str(is_streamed).lower()})
            cursor.execute(_with_texts(cursor, f"{sql.rstrip().rstrip(';')}\n") if is_streamed else sql)
            reader = _plain(cursor.fetch_record_batch())
            yield QueryResult(frozenset(one.name for one in reader.schema if one.metadata), reader)


@contextmanager
def _refused(limits: QueryLimits | None) -> Iterator[None]:
    """What the server says to a statement of somebody else's."""
    try:
        yield
    except (Error, pa.ArrowException, OSError) as error:  # the latter two from the reader of the answer
        if isinstance(error, OSError) and error.errno:  # of whoever uses it: a full disk, say
            raise
        if limits and ("statement timeout" in str(error) or getattr(error, "sqlstate", None) == _STOPPED):
            raise IngestError(
                f"The statement was stopped after {limits.seconds:g} s. Ask for less, or raise max_query_time."
            ) from error
        if isinstance(error, Error) and is_of_the_world(error):
            raise
        raise IngestError(f"The warehouse refused the statement: {first_line(error)}") from error


def _with_texts(cursor: dbapi.Cursor, sql: str) -> str:
    """The same, with texts for what the driver knows no type of."""
    schema = cursor.adbc_execute_schema(sql)
    opaque = [
        (isinstance(of, pa.OpaqueType) and of.type_name != "numeric") or pa.types.is_interval(of) for of in schema.types
    ]
    if not any(opaque):
        return sql
    names = [f"c{number}" for number in range(len(opaque))]
    called = ['"' + name.replace('"', '""') + '"' for name in schema.names]
    texts = ["::text" * is_opaque for is_opaque in opaque]
    told = ", ".join(f"{name}{text} AS {as_}" for name, text, as_ in zip(names, texts, called, strict=True))
    return f"SELECT {told} FROM ({sql}) AS answer ({', '.join(names)})"


def _plain(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """Numbers of any length, JSON and UUIDs as their texts; two columns of one name get two.

    Fields with metadata hold what is JSON as it stands.
    """
    as_text = (pa.OpaqueType, pa.UuidType, pa.JsonType)
    fields = [
        pa.field(
            name,
            pa.string() if isinstance(of, as_text) else of,
            metadata={"is": "json"} if isinstance(of, (pa.OpaqueType, pa.JsonType)) else None,
        )
        for name, of in zip(_unique(reader.schema.names), reader.schema.types, strict=True)
    ]
    schema = pa.schema(fields)
    batches = (pa.RecordBatch.from_arrays([*map(_texts, batch.columns)], schema=schema) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, batches)


def _texts(column: pa.Array) -> pa.Array:
    if isinstance(column.type, pa.UuidType):
        return pa.array([None if one is None else str(one) for one in column.to_pylist()], pa.string())
    return column.storage if isinstance(column.type, (pa.OpaqueType, pa.JsonType)) else column


def _unique(names: Sequence[str]) -> list[str]:
    """As DuckDB names them: a, a_1."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        unique.append(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return unique
