"""Retail Rocket and Vitally bodies in a real warehouse: facts once, in the order sent, people and accounts apart."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.core.source import SourceFile, intake_key
from ingest.ports import Audit
from ingest.redrive import Outcome, redrive
from ingest.settings import Source
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import TABLES, World, everything
from tests.test_exactly_once import warehouse_at

NOTE = Audit(by="ann", reason="it was wrong", run_id="run 7")
TIME = "2026-01-05T10:00:00Z"
ALL = (*TABLES, "accounts")
VENDOR_PAGE = Path(__file__).parent / "cases" / "vitally" / "vendor_page.json"


@pytest.fixture
def world(tmp_path: Path, empty_warehouse: Path) -> World:
    return World(warehouse_at(Path(shutil.copy(empty_warehouse, tmp_path / "warehouse.duckdb"))))


def put(world: World, key: str, format: str, *documents: Any, **more: Any) -> SourceFile:
    """An object with these documents, one a line; bytes as they are."""
    body = b"".join((one if isinstance(one, bytes) else orjson.dumps(one)) + b"\n" for one in documents)
    return world.store.put(replace(world.put(key, body=body, **more), format=format), body)


def view(product: Any, person: str = "ann", **more: Any) -> dict[str, Any]:
    return {"view": {"sessionExternalId": person, "productId": product, "timestamp": TIME, **more}}


def products(world: World, where: str = "person = 'ann'") -> list[int]:
    """What a visitor did, in the order in which the docs say that it can be asked for."""
    rows = world.rows(
        f"SELECT (properties ->> 'productId')::INTEGER AS product FROM events WHERE {where} ORDER BY position"
    )
    return [row["product"] for row in rows]


def mend(world: World, file: SourceFile, mended: Mapping[str, Any]) -> Outcome:
    text = b"".join(place.encode() + b"\t" + orjson.dumps(to) + b"\n" for place, to in mended.items())
    return redrive(world.pipeline, file.file_id, text, NOTE)


# --- Retail Rocket ---------------------------------------------------------------------------------------------------


def test_loaded_twice_it_is_there_once(world: World) -> None:
    bodies = [view(1), view(1), {"setContact": {"sessionExternalId": "ann", "contactExternalId": "C1", "email": "a@b"}}]
    file = put(world, "a.json", "retailrocket", bodies, [view(1)])
    (first,) = world.load(file)
    once = everything(world.warehouse, tables=ALL)
    assert (first.counts.lines, first.counts.records, first.counts.sets, first.counts.aliases) == (2, 3, 1, 1)
    assert first.counts.duplicates == 1  # the second body says what the first has said
    assert products(world) == [1, 1]
    (again,) = world.load(file)
    assert again.already
    assert everything(world.warehouse, tables=ALL) == once
    printed = orjson.dumps([view(1), view(1), view(1)], option=orjson.OPT_INDENT_2)
    world.load(put(world, "b.json", "retailrocket", printed))  # overlaps it
    assert products(world) == [1, 1, 1]
    (person,) = world.rows("SELECT identities, properties FROM people")
    assert sorted(person["identities"]) == ["C1", "ann"]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_order_is_kept_in_bodies_over_lines_and_over_files_in_whatever_order_they_are_loaded(
    world: World, order: Sequence[int]
) -> None:
    """All at one time; two of the files came at one time, so that their names tell, in natural order."""
    files = [
        put(world, "9.json", "retailrocket", [view(11), view(5, "bob"), *map(view, range(10, 0, -1))], [view(12)],
            arrived=60),
        put(world, "10.json", "retailrocket", orjson.dumps([view(20), view(13)], option=orjson.OPT_INDENT_2),
            [view(19), view(14)], arrived=60),
        put(world, "1.json", "retailrocket", [view(0)], [view(21)], arrived=61),
    ]  # fmt: skip
    for number in order:
        world.load(files[number])
    assert products(world) == [11, *range(10, 0, -1), 12, 20, 13, 19, 14, 0, 21]


def test_bodies_that_came_over_http_stand_by_their_receipt_however_late_they_are_loaded(world: World) -> None:
    """LastModified is when an object was written; its name holds when the body came."""
    base = 1_767_607_200_000_000
    keys = [intake_key("shop", base + 5, "0123abcd", 1), intake_key("shop", base + 7, "0123abcd", 2)]
    later, earlier = (
        put(world, keys[1], "retailrocket", [view(3)], [view(4)], arrived=10),
        put(world, keys[0], "retailrocket", [view(2), view(1)], arrived=999),
    )
    world.load(later)
    world.load(earlier)
    assert products(world) == [2, 1, 3, 4]


def test_a_mended_item_stands_in_its_place_and_is_there_once(world: World) -> None:
    body = [view(1), view("x"), {"View": {}}, view(4), {"order": {"sessionExternalId": "ann", "productId": 5}}]
    file = put(world, "a.json", "retailrocket", orjson.dumps(body, option=orjson.OPT_INDENT_2))
    (loaded,) = world.load(file)
    assert (loaded.counts.items, loaded.counts.records, loaded.counts.failed) == (5, 2, 3)
    with world.warehouse.failed_lines(file.file_id) as rows:
        assert [(row["line"], row["item"]) for row in rows] == [(1, "/1/view"), (1, "/2"), (1, "/4/order")]
    mended = {"1/1/view": view(4)["view"], "1/2": view(3), "1/4/order": {"sessionExternalId": "ann"}}
    outcome = mend(world, file, mended)
    assert outcome.result
    assert [row["item"] for row in outcome.refused] == ["/4/order"]
    assert products(world) == [1, 4, 3, 4]  # it says what its neighbour says, and both count
    once = everything(world.warehouse)
    assert mend(world, file, mended).result is None
    assert everything(world.warehouse) == once
    world.load(put(world, "b.json", "retailrocket", [view(1), view(4), view(3), view(4)]))
    assert products(world) == [1, 4, 3, 4]


# --- Vitally ---------------------------------------------------------------------------------------------------------


def test_the_vendors_batch_is_a_fact_for_each_message_and_people_and_accounts_are_apart(world: World) -> None:
    file = put(world, "a.json", "vitally", VENDOR_PAGE.read_bytes())
    (first,) = world.load(file)
    assert (first.counts.records, first.counts.sets, first.counts.duplicates) == (1, 3, 0)
    once = everything(world.warehouse, tables=ALL)
    world.load(file)
    again = put(world, "b.json", "vitally", orjson.dumps(orjson.loads(VENDOR_PAGE.read_bytes())))
    assert world.load(again)[0].counts.duplicates == 4
    assert everything(world.warehouse, tables=("people", "accounts", "events")) == {
        name: once[name] for name in ("people", "accounts", "events")
    }
    (person,) = world.rows("SELECT people_space, person_id, properties FROM people")
    assert (person["people_space"], person["person_id"]) == ("vitally", "32")
    assert orjson.loads(person["properties"])["accountId"] == "123456"
    accounts = world.rows("SELECT people_space, person_id, properties FROM accounts ORDER BY person_id")
    assert [(row["people_space"], row["person_id"], orjson.loads(row["properties"])["name"]) for row in accounts] == [
        ("vitally/accounts", "account/123456", "Argentina"), ("vitally/accounts", "organization/abcdefg", "World Cup"),
    ]  # fmt: skip


def track(message_id: str | None, **more: Any) -> dict[str, Any]:
    return {"type": "track", "userId": "7", "event": "x", "messageId": message_id, **more}


def test_an_untimed_message_counts_once_by_its_message_id(world: World) -> None:
    for number in range(3):
        world.load(put(world, f"{number}.json", "vitally", [track("m"), track(f"m{number}")], [track("m")]))
    assert world.count("events") == 4
    assert world.count("commands") == 9
    assert world.warehouse.disagreements() == []
    (first,) = world.rows("SELECT file_id FROM events WHERE properties = '{}' AND item = '/0' AND line = 1")
    world.warehouse.undo([first["file_id"]], NOTE)  # then it is known from the next
    assert world.count("events") == 3
    assert world.count("events", f"file_id = '{first['file_id']}'") == 0
    assert world.warehouse.disagreements() == []


def test_a_plan_that_goes_there_and_back_ends_where_it_ended(world: World) -> None:
    for number, plan in enumerate(("gold", "silver", "gold")):
        account = {"type": "account", "accountId": 7, "traits": {"plan": plan}, "messageId": f"m{number}"}
        user = {"type": "user", "userId": 7, "accountId": 7, "traits": {"plan": plan}, "messageId": f"m{number}"}
        world.load(put(world, f"{number}.json", "vitally", [account, user]))
    for view_name in ("accounts", "people"):
        (one,) = world.rows(f"SELECT properties FROM {view_name}")
        assert orjson.loads(one["properties"])["plan"] == "gold"


def test_a_mended_message_is_there_once(world: World) -> None:
    file = put(world, "a.json", "vitally", [track("a"), {"type": "account", "accountId": "7"}, track("b", event=None)])
    world.load(file)
    account = {"type": "account", "accountId": "7", "timestamp": TIME, "traits": {"name": "A"}}
    mended = {"1/1": account, "1/2": track("b", event="y")}
    outcome = mend(world, file, mended)
    assert outcome.result
    assert not outcome.refused
    once = everything(world.warehouse, tables=ALL)
    assert mend(world, file, mended).already == 2
    assert everything(world.warehouse, tables=ALL) == once
    world.load(put(world, "b.json", "vitally", [track("a"), account, track("b", event="y")]))
    assert [row["event"] for row in world.rows("SELECT event FROM events ORDER BY position")] == ["x", "y"]
    assert world.count("accounts", "properties ->> 'name' = 'A'") == 1


OLD = Source(name="crm", bucket="bucket", format="vitally", people_space="ours")


def in_space(folder: Path, source: Source) -> World:
    warehouse = DuckDBWarehouse(
        folder / "w.duckdb", ignored_identities=IGNORED_IDENTITIES, sources={source.name: source}
    )
    return World(warehouse, [source])


def bring_all(world: World) -> None:
    world.load(put(world, "a.json", "vitally", VENDOR_PAGE.read_bytes(), source="crm"))
    accounts = [{"type": "account", "accountId": "A,1", "timestamp": TIME}, track("m", userId="a,1", accountId=9)]
    broken = {"type": "organization", "organizationId": "o", "traits": 7, "messageId": "m"}
    file = put(world, "b.json", "vitally", [*accounts, track("n", userId=None, accountId="A,1"), broken], source="crm")
    world.load(file)
    mend(world, file, {"1/3": broken | {"traits": {"plan": "pro"}}})


@pytest.mark.slow
@pytest.mark.parametrize("now", [{"people_space": "elsewhere"}, {"people_space": None}, {"match": "kissmetrics"}])
def test_a_changed_people_space_holds_for_accounts_too(tmp_path: Path, now: dict[str, Any]) -> None:
    (tmp_path / "changed").mkdir()
    (tmp_path / "always").mkdir()
    new = replace(OLD, **now)
    bring_all(in_space(tmp_path / "changed", OLD))
    before = everything(in_space(tmp_path / "changed", OLD).warehouse, ("redriven_at",), tables=ALL)
    bring_all(in_space(tmp_path / "always", new))
    changed = in_space(tmp_path / "changed", new)
    after = everything(changed.warehouse, ("redriven_at",), tables=ALL)
    assert after == everything(in_space(tmp_path / "always", new).warehouse, ("redriven_at",), tables=ALL)
    assert len(after["accounts"]) == len(before["accounts"]) == 4
    if "people_space" in now:
        space = f"{new.naming('vitally').people_space}/accounts"
        assert {row["people_space"] for row in after["accounts"]} == {space}
    # What is sent again says nothing new under the settings of now.
    facts = changed.count("facts")
    bring_again = put(changed, "c.json", "vitally", VENDOR_PAGE.read_bytes(), [track("m", userId="a,1", accountId=9)],
                      source="crm")  # fmt: skip
    changed.load(bring_again)
    assert changed.count("facts") == facts
