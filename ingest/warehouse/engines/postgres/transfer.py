"""A whole warehouse on a server, given and taken table by table: see `ingest.transfer`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pyarrow as pa
from adbc_driver_manager import Error

from ingest.errors import IngestError, NotEmpty
from ingest.ports import Table
from ingest.warehouse.engines.postgres.errors import first_line, is_of_the_world
from ingest.warehouse.engines.postgres.session import PostgresServer, PostgresSession

_GIVEN = {"uuid": "::text", "json": "::text", "command_kind": "::text", "time_source": "::text"}  # as `Table` has it
_TAKEN = {"uuid": pa.uuid(), "json": pa.string(), "integer": pa.int32(), "bigint": pa.int64()}


@contextmanager
def tables(server: PostgresServer) -> Iterator[Iterator[Table]]:
    """See `ingest.ports.Warehouse.tables`."""
    with server.reading() as session:
        yield _read(session)


def _read(session: PostgresSession) -> Iterator[Table]:
    for name, columns in _columns(session).items():
        told = ", ".join(f'"{column}"{_GIVEN.get(type, "")} AS "{column}"' for column, type in columns.items())
        with session.reader(f'SELECT {told} FROM "{name}"') as reader:
            yield name, reader


def fill(server: PostgresServer, tables: Iterable[Table]) -> None:
    """See `ingest.ports.Warehouse.fill`."""
    try:
        with server.writing() as session:
            session.lock()
            there = _columns(session)
            for name in there:
                if session.rows(f'SELECT 1 FROM "{name}" LIMIT 1'):
                    raise NotEmpty(f"{server.name} is not empty ({name} has rows). Copy to a new warehouse.")
            for name, reader in tables:
                if name not in there:
                    raise IngestError(f"The table {name} is not one of Landfall's: drop it, or keep it elsewhere.")
                session.ingest(name, _as_stored(reader, there[name]))
            session.rows("SELECT setval('file_numbers', coalesce(max(file_no), 0) + 1, false)::text FROM ledger")
            session.count_up(None)
            for name in there:
                session.rows(f'ANALYZE "{name}"')
    except Error as error:
        if is_of_the_world(error):
            raise
        raise IngestError(f"{server.name} refused what was copied, and is still empty: {first_line(error)}") from error


def _as_stored(reader: pa.RecordBatchReader, columns: dict[str, str]) -> pa.RecordBatchReader:
    """Rows as this engine's columns have them: integers of their width, UUIDs as such."""
    kinds = [_TAKEN.get(columns.get(one.name, ""), one.type) for one in reader.schema]
    schema = pa.schema(list(zip(reader.schema.names, kinds, strict=True)))

    def stored(column: pa.Array, of: pa.DataType) -> pa.Array:
        if column.type == of or (isinstance(column.type, pa.JsonType) and of == pa.string()):
            return column if column.type == of else column.storage
        if isinstance(of, pa.UuidType):
            texts = column.to_pylist()
            return pa.array([bytes.fromhex(one.replace("-", "")) for one in texts], pa.binary(16)).cast(of)
        return column.cast(of)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            columns = [stored(column, of) for column, of in zip(batch.columns, kinds, strict=True)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _columns(session: PostgresSession) -> dict[str, dict[str, str]]:
    """Of each table its columns, each with its type."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for table, column, type in session.named("columns_of_tables"):
        found[table][column] = type
    return found
