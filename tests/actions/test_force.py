"""Force: a file anew in its place, past its limits."""

from tests.actions.acting import (
    X,
    accepted_twice,
    all_of,
    do,
    drop,
    events,
    mend,
    mended_by,
    neighbours,
    open_lines,
    poll,
    source,
)
from tests.support import World, everything, record


def test_force_puts_a_file_anew_in_its_place(world: World) -> None:
    files = neighbours(world)
    before = everything(world.warehouse, without=["duplicates"])
    for file in files:
        assert [result.state for result in do(world, "force", file)] == ["loaded"]
        assert everything(world.warehouse, without=["duplicates"]) == before


def test_force_goes_past_the_limits_and_keeps_the_failed_lines(world: World) -> None:
    file = drop(world, "strict/a.json", X, "bad")
    assert poll(world, "strict") == {"strict/a.json": "rejected"}
    assert events(world) == []
    (result,) = do(world, "force", file)
    assert (result.before, result.state) == ("rejected", "loaded")
    assert (events(world), open_lines(world, file)) == ([("ann", "x")], [2])


def test_force_keeps_mended_lines_mended(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad", "worse")
    poll(world, "web")
    assert mend(world, file, {2: record("bob", 1, "x")}).result
    before = everything(world.warehouse, without=["duplicates"])
    do(world, "force", file)
    assert everything(world.warehouse, without=["duplicates"]) == before
    assert (list(mended_by(world, file)), open_lines(world, file)) == ([2], [3])
    assert accepted_twice(world) == []


def test_a_redrive_itself_is_not_forced(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad")
    poll(world, "web")
    outcome = mend(world, file, {2: record("bob", 1, "x")})
    assert outcome.result
    shows = all_of(world)
    (result,) = do(world, "force", outcome.result.file_id)
    assert result.error
    assert "fixed lines" in result.error
    assert all_of(world) == shows


def test_force_of_a_rejected_file_that_was_redriven(world: World) -> None:
    file = drop(world, "strict/a.json", X, "bad")
    poll(world, "strict")
    assert mend(world, file, {2: record("bob", 1, "x")}).result
    do(world, "force", file)
    assert accepted_twice(world) == []
    mended = ("bob", "x") in events(world)
    assert events(world) == [("ann", "x"), *[("bob", "x")] * mended]
    assert open_lines(world, file) == [2] * (not mended)


def test_force_under_new_rules_does_not_bring_mended_lines_again(world: World) -> None:
    file = drop(world, "web/a.json", X, record("dan", 5, "n", o={"a": 1}))
    poll(world, "web")
    assert mend(world, file, {2: record("bob", 1, "x")}).result
    world.sources = (source("web", nested="flatten"),)
    do(world, "force", file)
    assert accepted_twice(world) == []
