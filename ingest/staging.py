"""From source files to judged rows on disk: what a load will write, made without a lock or a warehouse.

In:     source files and how to read them.
Out:    a folder of Parquet files (COMMANDS, FAILED), which every engine can read, and for each file
        what was counted.
Blocks of lines are judged independently (judging.py), by several processes where there is enough to do; memory does not
depend on the size of a file, since only a few blocks are in flight.
Faults: what raises while it is judged, and is neither the world's doing nor foreseen, is a fault of the program. The
        file in which it happens is put off and says so; its neighbours go on.
Limits: a file that asks for too much (`Limits`, or the disk) is put off, too. Where it cannot be known which one it is,
        since the disk is full or a process was killed, `TooMuchAtOnce` says how to try again with fewer files.
"""

import logging
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_DATA, getrlimit, setrlimit
from tempfile import gettempdir
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from ingest.core.commands import Item, Rules
from ingest.core.formats import open_format
from ingest.core.lifecycle import State
from ingest.core.matching import Match
from ingest.core.source import SourceFile
from ingest.disk import FOLDER_PREFIX, FULL, free_space, has_room, private_folder
from ingest.documents import documents
from ingest.errors import ConfigError, ObjectGone, TransientError
from ingest.judging import FAILED, NO_MEMORY, NOT_OURS, Judged, Part, Tally, failed_row, fault, judge_batch, write
from ingest.ports import COUNTED, Counts, FailedLine, StagedFile, StagedRows, Staging
from ingest.reading import HEAD_BYTES, Block, Digest, blocks, decompressed, peek
from ingest.reading_ahead import Read, Reading, read_ahead

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event

_log = logging.getLogger(__name__)
_UNGUARDED = 'A script that loads has to do so below `if __name__ == "__main__":`, since judging processes import it.'
_BATCH_BYTES = 1 << 20
_POOL_FROM_BYTES = 16 << 20  # below this, starting processes costs more than it saves
_LARGE_PART_BYTES = 4 << 20  # such a document is judged where it can take no more memory than it may
_STUCK_SECONDS = 3600.0  # no batch takes so long: the largest document of nothing but failures took eight minutes

