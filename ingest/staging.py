"""From source files to judged rows on disk: what a load will write, made without a lock or a warehouse.

In:     source files and how to read them.
Out:    a folder of Parquet files (COMMANDS, FAILED), which every engine can read, and for each file
        what was counted.
Blocks of lines are judged independently (judging.py), by several processes where there is enough to do; memory does not
depend on the size of a file, since only a few blocks are in flight.
Faults: what raises while it is judged, and is neither the world's doing nor foreseen, is a fault of the program. The
        file in which it happens is put off and says so; its neighbours go on.
"""

import logging
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from multiprocessing import current_process, get_context, parent_process
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, cast

from ingest.core.commands import Item, Rules
from ingest.core.formats import open_format
from ingest.core.source import SourceFile
from ingest.documents import documents
from ingest.errors import ConfigError, ObjectGone, TransientError
from ingest.judging import FAILED, NOT_OURS, Part, Tally, failed_row, fault, judge_batch, write
from ingest.ports import COUNTED, Counts, FailedLine, StagedFile, Staging
from ingest.reading import HEAD_BYTES, Block, Digest, blocks, decompressed, peek

_log = logging.getLogger(__name__)
_UNGUARDED = 'A script that loads has to do so below `if __name__ == "__main__":`, since judging processes import it.'
_BATCH_BYTES = 1 << 20
_POOL_FROM_BYTES = 16 << 20  # below this, starting processes costs more than it saves

_FOLDER_PREFIX = "landfall-"
_OWNED = "owned"  # locked for as long as the process that made the folder lives

Read = Callable[[SourceFile], Iterator[bytes]]  # `ObjectStore.read`
Progress = Callable[[int], None]  # called with the bytes of the stored files that were read since the last call


@contextmanager
def staging_folder(parent: Path | None) -> Iterator[Path]:
    """A folder that is gone afterwards; and what killed processes left of theirs is removed."""
    if parent and not parent.is_dir():
        raise ConfigError(f"staging: there is no folder {parent}. Make it first.")
    parent = parent or Path(gettempdir())
    for left in parent.glob(f"{_FOLDER_PREFIX}*/{_OWNED}"):
        with suppress(OSError), left.open("rb") as file:
            flock(file, LOCK_EX | LOCK_NB)  # its owner, if it lived, would have it
            rmtree(left.parent, ignore_errors=True)
    with TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=parent) as name, Path(name, "new").open("wb") as owned:
        flock(owned, LOCK_EX)
        Path(name, "new").rename(Path(name, _OWNED))  # so that only a locked one is ever seen
        yield Path(name)


def stage(
    files: Sequence[SourceFile],
    read: Read,
    rules_of: Callable[[SourceFile], Rules],
    folder: Path,
    *,
    processes: int = 0,
    progress: Progress | None = None,
    blocks_of: Callable[[SourceFile], Iterable[Block]] | None = None,
) -> Staging:
    """Judge files into `folder`. A file that cannot be read says so in its outcome and holds up nobody.

    With `blocks_of` nothing is read: the lines are given.

    Raises:
        ConfigError: a setting is wrong, such as the credentials. Nothing else is.
    """
    work = _Work(folder)
    staged = [StagedFile(file=file, staged_no=number, counts=Counts()) for number, file in enumerate(files)]
    processes = processes or len(os.sched_getaffinity(0))
    parallel = processes > 1 and sum(file.size_bytes for file in files) >= _POOL_FROM_BYTES
    with _pool(processes if parallel else 0) as pool:
        work.pool, work.in_flight = pool, 2 * processes
        for one in staged:
            try:
                if blocks_of is None:
                    _stage_file(one, read, rules_of(one.file), work, progress or (lambda _: None))
                else:
                    _stage_blocks(one, blocks_of(one.file), rules_of(one.file), work)
            except ObjectGone as gone:
                one.outcome, one.error = "gone", str(gone)
            except TransientError as error:
                one.outcome, one.error = "retrying", str(error)
            except NOT_OURS:
                raise
            except Exception as error:  # noqa: BLE001  # one file's oddity may not hold up the others
                _put_off(one, *fault(error))
        work.flush()
        for tally in work.drain():
            _add(staged[tally.staged_no], tally)
    return Staging(folder, staged, sorted(folder.glob("commands-*")), sorted(folder.glob("failed-*")))


