"""A look at a DuckDB warehouse that leaves everything as it is: it makes no file, no table, not even a lock.

While it looks, the engine's own lock keeps writers away, for some milliseconds; they wait.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ingest.adapters.duckdb import definitions

if TYPE_CHECKING:
    from ingest.adapters.duckdb import DuckDBWarehouse

_SUMMED_UP = """
    SELECT count(*), count(*) FILTER (state = 'retrying'), max(loaded_at) FILTER (state = 'loaded')
    FROM warehouse.ledger"""


@dataclass(frozen=True, slots=True)
class Look:
    """What there is of a warehouse."""

    size_bytes: int
    step: int  # of its tables, 0: there are none yet
    newest_step: int  # that this version knows
    files: int = 0  # in its ledger
    retrying: int = 0
    last_load: datetime | None = None


def look(warehouse: "DuckDBWarehouse") -> Look | None:
    """What there is of it; None: nothing yet.

    Raises:
        ConfigError: it is no warehouse, another program's, of a newer version, or its log is damaged.
        TransientError: another program holds it, or it cannot be read.
    """
    size_bytes = warehouse._size()
    if not size_bytes:
        return None
    steps, views = definitions()
    with warehouse._read(), warehouse._open(read_only=True) as connection:
        step = warehouse._found(connection, steps, views)[0]
        if not step:
            return Look(size_bytes, 0, len(steps))
        ((files, retrying, last_load),) = connection.execute(_SUMMED_UP).fetchall()
    return Look(size_bytes, step, len(steps), files, retrying, last_load)
