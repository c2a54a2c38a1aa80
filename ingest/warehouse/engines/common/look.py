"""What there is of a warehouse, for who looks after it."""

from dataclasses import dataclass
from datetime import datetime

# A rejected file is loaded once a redrive has brought what is right of it.
_FILES = """
    WITH files AS (
        SELECT file_no, state, loaded_at, state = 'rejected' AND file_id NOT IN (
            SELECT redrive_of FROM ledger WHERE redrive_of IS NOT NULL AND state = 'loaded'
        ) AS is_rejected
        FROM ledger
    )"""
SUMMED_UP = f"""{_FILES}
    SELECT count(*), max(loaded_at) FILTER (WHERE state = 'loaded'), count(*) FILTER (WHERE state = 'retrying'),
        count(*) FILTER (WHERE is_rejected), count(*) FILTER (WHERE state = 'held')
    FROM files"""
OPEN = f"""{_FILES}
    SELECT count(*), count(DISTINCT file_no)
    FROM failed_line_rows JOIN files USING (file_no)
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
    place: str = ""  # what it is on, for a person
