"""How often a vendor would let its clients call: to hear here what will be refused there."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence


class Rates:
    """The calls of late, by name, as this process has seen them."""

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
