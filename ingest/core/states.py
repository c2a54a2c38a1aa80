"""The states of a file that was dealt with, and what may be done to it."""

from typing import Final, Literal

STATES: Final = ("loaded", "rejected", "held", "duplicate", "undone", "replaced", "ignored", "retrying")

Action = Literal["undo", "force", "release", "ignore", "retry"]
ACTIONS: Final[tuple[Action, ...]] = ("undo", "force", "release", "ignore", "retry")
