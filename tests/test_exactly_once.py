"""A file is in the warehouse once and whole, or not at all: several loaders, a failure at any step, kill -9."""

import json
import os
import pickle
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.core.source import SourceFile
from ingest.errors import ConfigError, IngestError, TransientError
from ingest.ports import Staging, Warehouse
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from ingest.warehouse.engines.postgres.warehouse import PostgresWarehouse
from tests.support import (
    ROOT,
    START,
    VOLATILE,
    Rows,
    World,
    alias,
    everything,
    in_order,
    lines,
    loads_that_meet_everything,
    record,
    rows,
)


def warehouse_at(path: Path, **more: Any) -> DuckDBWarehouse:
    return DuckDBWarehouse(path, ignored_identities=IGNORED_IDENTITIES, **more)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a process of ours: its warehouse and what it leaves behind are in `folder`."""
    (folder / "staging").mkdir(exist_ok=True)
    ours = {"INGEST_WAREHOUSE": f"duckdb:///{folder}/warehouse.duckdb", "INGEST_STAGING": f"{folder}/staging"}
    return {**os.environ, **ours, "PYTHONPATH": str(ROOT), **more}


# --- several at a time -----------------------------------------------------------------------------------------------


def test_processes_that_load_the_same_files_at_the_same_time(tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    folder.mkdir()
    for number in range(6):
        content = [record(f"p{n % 7}", n, "x") for n in range(number, number + 40)]
        (folder / f"{number}.json").write_bytes(lines(*content, "bad", alias(f"p{number}", f"p{number + 1}")))
    (folder / "copy.json").write_bytes((folder / "5.json").read_bytes())

    command = [sys.executable, "-m", "ingest", "load", "--json"]
    backwards = [str(path) for path in sorted(folder.iterdir(), reverse=True)]
    loaders = [
        subprocess.Popen([*command, *paths], env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for paths in ([str(folder)], backwards, [f"{folder}/"], backwards[::-1])
    ]
    told = []
    for loader in loaders:
        out, err = loader.communicate(timeout=120)
        assert loader.returncode in (0, 1), err
        told.append({file["key"]: file for file in json.loads(out)["files"]})

    for key in told[0]:
        assert sorted(each[key]["already"] for each in told) == [False, True, True, True]
        assert len({each[key]["load_id"] for each in told}) == 1
    warehouse = warehouse_at(tmp_path / "warehouse.duckdb")
    assert broken_promises(warehouse) == {}
    states = [row["state"] for row in rows(warehouse, "SELECT state FROM ledger")]
    assert sorted(states) == ["duplicate", *["loaded"] * 6]
    (counted,) = rows(warehouse, "SELECT count(*) AS n, count(DISTINCT command_id) AS facts FROM commands")
    assert counted["n"] == 6 * 41
    persons = rows(warehouse, "SELECT DISTINCT person_id FROM identities")
    assert persons == [{"person_id": "p0"}]


def broken_promises(warehouse: Warehouse) -> dict[str, int]:
    """What must never be seen, whatever happened: the promise and how often it is broken."""
    promises = {
        "commands without a ledger row": "SELECT 1 FROM command_rows WHERE file_no NOT IN (SELECT file_no FROM ledger)",
        "failed lines without a ledger row":
            "SELECT 1 FROM failed_line_rows WHERE file_no NOT IN (SELECT file_no FROM ledger)",
        "a loaded file with more or fewer commands than the ledger says":
            "SELECT 1 FROM ledger AS l WHERE l.state = 'loaded' AND l.records + l.sets + l.aliases"
            " <> (SELECT count(*) FROM commands AS c WHERE c.file_id = l.file_id)",
        "commands of a file that is not loaded":
            "SELECT 1 FROM commands JOIN ledger AS l USING (file_id) WHERE l.state <> 'loaded'",
        "a file with more or fewer failed lines than the ledger says":
            "SELECT 1 FROM ledger AS l WHERE l.state IN ('loaded', 'rejected') AND l.failed"
            " <> (SELECT count(*) FROM failed_lines AS f WHERE f.file_id = l.file_id)",
        "a line twice": "SELECT 1 FROM commands GROUP BY file_id, line, item, kind HAVING count(*) > 1",
        "a line accepted and failed":
            "SELECT 1 FROM commands AS c JOIN failed_lines AS f USING (file_id, line, item)",
        "a file twice": "SELECT 1 FROM ledger GROUP BY file_id HAVING count(*) > 1",
        "a fact that counts never or twice":
            "SELECT 1 FROM commands LEFT JOIN (SELECT command_id, 1 AS seen FROM events) AS e USING (command_id)"
            " WHERE kind = 'record' GROUP BY command_id, file_id, line, item HAVING count(seen) <> 1",
    }  # fmt: skip
    if isinstance(warehouse, PostgresWarehouse):
        promises["a count of failed lines that is not theirs"] = """
            SELECT 1 FROM failure_counts AS c
            FULL JOIN (
                SELECT file_no, code, count(*) AS lines, count(*) FILTER (WHERE redriven_by IS NULL) AS open,
                    min(line) AS first_line
                FROM failed_line_rows CROSS JOIN LATERAL unnest(''::text || codes) AS u (code)
                GROUP BY file_no, code
            ) AS f USING (file_no, code)
            WHERE (c.lines, c.open, c.first_line) IS DISTINCT FROM (f.lines, f.open, f.first_line)"""
    union = " UNION ALL ".join(
        f"SELECT '{name}' AS promise, count(*) AS broken FROM ({sql}) AS found" for name, sql in promises.items()
    )
    return {row["promise"]: row["broken"] for row in rows(warehouse, union) if row["broken"]}


# --- a failure at every step -----------------------------------------------------------------------------------------


@dataclass
class Steps:
    """Connections to DuckDB that count their steps and fail at one of them."""

    fail_at: int = 0
    error: BaseException | None = None  # none: the process is gone
    after: bool = False  # the step is done, but nobody learns of it
    names: list[str] = field(default_factory=list)

    def run(self, name: str, call: Any, *arguments: Any, **more: Any) -> Any:
        self.names.append(name)
        failing = len(self.names) == self.fail_at
        if failing and not self.after:
            self.fail()
        result = call(*arguments, **more)
        if failing:
            self.fail()
        return result

    def fail(self) -> None:
        if self.error is None:
            os._exit(9)
        raise self.error

    @contextmanager
    def taken(self) -> Iterator["Steps"]:
        connect = duckdb.connect
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duckdb, "connect", lambda *arguments, **more: Counting(connect(*arguments, **more), self))
            yield self


class Counting:
    """A connection whose every call is a step."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, steps: Steps) -> None:
        self._connection, self._steps = connection, steps

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._connection, name)
        if name == "close":
            return call
        return lambda *arguments, **more: self._steps.run(f"{name} {arguments[:1]}", call, *arguments, **more)


