"""A file in a final state stays in it, whatever may be seen of versions today: see `SourceFile.is_same`.

Each history is played twice over the same objects: versions are seen at first and not later, or the other way round.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from ingest.core.lifecycle import LONGEST_DELAY
from ingest.core.source import SourceFile
from ingest.errors import ListingDoubted, TransientError
from ingest.ports import Audit, Warehouse
from ingest.reconcile import reconcile
from ingest.settings import Source
from tests.support import ARRIVAL, MemoryStore, World, change, lines, record

NOTE = Audit("ann")
WEB = Source(name="web", bucket="bucket", prefix="web/")
SKIPS = Source(name="web", bucket="bucket", prefix="web/", existing_files="skip")
STRICT = Source(name="web", bucket="bucket", prefix="web/", max_failed_lines=0)
HOLDS = Source(name="web", bucket="bucket", prefix="web/", changed_file="hold")
REPLACES = Source(name="web", bucket="bucket", prefix="web/", changed_file="replace")
GOOD, BAD = lines(record("ann", 0, "x")), lines("bad")


class Sighted(MemoryStore):
    """A store whose versions may be seen, or not, from one moment to the next; and whose marks may be missing."""

    sees_versions = True
    gives_etags = True

    def _seen(self, file: SourceFile) -> SourceFile:
        version = f"v-{file.etag}-{file.last_modified:%H%M%S}" if self.sees_versions else None
        return replace(file, version_id=version, etag=file.etag if self.gives_etags else "", known_as=None)

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        yield from map(self._seen, super().list(bucket, prefix))

    def describe(self, bucket: str, key: str) -> SourceFile:
        return self._seen(super().describe(bucket, key))

    def read(self, file: SourceFile) -> Iterator[bytes]:
        there = self.objects[file.bucket, file.key][0]
        assert self._seen(there).is_same(file) or there.is_same(replace(file, version_id=None))
        yield from super().read(replace(there, known_as=None))


@pytest.fixture
def world_of(new_warehouse: Callable[[], Warehouse]) -> Callable[[Source], World]:
    return lambda source: World(new_warehouse(), [source], store=Sighted())


def polled(world: World) -> dict[str, str]:
    world.pipeline.begin_poll("web")
    return {one.key: one.state for one in world.pipeline.load(world.pipeline.discover("web", NOTE).pending)}


def ledger(world: World) -> list[tuple[str, str]]:
    return sorted((row["key"], row["state"]) for row in world.rows("SELECT key, state FROM ledger"))


def undone(world: World) -> None:
    world.put("web/a.json", body=GOOD, source="web")
    assert polled(world) == {"web/a.json": "loaded"}
    world.warehouse.undo([row["file_id"] for row in world.rows("SELECT file_id FROM ledger")], NOTE)


def ignored(world: World) -> None:
    world.put("web/a.json", body=GOOD, source="web")
    polled(world)


def rejected(world: World) -> None:
    world.put("web/a.json", body=BAD, source="web")
    assert polled(world) == {"web/a.json": "rejected"}


def held(world: World) -> None:
    world.put("web/a.json", body=GOOD, source="web")
    polled(world)
    world.put("web/a.json", body=GOOD * 2, source="web")
    assert polled(world) == {"web/a.json": "held"}


def duplicate(world: World) -> None:
    world.put("web/a.json", body=GOOD, source="web")
    world.put("web/b.json", body=GOOD, source="web")
    assert polled(world) == {"web/a.json": "loaded", "web/b.json": "duplicate"}


def replaced(world: World) -> None:
    world.put("web/a.json", body=GOOD, source="web")
    polled(world)
    world.put("web/a.json", body=GOOD * 2, source="web")
    assert polled(world) == {"web/a.json": "loaded"}


@pytest.mark.slow
@pytest.mark.parametrize("seen_at_first", [True, False], ids=["versions vanish", "versions appear"])
@pytest.mark.parametrize(
    ("source", "history"),
    [(WEB, undone), (SKIPS, ignored), (STRICT, rejected), (HOLDS, held), (WEB, duplicate), (REPLACES, replaced)],
    ids=["undone", "ignored", "rejected", "held", "duplicate", "replaced"],
)
def test_a_final_state_stays_final(
    world_of: Callable[[Source], World], source: Source, history: Callable[[World], None], seen_at_first: bool
) -> None:
    world = world_of(source)
    store: Any = world.store
    store.sees_versions = seen_at_first
    history(world)
    before = ledger(world)
    events = world.rows("SELECT * FROM events")
    noted = reconcile(world.pipeline).information
    for sight in (not seen_at_first, seen_at_first, not seen_at_first):
        store.sees_versions = sight
        assert polled(world) == {}
        assert (ledger(world), world.rows("SELECT * FROM events")) == (before, events)
        assert reconcile(world.pipeline).information == noted
        (file,) = world.pipeline.locate("s3://bucket/web/a.json", source="web")
        assert file.file_id in {row["file_id"] for row in world.rows("SELECT file_id FROM ledger")}


def test_a_retrying_file_goes_on_under_its_id(world_of: Callable[[Source], World]) -> None:
    world = world_of(WEB)
    store: Any = world.store
    file = world.put("web/a.json", body=GOOD, source="web")
    store.broken["web/a.json"] = "It broke off."
    assert polled(world) == {"web/a.json": "retrying"}
    (before,) = world.rows("SELECT file_id FROM ledger")
    store.broken.clear()
    store.sees_versions = False
    assert polled(world) == {}  # it is put off
    world.warehouse.retry([before["file_id"]], NOTE)
    assert polled(world) == {"web/a.json": "loaded"}
    (after,) = world.rows("SELECT file_id, state FROM ledger")
    assert after == {"file_id": before["file_id"], "state": "loaded"}
    assert file.file_id != after["file_id"]


def test_two_loaders_that_see_different_things_load_once(world_of: Callable[[Source], World]) -> None:
    """One listed versions, the other did not: the ledger decides in the transaction."""
    world = world_of(WEB)
    store: Any = world.store
    world.put("web/a.json", body=GOOD, source="web")
    listings = []
    for sight in (True, False):
        store.sees_versions = sight
        listings.append(world.pipeline.discover("web").pending)
    assert listings[0][0].file_id != listings[1][0].file_id
    assert [one.state for one in world.pipeline.load(listings[0])] == ["loaded"]

    class Late:
        """The other loader had looked at the ledger before the first one's commit."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.warehouse, name)

        def recognise(self, files: Any) -> Any:
            return files

        def known(self, *_: Any) -> Any:
            return {}

    late = replace(world.pipeline, warehouse=Late())
    (result,) = late.load(listings[1])
    assert (result.state, result.already, world.count("ledger"), world.count("events")) == ("loaded", True, 1, 1)


