"""What may be done to a file that was dealt with."""

from typing import Final, Literal

Action = Literal["undo", "force", "release", "ignore", "retry"]
ACTIONS: Final[tuple[Action, ...]] = ("undo", "force", "release", "ignore", "retry")