Progress = Callable[[int], None]  # called with the bytes of the stored files that were read since the last call


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may take before it is put off."""

    unpacked_bytes: int = 256 << 30
    process_bytes: int = 4 << 30  # memory of a judging process
    seconds: float = 3 * 3600.0  # to read and judge it


class TooMuchAtOnce(TransientError):
    """Judging these files together failed, and it is not known whose doing it was.

    `groups` are fewer files each, in their order, which may be judged one group after the other.
    """

    def __init__(self, reason: str, groups: Sequence[Sequence[SourceFile]]) -> None:
        super().__init__(reason)
        self.groups = groups


class _StuckError(Exception):
    """A batch that is never done."""


# What may be one file's doing, or that of all together: the disk is full, memory too, or a process was killed for it.
_OVERWHELMED = (OSError, MemoryError, BrokenExecutor, _StuckError)


@contextmanager
def staging_folder(parent: Path | None) -> Iterator[Path]:
    """A folder of our own that is gone afterwards; what killed processes of this user left of theirs is removed.

    Raises:
        ConfigError: `parent` is not there.
        TransientError: nothing can be written there.
    """
    if parent and not parent.is_dir():
        raise ConfigError(f"staging: there is no folder {parent}. Make it first.")
    parent = parent or Path(gettempdir())
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(private_folder(parent, FOLDER_PREFIX))
        except OSError as error:
            raise TransientError(_unwritable(parent, error)) from error
        try:
            yield folder
        except OSError as error:
            if error.errno not in FULL or has_room(parent):
                raise
            raise TransientError(_unwritable(parent, error)) from error


def _unwritable(folder: Path, error: OSError) -> str:
    return (
        f"Nothing can be written to the staging folder {folder} ({error.strerror or error}, {free_space(folder)} free)."
        " Free some space there, or set staging in ingest.toml to another folder; then run again."
    )


def stage(
    files: Sequence[SourceFile],
    read: Read,
    rules_of: Callable[[SourceFile], Rules],
    folder: Path,
    *,
    processes: int = 0,
    limits: Limits = Limits(),
    progress: Progress | None = None,
    blocks_of: Callable[[SourceFile], Iterable[Block]] | None = None,
) -> Staging:
    """Judge files into `folder`. A file that cannot be read says so in its outcome and holds up nobody.

    With `blocks_of` nothing is read: the lines are given.

    Raises:
        ConfigError: a setting is wrong, such as the credentials.
        TooMuchAtOnce: something ran out. Nothing was kept; with fewer files it may do.
        TransientError: nothing can be written to the folder's disk, whatever it is, or no process can begin.
    """
    staged = [_Staged(file, number) for number, file in enumerate(files)]
    processes = processes or len(os.sched_getaffinity(0))

    def judge(one: _Staged) -> None:
        if blocks_of is None:
            _stage_file(one, next(readings), rules_of(one.file), work, limits, progress or (lambda _: None))
        else:
            _stage_blocks(one, blocks_of(one.file), rules_of(one.file), work)

    try:
        with ExitStack() as stack:
            readings = stack.enter_context(
                closing(read_ahead(files if blocks_of is None else (), read, limits.seconds))
            )
            stuck_seconds = min(limits.seconds, _STUCK_SECONDS)
            pool = _pool(processes, limits.process_bytes)
            work = _Work(folder, lambda: stack.enter_context(pool), 2 * processes, stuck_seconds)
            if processes > 1 and sum(file.size_bytes for file in files) >= _POOL_FROM_BYTES:
                work.begin_pool()
            _judge_each(staged, judge, work)
    except _OVERWHELMED as error:
        for left in folder.glob("*.parquet"):
            left.unlink(missing_ok=True)
        reason = _reason(error, folder, limits)
        if isinstance(error, OSError) and not has_room(folder.parent):
            raise TransientError(_unwritable(folder.parent, error)) from error
        if len(staged) > 1:
            _log.info("judged again with fewer files at once, since one of %d may be to blame: %s", len(files), reason)
            raise TooMuchAtOnce(reason, _apart(files, work.unfinished())) from error
        staged[0].outcome, staged[0].error = "retrying", reason
        return Staging(folder, [staged[0].done()], [], [])
    for tally in work.tallies:
        _add(staged[tally.staged_no], tally)
    for one in staged:
        if one.outcome in ("gone", "retrying"):
            work.drop(one.staged_no)
    written = sorted(work.written, key=lambda rows: rows.path)
    commands = [rows.path for rows in written if rows.path.name.startswith("commands-")]
    failed = [rows.path for rows in written if rows.path.name.startswith("failed-")]
    return Staging(folder, [one.done() for one in staged], commands, failed, written).checked()


@dataclass(slots=True)
class _Staged:
    """A file while it is judged: see `StagedFile`."""

    file: SourceFile
    staged_no: int
    counts: Counts = field(default_factory=Counts)
    sha256: str = ""
    read_bytes: int | None = None
    people_space: str = "kissmetrics"
    match: Match = "kissmetrics"
    all_timed: bool = True
    error: str = ""
    outcome: State = "loaded"

    def done(self) -> StagedFile:
        return StagedFile(**{one.name: getattr(self, one.name) for one in fields(self)})


def _judge_each(staged: Sequence["_Staged"], judge: Callable[["_Staged"], None], work: "_Work") -> None:
    """Judge all files. Raises what is no single file's doing for sure."""
    for one in staged:
        work.reading = one.staged_no
        try:
            judge(one)
        except ObjectGone as gone:
            one.outcome, one.error = "gone", str(gone)
        except TransientError as error:
            one.outcome, one.error = "retrying", str(error)
        except (*NOT_OURS, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # one file's oddity may not hold up the others
            _put_off(one, *fault(error))
        if one.outcome in ("gone", "retrying"):
            work.drop(one.staged_no)
    work.reading = None
    work.flush()
    work.finish()


def _reason(error: BaseException, folder: Path, limits: Limits) -> str:
    """Why a file that was alone is put off, and what to do."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, _StuckError):
        return (
            f"Judging a part of it came to no end in {min(limits.seconds, _STUCK_SECONDS):g} s. See what is odd about"
            " it, or raise max_file_time."
        )
    if isinstance(error, OSError):
        return (
            f"Its rows could not be written to the staging folder {folder.parent} ({error.strerror or error},"
            f" {free_space(folder.parent)} free without them). Set staging in ingest.toml to a folder on a larger disk,"
            " or send the file in parts."
        )
    return (
        "A process that judged it was killed, perhaps since the machine had no more memory. Set processes or"
        " max_process_bytes in ingest.toml to less, or send the file in parts."
    )


def _apart(files: Sequence[SourceFile], unfinished: Mapping[int, int]) -> list[Sequence[SourceFile]]:
    """Files in their order, in groups that may do better than all together.

    `unfinished`: the places of files that were at work when it went wrong, each with the bytes that were given of it.
    Who did most of that stands alone; else those are halved.
    """
    places = sorted(unfinished) or range(len(files))
    heaviest = max(places, key=lambda place: unfinished.get(place, 0))
    if 2 * unfinished.get(heaviest, 0) > sum(unfinished.values()):
        cuts = {heaviest, heaviest + 1}
    else:
        cuts = {places[0], places[len(places) // 2], places[-1] + 1}
    edges = sorted({0, *cuts, len(files)})
    return [files[begin:end] for begin, end in pairwise(edges)]


class _Work:
    """Parts gathered into batches worth a process's while, and the batches in flight."""

    def __init__(self, folder: Path, open_pool: Callable[[], Executor], in_flight: int, stuck_seconds: float) -> None:
        self.folder = folder
        self.reading: int | None = None  # the file whose blocks are coming
        self.tallies: list[Tally] = []
        self.written: list[StagedRows] = []
        self._open_pool = open_pool
        self._pool: Executor | None = None
        self._in_flight = in_flight
        self._stuck_seconds = stuck_seconds
        self._parts: list[Part] = []
        self._bytes = 0
        self._batches = 0
        self._waiting: deque[Future[Judged]] = deque()
        self._given: Counter[int] = Counter()  # bytes by file
        self._undone: Counter[int] = Counter()  # parts by file

    def begin_pool(self) -> None:
        self._pool = self._pool or self._open_pool()

    def add(self, part: Part) -> None:
        self._parts.append(part)
        size = len(part.block.data) + 256
        self._bytes += size
        self._given[part.staged_no] += size
        self._undone[part.staged_no] += 1
        if self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._parts:
            return
        if self._bytes >= _LARGE_PART_BYTES or self._given.total() >= _POOL_FROM_BYTES:
            self.begin_pool()  # whatever the files' sizes told: they may be packed
        self._batches += 1
        arguments = (self._parts, str(self.folder), f"{self._batches:08d}")
        if self._pool is None:
            self._take(judge_batch(*arguments))
        else:
            self._waiting.append(self._pool.submit(judge_batch, *arguments))
        self._parts, self._bytes = [], 0
        while len(self._waiting) > self._in_flight:  # memory is what waits here
            self._wait()

    def finish(self) -> None:
        while self._waiting:
            self._wait()

    def _wait(self) -> None:
        oldest = self._waiting[0]
        if not wait([oldest], self._stuck_seconds).done:
            raise _StuckError
        self._take(oldest.result())
        self._waiting.popleft()

    def _take(self, judged: Judged) -> None:
        self.tallies += judged.tallies
        self.written += judged.written
        self._undone.subtract(tally.staged_no for tally in judged.tallies)

    def drop(self, staged_no: int) -> None:
        """Remove the rows of a file that is not to be loaded, as far as they are by themselves: they take disk."""
        of = frozenset({staged_no})
        for rows in self.written:
            if rows.staged_nos == of:
                rows.path.unlink(missing_ok=True)
        self.written = [rows for rows in self.written if rows.staged_nos != of]

    def unfinished(self) -> dict[int, int]:
        """The files that are at work, each with the bytes that were given of it."""
        return {
            staged_no: self._given[staged_no]
            for staged_no in {*self._undone, *((self.reading,) if self.reading is not None else ())}
            if self._undone[staged_no] > 0 or staged_no == self.reading
        }


def _add(staged: _Staged, tally: Tally) -> None:
    ours, theirs = staged.counts, tally.counts
    for name in COUNTED:
        setattr(ours, name, getattr(ours, name) + getattr(theirs, name))
    ours.warnings = dict(Counter(ours.warnings) + Counter(theirs.warnings))
    staged.all_timed &= tally.all_timed
    if tally.error:
        _put_off(staged, tally.error, tally.fault)


def _put_off(staged: "_Staged", sentence: str, where: str) -> None:
    if staged.outcome != "gone":
        staged.outcome, staged.error = "retrying", sentence
    if where:
        _log.error("fault of the program file=%s\n%s", staged.file.uri, where)


def _stage_file(
    staged: _Staged, reading: Reading, rules: Rules, work: _Work, limits: Limits, progress: Progress
) -> None:
    digest = Digest()
    deadline = monotonic() + limits.seconds - reading.seconds

    def stored() -> Iterator[bytes]:
        for piece in digest.over(reading.pieces):
            progress(len(piece))
            yield piece

    def limited(pieces: Iterable[bytes]) -> Iterator[bytes]:
        unpacked = 0
        for piece in pieces:
            unpacked += len(piece)
            if unpacked > limits.unpacked_bytes:
                raise TransientError(
                    f"It unpacks to more than {limits.unpacked_bytes:,} bytes. Send it in parts, or raise"
                    " max_unpacked_bytes."
                )
            if monotonic() > deadline:
                raise TransientError(
                    f"It could not be read and judged in {limits.seconds:,.0f} s, and {digest.size_bytes:,} of its"
                    f" {staged.file.size_bytes:,} bytes were read. Send it in parts, or raise max_file_time."
                )
            yield piece

    staged.people_space, staged.match = rules.people_space, rules.match
    head, content = peek(limited(decompressed(stored())), HEAD_BYTES)
    # Over HTTP each body was looked at when it came: what one of them begins with shall not refuse the others.
    refusal = None if staged.file.is_from_intake else open_format(staged.file.format).refusal(head)
    if refusal:
        _refuse(staged, refusal, content, rules, work)
    else:
        units = (
            documents(content, rules.max_document_bytes)
            if open_format(staged.file.format).documents
            else blocks(content, rules.max_line_bytes, native=rules.native)
        )
        _stage_blocks(staged, units, rules, work)
    staged.sha256, staged.read_bytes = digest.hexdigest(), digest.size_bytes


def _stage_blocks(staged: _Staged, given: Iterable[Block], rules: Rules, work: _Work) -> None:
    staged.people_space, staged.match = rules.people_space, rules.match
    staged.sha256 = staged.sha256 or staged.file.etag
    for block in given:
        work.add(Part(staged.staged_no, staged.file.format, rules, block))


def _refuse(staged: _Staged, refusal: Item, content: Iterator[bytes], rules: Rules, work: _Work) -> None:
    """Enter the whole file as one failed line: its text if it is short, else its beginning and its hash."""
    text, digest = b"", Digest()
    for piece in digest.over(content):
        text += piece[: rules.max_line_bytes + 1 - len(text)]
    whole = len(text) == digest.size_bytes
    failed = FailedLine(
        line=1, item="", byte_offset=0, byte_length=digest.size_bytes, raw=text if whole else text[:HEAD_BYTES],
        raw_sha256=digest.hexdigest(), mendable=False, failures=refusal.failures,
    )  # fmt: skip
    path = work.folder / f"failed-document-{staged.staged_no:08d}.parquet"
    row = [[cell] for cell in failed_row(staged.staged_no, failed)]
    work.written.append(write(path, FAILED, row, frozenset({staged.staged_no})))
    staged.counts = Counts(lines=1, items=1, failed=1)
    staged.outcome, staged.error = "rejected", refusal.failures[0].message


@contextmanager
def _pool(processes: int, memory_bytes: int) -> Iterator[Executor]:
    """Judging processes, which are gone afterwards: at once where something went wrong.

    Raises:
        TransientError: none could begin.
        BrokenExecutor: one was killed.
    """
    # Here, since they take longer to import than a small file to judge.
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import current_process, get_context

    if getattr(current_process(), "_inheriting", False):
        # A fresh interpreter first runs the main script as a module: we are in it, and would start more of them.
        raise ConfigError(_UNGUARDED)
    # Fresh interpreters: a forked child would inherit locks and threads of whatever started us.
    context = get_context("spawn")
    begun = context.Event()
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(begun, memory_bytes)) as pool:
        try:
            yield pool
        except BaseException as error:
            for process in dict(cast("Any", pool)._processes or {}).values():
                process.kill()  # it may be stuck, and nobody needs its work any more
            # In early Pythons 3.11 the pool writes to its dead processes for ever: python/cpython#94777. The end that
            # they read from is not closed here, but given to nobody: a thread of the pool closes it, and where both do
            # so at the same time that thread fails, and is waited for without end.
            with suppress(OSError), Path(os.devnull).open() as nobody:
                os.dup2(nobody.fileno(), cast("Any", pool)._call_queue._reader.fileno(), inheritable=False)
            if isinstance(error, BrokenExecutor) and not begun.is_set():
                raise TransientError(
                    f"No judging process could begin. {_UNGUARDED} Nothing was loaded; try again."
                ) from error
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(begun: "Event", memory_bytes: int) -> None:
    """What a judging process does first."""
    # A parent that was killed cannot stop its workers, and they would wait for work for ever.
    threading.Thread(target=_die_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    # What asks for more has a MemoryError, before the machine is short of memory and the kernel kills somebody.
    _, most = getrlimit(RLIMIT_DATA)
    setrlimit(RLIMIT_DATA, (memory_bytes if most == RLIM_INFINITY else min(memory_bytes, most), most))
    begun.set()


def _die_with_parent() -> None:
    from multiprocessing import parent_process  # here, as in `_pool`

    if parent := parent_process():
        parent.join()
        os._exit(1)
