"""Bodies on their way to the landing bucket: those that come while a put is under way go together into the next object.

Decides: what goes into one object, what it is called, and when a body counts as stored: when the store has said so.
Order:   an object holds bodies in the order in which they were received, and is named by the receipt of its last one.
         So a body that was sent after another was answered stands in a later line or in an object of a later name,
         also when another instance took it: its receipt is later than any in the object that was stored by then.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ingest.errors import IngestError
from ingest.intake.bodies import Body
from ingest.intake.keys import object_key
from ingest.ports import ObjectStore
from ingest.settings import Source

_AT_ONCE: Final = 4  # puts of one source
_SLOW_SECONDS: Final = 0.25  # a put that takes longer does not hold up the next: till then, bodies gather behind it
_OBJECT_BYTES: Final = 8 << 20  # an object that has so much gets no more bodies
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    body: Body
    received_at: int  # microseconds since 1970
    stored: "asyncio.Future[None]"


@dataclass(slots=True)
class _Lane:
    """What waits for one source."""

    source: Source
    waiting: deque[_Waiting] = field(default_factory=deque)
    under_way: list[float] = field(default_factory=list)  # when each put began, by the clock of the event loop

    def cut(self) -> list[_Waiting]:
        """What goes into the next object."""
        group = [self.waiting.popleft()]
        size = len(group[0].body.content)
        while self.waiting and not (group[0].body.alone or self.waiting[0].body.alone):
            size += len(self.waiting[0].body.content)
            if size > _OBJECT_BYTES:
                break
            group.append(self.waiting.popleft())
        return group


class Spool:
    """Stores bodies, in groups. Lives in one event loop; puts run in threads."""

    def __init__(
        self,
        store_of: Callable[[str], ObjectStore],  # by the name of a source
        clock: Callable[[], int] = time.time_ns,
        slow_seconds: float = _SLOW_SECONDS,
    ) -> None:
        self.instance = secrets.token_hex(4)
        self._store_of = store_of
        self._clock = clock  # nanoseconds since 1970
        self._slow_seconds = slow_seconds
        self._lanes: dict[str, _Lane] = {}
        self._last_receipt = 0
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def store(self, source: Source, body: Body) -> None:
        """Returns when the body is durably in the landing bucket. Raises IngestError: the store did not say so."""
        # Receipts of an instance never repeat nor go back, whatever the clock does.
        self._last_receipt = max(self._clock() // 1000, self._last_receipt + 1)
        waiting = _Waiting(body, self._last_receipt, asyncio.get_running_loop().create_future())
        lane = self._lanes.setdefault(source.name, _Lane(source))
        lane.waiting.append(waiting)
        self._start(lane)
        await waiting.stored

    def close(self) -> None:
        """Give up what is under way. Nobody waits for it any more: who did has got an answer."""
        for lane in self._lanes.values():
            lane.waiting.clear()
        for task in self._tasks:
            task.cancel()

    def _start(self, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while lane.waiting and len(lane.under_way) < _AT_ONCE:
            if any(now - begun < self._slow_seconds for begun in lane.under_way):
                return
            lane.under_way.append(now)
            loop.call_later(self._slow_seconds, self._start, lane)
            task = loop.create_task(self._put(lane, lane.cut(), now))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _put(self, lane: _Lane, group: list[_Waiting], begun: float) -> None:
        self._number = (self._number + 1) % 100_000_000
        key = object_key(lane.source, group[-1].received_at, self.instance, self._number)
        contents = [waiting.body.content for waiting in group]
        told: Exception | None = None
        try:
            await _beside(lambda: self._store_of(lane.source.name).receive(lane.source.bucket, key, contents))
        except IngestError as error:
            told = error
            _log.error("not_stored source=%s bodies=%d: %s", lane.source.name, len(group), error)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for an answer
            told = error
            _log.exception("not_stored source=%s bodies=%d", lane.source.name, len(group))
        else:
            size = sum(map(len, contents))
            _log.info("stored source=%s bodies=%d bytes=%d key=%s", lane.source.name, len(group), size, key)
        finally:
            lane.under_way.remove(begun)
            self._start(lane)
        for waiting in group:
            if waiting.stored.done():
                continue  # whoever sent it was given up
            if told is None:
                waiting.stored.set_result(None)
            else:
                waiting.stored.set_exception(IngestError("The store did not take it."))


def _beside(work: Callable[[], None]) -> "asyncio.Future[None]":
    """Do it in a thread for which the end of the process does not wait: a store may hang for long."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        error = None
        try:
            work()
        except BaseException as raised:  # noqa: BLE001 - it is for who waits
            error = raised
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="put", daemon=True).start()
    return done
