"""Each state with each action: what is taken on, what is refused, and which files are meant (SPEC 4, decision 0002)."""

import shutil
from copy import deepcopy
from pathlib import Path

import pytest

from ingest import actions
from ingest.core.lifecycle import ACTIONS, KEEPS_LINES, Action
from ingest.core.source import SourceFile
from ingest.errors import IngestError, ObjectGone
from ingest.ports import ActionResult
from ingest.preview import preview
from ingest.redrive import redrive
from ingest.report import no_open_lines
from tests.actions.acting import (
    NOTE,
    SOURCES,
    X,
    again,
    all_of,
    archive,
    do,
    drop,
    events,
    mend,
    path_of,
    poll,
    source,
    state,
    told,
)
from tests.support import World, alias, everything, in_order, record
from tests.test_exactly_once import warehouse_at


def would(world: World, action: Action, *files: SourceFile) -> list[ActionResult]:
    rows, new = actions.chosen(world.pipeline, [file.file_id for file in files], action)
    return actions.would(action, rows, new, [])


STATES = ("loaded", "rejected", "held", "duplicate", "undone", "replaced", "ignored", "retrying")


@pytest.fixture(scope="module")
def in_every_state(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, SourceFile]]:
    """A file in each state, whose object is there; of the replaced one it is not."""
    world = World(warehouse_at(tmp_path_factory.mktemp("states") / "warehouse.duckdb"), SOURCES)
    files = {
        "loaded": drop(world, "web/loaded.json", X, "bad", alias("ann", "bob")),
        "rejected": drop(world, "strict/rejected.json", record("bob", 1, "x"), "bad"),
        "undone": drop(world, "web/undone.json", record("cat", 2, "x")),
        "replaced": drop(world, "replace/replaced.json", record("dan", 3, "x")),
        "retrying": drop(world, "web/retrying.json", record("eve", 4, "x")),
    }
    drop(world, "hold/held.json", record("fay", 5, "x"))
    original = drop(world, "web/copied.json", record("gus", 6, "x"))
    world.store.broken["web/retrying.json"] = "It broke off."
    for one in SOURCES:
        poll(world, one.name)
    world.store.broken.clear()
    world.warehouse.undo([files["undone"].file_id], NOTE)
    files["held"] = drop(world, "hold/held.json", record("fay", 7, "x"))
    files["duplicate"] = drop(world, "web/copy.json", record("gus", 6, "x"))
    drop(world, "replace/replaced.json", record("dan", 8, "x"))
    for one in SOURCES:
        poll(world, one.name)
    files["ignored"] = drop(world, "web/ignored.json", record("hal", 9, "x"))
    world.warehouse.ignore([], [files["ignored"]], NOTE)
    assert {name: state(world, file) for name, file in files.items()} == {name: name for name in STATES}
    assert state(world, original) == "loaded"
    return world, files


@pytest.fixture
def every_state(
    in_every_state: tuple[World, dict[str, SourceFile]], tmp_path: Path
) -> tuple[World, dict[str, SourceFile]]:
    of_all, files = in_every_state
    path = Path(shutil.copy(of_all.warehouse.name.removeprefix("duckdb:///"), tmp_path / "states.duckdb"))
    return World(warehouse_at(path), SOURCES, deepcopy(of_all.store)), files


# Each arrow of the diagram that a person may ask for; of all other states the action is refused.
ARROWS: dict[Action, dict[str, str]] = {
    "undo": {"loaded": "undone", "rejected": "undone"},
    "force": {name: "loaded" for name in STATES if name != "replaced"}
    | {"replaced": "replaced"},  # taken on, but its object is not there any more
    "release": {"held": "loaded"},
    "ignore": dict.fromkeys(("rejected", "held", "duplicate", "undone", "retrying"), "ignored"),
    "retry": {"retrying": "loaded"},
}
REFUSED = [(action, before) for action in ACTIONS for before in STATES if before not in ARROWS[action]]