@dataclass
class Plan:
    """A load, judged and waiting; the warehouse that it starts from, and what that shows before and after it."""

    start: Path
    staging: Staging
    force: bool
    before: dict[str, Rows] = field(default_factory=dict)
    after: dict[str, Rows] = field(default_factory=dict)
    steps: int = 0

    def load(self, path: Path) -> None:
        warehouse_at(path, lock_timeout_seconds=5).load(
            self.staging, "load", None, intent="force" if self.force else "new"
        )

    def copy(self, name: str) -> Path:
        return Path(shutil.copy(self.start, self.start.with_name(name)))

    def undisturbed(self, name: str) -> Path:
        """Where the load ends if nothing happens."""
        path = self.copy(name)
        with Steps().taken() as steps:
            self.load(path)
        self.before, self.after, self.steps = shown(self.start), shown(path), len(steps.names)
        return path


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Plan]]:
    start = tmp_path_factory.mktemp("steps") / "start.duckdb"
    with loads_that_meet_everything(warehouse_at(start)) as (first, second):
        plan = Plan(start, first, force=False)
        forced = Plan(plan.undisturbed("between.duckdb"), second, force=True)
        forced.undisturbed("end.duckdb")
        yield [plan, forced]


def shown(path: Path) -> dict[str, Rows]:
    """What the views show, over one connection of somebody else's."""
    with duckdb.connect(path, read_only=True) as connection:
        return {
            view: in_order(connection.sql(f"SELECT * FROM {view}").to_arrow_table().to_pylist(), VOLATILE)
            for view in ("ledger", "commands", "failed_lines", "events", "identities")
        }


