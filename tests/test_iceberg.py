"""What only a lake meets: loaders on many hosts with a mirror each, commits of others, answers that are lost."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitStateUnknownException

from ingest.errors import ConfigError, TransientError
from ingest.ports import Audit, FilesWanted
from ingest.settings import Source
from ingest.warehouse.engines.iceberg import upkeep
from ingest.warehouse.engines.iceberg.lake import LakeTable
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse
from tests import iceberg
from tests.conftest import S3
from tests.loaders import FILES, is_whole, loader, shared_file
from tests.postgres import Server
from tests.support import ROOT, World, alias, everything, in_order, put, record, rows
from tests.test_docs import blocks
from tests.test_exactly_once import broken_promises

KILLS = 12
Host = Callable[[], IcebergWarehouse]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """One lake, seen from another host each time."""
    url = iceberg.describe(monkeypatch, tmp_path)
    mirrors = (tmp_path / f"host {number}" for number in range(100))
    return lambda: iceberg.warehouse(url, next(mirrors))


@pytest.fixture
def empty(host: Host) -> IcebergWarehouse:
    return host()


# --- many hosts ------------------------------------------------------------------------------------------------------


def test_what_one_host_loads_the_others_see(host: Host) -> None:
    worlds = [World(host()), World(host())]
    for number in range(4):
        world = worlds[number % 2]
        world.bring(
            f"{number}.json", record("ann", number, "x"), alias(f"p{number}", f"p{number + 1}"), "bad", arrived=number
        )
        assert everything(worlds[0].warehouse) == everything(worlds[1].warehouse)
    one, other = worlds
    (row, *_) = one.warehouse.files({})
    other.warehouse.undo([row["file_id"]], Audit("ann"))
    assert everything(one.warehouse) == everything(other.warehouse) == everything(host())
    assert one.count("events") == 3
    assert broken_promises(one.warehouse) == {}


def test_loaders_at_once_on_the_same_files_and_facts(host: Host, tmp_path: Path) -> None:
    """Each file is taken by two of them, and half of its facts are in a file that others load meanwhile."""
    warehouse = host()
    files = [shared_file(tmp_path, number) for number in range(FILES)]
    parts = (files[::2], files[1::2], files[::-2], files[::-1])
    loaders = [
        loader(warehouse.name, tmp_path, part, INGEST_MIRRORS=str(tmp_path / f"of {number}"))
        for number, part in enumerate(parts)
    ]
    for one in loaders:
        _, err = one.communicate(timeout=240)
        assert one.returncode in (0, 1), err  # some failed lines, or all there already
    is_whole(warehouse)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_of_loaders(postgres_server: Server, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog on a server, the table in a bucket. What was committed is there, what was not is not."""
    url = iceberg.describe(
        monkeypatch, tmp_path, uri=postgres_server.bare("lake").replace("://", "+psycopg2://"), s3=s3
    )
    chance = random.Random(2014)
    files = [shared_file(tmp_path, number) for number in range(FILES)]
    parts = [files[::2], files[1::2], files[::-2], files[::-1]]
    warehouse = iceberg.warehouse(url, tmp_path / "ours")

    def start(number: int) -> "subprocess.Popen[bytes]":
        return loader(url, tmp_path, parts[number], INGEST_MIRRORS=str(tmp_path / f"of {number}"))

    running = [start(number) for number in range(len(parts))]
    for _ in range(KILLS):
        time.sleep(chance.uniform(0.5, 2.5))  # it is the moment that is tried, not waited for
        killed = chance.randrange(len(parts))
        with suppress(ProcessLookupError):
            os.killpg(running[killed].pid, signal.SIGKILL)
        running[killed].communicate()
        assert broken_promises(warehouse) == {}
        running = [one if one.poll() is None else start(number) for number, one in enumerate(running)]
    for one in running:
        _, err = one.communicate(timeout=240)
        assert one.returncode in (0, 1), err
    is_whole(warehouse)


def bring_before(world: World) -> None:
    world.bring("before.json", *(record("ann", n, "x") for n in (1, 4, 9)), arrived=0)


