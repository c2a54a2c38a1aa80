"""Lines that were fixed stay fixed where they come again in another version, and only these."""

import gzip
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest

from ingest.cli.loading import show_files
from ingest.core.source import SourceFile
from ingest.reconcile import reconcile
from tests.actions.acting import X, accepted_twice, do, drop, events, mend, mended_by, open_lines, poll, source, state
from tests.support import Line, World, lines, record
from tests.test_exactly_once import broken_promises

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes, "gzip": gzip.compress, "gzip, quickly": lambda body: gzip.compress(body, 1),
    "zstd": lambda body: pa.compress(body, codec="zstd", asbytes=True),
    "with another line": lambda body: body + lines(record("eve", 9, "z")),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("packed", [*list(PACKED)[1:], "all of them"])
@pytest.mark.parametrize("name", ["web", "replace", "hold"])
def test_lines_that_were_fixed_stay_fixed_where_they_come_again_in_another_version(
    world: World, name: str, packed: str
) -> None:
    """The same content, compressed anew, is another object to a store, and no news to those who fixed its lines."""
    content = lines(X, "bad", "worse", "worst")
    old = drop(world, f"{name}/a.json", body=content)
    poll(world, name)
    assert mend(world, old, {2: record("bob", 1, "x"), 3: record("cat", 1, "x")}).result
    told = [("ann", "x"), ("bob", "x"), ("cat", "x")]
    assert (events(world), open_lines(world, old)) == (told, [4])
    for one in list(PACKED)[1:] if packed == "all of them" else [packed]:
        new = drop(world, f"{name}/a.json", body=PACKED[one](content))
        poll(world, name)
        if name == "hold":
            do(world, "release", new)
        assert state(world, new) == "loaded"
        assert (open_lines(world, new), list(mended_by(world, new))) == ([4], [2, 3])
        assert [event for event in events(world) if event != ("eve", "z")] == told
        assert broken_promises(world.warehouse) == {}
        if name != "replace":
            assert open_lines(world, old) == [4]
        outcome = mend(world, new, {2: record("bob", 1, "x")})
        assert (outcome.result, outcome.already, outcome.open) == (None, 1, 1)
    do(world, "force", new)
    assert open_lines(world, new) == [4]
    do(world, "undo", new)
    assert events(world) == ([] if name == "replace" else told)
    assert broken_promises(world.warehouse) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web", "replace"])
@pytest.mark.parametrize(("content", "still_open"), [
    pytest.param((X, "bad", "other"), [3], id="one came otherwise"),
    pytest.param((X, record("bob", 1, "x"), "worse"), [], id="one is right by now"),
    pytest.param((X, "new", "bad", "worse"), [2, 3, 4], id="all moved"),
])  # fmt: skip
def test_lines_that_are_not_as_they_were_when_they_were_fixed_are_open(
    world: World, name: str, content: Sequence[Line], still_open: list[int]
) -> None:
    """Where the new one takes the place of the old, a redrive that mended others, too, would bring those twice."""
    old = drop(world, f"{name}/a.json", X, "bad", "worse")
    poll(world, name)
    for number, who in ((2, "bob"), (3, "cat")):
        assert mend(world, old, {number: record(who, 1, "x")}).result
    new = drop(world, f"{name}/a.json", *content)
    assert poll(world, name) == {f"{name}/a.json": "loaded"}
    assert open_lines(world, new) == still_open
    assert accepted_twice(world) == []
    assert broken_promises(world.warehouse) == {}


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["the redrive", "the old version", "both versions"])
def test_what_fixed_a_line_of_two_versions_opens_it_in_both_when_it_goes(world: World, gone: str) -> None:
    old = drop(world, "web/a.json", body=lines(X, "bad"))
    poll(world, "web")
    outcome = mend(world, old, {2: record("bob", 1, "x")})
    assert outcome.result
    new = drop(world, "web/a.json", body=gzip.compress(lines(X, "bad")))
    poll(world, "web")
    assert (open_lines(world, new), mended_by(world, new)) == ([], {2: outcome.result.file_id})
    undone: dict[str, list[SourceFile | str]] = {
        "the redrive": [outcome.result.file_id], "the old version": [old], "both versions": [old, new],
    }  # fmt: skip
    do(world, "undo", *undone[gone])
    assert open_lines(world, new) == ([] if gone == "both versions" else [2])
    assert ("bob", "x") not in events(world)
    assert broken_promises(world.warehouse) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web", "limit"])
def test_the_same_bytes_again_are_no_change_of_a_file_that_was_fixed(world: World, name: str) -> None:
    """Neither where it was rejected, and a redrive holds all of it; nor where today's limits would reject it."""
    content = lines(X, "bad", "worse")
    old = drop(world, f"{name}/a.json", body=content)
    poll(world, name)
    assert mend(world, old, {2: record("bob", 1, "x"), 3: record("cat", 1, "x")}).open == 0
    world.sources = (source(name, max_failed_lines=1),)
    for etag in ("in parts", "in other parts"):
        new = drop(world, f"{name}/a.json", body=content, etag=etag)
        assert poll(world, name) == {f"{name}/a.json": "duplicate"}
        row = world.warehouse.find_file(new.file_id)
        assert (row["duplicate_of"], row["error"]) == (old.file_id, None)
        assert (open_lines(world, new), open_lines(world, old)) == ([], [])
    assert [one for one in reconcile(world.pipeline).information if one.what == "duplicate_of"] == []
    assert events(world) == [("ann", "x"), ("bob", "x"), ("cat", "x")]


def test_a_load_says_how_many_of_its_failed_lines_were_fixed_before(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    old = drop(world, "web/a.json", body=lines(X, "bad", "worse"))
    poll(world, "web")
    for left, fixed in ((1, {2: record("bob", 1, "x")}), (0, {3: record("bob", 2, "x")})):
        mend(world, old, fixed)
        drop(world, "web/a.json", body=gzip.compress(lines(X, "bad", "worse"), left))
        (result,) = world.pipeline.load(world.pipeline.discover("web").pending)
        assert (result.counts.failed, result.fixed) == (2, 2 - left)
        assert show_files([result], False, (), "failed") == left
        assert ("The failed lines: ingest failures" in capsys.readouterr().err) == bool(left)
