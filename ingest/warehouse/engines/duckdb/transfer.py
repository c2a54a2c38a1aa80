"""A whole DuckDB warehouse, given and taken table by table: see `ingest.transfer`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from ingest.errors import IngestError, NotEmpty
from ingest.ports import Table
from ingest.warehouse.engines.common.session import Session
from ingest.warehouse.engines.duckdb.applying import DuckDBSession
from ingest.warehouse.engines.duckdb.errors import could_not_write, is_of_the_world
from ingest.warehouse.engines.duckdb.session import DuckDBFile, version_of

_READ_AT_ONCE = 2048  # rows, the engine's own measure
# The engine keeps what it has touched while there is room, so this bounds a copy of any size. But what is committed of
# a row group (120,000 rows) must fit, and failed lines may be long.
_MEMORY = "1GB"


@contextmanager
def tables(warehouse: DuckDBFile) -> Iterator[Iterator[Table]]:
    """See `ingest.ports.Warehouse.tables`."""
    with warehouse.reading() as connection:
        yield given(connection, columns_of(DuckDBSession(connection)))


def given(connection: duckdb.DuckDBPyConnection, columns: Mapping[str, Sequence[str]]) -> Iterator[Table]:
    """Each table with its rows."""
    connection.execute(f"SET memory_limit = '{_MEMORY}'")
    for name, told in columns.items():
        yield name, connection.sql(f"SELECT {', '.join(told)} FROM {_quoted(name)}").to_arrow_reader(_READ_AT_ONCE)


def fill(warehouse: DuckDBFile, tables: Iterable[Table]) -> None:
    """See `ingest.ports.Warehouse.fill`."""
    try:
        if warehouse.path.exists():  # another program's file must not even get our tables
            with warehouse.reading(prepared=False) as connection:
                if version_of(connection) == (0,) and (there := columns_of(DuckDBSession(connection))):
                    raise IngestError(
                        f"{warehouse.name} is a database of another program, with {min(there)} in it. Copy to a new"
                        " warehouse."
                    )
        with warehouse.writing() as connection:
            _refuse_unless_empty(warehouse, connection)
            connection.execute(f"SET memory_limit = '{_MEMORY}'")
            connection.execute("SET preserve_insertion_order = true")  # each insert is small enough to be held
            known = columns_of(DuckDBSession(connection))
            for name, reader in tables:
                if name not in known:
                    raise IngestError(f"The table {name} is not one of Landfall's: drop it, or keep it elsewhere.")
                columns = ", ".join(_quoted(column) for column in reader.schema.names)
                for batch in reader:
                    # The engine finds it by its name here. What is registered instead is kept until the commit.
                    some_rows = pa.Table.from_batches([batch])  # noqa: F841
                    connection.execute(f"INSERT INTO {_quoted(name)} ({columns}) SELECT * FROM some_rows")
            ((newest,),) = connection.execute("SELECT coalesce(max(file_no), 0) FROM ledger").fetchall()
            connection.execute(f"CREATE OR REPLACE SEQUENCE file_numbers START {newest + 1}")
    except duckdb.Error as error:
        if is_of_the_world(error):
            raise could_not_write(warehouse, error) from error
        raise IngestError(f"{warehouse.name} refused what was copied, and is still empty: {error}") from error


def _refuse_unless_empty(warehouse: DuckDBFile, connection: duckdb.DuckDBPyConnection) -> None:
    for name in columns_of(DuckDBSession(connection)):
        if connection.execute(f"SELECT 1 FROM {_quoted(name)} LIMIT 1").fetchall():
            raise NotEmpty(f"{warehouse.name} is not empty ({name} has rows). Copy to a new warehouse.")


def columns_of(session: Session) -> dict[str, list[str]]:
    """Of each table of the file, how its columns are selected for a copy."""
    found: dict[str, list[str]] = defaultdict(list)
    for table, column, type in session.named("columns_of_tables"):
        # An enumeration would be told in the numbers of this engine.
        found[table].append(f"{_quoted(column)}::VARCHAR AS {_quoted(column)}" if type == "ENUM" else _quoted(column))
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