def test_a_new_version_is_a_new_file_where_it_is_seen(world_of: Callable[[Source], World]) -> None:
    world = world_of(WEB)
    world.put("web/a.json", body=GOOD, source="web")
    polled(world)
    world.put("web/a.json", body=GOOD * 2, source="web")
    assert polled(world) == {"web/a.json": "loaded"}
    assert world.count("ledger") == 2


@pytest.mark.parametrize(
    ("source", "history"), [(WEB, undone), (STRICT, rejected), (HOLDS, held)], ids=["undone", "rejected", "held"]
)
@pytest.mark.parametrize("sees_versions", [False, True], ids=["plain", "versions"])
def test_the_same_bytes_again_are_the_same_file(
    world_of: Callable[[Source], World], source: Source, history: Callable[[World], None], sees_versions: bool
) -> None:
    """Whatever the store calls them now: sent again in parts, say, they have another ETag."""
    world = world_of(source)
    store: Any = world.store
    store.sees_versions = sees_versions
    history(world)
    before = ledger(world)
    file, body = store.objects["bucket", "web/a.json"]
    world.put("web/a.json", body=body, source="web", etag=f"{file.etag[:30]}-2")
    polled(world)
    assert (ledger(world), world.count("events")) == (before, 1 if history is held else 0)
    assert polled(world) == {}  # it is known by its new look


@pytest.mark.parametrize(
    ("source", "history"), [(WEB, undone), (SKIPS, ignored), (STRICT, rejected)], ids=["undone", "ignored", "rejected"]
)
@pytest.mark.parametrize("given_at_first", [True, False], ids=["ETags vanish", "ETags appear"])
def test_etags_may_come_and_go(
    world_of: Callable[[Source], World], source: Source, history: Callable[[World], None], given_at_first: bool
) -> None:
    world = world_of(source)
    store: Any = world.store
    store.sees_versions, store.gives_etags = False, given_at_first
    history(world)
    before = ledger(world)
    for gives in (not given_at_first, given_at_first):
        store.gives_etags = gives
        assert polled(world) == {}
        assert ledger(world) == before


