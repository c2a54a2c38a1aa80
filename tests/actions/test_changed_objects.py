"""An object that is not what it was: another version beside the old one, in its place, or held."""

from dataclasses import replace

import pytest

from ingest.cli.loading import show_files
from tests.actions.acting import NOTE, X, do, drop, events, mend, poll, state, told
from tests.simulator.world import Store
from tests.support import Line, World, alias, lines, record


def test_a_held_file_is_loaded_by_release_beside_the_old_one(world: World) -> None:
    drop(world, "hold/a.json", X)
    poll(world, "hold")
    held = drop(world, "hold/a.json", record("bob", 1, "x"))
    assert poll(world, "hold") == {"hold/a.json": "held"}
    assert events(world) == [("ann", "x")]
    assert world.warehouse.find_file(held.file_id)["error"]
    assert [result.state for result in do(world, "release", held)] == ["loaded"]
    assert events(world) == [("ann", "x"), ("bob", "x")]
    assert world.warehouse.find_file(held.file_id)["error"] is None
    drop(world, "hold/a.json", record("cat", 2, "x"))
    assert poll(world, "hold") == {"hold/a.json": "held"}


def test_a_held_file_may_be_ignored(world: World) -> None:
    drop(world, "hold/a.json", X)
    poll(world, "hold")
    held = drop(world, "hold/a.json", record("bob", 1, "x"))
    poll(world, "hold")
    do(world, "ignore", held)
    assert (poll(world, "hold"), events(world)) == ({}, [("ann", "x")])


def test_a_replaced_file_leaves_with_its_redrives(world: World) -> None:
    old = drop(world, "replace/a.json", X, "bad", alias("ann", "bob"))
    poll(world, "replace")
    outcome = mend(world, old, {2: record("bob", 1, "x")})
    assert outcome.result
    new = drop(world, "replace/a.json", record("bob", 5, "y"))
    (result,) = world.pipeline.load(world.pipeline.discover("replace").pending, note=NOTE)
    assert (result.state, set(result.replaces)) == ("loaded", {old.file_id, outcome.result.file_id})
    rows = world.rows(f"SELECT DISTINCT state, replaced_by FROM ledger WHERE file_id <> '{new.file_id}'")
    assert rows == [{"state": "replaced", "replaced_by": new.file_id}]
    assert events(world) == [("bob", "y")]
    assert world.rows("SELECT identity_key, person_id FROM identities") == [{"identity_key": "bob", "person_id": "bob"}]
    assert world.count("failed_lines") == 0
    assert told(world, old)[-1] == ("replace", "ann", "it was wrong", "run 7")


