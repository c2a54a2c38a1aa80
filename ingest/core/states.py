"""The states of a file that was dealt with, and what may be done to it."""

from datetime import datetime, timedelta
from typing import Final, Literal

STATES: Final = ("loaded", "rejected", "held", "duplicate", "undone", "replaced", "ignored", "retrying")

Action = Literal["undo", "force", "release", "ignore", "retry"]
ACTIONS: Final[tuple[Action, ...]] = ("undo", "force", "release", "ignore", "retry")

FIRST_DELAY: Final = timedelta(minutes=1)  # after the first attempt at a file; twice as long after each further one
LONGEST_DELAY: Final = timedelta(hours=6)


def is_due(next_try_at: datetime, now: datetime) -> bool:
    """Whether a retrying file is to be tried. One put off for longer than any is was put off by a wrong clock."""
    return not now < next_try_at <= now + LONGEST_DELAY
