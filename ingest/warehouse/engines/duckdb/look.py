"""A look at a DuckDB warehouse that leaves everything as it is: it makes no file, no table, not even a lock.

While it looks, the engine's own lock keeps writers away, for some milliseconds; they wait.
"""

from dataclasses import dataclass
from datetime import datetime

from ingest.warehouse.engines.duckdb.session import DuckDBFile
from ingest.warehouse.engines.duckdb.statements import definitions

# A rejected file is loaded once a redrive has brought what is right of it.
_FILES = """
    WITH files AS (
        SELECT file_no, state, loaded_at, state = 'rejected' AND file_id NOT IN (
            SELECT redrive_of FROM warehouse.ledger WHERE redrive_of IS NOT NULL AND state = 'loaded'
        ) AS is_rejected
        FROM warehouse.ledger
    )"""
_SUMMED_UP = f"""{_FILES}
    SELECT count(*), max(loaded_at) FILTER (state = 'loaded'), count(*) FILTER (state = 'retrying'),
        count(*) FILTER (is_rejected), count(*) FILTER (state = 'held')
    FROM files"""
_OPEN = f"""{_FILES}
    SELECT count(*), count(DISTINCT file_no)
    FROM warehouse.failed_line_rows JOIN files USING (file_no)
    WHERE redriven_by IS NULL AND state IN ('loaded', 'rejected') AND NOT is_rejected"""


@dataclass(frozen=True, slots=True)
class Look:
    """What there is of a warehouse."""

    size_bytes: int
    step: int  # of its tables, 0: there are none yet
    newest_step: int  # that this version knows
    files: int = 0  # in its ledger
    last_load: datetime | None = None
    retrying: int = 0
    rejected: int = 0
    held: int = 0
    open_lines: int = 0  # failed lines of loaded files that are not fixed
    with_open_lines: int = 0  # files


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
        (files,) = connection.execute(_SUMMED_UP).fetchall()
        (open_lines,) = connection.execute(_OPEN).fetchall()
    return Look(size_bytes, step, len(steps), *files, *open_lines)