def test_copies_of_what_is_replaced_are_named(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    drop(world, "replace/a.json", X)
    copies = [drop(world, f"replace/{name}.json", X) for name in "bc"]
    drop(world, "replace/other.json", record("cat", 1, "x"))
    assert poll(world, "replace")["replace/c.json"] == "duplicate"
    drop(world, "replace/a.json", body=lines(X), etag="in parts")
    assert poll(world, "replace") == {"replace/a.json": "duplicate"}  # its object goes with that which is replaced
    drop(world, "replace/a.json", record("bob", 1, "x"))
    results = world.pipeline.load(world.pipeline.discover("replace").pending)
    assert [result.copies for result in results] == [tuple(file.file_id for file in copies)]
    assert show_files(results, False, (), "failed") == 0
    told = f"stay unloaded until they are forced: {copies[0].file_id[:8]} {copies[1].file_id[:8]}"
    assert told in capsys.readouterr().err
    drop(world, "replace/a.json", record("bob", 2, "x"))
    assert [one.copies for one in world.pipeline.load(world.pipeline.discover("replace").pending)] == [()]


@pytest.mark.parametrize("wrong", ["rejected", "cannot be read"])
def test_the_old_one_stays_where_the_new_one_is_rejected_or_cannot_be_loaded(world: World, wrong: str) -> None:
    old = drop(world, "both/a.json", X)
    poll(world, "both")
    drop(world, "both/a.json", record("bob", 1, "x"), *["bad"] * (wrong == "rejected"))
    if wrong != "rejected":
        world.store.broken["both/a.json"] = "It broke off."
    assert poll(world, "both") == {"both/a.json": "rejected" if wrong == "rejected" else "retrying"}
    assert (state(world, old), events(world)) == ("loaded", [("ann", "x")])
    world.store.broken.clear()
    new = drop(world, "both/a.json", record("cat", 2, "x"))
    assert poll(world, "both") == {"both/a.json": "loaded"}
    assert (state(world, old), events(world)) == ("replaced", [("cat", "x")])
    assert world.warehouse.find_file(old.file_id)["replaced_by"] == new.file_id


@pytest.mark.slow
def test_a_key_that_returns_to_bytes_that_were_replaced(world: World) -> None:
    """A, B, A is two changes."""
    bodies: list[Line] = [X, record("bob", 1, "x")]
    files = []
    for number in (0, 1, 0, 1, 1, 0):
        files.append(drop(world, "replace/a.json", bodies[number]))
        poll(world, "replace")
        assert events(world) == [[("ann", "x")], [("bob", "x")]][number]
        assert poll(world, "replace") == {}
    assert {file.file_id for file in files} == {row["file_id"] for row in world.rows("SELECT * FROM ledger")}
    newest, older = (world.warehouse.find_file(file.file_id) for file in (files[0], files[1]))
    assert (newest["state"], newest["replaced_by"], older["state"]) == ("loaded", None, "replaced")
    assert older["replaced_by"] == newest["file_id"]
    assert newest["last_modified"] == files[-1].last_modified


@pytest.mark.parametrize(("name", "states"), [
    ("replace", ["replaced", "loaded"]), ("hold", ["loaded", "held"]), ("web", ["loaded", "loaded"]),
])  # fmt: skip
def test_versions_that_come_in_one_load_are_taken_in_the_order_in_which_they_came(
    world: World, name: str, states: list[str]
) -> None:
    """The first could not be read when it came, say."""
    world.store = store = Store()
    store.step = lambda _: None
    bodies: list[Line] = [X, record("bob", 1, "x")]
    files = []
    for number, body in enumerate(bodies):
        plain = drop(world, f"{name}/a.json", body)
        files.append(store.put(replace(plain, version_id=f"v{number}"), lines(body)))
    world.load(*reversed(files))
    assert [state(world, file) for file in files] == states


def test_versions_of_a_key_are_source_files_of_their_own(world: World) -> None:
    """A, B, A in a bucket that keeps versions: three files, and what was replaced stays so."""
    bodies: list[Line] = [X, record("bob", 1, "x"), X]
    for number, body in enumerate(bodies):
        plain = drop(world, "replace/a.json", body)
        world.store.put(replace(plain, version_id=f"v{number}"), lines(body))
        assert poll(world, "replace") == {"replace/a.json": "loaded"}
    states = world.rows("SELECT version_id, state FROM ledger ORDER BY version_id")
    assert [row["state"] for row in states] == ["replaced", "replaced", "loaded"]
    assert events(world) == [("ann", "x")]


def test_a_copy_of_what_the_same_load_replaces_is_loaded(world: World) -> None:
    drop(world, "replace/1.json", X)
    poll(world, "replace")
    drop(world, "replace/1.json", record("bob", 1, "x"))
    drop(world, "replace/2.json", X)
    assert poll(world, "replace") == {"replace/1.json": "loaded", "replace/2.json": "loaded"}
    assert events(world) == [("ann", "x"), ("bob", "x")]


def test_replace_takes_the_redrives_of_rejected_versions_along(world: World) -> None:
    rejected = drop(world, "both/a.json", X, "bad")
    poll(world, "both")
    assert mend(world, rejected, {2: record("bob", 1, "x")}).result
    drop(world, "both/a.json", record("cat", 2, "x"))
    assert poll(world, "both") == {"both/a.json": "loaded"}
    assert events(world) == [("cat", "x")]
    # The key comes back to its first bytes, and the lines of those can be mended again.
    drop(world, "both/a.json", X, "bad")
    assert mend(world, rejected, {2: record("bob", 1, "x")}).result
    assert events(world) == [("ann", "x"), ("bob", "x")]


@pytest.mark.parametrize("by", ["force", "redrive"])
def test_a_rejected_version_replaces_the_old_one_once_it_is_loaded(world: World, by: str) -> None:
    old = drop(world, "both/a.json", X)
    poll(world, "both")
    new = drop(world, "both/a.json", record("bob", 1, "x"), "bad")
    poll(world, "both")
    if by == "force":
        do(world, "force", new)
    else:
        assert mend(world, new, {2: record("cat", 1, "x")}).result
    assert state(world, old) == "replaced"
    assert ("ann", "x") not in events(world)


def test_a_copy_of_another_key_replaces_as_well(world: World) -> None:
    old = drop(world, "replace/1.json", X)
    drop(world, "replace/2.json", record("bob", 1, "x"))
    poll(world, "replace")
    drop(world, "replace/1.json", record("bob", 1, "x"))
    poll(world, "replace")
    assert state(world, old) == "replaced"
    assert events(world) == [("bob", "x")]
