"""Every answered success is stored, once and in the order in which it was sent: whatever is killed or down."""

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import httpx
import orjson
import pytest
from moto.server import ThreadedMotoServer

from tests.intake.serving import READY, Served, World, key_of, make_world

HEADERS = {"Authorization": f"Bearer {key_of('kissmetrics')}"}
(KISSMETRICS,) = (call for call in READY if call.format == "kissmetrics")


def line(person: str, number: int) -> bytes:
    """All at the same second: only the order of arrival tells them apart."""
    return orjson.dumps({"_p": person, "_t": 1_393_344_604, "_n": f"{person} {number}"}) + b"\n"


class Load:
    """Clients that send one body after another until they cannot; what was answered with success, of each in order."""

    def __init__(self, urls: list[str], clients: int = 8) -> None:
        self.answered: dict[str, list[int]] = {f"p{number}": [] for number in range(clients)}
        self.enough = threading.Semaphore(0)  # released at each success
        self._urls = urls
        self._pool = ThreadPoolExecutor(clients)
        self._stop = threading.Event()
        self._running = [self._pool.submit(self._send, person) for person in self.answered]

    def _send(self, person: str) -> None:
        with httpx.Client(headers=HEADERS, timeout=60) as client:
            for number in count():
                url = self._urls[number % len(self._urls)]  # a visitor's bodies go now here, now there
                try:
                    answer = client.post(f"{url}/kissmetrics/kissmetrics", content=line(person, number))
                except httpx.TransportError:
                    return
                if answer.status_code == 200:
                    self.answered[person].append(number)
                    self.enough.release()
                if self._stop.is_set():
                    return

    def wait(self, successes: int) -> None:
        for _ in range(successes):
            assert self.enough.acquire(timeout=60)

    def end(self) -> None:
        self._stop.set()
        for one in self._running:
            one.result(60)
        self._pool.shutdown()


def url(served: Served) -> str:
    return str(served.http.base_url)


def loaded(world: World) -> dict[str, list[int]]:
    """What the warehouse has after a poll, of each person by position."""
    results = world.poll("kissmetrics")
    assert {result.state for result in results} == {"loaded"}
    found: dict[str, list[int]] = {}
    for row in world.rows("SELECT person, event FROM events ORDER BY position"):
        found.setdefault(row["person"], []).append(int(row["event"].split()[1]))
    return found


def check(world: World, load: Load) -> None:
    """All that was answered is there once, and each person's events in the order in which they were sent."""
    found = loaded(world)
    for person, answered in load.answered.items():
        there = found.get(person, [])
        assert there == sorted(set(there)), person
        # The one that was under way at the end may be there without an answer.
        assert set(answered) <= set(there) <= {*answered, *range(max(answered, default=-1) + 1, len(there) + 1)}, person


def test_killed_under_load(world: World) -> None:
    with world.serve(expect=-signal.SIGKILL) as served:
        load = Load([url(served)])
        load.wait(200)
        served.stop(signal.SIGKILL)
        load.end()
    check(world, load)
    assert all(load.answered.values())


def test_told_to_stop_under_load(world: World) -> None:
    """It ends well, and what it had taken is answered and stored; those that came too late get no answer."""
    with world.serve() as served:
        load = Load([url(served)])
        load.wait(100)
        served.stop()
        load.end()
        assert served.process.wait(60) == 0
    check(world, load)
    stored = sum(len(body.splitlines()) for body in world.stored("kissmetrics"))
    assert stored == sum(map(len, load.answered.values()))  # none without an answer


@pytest.mark.slow
def test_two_instances_side_by_side(world: World) -> None:
    """Each client sends to both in turn, one after the other: the order holds over both, once all is loaded."""
    with world.serve() as one, world.serve() as other:
        load = Load([url(one), url(other)])
        load.wait(300)
        load.end()
    check(world, load)
    instances = {
        entry["Key"].split("-")[-2]
        for entry in world.client.list_objects_v2(Bucket=world.bucket, Prefix="landing/kissmetrics/")["Contents"]
    }
    assert len(instances) == 2


def test_equal_bodies_are_no_copies(world: World) -> None:
    """The same bytes in two objects: both are loaded. What has a time of its own counts once all the same."""
    with world.serve() as served:
        for _ in range(2):
            assert served.call(KISSMETRICS, line("ann", 1)).status_code == 200
    results = world.poll("kissmetrics")
    assert [(result.state, result.counts.duplicates) for result in results] == [("loaded", 0), ("loaded", 1)]
    assert world.rows("SELECT count(*) AS n FROM events") == [{"n": 1}]


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
def test_a_store_that_is_down(own_store: ThreadedMotoServer, tmp_path: Path) -> None:
    host, port = own_store.get_host_and_port()
    world = make_world(tmp_path, f"http://{host}:{port}")
    with world.serve() as served:
        assert served.call(KISSMETRICS, line("ann", 1)).status_code == 200
        own_store.stop()
        with ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(8))
            answers = list(pool.map(lambda n: served.call(KISSMETRICS, line("bob", n)), range(8)))
        for answer in answers:
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json() == {"error": "It could not be stored: send it again."}
        again = ThreadedMotoServer(ip_address=host, port=port, verbose=False)
        again.start()
        try:  # its memory outlives it within this process
            assert served.call(KISSMETRICS, line("cleo", 1)).status_code == 200
            assert loaded(world) == {"ann": [1], "cleo": [1]}
        finally:
            again.stop()
    assert served.log.read_text().count("not_stored") >= 1


def test_a_bucket_that_is_not_there(world: World) -> None:
    with world.serve() as served:
        world.client.delete_bucket(Bucket=world.bucket)
        answer = served.call(KISSMETRICS, line("ann", 1))
        assert answer.status_code == 503
        assert world.bucket not in answer.text
        world.client.create_bucket(Bucket=world.bucket)
        assert served.call(KISSMETRICS, line("ann", 1)).status_code == 200
    assert "there is no such bucket" in served.log.read_text()


def test_a_port_that_is_taken(world: World) -> None:
    with world.serve() as served:
        command = ["ingest", "serve", "--port", str(served.http.base_url.port)]
        second = subprocess.run(
            [*served.process.args[:3], *command[1:]],  # type: ignore[index]  # it is a list
            env=world.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert second.returncode == 2
    assert "choose another" in second.stderr.splitlines()[-1]


def test_files_on_this_machine(tmp_path: Path, new_world: Callable[[str], World]) -> None:
    """A source whose landing is a folder has an endpoint like any other."""
    world = new_world("")
    config = world.folder / "ingest.toml"
    folder = tmp_path / "landing"
    folder.mkdir()
    text = config.read_text().replace(f'bucket = "{world.bucket}"', 'bucket = "file"')
    config.write_text(text.replace('prefix = "landing/', f'prefix = "{folder}/'))
    for call in READY:
        (folder / call.format).mkdir(exist_ok=True)
    with world.serve() as served:
        assert served.call(KISSMETRICS, line("ann", 1)).status_code == 200
    assert loaded(world) == {"ann": [1]}
    (path,) = (folder / "kissmetrics").rglob("*.json")
    assert path.parent.parent.parent.parent == folder / "kissmetrics" / "intake"
