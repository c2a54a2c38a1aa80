"""A whole lake, given and taken table by table: see `ingest.transfer`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from ingest.errors import IngestError, NotEmpty
from ingest.ports import Table
from ingest.warehouse.engines.duckdb.errors import could_not_write, is_of_the_world
from ingest.warehouse.engines.duckdb.transfer import columns_of, given
from ingest.warehouse.engines.iceberg.mirror import Mirror, MirrorSession, stage_no

# Tables, and what their rows are among the changes of a lake. Of failed lines some are mended.
_CHANGES = {
    "ledger": "ledger", "failed_line_rows": "failed", "history": "history", "polled_sources": "polled",
    "person_links": "link", "people_spaces": "space",
}  # fmt: skip
_MENDED = """
    INSERT INTO changes BY NAME
    SELECT 'mended' AS change, file_no, line, item, redriven_at, redriven_by
    FROM some_rows
    WHERE redriven_by IS NOT NULL"""


def tables(session: MirrorSession) -> Iterator[Table]:
    """See `ingest.ports.Warehouse.tables`."""
    return given(session.connection, columns_of(session))


def fill(session: MirrorSession, tables: Iterable[Table]) -> None:
    """What `ingest.ports.Warehouse.fill` takes becomes changes, which are still to be committed."""
    name = session.lake.lake.name if session.lake else ""
    there = columns_of(session)
    for table in there:
        if session.rows(f'SELECT 1 FROM "{table}" LIMIT 1'):
            raise NotEmpty(f"{name} is not empty ({table} has rows). Copy to a new warehouse.")
    for table, reader in tables:
        if table == "command_rows":
            _bring(session, reader)
        elif table in _CHANGES:
            for batch in reader:
                with session.table("some_rows", pa.Table.from_batches([batch])):
                    left_out = " EXCLUDE (redriven_at, redriven_by)" if table == "failed_line_rows" else ""
                    told = f"SELECT '{_CHANGES[table]}' AS change, *{left_out} FROM some_rows"
                    session.rows(f"INSERT INTO changes BY NAME {told}")
                    if left_out:
                        session.rows(_MENDED)
        else:
            raise IngestError(f"The table {table} is not one of Landfall's: drop it, or keep it elsewhere.")


def _bring(session: MirrorSession, reader: pa.RecordBatchReader) -> None:
    first_stage = stage_no()

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            with session.table("some_rows", pa.Table.from_batches([batch])):
                session.run("copied_shadows")
                stages = session.rows(
                    "SELECT DISTINCT file_no FROM some_rows WHERE file_no NOT IN"
                    " (SELECT file_no FROM changes WHERE change = 'stage')"
                )
                told = {"file_no": [no for (no,) in stages], "stage_no": [first_stage + no for (no,) in stages]}
                with session.table("taken_stages", pa.table(told, _STAGES)):
                    session.rows(session.statement("told_enter_stages"))
                yield from session.exactly(session.statement("copied_commands"), first_stage=first_stage)

    session.see(session.write(rows())[0])


_STAGES = pa.schema([("file_no", pa.int64()), ("stage_no", pa.int64())])


@contextmanager
def refused(mirror: Mirror) -> Iterator[None]:
    """What the engine says to rows of somebody else's."""
    try:
        yield
    except duckdb.Error as error:
        if is_of_the_world(error):
            raise could_not_write(mirror, error) from error
        raise IngestError(f"{mirror.name} refused what was copied, and is still empty: {error}") from error
