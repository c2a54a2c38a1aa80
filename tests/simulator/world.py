"""What a simulated world is made of: lines and sources, a clock, a store, an engine, and judging that remembers.

Real are pipeline, actions, redrive, `Warehouse` and plans; `simulated` puts these in the place of what they stand on.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast
from unittest.mock import patch

import pyarrow as pa
from pyarrow import parquet

from ingest.core.commands import Rules
from ingest.core.lifecycle import Intent, State
from ingest.core.source import SourceFile
from ingest.errors import ObjectGone, TransientError
from ingest.pipeline import Pipeline
from ingest.plans.changes import Place
from ingest.ports import Audit, Counts, StagedFile, Staging
from ingest.reading import Block
from ingest.reading_ahead import Read
from ingest.settings import Settings, Source
from ingest.staging import stage
from tests import memory_engine
from tests.memory_engine import Dicts, MemoryWarehouse, Tables
from tests.support import Line, MemoryStore, alias, lines, put, record

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOTE = Audit("ann", "because")

# A body is a word, each letter of which is a line: a to c are right, x and y wrong, n only where nested values are not
# flattened; f and g are what x, y and n should have been. Each right line brings one command.
LINES = {
    letter: lines(cast("Line", line)) for letter, line in {
        "a": record("ann", 0, "a"), "b": put("bob", 1, b=1), "c": alias("cat", "dan"), "f": record("fay", 2, "f"),
        "g": record("gus", 3, "g"), "n": record("nan", 4, "n", o={"a": 1}), "x": "x", "y": "y", "-": "",
    }.items()
}  # fmt: skip
WORDS = ("a", "b", "ab", "abc", "x", "ax", "ay", "an", "xa", "axy", "xay", "a-x", "xnc", "axyn")
SOURCES = {source.name: source for source in (
    Source(name="beside", bucket="bucket", prefix="beside/"),
    Source(name="instead", bucket="bucket", prefix="instead/", changed_file="replace", max_failed_lines=1),
    Source(name="hold", bucket="bucket", prefix="hold/", changed_file="hold", same_bytes="load"),
    Source(name="skip", bucket="bucket", prefix="skip/", existing_files="skip", max_failed_lines=1),
)}  # fmt: skip


class Clock(datetime):
    """`datetime` for the program: it is as late as the history says."""

    moment = BEGIN

    @classmethod
    def now(cls, _: Any = None) -> datetime:  # type: ignore[override]
        return cls.moment


class Store(MemoryStore):
    """Reads are pinned to what was listed; to look at it is a step."""

    step: Callable[[str], None]

    def __init__(self) -> None:
        super().__init__()
        self.older: dict[object, tuple[SourceFile, bytes]] = {}  # by key and version id

    def put(self, file: SourceFile, body: bytes) -> SourceFile:
        now, former = self.objects.get((file.bucket, file.key), (file, body))
        if now.version_id and now.etag != file.etag:
            self.older[now.key, now.version_id] = now, former
        return super().put(file, body)

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        self.step("list")
        return super().list(bucket, prefix)

    def read(self, file: SourceFile) -> Iterator[bytes]:
        self.step("read")
        now, body = self.objects.get((file.bucket, file.key), (None, b""))
        now, body = self.older.get((file.key, file.version_id), (now, body))
        if now is None or not now.is_same(file):
            raise ObjectGone(f"{file.key}: gone")
        if file.key in self.broken:
            raise TransientError(self.broken[file.key])
        yield body


class Engine(MemoryWarehouse):
    """Others go on between its steps, and each may fail."""

    def __init__(self, step: Callable[[str], None], committed: Callable[[Tables, Tables], None]) -> None:
        super().__init__()
        self.try_step, self.committed, self.before = step, committed, self.tables

    def step(self, name: str) -> None:
        if name == "after the commit":
            self.committed(self.before, self.tables)
            self.before = self.tables
        self.try_step(name)


class Judged(Pipeline):
    """What is judged once is known."""

    __slots__ = ()

    @contextmanager
    def judged(self, files: Sequence[SourceFile], intent: Intent = "new", _: object = None) -> Iterator[Staging]:
        each = [judged_once([file], self.read, self.rules) for file in files]
        yield Staging(
            scratch(),
            [self.by_policies(one.files[0], intent) for one in each],
            [*dict.fromkeys(path for one in each for path in one.commands)],
            [*dict.fromkeys(path for one in each for path in one.failed)],
        )


def judged_once(
    files: Sequence[SourceFile], read: Read, rules_of: Callable[[SourceFile], Rules], *_: object,
    blocks_of: Callable[[SourceFile], Iterable[Block]] | None = None, **__: object,
) -> Staging:  # fmt: skip
    """As `ingest.staging.stage` does, of one file."""
    (file,) = files
    try:
        content = tuple(blocks_of(file)) if blocks_of else b"".join(read(file))
    except (ObjectGone, TransientError) as error:
        outcome: State = "gone" if isinstance(error, ObjectGone) else "retrying"
        return Staging(scratch(), [StagedFile(file, 0, Counts(), outcome=outcome, error=str(error))], [], [])
    what = content, rules_of(file).nested
    if what not in known:
        known[what] = _judged(file, content, rules_of(file), len(known))
    staging = known[what]
    return replace(staging, files=[replace(staging.files[0], file=file)])


known: dict[object, Staging] = {}


def _judged(file: SourceFile, content: bytes | tuple[Block, ...], rules: Rules, number: int) -> Staging:
    """It gets a number that no other content has, so that one load may hold several."""
    folder = scratch() / str(number)
    folder.mkdir()
    blocks_of = None if isinstance(content, bytes) else lambda _: content
    staging = stage([file], lambda _: iter([content]), lambda _: rules, folder, processes=1, blocks_of=blocks_of)  # type: ignore[list-item]
    for path in (*staging.commands, *staging.failed):
        table = parquet.read_table(path)
        numbers = pa.repeat(pa.scalar(number, pa.int32()), len(table))
        parquet.write_table(table.set_column(0, "staged_no", numbers), path)
    return replace(staging, files=[replace(staging.files[0], staged_no=number)], written=())


@cache
def scratch() -> Path:
    """A folder of this process, gone at its end."""
    folder = TemporaryDirectory(prefix="simulator-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    Finalize(None, folder.cleanup, exitpriority=0)  # runs at the end of a process that multiprocessing began, too
    return Path(folder.name)


@cache
def settings_of(nested: Literal["fail", "flatten"]) -> Settings:
    sources = {name: replace(source, nested=nested) for name, source in SOURCES.items()}
    return Settings(warehouse_url="memory:", processes=1, sources=sources, staging_folder=scratch())


read_rows = memory_engine.rows_of
known_rows = cache(read_rows)


def rows_of(path: Path, staged_no: int) -> Dicts:
    return (known_rows if path.parent.parent == scratch() and path.name != "new.parquet" else read_rows)(
        path, staged_no
    )


def failing(staging: Staging, staged_no: int, places: Collection[Place]) -> dict[Place, str]:
    rows = [row for path in staging.failed for row in rows_of(path, staged_no)]
    return {place: row["raw_sha256"] for row in rows if (place := (row["line"], row["item"])) in places}


def bytes_of(word: str) -> bytes:
    return b"".join(LINES[letter] for letter in word)


@cache
def fact_of(letter: str) -> object:
    """The `command_id` of a line that is right."""
    file = SourceFile(bucket="bucket", key=letter, etag=letter, last_modified=BEGIN, size_bytes=1)
    rules = Judged(settings_of("flatten"), None, None).rules(replace(file, source="beside"))  # type: ignore[arg-type]
    staging = judged_once([file], lambda _: iter([LINES[letter]]), lambda _: rules)
    (row,) = rows_of(staging.commands[0], staging.files[0].staged_no)
    return row["command_id"]


WORD_OF = {sha256(bytes_of(word)).hexdigest(): word for word in WORDS}


@contextmanager
def simulated() -> Iterator[None]:
    """The program with our clock and the bodies that we know."""
    with ExitStack() as stack:
        for module in ("ingest.pipeline", "ingest.actions", "ingest.warehouse.warehouse"):
            stack.enter_context(patch(f"{module}.datetime", Clock))
        stack.enter_context(patch("ingest.warehouse.warehouse._failing", failing))
        stack.enter_context(patch("ingest.redrive.stage", judged_once))
        stack.enter_context(patch("tests.memory_engine.rows_of", rows_of))
        yield
