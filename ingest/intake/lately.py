"""What came of late, counted as this process has seen it.

What strangers do is logged once a minute, however often and in however many ways they do it. A client is told here what
its vendor will refuse there: calls that come too often.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

_SECONDS: Final = 60
_KINDS: Final = 1000  # that are remembered; those beyond them are one kind
_LONGEST: Final = 100  # of what a stranger has sent and a log shows


class Notices:
    """What was logged of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # seconds
        self._seen: dict[str, tuple[float, int]] = {}  # when it was logged, and how often it came since

    def tell(self, kind: str) -> int:
        """How often it has come since it was logged last, if it is to be logged now; else 0."""
        now = self._clock()
        if kind not in self._seen and len(self._seen) >= _KINDS:
            self._seen = {one: seen for one, seen in self._seen.items() if now - seen[0] < _SECONDS}
            if len(self._seen) >= _KINDS:
                kind = ""
        at, times = self._seen.get(kind, (now - _SECONDS, 0))
        if now - at < _SECONDS:
            self._seen[kind] = at, times + 1
            return 0
        self._seen[kind] = now, 0
        return times + 1


def shown(text: str) -> str:
    """What a stranger has sent, fit for a log: cut, and nothing in it but plain characters."""
    return ascii(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")


class Rates:
    """The calls of late, by name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # seconds
        self._calls: dict[str, deque[float]] = {}

    def wait(self, name: str, limits: Sequence[tuple[int, int]]) -> int:
        """After how many whole seconds the next call is allowed; 0: now, and then it counts."""
        if not limits:
            return 0
        now = self._clock()
        most = max(count for count, _ in limits)
        calls = self._calls.setdefault(name, deque(maxlen=most))
        free_at = max((calls[-count] + seconds for count, seconds in limits if len(calls) >= count), default=now)
        if free_at > now:
            return math.ceil(free_at - now)
        calls.append(now)
        return 0