def test_the_loads_that_are_disturbed_meet_everything(plans: list[Plan]) -> None:
    new, forced = plans
    states = {row["key"]: row["state"] for row in new.after["ledger"]}
    assert states == {
        "other.json": "loaded", "there.json": "loaded", "new.json": "loaded", "copy.json": "duplicate",
        "broken.json": "retrying", "rejected.json": "rejected",
    }  # fmt: skip
    assert new.before != new.after == forced.before != forced.after
    assert min(new.steps, forced.steps) > 30
    assert broken_promises(warehouse_at(forced.start)) == {}
    assert broken_promises(warehouse_at(forced.start.with_name("end.duckdb"))) == {}
    found = {row["identity_key"]: row["person_id"] for row in forced.after["identities"]}
    assert found == {**dict.fromkeys("cde", "c"), **dict.fromkeys("wxyz", "w"), "ann": "ann", "bob": "bob", "q": "q"}


def ends_as_if_nothing_had_happened(plan: Plan, path: Path, step: int) -> None:
    if not path.with_name(f"{path.name}.wal").exists() and path.read_bytes() == plan.start.read_bytes():
        return  # not a byte was written: the second run is the undisturbed one
    seen = shown(path)
    assert seen in (plan.before, plan.after), f"half of a load is seen after step {step}"
    plan.load(path)
    assert shown(path) == plan.after, f"the second run after step {step}"


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
def test_an_error_at_every_step(plans: list[Plan], after: bool) -> None:
    # One that stops everything; the disk; memory; and one that the load takes for a fault of one file's rows.
    errors: list[BaseException] = [KeyboardInterrupt(), duckdb.IOException("no"), MemoryError(), KeyboardInterrupt()]
    if not after:
        errors.append(duckdb.BinderException("no"))
    for plan in plans:
        for step in range(1, plan.steps + 1):
            path = plan.copy("error.duckdb")
            error = errors[step % len(errors)]
            with Steps(step, error, after).taken() as steps, suppress(type(error), IngestError):
                plan.load(path)
            assert len(steps.names) >= step
            ends_as_if_nothing_had_happened(plan, path, step)
            path.unlink()


@pytest.mark.slow
def test_a_process_that_is_gone_at_every_step(plans: list[Plan], tmp_path: Path) -> None:
    (tmp_path / "plans").write_bytes(pickle.dumps(plans))
    script = f"from tests.test_exactly_once import exit_at_every_step as run; run({str(tmp_path / 'plans')!r})"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=300)
    for plan in plans:
        for step in range(1, plan.steps + 1):
            ends_as_if_nothing_had_happened(plan, plan.start.with_name(f"exit-{plan.force}-{step}.duckdb"), step)


def exit_at_every_step(plans: str) -> None:
    """Runs in a process of its own that has no threads, and so may fork."""
    for plan in pickle.loads(Path(plans).read_bytes()):
        for step in range(1, plan.steps + 1):
            path = plan.copy(f"exit-{plan.force}-{step}.duckdb")
            if (child := os.fork()) == 0:
                with Steps(step, after=True).taken():
                    plan.load(path)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 9


# --- kill -9 ---------------------------------------------------------------------------------------------------------

KILLS = 50
LINES = 1200
# `ingest` as it is, but that a small file is cut up and spread over processes like a large one.
SPREAD = (
    "import ingest.staging as s; from functools import partial; s._POOL_FROM_BYTES = 0; s._BATCH_BYTES = 1 << 14;"
    " s.blocks = partial(s.blocks, block_bytes=1 << 14); from ingest.cli import main; main()"
)


