"""The life of a file in the ledger: its states, what leads from which to which, and what is refused and why.

The diagram of docs/decisions/0002-the-life-of-a-file.md as code; whoever asks what may be done to a file asks here.
Pure:   no I/O and no clock.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

from ingest.text import alternatives

# --- states ----------------------------------------------------------------------------------------------------------

State = Literal[
    "loaded", "rejected", "held", "duplicate", "undone", "replaced", "ignored",  # final for a poll
    "retrying", "gone",  # `gone` is never in the ledger: the object vanished between listing and reading
]  # fmt: skip
STATES: Final[tuple[State, ...]] = get_args(State)[:-1]
FINAL_STATES: Final = STATES[:-1]
# The states in which the failed lines of a file are kept, can be looked at and sent again.
KEEPS_LINES: Final[tuple[State, ...]] = ("loaded", "rejected")
# The states in which a file waits for its object: where that is gone, the file is closed as `replaced`.
WAITS: Final[tuple[State, ...]] = ("retrying", "held")
# The states that tell what was under a key before: with the bytes of these a changed object is compared.
COMPARED: Final[tuple[State, ...]] = ("loaded", "rejected", "held", "duplicate", "replaced")
# The last of a key in one of these: the same bytes under that key are this file, whatever the store calls them now.
SAME_AGAIN: Final[tuple[State, ...]] = ("undone", "ignored", "rejected", "held")

# --- loads -----------------------------------------------------------------------------------------------------------

# Which files a load takes on: those that the ledger has not dealt with; also those that were undone or ignored, since a
# person names them; those that are held; all, in the place of their former rows.
Intent = Literal["new", "again", "release", "force"]
REOPENS: Final[Mapping[Intent, tuple[State, ...]]] = {
    "new": (), "again": ("undone", "ignored"), "release": ("held",), "force": FINAL_STATES,
}  # fmt: skip


def is_settled(state: State, intent: Intent = "new", *, may_return: bool = False) -> bool:
    """Whether a load with this intent leaves a file as the ledger has it. `may_return`: see the function."""
    if state == "replaced" and may_return:
        return False
    return state in FINAL_STATES and state not in REOPENS[intent]


def may_return(version_id: str | None, replaced_by: str | None) -> bool:
    """Whether a `replaced` file is new if its object is there: its key came back to it, or it only seemed gone."""
    return version_id is None or replaced_by is None


# --- attempts --------------------------------------------------------------------------------------------------------

FIRST_DELAY: Final = timedelta(minutes=1)  # after the first attempt at a file; twice as long after each further one
LONGEST_DELAY: Final = timedelta(hours=6)


def next_try(attempts: int, now: datetime) -> datetime:
    """When a file is tried again: it costs less and less, and is never given up."""
    return now + min(FIRST_DELAY * (1 << min(attempts - 1, 30)), LONGEST_DELAY)


def is_due(next_try_at: datetime, now: datetime) -> bool:
    """Whether a retrying file is to be tried. One put off for longer than any is was put off by a wrong clock."""
    return not now < next_try_at <= now + LONGEST_DELAY


# --- actions ---------------------------------------------------------------------------------------------------------

Action = Literal["undo", "force", "release", "ignore", "retry"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
# The states that an action takes on.
TAKES: Final[Mapping[Action, tuple[State, ...]]] = {
    "undo": KEEPS_LINES,
    "force": STATES,
    "release": ("held",),
    "ignore": ("retrying", "held", "rejected", "duplicate", "undone"),
    "retry": ("retrying",),
}
# What it makes of them; the others load, and what comes of that is judged.
ENDS: Final[Mapping[Action, State]] = {"undo": "undone", "ignore": "ignored"}


def refusal(action: Action, state: State, *, is_redrive: bool = False, is_redriven: bool = False) -> str | None:
    """Why an action is refused; None: it is not. `is_redriven`: a redrive of it is loaded."""
    if is_redrive and action == "force":
        return "It holds fixed lines: send them again from the file that they fix."
    if is_redriven and action == "ignore" and state == "rejected":
        return "Lines of it were fixed, and what a redrive brought is loaded. Undo it first."
    if state in TAKES[action]:
        return None
    first = " Undo it first." if action == "ignore" and state == "loaded" else ""
    return f"It is {state}; {action} is for files that are {alternatives(TAKES[action])}.{first}"


# --- history ---------------------------------------------------------------------------------------------------------

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
LOADED_AS: Final[Mapping[Intent, Done]] = {"new": "load", "again": "load", "release": "release", "force": "force"}