def test_every_action_has_its_arrows() -> None:
    assert set(ARROWS) == set(ACTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(("action", "before"), REFUSED)
def test_an_action_refuses_other_states_with_a_sentence(
    every_state: tuple[World, dict[str, SourceFile]], action: Action, before: str
) -> None:
    world, files = every_state
    shows = all_of(world)
    (told,) = would(world, action, files[before])
    (result,) = do(world, action, files[before])
    assert all_of(world) == shows
    for one in (told, result):
        assert (one.before, one.state) == (before, before)
        assert one.error
        assert before in one.error
        assert one.error.endswith(".")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_dry_run_says_what_will_be_refused_and_changes_nothing(
    every_state: tuple[World, dict[str, SourceFile]], action: Action
) -> None:
    world, files = every_state
    shows = all_of(world)
    said = {result.before: bool(result.error) for result in would(world, action, *files.values())}
    assert all_of(world) == shows
    assert said == {name: name not in ARROWS[action] for name in STATES}


def test_one_that_is_refused_does_not_hold_up_the_others(every_state: tuple[World, dict[str, SourceFile]]) -> None:
    world, files = every_state
    results = do(world, "undo", files["held"], files["loaded"], files["undone"], files["rejected"])
    assert [(result.state, bool(result.error)) for result in results] == [
        ("held", True), ("undone", False), ("undone", True), ("undone", False),
    ]  # fmt: skip


def test_what_is_not_there_any_more_stays_as_it_was_when_it_is_forced(
    every_state: tuple[World, dict[str, SourceFile]],
) -> None:
    world, files = every_state
    del world.store.objects["bucket", "web/loaded.json"]
    shows = all_of(world)
    results = do(world, "force", files["replaced"], files["loaded"])
    assert all(actions.failed("force", result) or result.state == "gone" for result in results)
    assert all_of(world) == shows


@pytest.mark.parametrize("before", ["loaded", "undone", "duplicate", "rejected"])
def test_what_was_archived_is_forced_and_loaded_by_name_as_if_it_were_still_there(
    every_state: tuple[World, dict[str, SourceFile]], before: str
) -> None:
    world, files = every_state
    there = World(warehouse_at(Path(shutil.copy(path_of(world), f"{path_of(world)}.other"))), SOURCES, world.store)
    do(there, "force", files[before])
    (by_name,) = there.load(*there.pipeline.locate(files[before].uri, files[before].source), force=True)
    expected = everything(there.warehouse)

    archive(world, files[before])
    if before == "undone":
        assert again(world, *world.pipeline.locate(files[before].uri, files[before].source)) == ["loaded"]
    do(world, "force", files[before])
    assert state(world, files[before]) == "loaded"
    assert everything(world.warehouse, without=["archived_to", "deleted_at"]) == {
        table: in_order(rows, ["archived_to", "deleted_at"]) for table, rows in expected.items()
    }
    (again_by_name,) = world.load(*world.pipeline.locate(files[before].uri, files[before].source), force=True)
    assert (again_by_name.state, again_by_name.counts) == (by_name.state, by_name.counts)
    with pytest.raises(ObjectGone):  # a check needs no warehouse
        world.pipeline.locate(files[before].uri, files[before].source, archived=False)


@pytest.mark.parametrize("wrong", ["shorter", "other bytes", "gone"])
def test_an_archived_copy_that_is_not_what_was_loaded_is_not_loaded(world: World, wrong: str) -> None:
    file = drop(world, "web/a.json", X, record("bob", 1, "x"))
    poll(world, "web")
    copy = archive(world, file)
    _, body = world.store.objects.pop(("bucket", copy))
    if wrong != "gone":
        world.put(copy, body=body[:-5] if wrong == "shorter" else body.replace(b"bob", b"cat"))
    shows = all_of(world)
    (result,) = do(world, "force", file)
    assert (result.state, bool(result.error)) == ("gone", True)
    assert all_of(world) == shows


def test_a_page_shows_no_archived_copy_of_another_size_though_it_reads_only_the_beginning(world: World) -> None:
    file = drop(world, "web/a.json", *[record("bob", 1, "x", long="y" * 100_000)] * 30)
    poll(world, "web")
    copy = archive(world, file)
    row = world.warehouse.find_file(file.file_id)
    assert len(preview(world.pipeline, row, 1, most=1).lines) == 1
    world.put(copy, body=world.store.objects["bucket", copy][1] + b"{}")
    with pytest.raises(ObjectGone, match="bytes"):
        preview(world.pipeline, row, 1, most=1)


@pytest.mark.parametrize("before", [name for name in STATES if name not in ("loaded", "rejected")])
def test_only_lines_of_loaded_and_rejected_files_are_mended(
    every_state: tuple[World, dict[str, SourceFile]], before: str
) -> None:
    world, files = every_state
    shows = all_of(world)
    with pytest.raises(IngestError, match=before):
        mend(world, files[before], {1: X})
    with pytest.raises(IngestError, match=before):
        mend(world, files[before], None)
    assert all_of(world) == shows


@pytest.mark.parametrize("final", [name for name in STATES if name != "retrying"])
def test_a_poll_leaves_what_is_final(every_state: tuple[World, dict[str, SourceFile]], final: str) -> None:
    world, files = every_state
    assert files[final] not in [file for one in SOURCES for file in world.pipeline.discover(one.name).pending]
    shows = all_of(world)
    if final != "replaced":  # see A, B, A
        (result,) = world.pipeline.load([files[final]])
        assert (result.state, result.already) == (final, True)
    assert all_of(world) == shows


@pytest.mark.parametrize(("before", "after"), [("undone", "loaded"), ("ignored", "loaded"), *(
    (name, name) for name in ("loaded", "rejected", "held", "duplicate")
)])  # fmt: skip
def test_a_load_by_name_takes_what_was_undone_or_ignored(
    every_state: tuple[World, dict[str, SourceFile]], before: str, after: str
) -> None:
    world, files = every_state
    assert again(world, files[before]) == [after]
    assert state(world, files[before]) == after


def test_a_file_that_nobody_knows_is_refused(world: World) -> None:
    for action in ACTIONS:
        with pytest.raises(IngestError, match="nothing"):
            do(world, action, "nothing")
        with pytest.raises(IngestError, match="source"):
            do(world, action)
    with pytest.raises(IngestError):
        redrive(world.pipeline, "nothing", None, NOTE)


def test_an_object_that_is_pending_may_be_ignored(world: World) -> None:
    file = drop(world, "web/a.json", X)
    (result,) = do(world, "ignore", "s3://bucket/web/a.json")
    assert (result.before, result.state, state(world, file)) == ("pending", "ignored", "ignored")
    assert poll(world, "web") == {}
    assert told(world, file) == [("ignore", "ann", "it was wrong", "run 7")]
    assert again(world, file) == ["loaded"]
    assert events(world) == [("ann", "x")]
    with pytest.raises(IngestError, match="nowhere"):
        do(world, "ignore", "s3://nowhere/a.json")


def test_what_no_source_would_take_is_not_ignored(world: World) -> None:
    world.sources = [source("csv", pattern="*.csv", prefix=""), source("web", report_prefix="reports/")]
    file = drop(world, "web/a.json", X)
    for key in ("web/a.txt", "completed_imports/web/a.json", "reports/web/a.json"):
        world.put(key, X)
        with pytest.raises(IngestError, match="no source would take it"):
            do(world, "ignore", f"s3://bucket/{key}")
    assert world.count("ledger") == 0
    do(world, "ignore", "s3://bucket/web/a.json")
    assert world.warehouse.find_file(file.file_id)["source"] == "web"


def test_files_of_a_source_since(world: World) -> None:
    files = [drop(world, f"web/{n}.json", record("ann", n, "x"), "bad") for n in range(3)]
    drop(world, "hold/other.json", record("bob", 0, "x"))
    poll(world, "web")
    poll(world, "hold")
    assert mend(world, files[0], {2: record("ann", 9, "y")}).result
    for since, number in ((None, 3), ("1h", 3), ("2099-01-01", 0)):
        rows, new = actions.chosen(world.pipeline, [], "undo", "web", since)
        assert ([row["file_id"] for row in rows], new) == ([file.file_id for file in files][:number], [])
    results = actions.act(
        world.pipeline, "undo", rows := actions.chosen(world.pipeline, [], "undo", "web")[0], [], NOTE
    )
    assert [result.state for result in results] == ["undone"] * len(rows)
    assert events(world) == [("bob", "x")]
    with pytest.raises(IngestError, match="nosuch"):
        actions.chosen(world.pipeline, [], "undo", "nosuch")
    with pytest.raises(IngestError, match="both"):
        actions.chosen(world.pipeline, [files[0].file_id], "undo", "web")


def test_whoever_asks_for_failed_lines_that_are_elsewhere_is_told_where(
    every_state: tuple[World, dict[str, SourceFile]],
) -> None:
    world, files = every_state
    for name, file in files.items():
        row = world.warehouse.find_file(file.file_id)
        found = no_open_lines(row)
        assert found.file_id == (row["duplicate_of"] or row["replaced_by"]), name
        if found.file_id:
            assert world.warehouse.find_file(found.file_id)["state"] in KEEPS_LINES
    assert len({no_open_lines(world.warehouse.find_file(file.file_id)) for file in files.values()}) >= len(STATES) - 1
