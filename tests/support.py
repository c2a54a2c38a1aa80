"""A small world for tests: a store in memory, a warehouse on disk, lines in few words, and all that a load left."""

import importlib.util
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pyarrow as pa

from ingest.core.source import SourceFile
from ingest.errors import ConfigError, ObjectGone, TransientError
from ingest.pipeline import Pipeline
from ingest.ports import FileResult, Staging, Warehouse
from ingest.settings import Settings, Source
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from ingest.warehouse.engines.iceberg.lake import COMMANDS
from ingest.warehouse.engines.iceberg.mirror import MirrorSession, forget, stage_no
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse
from ingest.warehouse.engines.postgres.session import PostgresSession
from ingest.warehouse.engines.postgres.warehouse import PostgresWarehouse

START = 1_393_344_603  # 2014-02-25 16:10:03 UTC, the moment of the vendor's own examples
ARRIVAL = datetime(2026, 1, 1, tzinfo=UTC)
ROOT = Path(__file__).parents[1]

Line = bytes | str | dict[str, object]
Rows = list[dict[str, Any]]


def record(person: object, at: float, event: object, /, **properties: object) -> dict[str, object]:
    """`person` did `event`, `at` seconds after START."""
    return {"_p": person, "_t": START + at, "_n": event, **properties}


def put(person: object, at: float, /, **properties: object) -> dict[str, object]:
    """A set."""
    return {"_p": person, "_t": START + at, **properties}


def alias(person: object, other: object, at: float = 0) -> dict[str, object]:
    return {"_p": person, "_t": START + at, "_p2": other}


def lines(*lines: Line) -> bytes:
    """The bytes of a file."""
    return b"".join(_line(line) + b"\n" for line in lines)


def _line(line: Line) -> bytes:
    if isinstance(line, dict):
        return json.dumps(line, ensure_ascii=False).encode()
    return line.encode() if isinstance(line, str) else line


