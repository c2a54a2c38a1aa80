"""How bodies are gathered into objects, what these are called, and what that says about order."""

import asyncio
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.core.source import SourceFile, intake_key
from ingest.errors import IngestError, TransientError
from ingest.intake.bodies import Body, Refused, Room
from ingest.intake.spool import Spool
from ingest.settings import Source
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import MemoryStore, World

SOURCE = Source(name="shop", bucket="bucket", prefix="landing/shop/")
NOON = 1_767_614_400_000_000  # 2026-01-05 12:00 UTC, microseconds
TIMEOUT = 20


class SlowStore(MemoryStore):
    """Takes what it gets when it is let, and fails when it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.may_end = threading.Semaphore(0)
        self.broken_world = False

    def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:
        self.begun.release()
        assert self.may_end.acquire(timeout=TIMEOUT)
        if self.broken_world:
            raise TransientError("down")
        super().receive(bucket, key, pieces)

    async def wait_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=TIMEOUT)

    @property
    def contents(self) -> list[bytes]:
        return [body for _, (_, body) in sorted(self.objects.items())]

    @property
    def keys(self) -> list[str]:
        return sorted(key for _, key in self.objects)


class Clock:
    """Nanoseconds, which only the test moves."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> int:
        return self.now * 1000


def spool_over(store: SlowStore, clock: Clock | None = None, slow_seconds: float = 3600) -> Spool:
    return Spool(lambda _: store, clock or Clock(), slow_seconds)


def body(text: str, *, alone: bool = False) -> Body:
    return Body(text.encode() + b"\n", 1, alone)


async def begun(spool: Spool, *bodies: Body, source: Source = SOURCE) -> list["asyncio.Task[None]"]:
    """Each on its way, in this order."""
    tasks = []
    for one in bodies:
        tasks.append(asyncio.create_task(spool.store(source, one)))
        await asyncio.sleep(0)
    return tasks


def test_what_comes_while_a_put_is_under_way_goes_together() -> None:
    async def run() -> None:
        store = SlowStore()
        spool = spool_over(store)
        tasks = await begun(spool, *map(body, "abcdef"))
        await store.wait_begun()
        assert not store.begun.acquire(blocking=False)
        assert not any(task.done() for task in tasks)  # nothing is said before the store has said it
        store.may_end.release(2)
        await asyncio.gather(*tasks)
        assert store.contents == [b"a\n", b"b\nc\nd\ne\nf\n"]
        spool.close()

    asyncio.run(run())


def test_a_slow_put_does_not_hold_up_the_next() -> None:
    async def run() -> None:
        store = SlowStore()
        spool = spool_over(store, slow_seconds=0.01)
        tasks = await begun(spool, body("a"), body("b"))
        await store.wait_begun()
        await store.wait_begun()
        tasks += await begun(spool, *map(body, "cdef"))
        await store.wait_begun()
        store.may_end.release(9)
        await asyncio.gather(*tasks)
        assert b"".join(store.contents) == b"a\nb\nc\nd\ne\nf\n"
        spool.close()

    asyncio.run(run())


def test_names_tell_receipts() -> None:
    async def run() -> None:
        store, clock = SlowStore(), Clock()
        store.may_end.release(9)
        spool = spool_over(store, clock)
        await spool.store(SOURCE, body("a"))
        await spool.store(SOURCE, body("b"))  # in the same microsecond
        clock.now -= 3_600_000_000  # the clock is set back
        await spool.store(SOURCE, body("c"))
        clock.now = NOON + 86_400_000_000
        await spool.store(SOURCE, body("d"))
        folder, name = "landing/shop/intake/2026/01", spool.instance
        assert store.keys == [
            f"{folder}/05/intake-{NOON:016d}-{name}-00000001.json",
            f"{folder}/05/intake-{NOON + 1:016d}-{name}-00000002.json",
            f"{folder}/05/intake-{NOON + 2:016d}-{name}-00000003.json",
            f"{folder}/06/intake-{NOON + 86_400_000_000:016d}-{name}-00000004.json",
        ]
        files = [
            SourceFile(bucket="b", key=key, etag="e", last_modified=datetime.now(UTC), size_bytes=1)
            for key in store.keys
        ]
        assert [file.received_at for file in files] == [NOON, NOON + 1, NOON + 2, NOON + 86_400_000_000]
        assert all(file.is_from_intake for file in files)
        positions = [file.position for file in files]
        assert positions == sorted(positions)
        spool.close()

    asyncio.run(run())


