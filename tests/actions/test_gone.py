"""What waits for an object that is gone."""

import gzip
from dataclasses import replace
from typing import Any

import pytest

from ingest.core.source import SourceFile
from ingest.errors import TransientError
from ingest.reconcile import reconcile
from ingest.settings import Source
from tests.actions.acting import NOTE, X, do, drop, events, poll, state, told
from tests.conftest import S3
from tests.support import World, lines, record


def waiting(world: World, key: str, **more: Any) -> SourceFile:
    """A file that broke off, and is due again."""
    file = drop(world, key, X, **more)
    world.store.broken[key] = "It broke off."
    assert poll(world, file.source) == {key: "retrying"}
    world.store.broken.clear()
    world.warehouse.retry([file.file_id], NOTE)
    return file


def polled(world: World, name: str) -> tuple[dict[str, str], list[str]]:
    """What became of each pending file, and what waited for nothing, where a poll may close that."""
    found = world.pipeline.discover(name, NOTE)
    return {one.key: one.state for one in world.pipeline.load(found.pending)}, found.gone


@pytest.mark.parametrize("name", ["web", "hold", "replace"])
def test_a_file_is_tried_no_more_when_a_good_one_was_sent_in_its_place(world: World, name: str) -> None:
    key = f"{name}/a.json"
    broken = waiting(world, key)
    drop(world, key, record("bob", 1, "x"))
    assert polled(world, name) == ({key: "loaded"}, [key])
    row = world.warehouse.find_file(broken.file_id)
    assert (row["state"], row["next_try_at"], "was deleted" in row["error"]) == ("replaced", None, True)
    assert told(world, broken)[-1] == ("gone", "ann", row["error"], "run 7")
    assert [one.what for one in reconcile(world.pipeline).differences] == []
    assert polled(world, name) == ({}, [])


def test_a_deleted_file_that_comes_back_is_new_again(world: World) -> None:
    broken = waiting(world, "web/a.json")
    del world.store.objects["bucket", "web/a.json"]
    assert polled(world, "web") == ({}, ["web/a.json"])
    drop(world, "web/a.json", X)  # the same bytes
    world.store.broken["web/a.json"] = "It broke off again."
    assert polled(world, "web") == ({"web/a.json": "retrying"}, [])
    assert polled(world, "web") == ({}, [])  # less and less often
    world.store.broken.clear()
    world.warehouse.retry([broken.file_id], NOTE)
    assert polled(world, "web") == ({"web/a.json": "loaded"}, [])
    assert events(world) == [("ann", "x")]


def test_only_what_the_store_calls_gone_is_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    file = waiting(world, "web/a.json")
    there = world.store.objects.pop(("bucket", "web/a.json"))
    assert world.pipeline.discover("web").gone == ["web/a.json"]  # who looks only, closes nothing
    assert state(world, file) == "retrying"

    def fails(*_: object) -> Any:
        raise TransientError("The store did not answer.")

    with monkeypatch.context() as patch:
        patch.setattr("tests.support.MemoryStore.list", fails)
        with pytest.raises(TransientError):
            polled(world, "web")
    assert state(world, file) == "retrying"
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.MemoryStore.read", fails)
        assert polled(world, "web") == ({"web/a.json": "retrying"}, [])
    assert polled(world, "web") == ({}, [])  # put off: it is not even asked for
    world.warehouse.retry([file.file_id], NOTE)
    world.store.objects["bucket", "web/a.json"] = there
    with monkeypatch.context() as patch:  # a listing that misses it
        patch.setattr(world.store, "list", lambda *_: iter(()))
        assert polled(world, "web") == ({"web/a.json": "loaded"}, [])


def test_an_older_version_is_tried_again_as_long_as_it_is_there(world: World, s3: S3) -> None:
    s3.keep_versions()
    there = replace(world.pipeline, store_of=lambda _: s3.store)
    there = replace(there, settings=replace(there.settings, sources={"v": Source(name="v", bucket=s3.bucket)}))
    s3.put("a.json", gzip.compress(lines(X))[:-9])
    (broken,) = there.load(there.discover("v", NOTE).pending)
    s3.put("a.json", lines(record("bob", 1, "x")))
    assert [one.state for one in there.load(there.discover("v", NOTE).pending)] == ["loaded"]
    world.warehouse.retry([broken.file_id], NOTE)
    found = there.discover("v", NOTE)
    assert ([file.file_id for file in found.pending], found.gone) == ([broken.file_id], [])
    version = found.pending[0].version_id or ""
    s3.client.delete_object(Bucket=s3.bucket, Key="a.json", VersionId=version)
    found = there.discover("v", NOTE)
    assert (found.pending, found.gone) == ([], ["a.json"])
    assert world.warehouse.find_file(broken.file_id)["state"] == "replaced"


def test_a_key_that_returns_to_its_bytes_leaves_nothing_held(world: World) -> None:
    """A, B, A: the second change takes back the first. And when B returns, that is a change again."""
    drop(world, "hold/a.json", X)
    poll(world, "hold")
    held = drop(world, "hold/a.json", record("bob", 1, "x"))
    assert polled(world, "hold") == ({"hold/a.json": "held"}, [])
    assert polled(world, "hold") == ({}, [])
    drop(world, "hold/a.json", X)
    assert polled(world, "hold") == ({}, ["hold/a.json"])
    assert (state(world, held), reconcile(world.pipeline).differences) == ("replaced", [])
    drop(world, "hold/a.json", record("bob", 1, "x"))
    assert polled(world, "hold") == ({"hold/a.json": "held"}, [])
    assert [result.state for result in do(world, "release", held)] == ["loaded"]
    assert events(world) == [("ann", "x"), ("bob", "x")]