def big_file(folder: Path, number: int) -> Path:
    """Half of its facts are in the next file as well; one line in a hundred is bad; an alias joins it to the next."""
    path = folder / f"{number}.json"
    content = [record(f"p{n % 50}", n * 10, "x", of=n) for n in range(number * LINES // 2, (number + 2) * LINES // 2)]
    bad = [f'{{"_p":"bad {n}"}}' for n in range(LINES // 100)]
    path.write_bytes(lines(*content, *bad, alias(f"link {number:02d}", f"link {number + 1:02d}")))
    return path


def session_of(leader: int) -> list[int]:
    """The processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid, fields = int(entry.name), (entry / "stat").read_text().rpartition(") ")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(pid)
    return found


def all_end(pids: list[int], timeout_seconds: float = 20) -> bool:
    deadline = time.monotonic() + timeout_seconds
    for pid in pids:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if not select.select([handle], [], [], max(0, deadline - time.monotonic()))[0]:
                    return False
            finally:
                os.close(handle)
    return True


@pytest.mark.slow
def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(2014)
    landing = tmp_path / "landing"
    landing.mkdir()
    files = [big_file(landing, number) for number in range(KILLS + 2)]
    where = environment(tmp_path)

    def start(file: Path, processes: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", SPREAD, "load", str(file)]
        return subprocess.Popen(
            command, env=where | {"INGEST_PROCESSES": str(processes)}, cwd=tmp_path, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    usual_seconds = {}
    for processes, file in ((1, files[-1]), (2, files[-2])):
        begun = time.monotonic()
        assert start(file, processes).wait(120) == 1  # some failed lines
        usual_seconds[processes] = time.monotonic() - begun

    warehouse = warehouse_at(tmp_path / "warehouse.duckdb")
    for number, file in enumerate(files[:KILLS]):
        processes = 2 if number % 5 < 2 else 1
        loader = start(file, processes)
        with suppress(subprocess.TimeoutExpired):
            loader.wait(chance.uniform(0.2, 1.0) * usual_seconds[processes])
        with suppress(ProcessLookupError):
            if number % 2:
                os.killpg(loader.pid, signal.SIGKILL)
            else:
                os.kill(loader.pid, signal.SIGKILL)
        loader.wait()
        assert all_end(session_of(loader.pid)), "judging processes outlive their parent"
        assert broken_promises(warehouse) == {}
    (loaded,) = rows(warehouse, "SELECT count(*) AS n FROM ledger WHERE state = 'loaded'")
    assert loaded["n"] < len(files), "no kill came before a commit"

    done = subprocess.run(
        [sys.executable, "-m", "ingest", "load", f"{landing}/"], env=where, capture_output=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert broken_promises(warehouse) == {}
    (counted,) = rows(
        warehouse,
        "SELECT count(*) AS files, sum(records) AS records, sum(failed) AS failed, sum(aliases) AS aliases,"
        " sum(duplicates) AS duplicates FROM ledger WHERE state = 'loaded'",
    )
    many = len(files)
    assert counted == {
        "files": many, "records": many * LINES, "failed": many * LINES // 100, "aliases": many,
        "duplicates": (many - 1) * LINES // 2,
    }  # fmt: skip
    (events,) = rows(warehouse, "SELECT count(*) AS n FROM events")
    assert events["n"] == (many + 1) * LINES // 2
    linked = rows(warehouse, "SELECT DISTINCT person_id FROM identities WHERE starts_with(identity_key, 'link')")
    assert linked == [{"person_id": "link 00"}]


# --- another program -------------------------------------------------------------------------------------------------


@contextmanager
def held_by_another(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Some program has the file open to write, and knows nothing of our lock. It lets go at the end of its input."""
    script = (
        "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read(); c.close()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.stdin.close()


# --- time-outs of Airflow --------------------------------------------------------------------------------------------

TIMED = """
import os, signal, sys
from ingest.settings import load_settings
from ingest.wiring import open_pipeline

class TimeOut(BaseException):  # as Airflow raises it in a task, out of a signal, whatever the task is doing
    pass

def time_out(*_):
    raise TimeOut

with open_pipeline(load_settings(os.environ)) as pipeline:
    files = pipeline.locate(sys.argv[2])
    signal.signal(signal.SIGALRM, time_out)
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
    try:
        pipeline.load(files)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeOut:
        sys.exit(9)
"""


@pytest.mark.slow
def test_a_time_out_of_airflow_ends_a_load_or_comes_too_late(tmp_path: Path) -> None:
    where = environment(tmp_path)
    warehouse = warehouse_at(tmp_path / "warehouse.duckdb")
    seconds, ended = 2.0, 0
    for number in range(8):
        command = [sys.executable, "-c", TIMED, str(seconds), str(big_file(tmp_path, number))]
        code = subprocess.run(command, cwd=tmp_path, env=where, check=False).returncode
        assert code in (0, 9, -signal.SIGABRT)  # the engine's threads may abort a process that leaves it while it works
        assert broken_promises(warehouse) == {}
        ended += code != 0
        seconds *= 0.7 if code == 0 else 1.3  # nearer to the moment of the commit, from both sides
    assert 0 < ended < 8


def test_a_program_that_holds_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    world = World(warehouse_at(path))
    world.bring("a.json", record("ann", 0, "x"))
    impatient = World(warehouse_at(path, lock_timeout_seconds=0.1), store=world.store)
    with held_by_another(path) as holder:
        with pytest.raises(TransientError, match=rf"\b{holder.pid}\b"):
            impatient.bring("b.json", record("ann", 1, "x"))
        file = tmp_path / "b.json"
        file.write_bytes(lines(record("ann", 1, "x")))
        done = subprocess.run(
            [sys.executable, "-m", "ingest", "load", str(file)],
            env=environment(tmp_path, INGEST_LOCK_TIMEOUT="0.1"), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert str(holder.pid) in done.stderr
        assert "Traceback" not in done.stderr
    assert world.count("ledger") == 1


def test_a_program_that_holds_the_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(warehouse_at(tmp_path / "warehouse.duckdb", lock_timeout_seconds=60))
    world.bring("a.json", record("ann", 0, "x"))
    with held_by_another(tmp_path / "warehouse.duckdb") as holder:
        waits = []

        def let_go(seconds: float) -> None:
            waits.append(seconds)
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait(30)

        clock = SimpleNamespace(monotonic=time.monotonic, sleep=let_go)
        monkeypatch.setattr("ingest.warehouse.engines.duckdb.session.time", clock)
        assert world.bring("b.json", record("ann", 1, "x")).state == "loaded"
        assert waits
    assert world.count("commands") == 2


def test_a_program_that_lets_go_while_we_ask_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody holds the file, which is no reason to call it damaged."""
    world = World(warehouse_at(tmp_path / "warehouse.duckdb"))
    world.bring("a.json", record("ann", 0, "x"))
    with held_by_another(tmp_path / "warehouse.duckdb") as holder:

        def let_go(path: Path) -> None:
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait(30)

        monkeypatch.setattr("ingest.warehouse.engines.duckdb.session.holder_of", let_go)
        assert world.bring("b.json", record("ann", 1, "x")).state == "loaded"


def test_what_is_no_duckdb_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(b"something else" * 1000)
    with pytest.raises(ConfigError, match="is no DuckDB file"):
        World(warehouse_at(tmp_path / "warehouse.duckdb")).count("ledger")


def test_readers_do_not_wait_for_readers_and_writers_are_waited_for(tmp_path: Path) -> None:
    warehouse = warehouse_at(tmp_path / "warehouse.duckdb", lock_timeout_seconds=0.1)
    world = World(warehouse)
    world.bring("a.json", record("ann", 0, "x"))
    with warehouse.reading() as connection:
        assert world.count("ledger") == 1
        with pytest.raises(TransientError, match="busy"):
            world.bring("b.json", record("ann", 1, "x"))
        assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (1,)
    with warehouse.writing() as connection:
        connection.execute("DELETE FROM ledger")
        with pytest.raises(TransientError, match="busy"):
            world.count("ledger")
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
    assert world.count("ledger") == 1


def test_an_undisturbed_second_warehouse_is_equal(tmp_path: Path) -> None:
    """What the other tests compare with: the same files give the same warehouse."""
    outcomes = []
    for name in ("one", "two"):
        world = World(warehouse_at(tmp_path / f"{name}.duckdb"))
        for number in range(3):
            world.bring(f"{number}.json", record("ann", number, "x"), alias("ann", f"p{number}"), "bad", arrived=0)
        outcomes.append(everything(world.warehouse))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0]["events"][0]["occurred_at"].timestamp() >= START


def test_source_files_travel(plans: list[Plan]) -> None:
    for staged in plans[0].staging.files:
        assert SourceFile.from_dict(json.loads(json.dumps(staged.file.to_dict()))) == staged.file