def bring_after(world: World) -> None:
    world.bring("after.json", *(record("ann", n, "x") for n in (2, 3, 4, 8)), arrived=900)


def bring_the_same(world: World) -> None:
    world.bring("copy.json", *(record("ann", n, "x") for n in (1, 2, 3, 4, 4)), arrived=100)


def undo_what_was_there(world: World) -> None:
    (row,) = world.warehouse.files({"key": "there.json"})
    world.warehouse.undo([row["file_id"]], Audit("ann", ""))


@contextmanager
def others_first(act: Callable[[], object]) -> Iterator[list[str]]:
    """Somebody else commits just before us, once. What was written is told, theirs as well."""
    call, write, meanwhile, written = LakeTable.commit, LakeTable.write, [act], list[str]()

    def commit(*arguments: Any) -> Any:
        if meanwhile:
            meanwhile.pop()()
        return call(*arguments)

    def counted(self: LakeTable, part: Any, lines: Any) -> Any:
        written.append(part)
        return write(self, part, lines)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LakeTable, "commit", commit)
        patch.setattr(LakeTable, "write", counted)
        yield written


@pytest.mark.parametrize(
    ("act", "state", "duplicates"),
    [
        pytest.param(bring_before, "loaded", 4, id="a row that comes before"),
        pytest.param(bring_after, "loaded", 5, id="rows that come after"),
        pytest.param(undo_what_was_there, "loaded", 1, id="rows go"),
        pytest.param(bring_the_same, "duplicate", 0, id="the same bytes"),
    ],
)
def test_who_was_not_first_plans_again(host: Host, act: Callable[[World], None], state: str, duplicates: int) -> None:
    warehouse, other = host(), World(host())
    world = World(warehouse)
    world.bring("there.json", *(record("ann", n, "x") for n in (1, 2)), arrived=300)
    file = world.put("ours.json", *(record("ann", n, "x") for n in (1, 2, 3, 4, 4)), arrived=200)
    with world.pipeline.judged([file]) as staging, others_first(lambda: act(other)):
        (result,) = warehouse.load(staging, "ours", None)
    assert (result.state, result.counts.duplicates) == (state, duplicates)
    for seen in (warehouse, other.warehouse, host()):
        assert broken_promises(seen) == {}
        assert seen.disagreements() == []
    assert everything(warehouse) == everything(host())


def test_what_was_written_is_not_written_again(host: Host) -> None:
    warehouse, other = host(), World(host())
    world = World(warehouse)
    file = world.put("ours.json", record("ann", 1, "x"), arrived=200)
    with world.pipeline.judged([file]) as staging, others_first(lambda: bring_before(other)) as written:
        warehouse.load(staging, "ours", None)
    theirs = ["commands", "changes"]
    assert written == ["commands", "changes", *theirs, "changes"], "commands are those of the first attempt"


# --- answers that are lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [CommitStateUnknownException, ConnectionError, KeyboardInterrupt])
def test_a_commit_whose_answer_is_lost_counts_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    warehouse = host()
    world = World(warehouse)
    world.bring("there.json", record("ann", 1, "x"))
    call = SqlCatalog.commit_table

    def lost(*arguments: Any, **more: Any) -> Any:
        call(*arguments, **more)
        raise error("nobody knows")

    file = world.put("a.json", record("ann", 1, "x"), record("ann", 2, "x"), "bad")
    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(SqlCatalog, "commit_table", lost)
        world.load(file)
    (again,) = world.load(file)
    assert (again.already, again.state, again.counts.duplicates) == (True, "loaded", 1)
    assert broken_promises(warehouse) == {}
    assert everything(warehouse) == everything(host())
    assert world.count("events") == 2


