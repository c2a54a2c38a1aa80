"""Small objects of a store are read before it is their turn, some at a time: a request is mostly waiting.

In:     files in their order, and how one is read.
Out:    what would be read without, in the same order: the same bytes, and each file's errors where they were.
Decides: files on this machine are not worth it, nor is a large one, whose requests are few.
Memory: at most AHEAD_BYTES of what was listed; a file that is longer than it was listed waits in its store.
Stop:   who goes no further closes it: no other read begins. A thread ends with the request that it is in, and is waited
        for by nobody.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import chain
from queue import SimpleQueue
from threading import Event, Thread
from time import monotonic

from ingest.core.source import LOCAL_BUCKET, SourceFile

AHEAD_BYTES = 16 << 20
FILES_AHEAD = 64  # a piece of each may come beyond what was listed
SMALL_BYTES = 1 << 20
THREADS = 24

Read = Callable[[SourceFile], Iterator[bytes]]  # `ObjectStore.read`


@dataclass(frozen=True, slots=True)
class Reading:
    """A file as it comes, after so many seconds were spent on it."""

    pieces: Iterator[bytes]
    seconds: float = 0.0


def read_ahead(files: Sequence[SourceFile], read: Read, most_seconds: float) -> Generator[Reading, None, None]:
    """Each file, as it is asked for; that gives back the bytes of the one before. Close it in the end.

    `most_seconds`: of a file that takes longer, the rest is left to whoever asks for it.
    """
    small = deque(
        place for place, file in enumerate(files) if file.bucket != LOCAL_BUCKET and file.size_bytes <= SMALL_BYTES
    )
    threads = min(THREADS, len(small)) if len(small) > 1 else 0
    waiting: SimpleQueue[tuple[SourceFile, Future[Reading]] | None] = SimpleQueue()
    stopped = Event()
    for _ in range(threads):
        Thread(target=_work, args=(waiting, read, most_seconds, stopped), name="read ahead", daemon=True).start()
    begun: dict[int, Future[Reading]] = {}
    held_bytes = 0
    try:
        for place, file in enumerate(files):
            while threads and small and len(begun) < FILES_AHEAD:
                if held_bytes + files[small[0]].size_bytes > AHEAD_BYTES:
                    break
                held_bytes += files[small[0]].size_bytes
                begun[small[0]] = Future()
                waiting.put((files[small[0]], begun[small.popleft()]))
            if place in begun:
                yield begun.pop(place).result()
                held_bytes -= file.size_bytes
            else:
                yield Reading(read(file))
    finally:
        stopped.set()
        for _ in range(threads):
            waiting.put(None)


def _work(
    waiting: "SimpleQueue[tuple[SourceFile, Future[Reading]] | None]", read: Read, most_seconds: float, stopped: Event
) -> None:
    while turn := waiting.get():
        file, result = turn
        if not stopped.is_set():
            result.set_result(_begin(file, read, most_seconds, stopped))


def _begin(file: SourceFile, read: Read, most_seconds: float, stopped: Event) -> Reading:
    begin = monotonic()
    taken: list[bytes] = []
    taken_bytes = 0
    try:
        rest = read(file)
        for piece in rest:
            taken.append(piece)
            taken_bytes += len(piece)
            if taken_bytes > file.size_bytes or monotonic() - begin > most_seconds or stopped.is_set():
                break
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is told where the file is asked for
        rest = _raising(error)
    return Reading(chain(taken, rest), monotonic() - begin)


def _raising(error: BaseException) -> Iterator[bytes]:
    yield from ()
    raise error
