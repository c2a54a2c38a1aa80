"""The mirror of a lake: a DuckDB file of this host, with all that the lake holds but commands.

It answers what plans, pages and lists ask, in the words of a DuckDB warehouse. What others have committed it takes up
whenever it is opened. It proves nothing: where it is lost, behind, or of another lake, it is made again from the lake.
"""

import fcntl
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from secrets import randbits
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile

from ingest.errors import ConfigError
from ingest.warehouse.engines.common.naming import ROWS_AT_ONCE, renamed
from ingest.warehouse.engines.common.session import Session
from ingest.warehouse.engines.duckdb.applying import DuckDBSession
from ingest.warehouse.engines.duckdb.errors import first_line
from ingest.warehouse.engines.duckdb.session import DuckDBFile, log_of
from ingest.warehouse.engines.iceberg.lake import CommandFile, LakeTable, no_commands
from ingest.warehouse.engines.iceberg.statements import all_of_them, changes, definitions, statement

_RANDOM_BITS = 20
_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, slots=True)
class Mirror(DuckDBFile):
    """Where it is. Its sessions know nothing of the lake: see `MirrorSession`."""

    of: str = ""  # the URL of the lake

    @property
    def name(self) -> str:
        return self.of

    @property
    def mode(self) -> int:
        return 0o600  # it holds what producers sent, beside whatever else is in its folder

    @property
    def definitions(self) -> tuple[tuple[str, ...], str]:
        return definitions()

    def changed_at(self) -> datetime:
        """When it was last written to."""
        times = [file.stat().st_mtime for file in (self.path, log_of(self.path)) if file.exists()]
        return datetime.fromtimestamp(max(times, default=0), UTC)

    def _why_not_opened(self, error: duckdb.Error) -> ConfigError:
        return ConfigError(
            f"{self.path}, the mirror of {self.of}, cannot be opened: {first_line(error)} {self._without_log()}"
        )

    def _without_log(self) -> str:
        files = f"{self.path} and {log_of(self.path).name}"
        return f"Delete {files}: nothing is lost, since the next command makes the mirror again from the lake."

    def remove(self) -> None:
        """Nothing is lost by it. Raises TransientError when others keep it for too long."""
        if self.is_there:
            with self.locked(fcntl.LOCK_EX):
                self.path.unlink(missing_ok=True)
                log_of(self.path).unlink(missing_ok=True)


@dataclass(slots=True)
class Brought:
    """What one load has written into the lake already: if others were quicker, it is committed by the next attempt."""

    stages: dict[int, int] = field(default_factory=dict)  # by staged_no
    files: dict[tuple[int, ...], tuple[CommandFile, int]] = field(default_factory=dict)

    def stage_of(self, staged_no: int) -> int:
        return self.stages.setdefault(staged_no, stage_no())


@dataclass(slots=True)
class MirrorSession(DuckDBSession):
    """A session on the mirror, which sees the commands of the lake, and tells the lake what it changes."""

    lake: LakeTable | None = None  # None: nobody has made it
    files: list[CommandFile] = field(default_factory=list)  # that are seen
    added: list[CommandFile] = field(default_factory=list)  # of these those that are of this session
    brought: Brought = field(default_factory=Brought)

    def begin(self) -> "MirrorSession":
        """With what views and statements need."""
        found = self.rows("SELECT path, first_at, last_at, first_stage, last_stage FROM lake_files")
        self.files = [CommandFile(*row) for row in found]
        self.connection.execute(changes())
        self.show("lake_commands", self.files)
        self.show("lake_added", ())
        return self

    def statement(self, name: str) -> str:
        return statement(name)

    def run(self, name: str, **values: Any) -> None:
        if f"told_{name}" in all_of_them():
            self.rows(statement(f"told_{name}"), **values)
        DuckDBSession.run(self, name, **values)

    def take_away(self, file_nos: Collection[int]) -> None:
        if not file_nos:
            return
        stages = [no for (no,) in self.rows("SELECT stage_no FROM stages WHERE file_no = ANY($nos)", nos=[*file_nos])]
        asked = pc.field("stage_no").isin(pa.array(stages, pa.int64()))
        if stages:
            asked &= (pc.field("stage_no") >= min(stages)) & (pc.field("stage_no") <= max(stages))
        self.show("lake_leaving", self.files if stages else (), asked)
        DuckDBSession.take_away(self, file_nos)

    def look_near(self) -> None:
        """Have the commands near whose time staged ones are."""
        ((first, last),) = self.rows("SELECT first, last FROM staged_times")
        if first is None:  # none is taken
            self.show("lake_near", ())
            return
        of_time, at = pa.timestamp("us", "UTC"), pc.field("occurred_at")
        self.show("lake_near", self.files, (at >= pa.scalar(first, of_time)) & (at <= pa.scalar(last, of_time)))

    def bring(self, staged_nos: Sequence[int], name: str) -> int:
        """Write the commands of staged files that a statement gives into a file of the lake; how many."""
        which = (*staged_nos, -len(self.added))
        if which not in self.brought.files:
            self.brought.files[which] = self.write(self.exactly(statement(name)))
        file, count = self.brought.files[which]
        self.see(file)
        return count

    def write(self, rows: Iterable[pa.RecordBatch]) -> tuple[CommandFile, int]:
        """Write commands, as the lake has them, into a file of it; how many."""
        assert self.lake
        path, count = self.lake.write("commands", rows)
        return self.lake.command_file(path), count

    def see(self, file: CommandFile) -> None:
        """Have the commands of a file that was written, and have it committed."""
        self.added.append(file)
        self.files.append(file)
        self.show("lake_commands", self.files)
        self.show("lake_added", self.added)

    def exactly(self, sql: str, **values: Any) -> Iterator[pa.RecordBatch]:
        """The rows of a statement, some at a time, as the lake has them: UUIDs are no texts."""
        self.connection.execute("SET arrow_lossless_conversion = true")
        yield from self.connection.sql(sql, params=values or None).to_arrow_reader(_ROWS_AT_ONCE)
        self.connection.execute("SET arrow_lossless_conversion = false")  # any statement ends what is not read

    def commit(self, instead_of: Sequence[DataFile] = ()) -> None:
        """Make what was changed visible to all, at once; `instead_of` what these files hold. Raises ConflictError."""
        assert self.lake
        ((commit_no, changes),) = self.rows(
            "SELECT coalesce(max(commit_no), 0) + 1, (SELECT count(*) FROM changes) FROM mirrored"
        )
        paths = [file.path for file in self.added]
        if changes:
            told = statement("told_rows").replace("{commit_no}", str(commit_no))
            paths.append(self.lake.write("changes", self.exactly(told))[0])
        if not paths and not instead_of:
            return
        snapshot_id = self.lake.commit(paths, instead_of)
        ((file_no,),) = self.rows("SELECT coalesce(max(file_no), 0) FROM changes")
        _keep(self.connection, self.lake, self.added, snapshot_id, commit_no, file_no)
        self.connection.execute("DELETE FROM changes")
        self.added = []

    def rename(self, _: Session, files: pa.Table) -> None:
        """See `ingest.warehouse.engines.common.naming`. The rows are written again, under other numbers."""
        numbers = {file_no: stage_no() for file_no in files["file_no"].to_pylist()}
        with self.connection.cursor() as cursor:  # it sees what was committed, whatever is done here
            cursor.execute("USE warehouse; SET TimeZone = 'UTC'")  # which it does not take over
            other = MirrorSession(cursor, self.ignored_identities, self.lake).begin()
            other.connection.register("renamed", files)
            reader = cursor.sql(statement("rows_to_rename")).to_arrow_reader(ROWS_AT_ONCE)
            self.see(self.write(_numbered(renamed(batch), numbers) for batch in reader)[0])
        for step in ("forget_shadows", "enter_stages"):
            with self.table("taken_stages", pa.table({"file_no": list(numbers), "stage_no": list(numbers.values())})):
                self.run(step)

    def show(self, name: str, files: Iterable[CommandFile], asked: pc.Expression | None = None) -> None:
        """Have the commands of some files under a name; those that are `asked` for."""
        files = list(files)
        commands = self.lake.commands(files) if self.lake and files else no_commands()
        self.connection.register(f"{name}_as_stored", commands if asked is None else commands.filter(asked))
        # As bytes: the engine would have Arrow look for a UUID, and cannot tell it which.
        sql = f"SELECT * REPLACE (command_id::UUID AS command_id) FROM {name}_as_stored"
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")