def test_without_etags_the_time_and_then_the_bytes_tell(world_of: Callable[[Source], World]) -> None:
    world = world_of(WEB)
    store: Any = world.store
    store.sees_versions = store.gives_etags = False
    undone(world)
    assert polled(world) == {}
    world.put("web/a.json", body=GOOD, source="web")  # the same bytes, later
    assert polled(world) == {"web/a.json": "undone"}
    assert polled(world) == {}  # from now on it is known by its new time
    world.put("web/a.json", body=lines(record("bob", 0, "x")), source="web")  # other bytes of the same length
    assert polled(world) == {"web/a.json": "loaded"}
    assert (world.count("ledger"), world.count("events")) == (2, 1)
    assert world.pipeline.discover("web").notices


def test_a_clock_that_was_wrong_puts_no_file_off_for_long(world_of: Callable[[Source], World]) -> None:
    world = world_of(WEB)
    world.put("web/a.json", body=GOOD, source="web")
    world.store.broken["web/a.json"] = "It broke off."
    assert polled(world) == {"web/a.json": "retrying"}
    world.store.broken.clear()
    for late, found in ((LONGEST_DELAY / 2, 0), (timedelta(days=365), 1)):
        change(world.warehouse, f"UPDATE ledger SET next_try_at = '{datetime.now(ARRIVAL.tzinfo) + late}'")
        assert len(world.pipeline.discover("web").pending) == found


def test_what_seemed_gone_comes_back_whatever_versions_are_kept(world_of: Callable[[Source], World]) -> None:
    """One stale answer, a listing without the object and a 404, closes nothing for ever."""
    world = world_of(WEB)
    file = world.put("web/a.json", body=GOOD, source="web")
    world.store.broken["web/a.json"] = "It broke off."
    polled(world)
    (row,) = world.rows("SELECT file_id FROM ledger")
    world.warehouse.close_gone([row["file_id"]], NOTE)
    assert ledger(world) == [("web/a.json", "replaced")]
    world.store.broken.clear()
    assert polled(world) == {"web/a.json": "loaded"}
    assert world.store.objects["bucket", "web/a.json"][0] == file


# --- listings that prove nothing, and files that wait ----------------------------------------------------------------


class Doubtful(MemoryStore):
    """A store that shows the first object only, and says so or not."""

    cut = True

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        yield next(super().list(bucket, prefix))
        raise ListingDoubted("s3://bucket/web/: the listing is cut", cut=self.cut)


def test_a_listing_in_doubt_closes_nothing_and_is_reported(world_of: Callable[[Source], World]) -> None:
    world = replace(world_of(WEB), store=MemoryStore())
    for key in ("web/a.json", "web/b.json"):
        world.put(key, body=lines(record(key, 0, "x")), source="web")
    world.store.broken["web/b.json"] = "It broke off."
    assert polled(world) == {"web/a.json": "loaded", "web/b.json": "retrying"}
    (broken,) = world.rows("SELECT file_id FROM ledger WHERE state = 'retrying'")
    world.warehouse.retry([broken["file_id"]], NOTE)
    world.store = Doubtful(world.store.objects)
    world.put("web/0.json", body=lines(record("new", 0, "x")), source="web")
    del world.store.objects["bucket", "web/b.json"]
    found = world.pipeline.discover("web", NOTE)
    assert ([file.key for file in found.pending], found.gone) == (["web/0.json"], [])
    assert found.problems == ("s3://bucket/web/: the listing is cut",)
    assert "retrying" in dict(ledger(world)).values()
    Doubtful.cut = False
    try:
        found = world.pipeline.discover("web", NOTE)
        assert (found.problems, found.notices) == ((), ("s3://bucket/web/: the listing is cut",))
    finally:
        Doubtful.cut = True
    with pytest.raises(TransientError, match="listing is cut"):  # what is there before the first poll is not known
        replace(world, sources=[SKIPS]).pipeline.begin_poll("web")
    assert not world.warehouse.was_polled("web")


def test_a_file_that_waits_is_a_problem_of_each_poll(world_of: Callable[[Source], World]) -> None:
    world = world_of(WEB)
    world.put("web/a.json", body=GOOD, source="web")
    world.store.broken["web/a.json"] = "It broke off."
    assert polled(world) == {"web/a.json": "retrying"}
    (problem,) = world.pipeline.discover("web").problems
    assert problem.startswith("s3://bucket/web/a.json: It broke off. Not loaded yet; the next try is after ")
