"""Undo: what goes, what goes along, and that nothing is left of it."""

import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest.warehouse.engines.duckdb.applying import DuckDBSession
from tests.actions.acting import NOTE, SOURCES, X, again, do, drop, events, neighbours, open_lines, poll, state, told
from tests.support import World, alias, everything, record
from tests.test_exactly_once import Steps, warehouse_at


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1), (2, 0), (0, 1, 2)])
def test_undo_then_load_is_as_never_undone(world: World, which: tuple[int, ...]) -> None:
    files = neighbours(world)
    before = everything(world.warehouse, without=["duplicates"])
    chosen = [files[number] for number in which]
    assert [result.state for result in do(world, "undo", *chosen)] == ["undone"] * len(which)
    assert everything(world.warehouse, without=["duplicates"]) != before
    assert again(world, *chosen) == ["loaded"] * len(which)
    assert everything(world.warehouse, without=["duplicates"]) == before
    assert [action for action, *_ in told(world, chosen[0])] == ["undo", "load"]


@pytest.mark.parametrize("which", range(3))
def test_undo_is_as_never_loaded(world: World, which: int, tmp_path: Path, empty_warehouse: Path) -> None:
    files = neighbours(world)
    do(world, "undo", files[which])
    other = World(warehouse_at(Path(shutil.copy(empty_warehouse, tmp_path / "other.duckdb"))), SOURCES, world.store)
    other.load(*(file for number, file in enumerate(files) if number != which))
    views = ("commands", "failed_lines", "events", "identities", "people", "kissmetrics_events")
    assert everything(world.warehouse, tables=views) == everything(other.warehouse, tables=views)


def test_many_files_are_undone_in_as_few_statements_as_one(world: World) -> None:
    files = [drop(world, f"web/{n}.json", record("ann", n, "x"), alias("ann", f"n{n}"), "bad") for n in range(9)]
    poll(world, "web")
    with Steps().taken() as for_one:
        do(world, "undo", files[0])
    with Steps().taken() as for_many:
        world.warehouse.undo([file.file_id for file in files[1:]], NOTE)
    assert for_many.names.count("sql") <= for_one.names.count("sql")
    assert for_many.names.count("execute") <= for_one.names.count("execute")
    assert (world.count("commands"), world.count("failed_lines"), world.count("identities")) == (0, 0, 0)


@pytest.mark.parametrize("name", ["web", "replace"])
def test_what_a_load_puts_anew_leaves_all_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, tmp_path: Path, empty_warehouse: Path
) -> None:
    old = [drop(world, f"{name}/{n}.json", X, record("ann", n, "x"), alias("ann", f"n{n}")) for n in range(4)]
    poll(world, name)
    new = old if name == "web" else [drop(world, file.key, X, record("ann", 9, file.key)) for file in old]
    gone, take_away = list[int](), DuckDBSession.take_away

    def counted(self: DuckDBSession, file_nos: Any) -> None:
        gone.append(len(file_nos))
        take_away(self, file_nos)

    monkeypatch.setattr(DuckDBSession, "take_away", counted)
    assert {result.state for result in world.load(*new, force=name == "web")} == {"loaded"}
    assert gone == [4]
    other = World(warehouse_at(Path(shutil.copy(empty_warehouse, tmp_path / "other.duckdb"))), SOURCES, world.store)
    other.load(*new)
    views = ("commands", "events", "identities", "people")
    assert everything(world.warehouse, tables=views) == everything(other.warehouse, tables=views)


def test_an_undo_that_does_not_fit_the_memory_of_a_load_takes_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = drop(world, "web/1.json", X)
    poll(world, "web")
    take_away, tried = DuckDBSession.take_away, list[str]()

    def full(self: DuckDBSession, file_nos: Any) -> None:
        tried.extend(self.connection.execute("SELECT current_setting('memory_limit')").fetchall()[0])
        if len(tried) == 1:
            raise duckdb.OutOfMemoryException("full")
        take_away(self, file_nos)

    monkeypatch.setattr(DuckDBSession, "take_away", full)
    assert [result.state for result in do(world, "undo", file)] == ["undone"]
    assert tried == ["152.5 MiB", "3.8 GiB"]


def test_undo_names_the_copies_which_stay_unloaded_until_forced(world: World) -> None:
    file, copy = drop(world, "web/1.json", X), drop(world, "web/2.json", X)
    assert poll(world, "web") == {"web/1.json": "loaded", "web/2.json": "duplicate"}
    (result,) = do(world, "undo", file)
    assert (result.duplicates, result.redrives) == ((copy.file_id,), ())
    assert poll(world, "web") == {}
    assert again(world, copy) == ["duplicate"]
    assert events(world) == []
    (forced,) = do(world, "force", copy)
    assert (forced.state, events(world)) == ("loaded", [("ann", "x")])
    assert world.warehouse.find_file(copy.file_id)["duplicate_of"] is None
    drop(world, "web/3.json", X)
    assert poll(world, "web") == {"web/3.json": "duplicate"}


def test_a_copy_of_what_was_undone_is_loaded(world: World) -> None:
    file = drop(world, "web/1.json", X)
    poll(world, "web")
    do(world, "undo", file)
    drop(world, "web/2.json", X)
    assert poll(world, "web") == {"web/2.json": "loaded"}
    assert again(world, file) == ["duplicate"]
    assert events(world) == [("ann", "x")]


def test_undo_of_a_rejected_file_takes_its_failed_lines_away(world: World) -> None:
    file = drop(world, "strict/a.json", X, "bad")
    poll(world, "strict")
    do(world, "undo", file)
    assert (world.count("failed_lines"), state(world, file)) == (0, "undone")
    assert again(world, file) == ["rejected"]
    assert open_lines(world, file) == [2]