class _Work:
    """Parts gathered into batches worth a process's while, and the batches in flight."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pool: Executor | None = None
        self.in_flight = 1
        self._parts: list[Part] = []
        self._bytes = 0
        self._batches = 0
        self._waiting: deque[Future[list[Tally]]] = deque()
        self._done: list[Tally] = []

    def add(self, part: Part) -> None:
        self._parts.append(part)
        self._bytes += len(part.block.data) + 256
        if self._bytes >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._parts:
            return
        self._batches += 1
        arguments = (self._parts, str(self.folder), f"{self._batches:08d}")
        if self.pool is None:
            self._done += judge_batch(*arguments)
        else:
            self._waiting.append(self.pool.submit(judge_batch, *arguments))
            while len(self._waiting) > self.in_flight:  # memory is what waits here
                self._done += self._waiting.popleft().result()
        self._parts, self._bytes = [], 0

    def drain(self) -> Iterator[Tally]:
        while self._waiting:
            self._done += self._waiting.popleft().result()
        yield from self._done


def _add(staged: StagedFile, tally: Tally) -> None:
    ours, theirs = staged.counts, tally.counts
    for name in COUNTED:
        setattr(ours, name, getattr(ours, name) + getattr(theirs, name))
    ours.warnings = dict(Counter(ours.warnings) + Counter(theirs.warnings))
    staged.all_timed &= tally.all_timed
    if tally.fault:
        _put_off(staged, *tally.fault)


def _put_off(staged: StagedFile, sentence: str, where: str) -> None:
    if staged.outcome != "gone":
        staged.outcome, staged.error = "retrying", sentence
    _log.error("fault of the program file=%s\n%s", staged.file.uri, where)


def _stage_file(staged: StagedFile, read: Read, rules: Rules, work: _Work, progress: Progress) -> None:
    digest = Digest()

    def stored() -> Iterator[bytes]:
        for piece in digest.over(read(staged.file)):
            progress(len(piece))
            yield piece

    staged.people_space, staged.match = rules.people_space, rules.match
    head, content = peek(decompressed(stored()), HEAD_BYTES)
    # Over HTTP each body was looked at when it came: what one of them begins with shall not refuse the others.
    refusal = None if staged.file.is_from_intake else open_format(staged.file.format).refusal(head)
    if refusal:
        _refuse(staged, refusal, content, rules, work.folder)
    else:
        units = (
            documents(content, rules.max_document_bytes)
            if open_format(staged.file.format).documents
            else blocks(content, rules.max_line_bytes)
        )
        _stage_blocks(staged, units, rules, work)
    staged.sha256, staged.read_bytes = digest.hexdigest(), digest.size_bytes


def _stage_blocks(staged: StagedFile, given: Iterable[Block], rules: Rules, work: _Work) -> None:
    staged.people_space, staged.match = rules.people_space, rules.match
    staged.sha256 = staged.sha256 or staged.file.etag
    for block in given:
        work.add(Part(staged.staged_no, staged.file.format, rules, block))


def _refuse(staged: StagedFile, refusal: Item, content: Iterator[bytes], rules: Rules, folder: Path) -> None:
    """Enter the whole file as one failed line: its text if it is short, else its beginning and its hash."""
    text, digest = b"", Digest()
    for piece in digest.over(content):
        text += piece[: rules.max_line_bytes + 1 - len(text)]
    whole = len(text) == digest.size_bytes
    failed = FailedLine(
        line=1, item="", byte_offset=0, byte_length=digest.size_bytes, raw=text if whole else text[:HEAD_BYTES],
        raw_sha256=digest.hexdigest(), mendable=False, failures=refusal.failures,
    )  # fmt: skip
    path = folder / f"failed-document-{staged.staged_no:08d}.parquet"
    write(path, FAILED, [[cell] for cell in failed_row(staged.staged_no, failed)])
    staged.counts = Counts(lines=1, items=1, failed=1)
    staged.outcome, staged.error = "rejected", refusal.failures[0].message


@contextmanager
def _pool(processes: int) -> Iterator[Executor | None]:
    if not processes:
        yield None
        return
    if getattr(current_process(), "_inheriting", False):
        # A fresh interpreter first runs the main script as a module: we are in it, and would start more of them.
        raise ConfigError(_UNGUARDED)
    # Fresh interpreters: a forked child would inherit locks and threads of whatever started us.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_die_with_parent) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            # In early Pythons 3.11 the pool writes to its dead processes for ever: python/cpython#94777.
            cast("Any", pool)._call_queue._reader.close()
            sentence = f"A judging process was killed (out of memory?), or could not begin. {_UNGUARDED}"
            raise TransientError(f"{sentence} Nothing was loaded; try again.") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _die_with_parent() -> None:
    """A parent that was killed cannot stop its workers, and they would wait for work for ever."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
