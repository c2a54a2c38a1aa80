"""How often the files of a source come, and from when on the next one is late.

In:     what an operator expects, or the hours in which files came.
Out:    a length of time, and whether it is a guess; None where there is too little to learn from.
Guess:  an alarm that is false is worse than one that is late. So a pause that came twice in these hours, such as nights
        and weekends, is no delay; one that came once may have been one.
Pure:   no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from statistics import median
from typing import Final

HOURS_FROM: Final = 8  # in which files came: of fewer nothing is learned
_USUAL_PAUSES: Final = 3  # as long as so many of them, the next file is not late
_LONG_PAUSES: Final = 1.25  # nor as long as so many of the second longest


@dataclass(frozen=True, slots=True)
class Rhythm:
    """`every`: a file comes so often. `late_after`: after so long without one, the next is late."""

    every: timedelta
    late_after: timedelta
    is_guess: bool = False


def rhythm(expected: timedelta | None, hours: Sequence[int]) -> Rhythm | None:
    """What is `expected`, else learned from `hours`: each hour since 1970 in which files came, the newest first."""
    if expected is not None:
        return Rhythm(expected, expected)
    if len(hours) < HOURS_FROM:
        return None
    pauses = sorted(later - earlier for later, earlier in pairwise(hours))
    usual = round(median(pauses))
    late_after = max(_USUAL_PAUSES * usual, _LONG_PAUSES * pauses[-2])
    return Rhythm(timedelta(hours=usual), timedelta(hours=late_after), is_guess=True)
