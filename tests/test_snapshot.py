"""A snapshot holds all that was committed, is whole at any moment, and takes the place of nothing else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.errors import ConfigError, TransientError
from ingest.settings import Source
from ingest.warehouse.engines.duckdb import snapshot as duckdb_snapshot
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import ROOT, World, everything, record


def world_at(path: Path, kind: type[DuckDBWarehouse] = DuckDBWarehouse) -> World:
    warehouse = kind(path, ignored_identities=IGNORED_IDENTITIES, lock_timeout_seconds=0.2)
    return World(warehouse, [Source(name="web", bucket="bucket")])


@pytest.fixture
def world(tmp_path: Path, empty_warehouse: Path) -> World:
    world = world_at(Path(shutil.copy(empty_warehouse, tmp_path / "warehouse.duckdb")))
    world.bring("1.json", record("ann", 0, "Paid"), "no json")
    return world


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "backup").mkdir()
    return tmp_path / "backup" / 'it\'s a "snapshot".duckdb'


def names(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir())


class DyingAfterCommit(DuckDBWarehouse):
    """The process is killed when the transaction is committed, and not yet taken up from the log."""

    @contextmanager
    def writing(self, memory_mb: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        with super().writing(memory_mb) as connection:
            yield connection
            connection.execute("COMMIT")
            os._exit(9)


def in_a_process(run: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_a_killed_load_committed_is_in_it_and_is_put_back(world: World, tmp_path: Path, file: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    dying = world_at(path, DyingAfterCommit)
    assert in_a_process(lambda: dying.bring("2.json", record("bob", 1, "Left"))) == 9
    assert path.with_name(f"{path.name}.wal").stat().st_size

    _, files = world.warehouse.save(file)
    before = everything(world.warehouse)
    assert (files, names(file)) == (2, [file.name])  # one file, without a log

    world.bring("3.json", record("cy", 2, "Left"))
    for left in tmp_path.glob("warehouse.duckdb*"):
        left.unlink()
    shutil.copy(file, path)
    restored = world_at(path)
    assert everything(restored.warehouse) == before
    restored.store = world.store
    pending = restored.pipeline.discover("web").pending
    assert [found.key for found in pending] == ["3.json"]
    assert [result.state for result in restored.load(*pending)] == ["loaded"]
    assert restored.count("events") == 3


def test_an_older_snapshot_is_replaced_and_kept_by_who_reads_it(world: World, file: Path) -> None:
    world.warehouse.save(file)
    with duckdb.connect(str(file), read_only=True) as reader:
        world.bring("2.json", record("bob", 1, "Left"))
        world.warehouse.save(file)
        assert reader.execute("SELECT count(*) FROM events").fetchall() == [(1,)]
    assert world_at(file).count("events") == 2


def other_warehouse(world: World, file: Path) -> None:
    world_at(file).bring("elsewhere.json", record("eve", 0, "x"))


def newer_than_the_warehouse(world: World, file: Path) -> None:
    kept = world.warehouse.path.read_bytes()  # type: ignore[attr-defined]
    world.bring("2.json", record("bob", 1, "Left"))
    world.warehouse.save(file)
    world.warehouse.path.write_bytes(kept)  # type: ignore[attr-defined]


def in_use(world: World, file: Path) -> None:
    world.warehouse.save(file)
    file.with_name(file.name + ".wal").write_bytes(b"something")


def of_another_program(world: World, file: Path) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE mine (a INT)")


def link_to_the_warehouse(world: World, file: Path) -> None:
    file.hardlink_to(world.warehouse.path)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("there", "sentence"), [
    pytest.param(other_warehouse, "is no older snapshot of this warehouse", id="another warehouse"),
    pytest.param(newer_than_the_warehouse, "is no older snapshot of this warehouse", id="one that holds more"),
    pytest.param(in_use, "is in use as a warehouse", id="one that is loaded into"),
    pytest.param(of_another_program, "is no snapshot that can be read", id="another program's database"),
    pytest.param(lambda _, file: file.write_text("letters"), "is no snapshot that can be read", id="another file"),
    pytest.param(lambda _, file: file.mkdir(), "is no snapshot", id="a folder"),
    pytest.param(link_to_the_warehouse, "is no snapshot", id="the warehouse under another name"),
])  # fmt: skip
def test_nothing_else_is_replaced(
    world: World, file: Path, there: Callable[[World, Path], object], sentence: str
) -> None:
    there(world, file)
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(ConfigError, match=sentence):
        world.warehouse.save(file)
    assert (file.read_bytes() if file.is_file() else None) == before
    assert [name for name in names(file) if "unfinished" in name] == []


@pytest.mark.parametrize("name", ["warehouse.duckdb", "warehouse.duckdb.lock", "warehouse.duckdb.published"])
def test_the_warehouse_is_not_its_own_snapshot(world: World, tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(name)
    for file in (tmp_path / name, tmp_path / "link"):
        with pytest.raises(ConfigError, match="is the warehouse itself"):
            world.warehouse.save(file)
    assert world.count("events") == 1


def test_a_name_that_was_taken_beforehand_is_used(world: World, file: Path) -> None:
    file.touch()
    world.warehouse.save(file)
    assert world_at(file).count("events") == 1


@pytest.mark.slow
@pytest.mark.parametrize("step", ["_refuse", "_copy", "take_up_log", "flush", "put_in_place"])
@pytest.mark.parametrize("former", [True, False])
def test_killed_at_any_step_it_leaves_nothing_that_is_not_whole(
    world: World, file: Path, step: str, former: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if former:
        world.warehouse.save(file)
        world.bring("2.json", record("bob", 1, "Left"))
    real = getattr(duckdb_snapshot, step)

    def dying(*arguments: Any) -> None:
        real(*arguments)
        os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(duckdb_snapshot, step, dying)
        assert in_a_process(lambda: world.warehouse.save(file)) == 9
    if file.exists():
        assert world_at(file).count("events") in (1, world.count("events"))
    else:
        assert not former
    world.warehouse.save(file)
    assert [name for name in names(file) if not name.endswith(".lock")] == [file.name]
    assert world_at(file).count("events") == world.count("events")


def test_a_full_disk_leaves_the_former_one(world: World, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world.warehouse.save(file)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(TransientError, match=r"is as it was before: .*No space left"):
        world.warehouse.save(file)
    assert (file.read_bytes(), names(file)) == (before, [file.name])


def test_a_program_that_writes_is_named(world: World, file: Path, tmp_path: Path) -> None:
    script = f"""
import sys, duckdb
connection = duckdb.connect({str(tmp_path / "warehouse.duckdb")!r})
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(TransientError, match=rf"held by another program \(process {other.pid}\)"):
            world.warehouse.save(file)
        other.communicate()
    assert names(file) == []


def test_the_command(world: World, file: Path, tmp_path: Path) -> None:
    environ = os.environ | {"INGEST_WAREHOUSE": "duckdb:///warehouse.duckdb", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ingest", "snapshot", str(file)]
    ran = subprocess.run([*command, "--json"], cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"to": str(file), "size_bytes": file.stat().st_size, "files": 1}
    ran = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=False)
    assert (ran.returncode, b"1 file in its ledger" in ran.stdout) == (0, True)