@dataclass
class MemoryStore:
    """`ingest.ports.ObjectStore` in memory. What is in `broken` cannot be read."""

    objects: dict[tuple[str, str], tuple[SourceFile, bytes]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    read_keys: list[str] = field(default_factory=list)

    def put(self, file: SourceFile, body: bytes) -> SourceFile:
        self.objects[file.bucket, file.key] = file, body
        return file

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        for (of, key), (file, _) in sorted(self.objects.items()):
            if of == bucket and key.startswith(prefix):
                yield file

    def describe(self, bucket: str, key: str) -> SourceFile:
        if (bucket, key) not in self.objects:
            raise ObjectGone(f"{key}: gone")
        return self.objects[bucket, key][0]

    def read(self, file: SourceFile) -> Iterator[bytes]:
        self.read_keys.append(file.key)
        now, body = self.objects.get((file.bucket, file.key), (None, b""))
        if now is None or now.file_id != file.file_id:
            raise ObjectGone(f"{file.key}: gone")
        middle = len(body) // 2
        yield body[:middle]
        if file.key in self.broken:
            raise TransientError(self.broken[file.key])
        yield body[middle:]

    def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:  # noqa: ARG002 - it keeps the bytes
        body = b"".join(self.read(file))
        for key in to_keys:
            if self.objects.get((file.bucket, key), (file, body))[1] == body:
                self.put(replace(file, key=key, known_as=None), body)
                return key
        raise ConfigError(f"{file.key}: taken")

    def remove(self, file: SourceFile, own_prefix: str) -> bool:  # noqa: ARG002 - nothing to try
        now, _ = self.objects.get((file.bucket, file.key), (file, b""))
        if now.file_id == file.file_id:
            self.objects.pop((file.bucket, file.key), None)
        return now.file_id == file.file_id

    def write(self, bucket: str, key: str, content: Path) -> None:
        self.receive(bucket, key, [content.read_bytes()])

    def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:
        body = b"".join(pieces)
        etag = sha256(body).hexdigest()
        self.put(SourceFile(bucket=bucket, key=key, etag=etag, last_modified=ARRIVAL, size_bytes=len(body)), body)


@dataclass
class World:
    """A store and a warehouse, and a pipeline over the two."""

    warehouse: Warehouse
    sources: Sequence[Source] = ()
    store: MemoryStore = field(default_factory=MemoryStore)
    _tick: int = 0

    @property
    def pipeline(self) -> Pipeline:
        settings = Settings(
            warehouse_url=self.warehouse.name, processes=1, sources={source.name: source for source in self.sources}
        )
        return Pipeline(settings, lambda _: self.store, self.warehouse)

    def put(
        self,
        key: str,
        *content: Line,
        arrived: float | None = None,
        source: str = "one_off",
        bucket: str = "bucket",
        body: bytes | None = None,
        etag: str | None = None,
    ) -> SourceFile:
        """An object of these lines (or this `body`), each a minute later than the one before unless `arrived` says."""
        body = lines(*content) if body is None else body
        self._tick += 1
        at = ARRIVAL + timedelta(seconds=60 * self._tick if arrived is None else arrived)
        etag = etag or sha256(body).hexdigest()[:32]
        file = SourceFile(bucket=bucket, key=key, etag=etag, last_modified=at, size_bytes=len(body), source=source)
        return self.store.put(file, body)

    def load(self, *files: SourceFile, force: bool = False) -> list[FileResult]:
        return self.pipeline.load(files, intent="force" if force else "new")

    def bring(self, key: str, *content: Line, **more: Any) -> FileResult:
        """Put and load one file."""
        (result,) = self.load(self.put(key, *content, **more))
        return result

    def rows(self, sql: str) -> Rows:
        return rows(self.warehouse, sql)

    def count(self, table: str, where: str = "TRUE") -> int:
        return int(self.rows(f"SELECT count(*) AS n FROM {table} WHERE {where}")[0]["n"])


@contextmanager
def loads_that_meet_everything(warehouse: Warehouse) -> Iterator[tuple[Staging, Staging]]:
    """Two loads, one after the other, that meet all that a load can meet: new files; one that is there, by force."""
    world = World(warehouse, [Source(name="strict", bucket="bucket", max_failed_lines=0)])
    world.bring("other.json", record("ann", 5, "x"), alias("d", "e"), alias("y", "z"), record("q", 1, "x"), arrived=900)
    there = world.put("there.json", record("ann", 4, "x"), "bad", alias("x", "y"), record("q", 1, "x"), arrived=800)
    world.load(there)
    new: list[Line] = [record("ann", 5, "x"), "bad", put("bob", 1, a=1), alias("e", "c"), alias("z", "w")]
    files = [
        world.put("new.json", *new, arrived=0), world.put("copy.json", *new),
        world.put("broken.json", record("ann", 0, "x")),
        world.put("rejected.json", record("ann", 9, "x"), "bad", source="strict"),
    ]  # fmt: skip
    world.store.broken["broken.json"] = "it broke off"
    world.store.put(there, lines(record("ann", 4, "x"), "bad", alias("x", "y"), record("ann", 7, "x")))
    with world.pipeline.judged(files) as first, world.pipeline.judged([there], "force") as second:
        yield first, second


def change(warehouse: Warehouse, sql: str) -> None:
    """What no program of ours would do."""
    if isinstance(warehouse, IcebergWarehouse):
        with warehouse.writing() as session:
            assert session.lake
            changes, commands = session.lake.data_files()
            if "command_rows" in sql:
                _written_anew(session, sql)
                forget(session.connection, [file.file_path for file in commands])
            else:
                commands = []
                session.rows(sql)
            session.run("tell_all")
            session.commit(instead_of=[*changes, *commands])
        return
    assert isinstance(warehouse, (DuckDBWarehouse, PostgresWarehouse))
    with warehouse.writing() as writing:
        writing.rows(sql) if isinstance(writing, PostgresSession) else writing.execute(sql)


def _written_anew(session: MirrorSession, sql: str) -> None:
    """Commands of a lake are never changed: what a statement makes of them takes their place, under other numbers."""
    session.rows("CREATE TEMP TABLE edited AS SELECT * FROM command_rows")
    session.rows(sql.replace("command_rows", "edited"))
    file_nos = [file_no for (file_no,) in session.rows("SELECT DISTINCT file_no FROM edited")]
    numbered = pa.table({"file_no": file_nos, "stage_no": [stage_no() for _ in file_nos]})
    with session.table("taken_stages", numbered):
        session.run("enter_stages")
    names = ", ".join(f"edited.{name}" for name in COMMANDS if name not in ("part", "stage_no"))
    told = f"SELECT 'commands' AS part, stage_no, {names} FROM edited JOIN stages USING (file_no)"
    session.see(session.write(session.exactly(told))[0])
    session.rows("DELETE FROM shadow_rows")
    session.rows("INSERT INTO shadow_rows SELECT file_no, line, item_no, command_id FROM edited WHERE NOT is_first")


def rows(warehouse: Warehouse, sql: str) -> Rows:
    return answers(warehouse, [sql])[0]


def answers(warehouse: Warehouse, questions: Iterable[str]) -> list[Rows]:
    """What `Warehouse.query` answers, but from one session: it takes two for each, and most of a test's time."""
    if isinstance(warehouse, DuckDBWarehouse):
        with warehouse.reading() as connection:
            return [connection.sql(sql).to_arrow_table().to_pylist() for sql in questions]
    if isinstance(warehouse, IcebergWarehouse):
        with warehouse.reading() as lake:
            return [lake.fetch(sql) for sql in questions]
    if isinstance(warehouse, PostgresWarehouse):
        with warehouse.reading() as session:
            return [_as_text(session.fetch(sql)) for sql in questions]
    found = []
    for sql in questions:
        with warehouse.query(sql) as answer:
            found.append([row for batch in answer.reader for row in batch.to_pylist()])
    return found


def _as_text(found: Rows) -> Rows:
    return [{name: str(one) if isinstance(one, UUID) else one for name, one in row.items()} for row in found]


# What two loads of the same files may differ in, however careful both were.
VOLATILE = {"file_no", "load_id", "run_id", "loaded_at", "is_first", "next_try_at", "attempts"}
TABLES = ("ledger", "commands", "failed_lines", "events", "identities", "people", "kissmetrics_events")


def everything(warehouse: Warehouse, without: Iterable[str] = (), tables: Sequence[str] = TABLES) -> dict[str, Rows]:
    """All that a warehouse shows, so that two of them can be compared."""
    left_out = VOLATILE | set(without)
    found = answers(warehouse, [f"SELECT * FROM {table}" for table in tables])
    return {table: in_order(rows, left_out) for table, rows in zip(tables, found, strict=True)}


def in_order(found: Rows, without: Iterable[str] = ()) -> Rows:
    """Rows in an order of their own, whichever the engine gave."""
    left_out = set(without)
    kept = [{name: row[name] for name in sorted(row.keys() - left_out)} for row in found]
    return sorted(kept, key=repr)


def module_at(path: Path) -> ModuleType:
    """A Python file that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
