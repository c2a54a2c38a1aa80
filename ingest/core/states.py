"""The states of a file that was dealt with, what may be done to it, and what `history` tells of it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

STATES: Final = ("loaded", "rejected", "held", "duplicate", "undone", "replaced", "ignored", "retrying")
# The states in which the failed lines of a file are kept, can be looked at and sent again.
KEEPS_LINES: Final = ("loaded", "rejected")

Action = Literal["undo", "force", "release", "ignore", "retry"]
ACTIONS: Final[tuple[Action, ...]] = ("undo", "force", "release", "ignore", "retry")

# What `history` calls what was done to a file, and what it means. The first load of a file is not in it: that is what
# the ledger tells (`loaded_at`, `load_id`, `run_id`).
Done = Literal[
    "load", "force", "release", "undo", "replace", "redrive", "ignore", "retry", "gone", "archived", "deleted",
    "repair", "notified", "not_notified",
]  # fmt: skip
HISTORY: Final[Mapping[Done, str]] = {
    "load": "loaded since somebody named it, by `ingest load` or `ingest_one_off`; or again since its object came back",
    "force": "loaded again in the place of its former rows, past all limits",
    "release": "loaded after it was held",
    "undo": "its rows were taken away; also of a redrive, with its file",
    "replace": "another version took its place; also of a redrive, with its file",
    "redrive": "lines of it were fixed: on the file that they failed in",
    "ignore": "set aside: it is not loaded",
    "retry": "tried again now, and not when it was due",
    "gone": "it waited, and a poll found that its object is gone",
    "archived": "its object was copied into the archive",
    "deleted": "its object was taken out of the landing, or is no longer there",
    "repair": "`ingest reconcile --repair` put its rows right",
    "notified": "a notice of it was sent: `reason` says to whom",
    "not_notified": "that notice could not be sent, so it will be sent again",
}

FIRST_DELAY: Final = timedelta(minutes=1)  # after the first attempt at a file; twice as long after each further one
LONGEST_DELAY: Final = timedelta(hours=6)


def is_due(next_try_at: datetime, now: datetime) -> bool:
    """Whether a retrying file is to be tried. One put off for longer than any is was put off by a wrong clock."""
    return not now < next_try_at <= now + LONGEST_DELAY
