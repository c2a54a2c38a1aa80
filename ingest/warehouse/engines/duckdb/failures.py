"""Open failed lines over all files: how many by code, and the lines of one code, some MB of them at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from ingest.ports import FailuresWanted, OpenFailures
from ingest.warehouse.engines.duckdb.session import DuckDBFile
from ingest.warehouse.engines.duckdb.statements import statement

# The rows are told as plain numbers: then the engine decompresses long lines of these only.
_LINES = """
    SELECT l.file_id, l.source, l.bucket, l.key, l.format, f.* EXCLUDE (file_no)
    FROM failed_line_rows AS f JOIN ledger AS l USING (file_no)
    WHERE f.rowid IN ({rows})
    ORDER BY f.file_no DESC, f.line, f.item
"""


@contextmanager
def open_failures(warehouse: DuckDBFile, wanted: FailuresWanted) -> Iterator[OpenFailures]:
    """See `ingest.ports.Warehouse.open_failures`."""
    where = {"source": wanted.source, "since": wanted.since, "code": wanted.code}
    with warehouse.reading() as connection:
        by_code = connection.execute(statement("open_failures_by_code"), where)
        names = [column[0] for column in by_code.description]
        groups = [dict(zip(names, row, strict=True)) for row in by_code.fetchall()]
        yield OpenFailures(groups, _lines(connection, where | {"limit": wanted.limit}) if wanted.code else iter(()))


def _lines(connection: duckdb.DuckDBPyConnection, wanted: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for (part,) in connection.execute(statement("open_failures"), wanted).fetchall():
        found = connection.execute(_LINES.format(rows=", ".join(map(str, part))))
        yield from found.to_arrow_table().to_pylist()
