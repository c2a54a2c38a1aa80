"""Random histories on a lake, told from two hosts in turns, and on a DuckDB warehouse: both must show the same.

All is drawn from one seed, and a failed history prints its trace. To tell one again:
`python -m pytest tests/test_iceberg_model.py -k "seed-7"`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest import actions
from ingest.core.lifecycle import Action
from ingest.core.matching import IGNORED_IDENTITIES
from ingest.errors import IngestError
from ingest.ports import Audit
from ingest.redrive import redrive
from ingest.settings import Source
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from ingest.warehouse.engines.iceberg import upkeep
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse
from tests import iceberg
from tests.support import ROOT, TABLES, MemoryStore, World, everything, rows
from tests.test_exactly_once import broken_promises
from tests.test_model import ALPHABET, fixed

NOTE = Audit("ann", "because")
SHOWN = (*TABLES, "history", "accounts")
DOCUMENTS = {
    format: [path.read_bytes() for path in sorted((ROOT / "tests/cases" / format).glob("*.json"))
             if not path.name.endswith(".expected.json")]
    for format in ("woopra", "webengage", "retailrocket", "vitally")
}  # fmt: skip
SOURCES = (
    Source(name="versions", bucket="bucket", prefix="versions/"),
    Source(name="replaces", bucket="bucket", prefix="replaces/", changed_file="replace", same_bytes="load",
           max_failed_lines=1),
    Source(name="holds", bucket="bucket", prefix="holds/", changed_file="hold", same_bytes="load"),
    Source(name="skips", bucket="bucket", prefix="skips/", existing_files="skip"),
    *(Source(name=one, bucket="bucket", prefix=f"{one}/", format=one, changed_file="replace") for one in DOCUMENTS),
)  # fmt: skip


@dataclass
class Both:
    """The same landing before a lake, as each host sees it, and before a DuckDB warehouse."""

    chance: random.Random
    hosts: list[World]
    duckdb: World
    trace: list[str] = field(default_factory=list)
    nested: str = "fail"

    def step(self) -> None:
        move = self.chance.choice(MOVES)
        host = self.chance.randrange(len(self.hosts))
        self.trace.append(f"{len(self.trace)}: {move.__name__} on host {host}")
        move(self, self.hosts[host])

    def alike(self, host: World, act: Callable[[World], object]) -> None:
        """It comes to the same on both, be it an error."""
        assert told(act, host) == told(act, self.duckdb)

    def agree(self, host: World) -> None:
        expected, found = (everything(world.warehouse, {"at"}, SHOWN) for world in (self.duckdb, host))
        for table in SHOWN:
            differences = [("there", row) for row in found[table] if row not in expected[table]]
            differences += [("missing", row) for row in expected[table] if row not in found[table]]
            assert not differences, table
            assert found[table] == expected[table], table
        assert broken_promises(host.warehouse) == {}
        assert host.warehouse.disagreements() == []

    def file(self, states: tuple[str, ...] = ()) -> str | None:
        """One of the ledger; most of the time in one of these states."""
        found = sorted(rows(self.duckdb.warehouse, "SELECT file_id, state FROM ledger"), key=repr)
        found += 5 * [row for row in found if row["state"] in states]
        return str(self.chance.choice(found)["file_id"]) if found else None


def told(act: Callable[[World], object], world: World) -> object:
    try:
        return act(world)
    except IngestError as error:
        return type(error), str(error).replace(world.warehouse.name, "here")


# --- moves -----------------------------------------------------------------------------------------------------------


def put(both: Both, host: World) -> set[str]:
    """Some objects, of which some are what another one is, or was; their sources."""
    sources = set()
    for _number in range(both.chance.randint(1, 3)):
        source = both.chance.choice(SOURCES)
        if source.format in DOCUMENTS:
            body = both.chance.choice(DOCUMENTS[source.format])
        else:
            names = both.chance.choices(list(ALPHABET), k=both.chance.randint(1, 5))
            body = b"".join(ALPHABET[name].text + b"\n" for name in names)
        key = f"{source.prefix}{both.chance.randint(1, 3)}.json"
        arrived = both.chance.choice([None, None, both.chance.randint(-5000, 5000)])
        both.duckdb.put(key, body=body, source=source.name, arrived=arrived)
        both.trace[-1] += f"; {key} {body[:300]!r} {arrived}"
        sources.add(source.name)
    return sources


def poll(both: Both, host: World) -> None:
    source = both.chance.choice(SOURCES).name
    load(both, host, source)


def put_and_poll(both: Both, host: World) -> None:
    for source in sorted(put(both, host)):
        load(both, host, source)


def load(both: Both, host: World, source: str) -> None:
    def act(world: World) -> object:
        world.pipeline.begin_poll(source)
        found = world.pipeline.discover(source, NOTE)
        return found, [(one.file_id, one.state, one.counts) for one in world.load(*found.pending)]

    both.alike(host, act)


def a_broken_object(both: Both, host: World) -> None:
    key = f"versions/{both.chance.randint(1, 3)}.json"
    both.duckdb.store.broken[key] = "It broke off."
    load(both, host, "versions")
    both.duckdb.store.broken.clear()


def action(name: Action, *states: str) -> Callable[[Both, World], None]:
    def move(both: Both, host: World) -> None:
        ids = {both.file(states) for _ in range(both.chance.randint(1, 2))} - {None}

        def act(world: World) -> object:
            found = [world.warehouse.find_file(str(file_id)) for file_id in sorted(ids, key=str)]
            done = actions.act(world.pipeline, name, found, [], NOTE)
            return [(one.file_id, one.state, one.error, one.duplicates) for one in done]

        both.trace[-1] += f"; {name} {ids}"
        both.alike(host, act)

    move.__name__ = name
    return move


def redrive_some(both: Both, host: World) -> None:
    failed = sorted({row["file_id"] for row in rows(both.duckdb.warehouse, "SELECT file_id FROM failed_lines")})
    if not failed:
        return
    file_id = both.chance.choice(failed)
    text = None
    if both.chance.random() < 0.7:
        names = ["ann x", "bob=cat", "not json", "dan y", "blank"]
        lines = both.chance.sample(range(1, 6), both.chance.randint(1, 3))
        text = fixed({line: both.chance.choice(names) for line in lines})
    both.trace[-1] += f"; {file_id} {text!r}"

    def act(world: World) -> object:
        outcome = redrive(world.pipeline, file_id, text, NOTE)
        return outcome.open, outcome.fixed, outcome.already, outcome.refused, outcome.result and outcome.result.state

    both.alike(host, act)


def rules_change(both: Both, _: World) -> None:
    both.nested = both.chance.choice(["fail", "flatten"])
    for world in (*both.hosts, both.duckdb):
        world.sources = tuple(replace(one, nested=both.nested) for one in world.sources)  # type: ignore[arg-type]


def rematch(both: Both, host: World) -> None:
    """Other people are nobody, and names of one source fold in another way; everywhere."""
    identities = IGNORED_IDENTITIES | {both.chance.choice(["cat", "bob", "none"])}
    match: Any = both.chance.choice([None, "exact", "kissmetrics"])
    space = both.chance.choice([None, "ours"])
    sources = tuple(
        replace(one, match=match, people_space=space) if one.name in ("holds", "woopra") else one
        for one in both.duckdb.sources
    )
    both.trace[-1] += f"; {sorted(identities - IGNORED_IDENTITIES)} {match} {space}"
    for world in (*both.hosts, both.duckdb):
        world.sources = sources
        assert isinstance(world.warehouse, (DuckDBWarehouse, IcebergWarehouse))
        world.warehouse = replace(
            world.warehouse, ignored_identities=identities, sources={one.name: one for one in sources}
        )
    assert isinstance(both.duckdb.warehouse, DuckDBWarehouse)
    told(lambda world: world.warehouse.rematch(), both.duckdb)
    told(lambda world: world.warehouse.rematch(), host)


def repair(both: Both, host: World) -> None:
    both.alike(host, lambda world: world.warehouse.repair(NOTE))


def lose_a_mirror(_: Both, host: World) -> None:
    assert isinstance(host.warehouse, IcebergWarehouse)
    host.warehouse.mirror.remove()


def keep_up(_: Both, host: World) -> None:
    assert isinstance(host.warehouse, IcebergWarehouse)
    host.warehouse.upkeep()


MOVES: list[Callable[[Both, World], object]] = [
    put, *[put_and_poll] * 6, poll, a_broken_object, redrive_some, redrive_some, redrive_some, rules_change, rematch,
    repair, lose_a_mirror, lose_a_mirror, keep_up, keep_up,
    action("undo", "loaded", "rejected"), action("undo", "loaded", "rejected"), action("force", "rejected", "loaded"),
    action("force", "undone", "duplicate", "loaded"), action("ignore", "held", "rejected", "duplicate"),
    action("release", "held"), action("retry", "retrying"),
]  # fmt: skip


def live(folder: Path, patch: pytest.MonkeyPatch, seed: int, steps: int) -> None:
    patch.setattr(upkeep, "MANY_CHANGES", 4)
    patch.setattr(upkeep, "MANY_COMMANDS", 3)
    patch.setattr(upkeep, "KEPT", timedelta(0))  # a mirror may be of a snapshot that is gone
    url, store = iceberg.describe(patch, folder), MemoryStore()
    more: dict[str, Any] = {"sources": {one.name: one for one in SOURCES}}
    hosts = [World(iceberg.warehouse(url, folder / f"host {n}", **more), SOURCES, store) for n in range(2)]
    duckdb = DuckDBWarehouse(folder / "one.duckdb", ignored_identities=IGNORED_IDENTITIES, **more)
    both = Both(random.Random(seed), hosts, World(duckdb, SOURCES, store))
    try:
        for _ in range(steps):
            both.step()
            both.agree(both.chance.choice(hosts))
        for world in hosts:
            both.agree(world)
        lose_a_mirror(both, hosts[0])
        both.agree(hosts[0])
    except BaseException:
        print(f"seed {seed}", *both.trace, sep="\n")
        raise


@pytest.mark.parametrize("seed", [pytest.param(seed, id=f"seed-{seed}") for seed in range(1)])
def test_a_lake_shows_what_duckdb_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    live(tmp_path, monkeypatch, seed, 8)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [pytest.param(seed, id=f"long-seed-{seed}") for seed in range(100, 103)])
def test_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    live(tmp_path, monkeypatch, seed, 40)