def test_a_catalog_that_does_not_answer_is_said(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = host()
    world = World(warehouse)
    world.bring("there.json", record("ann", 1, "x"))

    def lost(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(SqlCatalog, "load_table", lost)
        with pytest.raises(TransientError, match="did not answer: no route"):
            world.bring("a.json", record("ann", 2, "x"))
    assert world.count("events") == 1


# --- the mirror ------------------------------------------------------------------------------------------------------


def test_a_mirror_may_be_deleted_at_any_time(host: Host) -> None:
    warehouse = host()
    world = World(warehouse)
    world.bring("a.json", record("ann", 1, "x"), put("ann", 2, plan="pro"), alias("ann", "bob"), "bad")
    world.bring("b.json", record("ann", 1, "x"), record("bob", 3, "y"), "worse")
    before = everything(warehouse)
    warehouse.mirror.remove()
    assert everything(warehouse) == before
    warehouse.mirror.remove()
    assert world.bring("c.json", record("ann", 1, "x")).counts.duplicates == 1
    assert broken_promises(warehouse) == {}


def test_a_mirror_of_a_former_lake_is_made_again(host: Host) -> None:
    warehouse = host()
    world = World(warehouse)
    world.bring("a.json", record("ann", 1, "x"))
    found = warehouse.lake.find()
    assert found
    found.table.catalog.drop_table(found.table.name())
    assert not warehouse.is_there
    assert world.count("events") == 0
    World(host()).bring("b.json", record("ann", 2, "x"), record("ann", 3, "x"))
    assert world.count("events") == 2


def test_pages_do_not_wait_for_a_load_and_say_how_old_they_are(host: Host) -> None:
    warehouse = host()
    world = World(warehouse)
    world.bring("a.json", record("ann", 1, "x"))
    wanted = FilesWanted(sources=("one_off",))
    with warehouse.published() as model:
        assert [row["key"] for row in model.files(wanted).rows] == ["a.json"]
    before = datetime.now(UTC)
    World(host()).bring("b.json", record("ann", 2, "x"))
    with warehouse.writing(), warehouse.published() as model:
        assert [row["key"] for row in model.files(wanted).rows] == ["a.json"]
        assert model.as_of <= before


def test_pages_show_what_other_hosts_have_loaded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.warehouse.engines.duckdb.published._QUICK_SECONDS", 60)
    warehouse, other = host(), World(host())
    for number in range(2):
        other.bring(f"{number}.json", record("ann", number, "x"))
        with warehouse.published() as model:
            assert model.files(FilesWanted(sources=("one_off",))).total == number + 1


@pytest.mark.parametrize("ending", ["", ".wal"])
def test_a_damaged_mirror_is_to_be_deleted(empty: IcebergWarehouse, ending: str) -> None:
    World(empty).bring("a.json", record("ann", 1, "x"))
    path = empty.mirror.path
    path.with_name(path.name + ending).write_bytes(b"no mirror")
    with pytest.raises(ConfigError, match=r"Delete .*nothing is lost"):
        empty.files({})
    empty.mirror.remove()
    assert len(empty.files({})) == 1


# --- where it is -----------------------------------------------------------------------------------------------------


def test_a_table_in_a_bucket(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = iceberg.describe(monkeypatch, tmp_path, s3=s3)
    world = World(iceberg.warehouse(url, tmp_path / "mirrors"))
    world.bring("a.json", record("ann", 1, "x"), alias("ann", "bob"), "bad")
    world.bring("b.json", record("bob", 1, "x"), record("ann", 1, "x"))
    assert [row["person_id"] for row in rows(world.warehouse, "SELECT person_id FROM events")] == ["ann", "ann"]
    found = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert any("part=commands" in one["Key"] for one in found)


def test_a_catalog_that_nobody_described_is_said(tmp_path: Path) -> None:
    warehouse = iceberg.warehouse("iceberg://nowhere/landfall", tmp_path)
    with pytest.raises(ConfigError, match=r"no catalog nowhere is described.*PYICEBERG_CATALOG__NOWHERE__URI"):
        warehouse.files({})


def test_a_table_of_another_program_is_said(empty: IcebergWarehouse) -> None:
    World(empty).bring("a.json", record("ann", 1, "x"))
    found = empty.lake.find()
    assert found
    catalog, name = found.table.catalog, found.table.name()
    catalog.drop_table(name)
    catalog.create_table(name, pa.schema([("theirs", pa.int64())]))
    with pytest.raises(ConfigError, match="of another program"):
        World(empty).bring("b.json", record("ann", 1, "x"))


def test_a_folder_for_mirrors_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        iceberg.warehouse("iceberg://nowhere/landfall", tmp_path / "file" / "mirrors")


def test_what_would_go_wrong_again_is_not_to_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = iceberg.describe(monkeypatch, tmp_path).replace("/landfall", "/a.b")
    with pytest.raises(ConfigError, match=r"a\.b cannot be used as it is described: .*hierarchical namespaces"):
        iceberg.warehouse(url, tmp_path / "mirrors").lake.make()


def test_hosts_with_other_settings_are_refused_until_all_agree(host: Host) -> None:
    world = World(host())
    world.bring("a.json", record("ann", 1, "x"), alias("ann", "nobody here"))
    other = IcebergWarehouse(host().lake, host().mirror, ignored_identities=frozenset({"nobody here"}))
    with pytest.raises(ConfigError, match=r"ignored_identities is .* there, nobody here here"):
        World(other).bring("b.json", record("ann", 2, "x"))
    other.rematch()
    World(other).bring("b.json", record("ann", 2, "x"))
    assert {row["person_id"] for row in rows(other, "SELECT person_id FROM identities")} == {"ann", "nobody here"}
    with pytest.raises(ConfigError, match="was loaded under other settings"):
        world.bring("c.json", record("ann", 3, "x"))


def test_names_of_a_source_that_are_matched_anew(host: Host) -> None:
    source = Source(name="ours", bucket="bucket")
    warehouse = replace(host(), sources={"ours": source})
    world = World(warehouse, [source])
    world.bring("a.json", record("Ann", 1, "x"), record("ann", 2, "x"), alias("Ann", "bob"), source="ours")
    assert {row["person_id"] for row in world.rows("SELECT person_id FROM events")} == {"ann"}
    apart = replace(warehouse, sources={"ours": replace(source, match="exact")})
    assert apart.rematch() == 1
    for seen in (apart, host()):
        assert {row["person_id"] for row in rows(seen, "SELECT person_id FROM events")} == {"Ann", "ann"}
        assert broken_promises(seen) == {}


def test_of_two_commands_of_a_line_one_or_both_may_be_known(host: Host) -> None:
    both = alias("ann", "bob") | {"_n": "x"}
    worlds = [World(host()), World(host())]
    worlds[0].bring("alias.json", alias("ann", "bob"), arrived=0)
    worlds[1].bring("a.json", both, arrived=10)  # its alias is known, its event is not
    worlds[0].bring("b.json", both, put("ann", 3, plan="pro"), arrived=20)
    for seen in (*(world.warehouse for world in worlds), host()):
        assert rows(seen, "SELECT count(*) AS n FROM commands") == [{"n": 6}]
        assert rows(seen, "SELECT count(*) AS n FROM events") == [{"n": 1}]
        assert broken_promises(seen) == {}
    (row,) = worlds[1].warehouse.files({"key": "a.json"})
    worlds[1].warehouse.undo([row["file_id"]], Audit("ann"))
    for seen in (*(world.warehouse for world in worlds), host()):
        assert rows(seen, "SELECT file_id <> $$x$$ AS is_there FROM events") == [{"is_there": True}]
        assert seen.disagreements() == []


def test_commits_are_numbered_one_by_one_whichever_host_makes_them(host: Host) -> None:
    """Their numbers have 31 bits, in which there is room for all that there will ever be."""
    worlds = [World(host()), World(host())]
    for number in range(4):
        worlds[number % 2].bring(f"{number}.json", record("ann", number, "x"))
    assert rows(host(), "SELECT commit_no FROM mirrored") == [{"commit_no": 4}]


# --- upkeep ----------------------------------------------------------------------------------------------------------


def bring_many(world: World, many: int) -> None:
    for number in range(many):
        world.bring(f"{number:03}.json", record("ann", number % 7, "x"), alias(f"p{number}", f"p{number + 1}"), "bad")


def test_many_small_files_become_few_and_nothing_is_changed_by_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MANY_CHANGES", 4)
    monkeypatch.setattr(upkeep, "MANY_COMMANDS", 4)
    warehouse, other = host(), host()
    world = World(warehouse)
    bring_many(world, 6)
    (row, *_) = warehouse.files({"key": "003.json"})
    warehouse.undo([row["file_id"]], Audit("ann"))
    before = everything(warehouse)
    assert warehouse.upkeep() == ["6 files of commands became 1.", "7 files of other rows became 1."]
    for seen in (warehouse, other, host()):
        assert everything(seen) == before
        assert seen.disagreements() == []
    assert warehouse.upkeep() == []
    found = warehouse.lake.find()
    assert found
    changes, commands = found.data_files()
    assert (len(changes), [file.record_count for file in commands]) == (1, [10]), "the rows of what is undone are gone"
    world.bring("more.json", record("ann", 1, "x"))
    assert broken_promises(other) == {}
    assert everything(other) == everything(host())


def test_upkeep_that_others_disturb_begins_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MANY_COMMANDS", 2)
    warehouse, other = host(), World(host())
    bring_many(World(warehouse), 3)
    with others_first(lambda: other.bring("late.json", record("ann", 1, "x"))):
        assert warehouse.upkeep() == ["4 files of commands became 1."]
    assert rows(warehouse, "SELECT count(*) AS n FROM commands") == [{"n": 7}]
    assert everything(warehouse) == everything(host())


def test_what_is_old_and_in_no_snapshot_is_removed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "MANY_CHANGES", 2)
    monkeypatch.setattr(upkeep, "MANY_COMMANDS", 2)
    warehouse = host()
    bring_many(World(warehouse), 3)
    before = everything(warehouse)
    warehouse.upkeep()
    found = warehouse.lake.find()
    assert found
    stray = Path(found.path(found.table.location())) / "data/part=commands/of a killed load.parquet"
    stray.write_bytes(b"PAR1")
    assert upkeep.expire(found, datetime.now(UTC)) == upkeep.sweep(found, datetime.now(UTC)) == []
    assert stray.exists()
    later = datetime.now(UTC) + upkeep.KEPT + timedelta(hours=1)
    assert upkeep.expire(found, later) == [f"3 snapshots of before {later - upkeep.KEPT:%Y-%m-%d} expired."]
    found = warehouse.lake.find()
    assert found
    (told,) = upkeep.sweep(found, later)
    assert told.endswith("objects that no snapshot knows removed.")
    assert not stray.exists()
    assert {one.name for one in stray.parent.iterdir()} == {Path(file.file_path).name for file in found.data_files()[1]}
    for seen in (warehouse, host()):
        assert everything(seen) == before


# --- other engines ---------------------------------------------------------------------------------------------------


def test_the_query_of_the_docs_finds_the_events(empty: IcebergWarehouse) -> None:
    """In the one table as any engine sees it: here pyiceberg reads it, by the catalog alone."""
    (query,) = blocks((ROOT / "docs/iceberg.md").read_text(encoding="utf-8"), "sql")
    world = World(empty)
    world.bring("a.json", record("ann", 1, "x"), put("ann", 2, plan="pro"), alias("ann", "bob"), "bad", arrived=50)
    world.bring("b.json", record("ann", 1, "x"), record("bob", 3, "y"), arrived=0)
    world.bring("gone.json", record("ann", 9, "z"))
    (row,) = empty.files({"key": "gone.json"})
    empty.undo([row["file_id"]], Audit("ann"))
    found = empty.lake.find()
    assert found
    landfall = found.table.scan().to_arrow()
    with duckdb.connect() as engine:
        engine.execute("SET TimeZone = 'UTC'")
        engine.register(
            "landfall",
            landfall.set_column(
                landfall.column_names.index("command_id"), "command_id", landfall["command_id"].cast(pa.binary(16))
            ),
        )
        told = engine.sql(query).to_arrow_table().select(["person", "event", "occurred_at", "file_id", "line"])
    events = rows(empty, "SELECT person, event, occurred_at, file_id, line FROM events")
    assert in_order(told.to_pylist()) == in_order(events)
    assert len(events) == 2