def test_a_later_body_has_the_later_name_on_another_instance_too() -> None:
    """It shares its object there with one that was received long ago: the object is named by its last body."""

    async def run() -> None:
        clock, here, there = Clock(), SlowStore(), SlowStore()
        one, other = spool_over(here, clock), spool_over(there, clock)
        under_way = await begun(other, body("x"))
        clock.now += 1
        under_way += await begun(other, body("received long ago"))
        clock.now += 1
        here.may_end.release()
        await one.store(SOURCE, body("first"))
        clock.now += 1
        under_way += await begun(other, body("second"))
        there.may_end.release(2)
        await asyncio.gather(*under_way)
        assert there.contents[1] == b"received long ago\nsecond\n"
        assert here.keys[0].rpartition("/")[2] < there.keys[1].rpartition("/")[2]
        one.close()
        other.close()

    asyncio.run(run())


def test_what_might_swallow_others_stands_alone() -> None:
    async def run() -> None:
        store = SlowStore()
        spool = spool_over(store)
        tasks = await begun(spool, *map(body, "ab"), body("c"), body("BROKEN", alone=True), body("d"), body("e"))
        store.may_end.release(9)
        await asyncio.gather(*tasks)
        assert store.contents == [b"a\n", b"b\nc\n", b"BROKEN\n", b"d\ne\n"]
        spool.close()

    asyncio.run(run())


def test_an_object_does_not_grow_without_end() -> None:
    async def run() -> None:
        store = SlowStore()
        spool = spool_over(store)
        large = Body(b"x" * (3 << 20), 1)
        tasks = await begun(spool, *[large] * 7)
        store.may_end.release(9)
        await asyncio.gather(*tasks)
        assert [len(content) >> 20 for content in store.contents] == [3, 6, 6, 6]
        spool.close()

    asyncio.run(run())


def test_a_store_that_refuses_is_told_to_all_that_wait_and_forgotten() -> None:
    async def run() -> None:
        store = SlowStore()
        store.broken_world = True
        spool = spool_over(store)
        tasks = await begun(spool, *map(body, "abcd"))
        store.may_end.release(2)
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in told] == [IngestError] * 4
        store.broken_world = False
        store.may_end.release()
        await spool.store(SOURCE, body("e"))
        assert store.contents == [b"e\n"]
        spool.close()

    asyncio.run(run())


def test_sources_do_not_wait_for_each_other() -> None:
    async def run() -> None:
        store = SlowStore()
        spool = spool_over(store)
        other = Source(name="other", bucket="bucket", prefix="other")
        tasks = await begun(spool, *map(body, "abc")) + await begun(spool, body("o"), source=other)
        await store.wait_begun()
        await store.wait_begun()
        store.may_end.release(9)
        await asyncio.gather(*tasks)
        assert store.keys[-1].startswith("other/intake/2026/01/05/intake-")
        spool.close()

    asyncio.run(run())


def test_closing_waits_for_no_store() -> None:
    """Which may hang for longer than the process has time to end; what had not begun is not begun then."""
    store = SlowStore()

    async def run() -> None:
        spool = spool_over(store)
        tasks = await begun(spool, *map(body, "abc"))
        await store.wait_begun()
        for task in tasks:
            task.cancel()
        spool.close()
        await asyncio.wait(tasks)

    asyncio.run(run())
    (put,) = [thread for thread in threading.enumerate() if thread.name == "put"]
    assert put.daemon
    store.may_end.release(9)
    put.join(TIMEOUT)
    assert store.contents == [b"a\n"]


def test_room_is_given_back() -> None:
    room = Room(100_000)
    with room.share() as grow:
        grow(50_000)
        with pytest.raises(Refused) as refused, room.share() as other:
            other(40_000)
        assert refused.value.status == 503
        assert refused.value.retry_after
        with room.share() as other:
            other(10_000)
    with room.share() as grow:
        grow(80_000)


@pytest.mark.parametrize(
    "key",
    [
        "landing/events.json", "intake-1.json", "landing/intake-1767614400000000-0123abcd-00000001.json.gz",
        "landing/my-intake-1767614400000000-0123abcd-00000001.json",
        "intake-1767614400000000-0123abcd-00000001.json/x.json",
    ],
)  # fmt: skip
def test_other_files_came_when_they_were_written(key: str) -> None:
    file = SourceFile(bucket="b", key=key, etag="e", last_modified=datetime(2026, 2, 1, tzinfo=UTC), size_bytes=1)
    assert not file.is_from_intake
    assert file.received_at == 1_769_904_000_000_000


def test_bodies_do_not_refuse_each_other(tmp_path: Path) -> None:
    """What a file begins with may refuse all of it; an object of the intake begins with what somebody else sent."""
    world = World(DuckDBWarehouse(tmp_path / "warehouse.duckdb", ignored_identities=IGNORED_IDENTITIES))
    content = (b'{ "x":', b" 1", b"}")
    assert world.bring("landing/plain.json", *content).state == "rejected"
    result = world.bring(intake_key("landing", NOON, "0123abcd", 1), *content, b'{"_p":"a","_t":1393344604,"_n":"x"}')
    assert (result.state, result.counts.failed) == ("loaded", 3)