def stage_no() -> int:
    """A number that no other file has, on any host. It grows with time: so those in a file of the lake are near."""
    return (time.time_ns() // 1_000_000 << _RANDOM_BITS) | randbits(_RANDOM_BITS)


def _numbered(rows: pa.Table, numbers: Mapping[int, int]) -> pa.RecordBatch:
    """Rows as a warehouse has them as the lake has them."""
    stages = pa.array([numbers[file_no] for file_no in rows["file_no"].to_pylist()], pa.int64())
    part = pa.array(["commands"] * rows.num_rows)
    (batch,) = rows.append_column("stage_no", stages).append_column("part", part).combine_chunks().to_batches()
    return batch


def fold(connection: duckdb.DuckDBPyConnection, lake: LakeTable) -> bool:
    """Take up what was committed since; in the transaction of this session. False: the mirror is to be made again."""
    known = connection.execute("SELECT table_id, snapshot_id FROM mirrored").fetchall()
    if known and known[0] == (lake.table_id, lake.snapshot_id):
        return True
    if known and known[0][0] != lake.table_id:
        return False
    found = lake.files_since(known[0][1] if known else None)
    if found is None:
        return False
    paths, commands = found
    commit_no, file_no = 0, 0
    if paths:
        connection.register("incoming", lake.changes(paths))
        connection.execute(statement("fold"))
        ((commit_no, file_no),) = connection.execute(statement("last_folded")).fetchall()
        connection.unregister("incoming")
    _keep(connection, lake, commands, lake.snapshot_id, commit_no, file_no or 0)
    return True


def forget(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Files of commands that are no more."""
    for path in paths:
        connection.execute("DELETE FROM lake_files WHERE path = ?", (path,))


def is_current(connection: duckdb.DuckDBPyConnection, lake: LakeTable) -> bool:
    """Whether the mirror shows the lake as it was when that was looked at, or later."""
    return (lake.table_id, lake.snapshot_id) in connection.execute(
        "SELECT table_id, snapshot_id FROM mirrored"
    ).fetchall()


def _keep(
    connection: duckdb.DuckDBPyConnection,
    lake: LakeTable,
    files: Sequence[CommandFile],
    snapshot_id: int | None,
    commit_no: int,
    file_no: int,
) -> None:
    """Write down what the mirror is of from now on."""
    for file in files:
        connection.execute("INSERT INTO lake_files VALUES (?, ?, ?, ?, ?)", astuple(file))
    before = connection.execute("SELECT commit_no, file_no FROM mirrored").fetchall() or [(0, 0)]
    connection.execute("DELETE FROM mirrored")
    now = (max(commit_no, before[0][0]), max(file_no, before[0][1]))
    connection.execute("INSERT INTO mirrored VALUES (?, ?, ?, ?)", (lake.table_id, snapshot_id, *now))
