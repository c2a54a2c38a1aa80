"""A look at a DuckDB warehouse that leaves everything as it is: it makes no file, no table, not even a lock.

While it looks, the engine's own lock keeps writers away, for some milliseconds; they wait.
"""

from ingest.warehouse.engines.common.look import OPEN, SUMMED_UP, Look
from ingest.warehouse.engines.duckdb.session import DuckDBFile
from ingest.warehouse.engines.duckdb.statements import definitions


def look(warehouse: DuckDBFile) -> Look | None:
    """What there is of it; None: nothing yet.

    Raises:
        ConfigError: it is no warehouse, another program's, of a newer version, or its log is damaged.
        TransientError: another program holds it, or it cannot be read.
    """
    size_bytes = warehouse._size()
    if not size_bytes:
        return None
    steps, _ = definitions()
    with warehouse._read(), warehouse._open(read_only=True) as connection:
        step = warehouse._found(connection)[0]
        if not step:
            return Look(size_bytes, 0, len(steps))
        (files,) = connection.execute(SUMMED_UP).fetchall()
        (open_lines,) = connection.execute(OPEN).fetchall()
    return Look(size_bytes, step, len(steps), *files, *open_lines)
