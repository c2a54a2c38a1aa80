"""What every warehouse promises (SPEC 4), whichever engine it is."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.ports import Audit, FileResult, FilesWanted, Warehouse
from ingest.redrive import redrive
from ingest.settings import Source
from tests.support import ARRIVAL, START, World, alias, everything, put, record
from tests.test_exactly_once import broken_promises

NOTE = Audit("ann")
NewWorld = Callable[..., World]


@pytest.fixture
def new_world(new_warehouse: Callable[[], Warehouse]) -> NewWorld:
    return lambda *sources: World(new_warehouse(), sources)


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()


def source(name: str, **more: Any) -> Source:
    return Source(name=name, bucket="bucket", **more)


# --- tables ----------------------------------------------------------------------------------------------------------

COLUMNS = {
    "ledger": "file_id source bucket key etag version_id last_modified sha256 size_bytes format state lines blank items"
    " records sets aliases failed repaired duplicates load_id run_id loaded_at attempts next_try_at duplicate_of"
    " replaced_by redrive_of archived_to error",
    "commands": "file_id line item kind people_space person person_key occurred_at event event_key alias alias_key"
    " properties time_source position command_id load_id",
    "failed_lines": "file_id line item byte_offset byte_length raw raw_sha256 mendable codes failures redriven_at"
    " redriven_by",
    "history": "file_id action at by reason run_id",
    "events": "command_id people_space person_id person event event_key occurred_at position properties time_source"
    " source file_id line item",
    "identities": "people_space identity identity_key person_id",
    "people": "people_space person_id identities first_seen last_seen properties",
    "accounts": "people_space person_id identities first_seen last_seen properties",
    "kissmetrics_events": "person_id event_key",
}  # fmt: skip


@pytest.mark.parametrize("table", COLUMNS)
def test_a_new_warehouse_has_every_table_empty(world: World, table: str) -> None:
    with world.warehouse.query(f"SELECT * FROM {table}") as answer:
        names = answer.reader.schema.names
        assert answer.reader.read_all().num_rows == 0
    assert [name for name in names if name in COLUMNS[table].split()] == COLUMNS[table].split()


def test_json_columns_are_told(world: World) -> None:
    with world.warehouse.query("SELECT properties, person FROM commands") as answer:
        assert answer.json_columns == {"properties"}
    with world.warehouse.query("SELECT failures, raw FROM failed_lines") as answer:
        assert answer.json_columns == {"failures"}


def test_a_wrong_statement_is_an_error_of_ours(world: World) -> None:
    with pytest.raises(IngestError), world.warehouse.query("SELECT nothing FROM nowhere"):
        pass


# --- one file --------------------------------------------------------------------------------------------------------

MIXED = (
    record("Ann", 0, "Signed up", plan="pro"), "", put("ann", 1, age=32), alias("ann", "bob", 2),
    "no json", record("ann", 3, "Paid", _ip="::1"), '{"_p":"ann"}',
)  # fmt: skip


def test_a_file_becomes_commands_failed_lines_and_a_ledger_row(world: World) -> None:
    file = world.put("a.json", *MIXED)
    (result,) = world.pipeline.load([file], run_id="run 1")
    counts = result.counts
    assert (result.state, result.already, result.file_id) == ("loaded", False, file.file_id)
    assert (counts.lines, counts.blank, counts.items) == (7, 1, 6)
    assert (counts.records, counts.sets, counts.aliases, counts.failed) == (2, 1, 1, 2)
    assert (counts.repaired, counts.duplicates) == (0, 0)

    (entry,) = world.rows("SELECT * FROM ledger")
    assert entry["state"] == "loaded"
    assert (entry["file_id"], entry["bucket"], entry["key"], entry["etag"]) == (
        file.file_id,
        "bucket",
        "a.json",
        file.etag,
    )
    assert (entry["lines"], entry["blank"], entry["items"], entry["failed"]) == (7, 1, 6, 2)
    assert (entry["source"], entry["format"], entry["run_id"]) == ("one_off", "kissmetrics", "run 1")
    assert (entry["size_bytes"], entry["last_modified"]) == (file.size_bytes, file.last_modified)
    assert (entry["load_id"], entry["error"], entry["next_try_at"]) == (result.load_id, None, None)
    assert entry["load_id"]
    assert entry["loaded_at"].tzinfo is not None

    commands = world.rows("SELECT * FROM commands ORDER BY line, kind")
    assert [(c["line"], c["kind"], c["person"], c["person_key"], c["event"], c["event_key"]) for c in commands] == [
        (1, "record", "Ann", "ann", "Signed up", "signed up"),
        (3, "set", "ann", "ann", None, None),
        (4, "alias", "ann", "ann", None, None),
        (6, "record", "ann", "ann", "Paid", "paid"),
    ]
    assert [c["properties"] for c in commands] == ['{"plan":"pro"}', '{"age":32}', "{}", '{"_ip":"::1"}']
    assert [(c["alias"], c["alias_key"]) for c in commands] == [
        (None, None),
        (None, None),
        ("bob", "bob"),
        (None, None),
    ]
    assert [c["occurred_at"].timestamp() for c in commands] == [START, START + 1, START + 2, START + 3]
    assert {(c["time_source"], c["people_space"]) for c in commands} == {("event", "kissmetrics")}
    assert {(c["file_id"], c["load_id"]) for c in commands} == {(file.file_id, result.load_id)}
    assert [c["position"] for c in commands] == sorted({c["position"] for c in commands})

    failed = world.rows("SELECT * FROM failed_lines ORDER BY line")
    assert [(f["line"], f["raw"], f["codes"]) for f in failed] == [
        (5, b"no json", ["not_json"]), (7, b'{"_p":"ann"}', ["time_missing", "no_command"]),
    ]  # fmt: skip
    body = world.store.objects["bucket", "a.json"][1]
    assert [body[f["byte_offset"] :][: f["byte_length"]] for f in failed] == [f["raw"] for f in failed]
    assert {(f["file_id"], f["item"], f["mendable"], f["redriven_at"], f["redriven_by"]) for f in failed} == {
        (file.file_id, "", True, None, None)
    }
    with world.warehouse.failed_lines(file.file_id) as streamed:
        assert [row["line"] for row in streamed] == [5, 7]


def test_the_same_file_again_changes_nothing(world: World) -> None:
    file = world.put("a.json", *MIXED)
    (first,) = world.load(file)
    before = everything(world.warehouse)
    (again,) = world.load(file)
    assert again.already
    assert (again.state, again.counts.records, again.counts.failed, again.load_id) == ("loaded", 2, 2, first.load_id)
    assert everything(world.warehouse) == before
    with world.pipeline.judged([file]) as staging:  # as when two loaders judged it at the same time
        (raced,) = world.warehouse.load(staging, "another", None)
    assert (raced.already, raced.load_id) == (True, first.load_id)
    assert everything(world.warehouse) == before


def test_a_file_named_twice_in_one_load_is_loaded_once(world: World) -> None:
    file = world.put("a.json", *MIXED)
    assert [result.state for result in world.load(file, file)] == ["loaded"]
    assert world.count("commands") == 4


def test_files_of_one_load_stay_apart(world: World) -> None:
    files = [world.put(f"{n}.json", record("ann", n, "x"), "bad", alias("ann", n)) for n in (1, 2, 10)]
    results = world.load(*files)
    assert [result.file_id for result in results] == [file.file_id for file in files]
    assert len({result.load_id for result in results}) == 1
    for file in files:
        assert world.count("commands", f"file_id = '{file.file_id}'") == 2
        assert world.count("failed_lines", f"file_id = '{file.file_id}'") == 1


def test_another_version_of_a_key_is_another_file(world: World) -> None:
    world.bring("a.json", record("ann", 0, "x"))
    again = world.bring("a.json", record("ann", 0, "x"), record("ann", 1, "x"))
    assert (again.state, again.counts.records, again.counts.duplicates) == ("loaded", 2, 1)
    assert (world.count("ledger"), world.count("commands"), world.count("events")) == (2, 3, 2)


def test_what_vanished_is_not_entered(world: World) -> None:
    files = [world.put("a.json", record("ann", 0, "x")), world.put("b.json", record("ann", 1, "x"))]
    del world.store.objects["bucket", "a.json"]
    assert [result.state for result in world.load(*files)] == ["gone", "loaded"]
    assert [row["key"] for row in world.rows("SELECT key FROM ledger")] == ["b.json"]


def test_known_and_find(world: World) -> None:
    files = [world.put(f"{n}.json", record("ann", n, "x")) for n in range(3)]
    world.load(*files[:2])
    assert world.warehouse.known(files).keys() == {file.file_id for file in files[:2]}
    for reference in (files[0].file_id, files[0].file_id[:10], "s3://bucket/0.json"):
        assert world.warehouse.find_file(reference)["key"] == "0.json"
    for reference in ("", "nothing", "s3://bucket/2.json", "s3://other/0.json"):
        with pytest.raises(IngestError):
            world.warehouse.find_file(reference)
    newer = world.put("0.json", record("ann", 9, "x"))
    world.load(newer)
    assert world.warehouse.find_file("s3://bucket/0.json")["file_id"] == newer.file_id


def test_files_lists_the_newest_first(world: World) -> None:
    world.bring("1.json", record("ann", 1, "x"))
    world.bring("2.json", "{}", source="other")
    world.bring("3.json", record("ann", 3, "x"))
    keys = [row["key"] for row in world.warehouse.files({})]
    assert keys == ["3.json", "2.json", "1.json"]
    assert [row["key"] for row in world.warehouse.files({}, limit=1)] == ["3.json"]
    assert [row["key"] for row in world.warehouse.files({"source": "other"})] == ["2.json"]
    assert world.warehouse.files({"source": "other", "state": "held"}) == []


# --- a fact counts once ----------------------------------------------------------------------------------------------

X = record("ann", 0, "x", a=1, b=2)


@pytest.mark.parametrize(("one", "other", "facts"), [
    pytest.param(X, X, 1, id="the same"),
    pytest.param(X, record("ann", 0, "x", b=2, a=1), 1, id="properties in another order"),
    pytest.param(X, record(" Ann ", 0, "X", a=1, b=2), 1, id="other spellings of person and event"),
    pytest.param(X, X | {"_ip": "::1", "_d": 1, "_k": "key", "_server_timestamp": 5}, 1, id="transport names"),
    pytest.param(X, X | {"c": None}, 1, id="null is absent"),
    pytest.param(X, X | {"_t": f"{START}"}, 1, id="the time as text"),
    pytest.param(X, X | {"_t": START + 0.5}, 2, id="half a second later"),
    pytest.param(X, X | {"a": 2}, 2, id="another value"),
    pytest.param(X, X | {"a": "1"}, 2, id="text is no number"),
    pytest.param(X, X | {"a": 1.0}, 2, id="numbers as sent"),
    pytest.param(X, record("ann", 0, "x", A=1, b=2), 2, id="a property's name as sent"),
    pytest.param(X, record("bob", 0, "x", a=1, b=2), 2, id="another person"),
    pytest.param(X, record("ann", 0, "y", a=1, b=2), 2, id="another event"),
    pytest.param(X, put("ann", 0, a=1, b=2), 2, id="a set is no record"),
    pytest.param(alias("ann", "bob"), alias("BOB", "ann"), 1, id="an alias has no direction"),
    pytest.param(alias("ann", "bob"), alias("ann", "cat"), 2, id="another alias"),
])  # fmt: skip
def test_equal_facts(new_world: NewWorld, one: Any, other: Any, facts: int) -> None:
    within, over = new_world(), new_world()
    counts = within.bring("a.json", one, other).counts
    assert counts.records + counts.sets + counts.aliases == 2
    assert counts.duplicates == 2 - facts
    over.bring("a.json", one, arrived=0)
    later = over.bring("b.json", other, {"_p": "zoe", "_t": START + 99, "_n": "only here"}, arrived=0).counts
    assert later.duplicates == 2 - facts
    for world in (within, over):
        found = world.rows("SELECT command_id FROM commands WHERE person_key <> 'zoe'")
        assert (len(found), len({row["command_id"] for row in found})) == (2, facts)
    if "_n" in one and "_n" in other:
        assert within.count("events") == facts
        assert over.count("events") == facts + 1


def test_people_spaces_do_not_share_facts(new_world: NewWorld) -> None:
    world = new_world(source("one"), source("other", people_space="other"))
    world.bring("a.json", X, source="one")
    assert world.bring("b.json", X, source="other").counts.duplicates == 0
    assert world.count("events") == 2


def test_times_at_the_ends_of_a_load_are_looked_at(world: World) -> None:
    """Earlier copies of the first and the last fact of a load, and of one in the middle."""
    facts = [record("ann", n, "x") for n in range(5)]
    world.bring("a.json", *facts)
    counts = world.bring("b.json", facts[0], record("ann", 2.5, "x"), facts[2], facts[4]).counts
    assert (counts.records, counts.duplicates) == (4, 3)
    assert world.count("events") == 6
    assert world.bring("c.json", facts[3], record("bob", 3, "x")).counts.duplicates == 1


@pytest.mark.slow
def test_the_event_of_a_fact_is_the_first_in_position_whatever_the_load_order(new_world: NewWorld) -> None:
    """Arrival, then key in natural order, then line."""
    files = [("10.json", 0), ("9.json", 0), ("1.json", 60)]
    outcomes = []
    for order in permutations(files):
        world = new_world()
        for key, arrived in order:
            world.bring(key, record("Ann", 1, key), X, X | {"_k": key}, arrived=arrived)
        (event,) = world.rows("SELECT * FROM events JOIN ledger USING (file_id) WHERE event = 'x'")
        assert (event["line"], event["properties"], event["key"]) == (2, '{"a":1,"b":2}', "9.json")
        outcomes.append(everything(world.warehouse, tables=("events", "people", "kissmetrics_events")))
    assert outcomes == outcomes[:1] * 6


def test_positions_sort_lines_as_numbers(world: World) -> None:
    world.bring("a.json", *(record("ann", n, "x") for n in range(12)))
    world.bring("9.json", record("ann", 50, "x"), arrived=500)
    world.bring("10.json", record("ann", 51, "x"), arrived=500)
    for table in ("events", "commands"):
        times = [row["occurred_at"].timestamp() for row in world.rows(f"SELECT * FROM {table} ORDER BY position")]
        assert [time - START for time in times] == [*range(12), 50, 51]


# --- persons ---------------------------------------------------------------------------------------------------------


def persons(world: World) -> dict[str, str]:
    return {row["identity_key"]: row["person_id"] for row in world.rows("SELECT * FROM identities")}


def test_every_person_and_alias_is_an_identity(world: World) -> None:
    world.bring("a.json", record("Ann ", 0, "x"), alias("bob", "Cat,1"), put("dan", 0, a=1), record("dan", 1, "x"))
    found = world.rows("SELECT * FROM identities ORDER BY identity_key")
    assert [(row["identity_key"], row["person_id"], row["people_space"]) for row in found] == [
        ("ann", "ann", "kissmetrics"), ("bob", "bob", "kissmetrics"), ("cat 1", "bob", "kissmetrics"),
        ("dan", "dan", "kissmetrics"),
    ]  # fmt: skip
    assert found[2]["identity"] == "Cat,1"


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_aliases_are_transitive_in_any_order(world: World, order: tuple[int, ...]) -> None:
    """d-e, b-c and c-d by three files, and events of two of them: all are b."""
    content = [
        [alias("d", "e"), record("b", 0, "x")], [alias("c", "b")],
        [record("e", 0, "x"), alias("C", "D"), alias("lone", "lone")],
    ]  # fmt: skip
    for number in order:
        world.bring(f"{number}.json", *content[number])
    assert persons(world) == {"b": "b", "c": "b", "d": "b", "e": "b", "lone": "lone"}
    assert {row["person_id"] for row in world.rows("SELECT person_id FROM events")} == {"b"}
    (person,) = world.rows("SELECT * FROM people WHERE person_id = 'b'")
    assert sorted(map(str.lower, person["identities"])) == ["b", "c", "d", "e"]


@pytest.mark.parametrize("seed", range(3))
def test_persons_are_the_components_of_the_aliases(new_world: NewWorld, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"p{n}" for n in range(24)]
    pairs = [(chance.choice(names), chance.choice(names)) for _ in range(18)]
    expected = {name: name for pair in pairs for name in pair}
    for _ in names:
        for one, other in pairs:
            expected[one] = expected[other] = min(expected[one], expected[other])
    world = new_world()
    while pairs:
        size = chance.randrange(1, 6)
        files = [world.put(f"{len(pairs)}.{n}.json", *(alias(*pair) for pair in pairs[n:size:2])) for n in (0, 1)]
        world.load(*files)
        pairs = pairs[size:]
    assert persons(world) == expected


def test_ignored_identities_join_nobody(world: World) -> None:
    world.bring(
        "a.json", alias("ann", "Anonymous"), alias("bob", "anonymous"), alias("0", "cat"), alias("dan", "null ")
    )
    world.bring("b.json", record("anonymous", 0, "x"), alias(0, "dan"))
    found = persons(world)
    assert found.keys() == {"ann", "anonymous", "bob", "0", "cat", "dan", "null"}
    assert all(key == person for key, person in found.items())
    assert world.count("commands", "kind = 'alias'") == 5
    assert world.count("failed_lines") == 0


def test_people_spaces_do_not_share_persons(new_world: NewWorld) -> None:
    world = new_world(source("one"), source("other", people_space="other"))
    world.bring("a.json", alias("ann", "bob"), source="one")
    world.bring("b.json", record("bob", 0, "x"), record("ann", 0, "x"), source="other")
    found = world.rows("SELECT people_space, identity_key, person_id FROM identities WHERE identity_key = 'bob'")
    assert sorted((row["people_space"], row["person_id"]) for row in found) == [
        ("kissmetrics", "ann"),
        ("other", "bob"),
    ]


def test_first_and_last_seen(world: World) -> None:
    world.bring("a.json", record("ann", 10, "x"), put("ann", 5, a=1), record("bob", 30, "x"))
    world.bring("b.json", alias("bob", "ann", 20), alias("nobody", "knows"))
    found = {row["person_id"]: row for row in world.rows("SELECT * FROM people")}
    assert found.keys() == {"ann", "knows"}
    ann = found["ann"]
    assert (ann["first_seen"].timestamp() - START, ann["last_seen"].timestamp() - START) == (5, 30)
    assert found["knows"]["properties"] == "{}"


@pytest.mark.parametrize(("content", "properties"), [
    pytest.param([put("ann", 1, plan="new"), put("ann", 0, plan="old")], '{"plan":"new"}', id="the latest wins"),
    pytest.param([put("ann", 1, plan="a"), record("ann", 2, "x", plan="b")], '{"plan":"b"}', id="of records too"),
    pytest.param([put("ann", 1, plan="a"), put("ann", 1, plan="b")], '{"plan":"b"}', id="at equal time the later line"),
    pytest.param([put("ann", 1, plan="b"), put("ann", 1, plan="a")], '{"plan":"a"}', id="not the greater value"),
    pytest.param([put("ann", 1, plan="b"), put("ann", 1, plan="a"), put("ann", 1, plan="b")], '{"plan":"b"}',
                 id="at equal time a fact that is told again"),
    pytest.param([put("ann", 0, a=1), put("ann", 1, b=2)], '{"a":1,"b":2}', id="names on their own"),
    pytest.param([put("ann", 0, Plan="a"), put("ann", 1, plan="b")], '{"plan":"b"}', id="case is one name"),
    pytest.param([put("ann", 0, **{"a:b": "a"}), put("ann", 1, **{" a b": "b"})], '{" a b":"b"}', id="sign"),
    pytest.param([put("ann", 0, a=True), put("ann", 1, b=False)], '{"a":true,"b":false}', id="booleans"),
    pytest.param([f'{{"_p":"ann","_t":{START},"a":1.10,"b":100.00}}'], '{"a":1.10,"b":100.00}', id="trailing zeros"),
    pytest.param([f'{{"_p":"ann","_t":{START},"a":-1.10,"b":{"9" * 30},"c":9223372036854775808}}'],
                 f'{{"a":-1.10,"b":{"9" * 30},"c":9223372036854775808}}', id="large numbers"),
    pytest.param([put("ann", 0, a='",\\"a\\":7.50,"b":1'), f'{{"_p":"ann","_t":{START + 1},"b":2.50}}'],
                 None, id="values that look like properties"),
    pytest.param([f'{{"_p":"ann","_t":{START},"a\\"b":1.50,"\\\\":2.50,"\\u0001é/\u2028":3.50,"":4.50}}'],
                 None, id="names that need escapes"),
    pytest.param([f'{{"_p":"ann","_t":{START},"a":0.1234567890123456789012345}}'],
                 '{"a":0.1234567890123456789012345}', id="25 decimals"),
])  # fmt: skip
def test_properties_of_people(world: World, content: list[Any], properties: str | None) -> None:
    world.bring("a.json", *content)
    (person,) = world.rows("SELECT * FROM people")
    if properties is None:
        sent = [json.loads(line, parse_float=Decimal) if isinstance(line, str) else line for line in content]
        expected = {name: value for line in sent for name, value in line.items() if name not in ("_p", "_t")}
        kept = json.loads(person["properties"], parse_float=Decimal)
        assert {name: str(value) for name, value in kept.items()} == {
            name: str(value) for name, value in expected.items()
        }
    else:
        assert person["properties"] == properties


def test_at_equal_time_any_row_of_a_fact_counts_while_its_file_is_loaded(world: World) -> None:
    for plan in ("gold", "silver"):
        world.bring(f"{plan}.json", put("ann", 0, plan=plan))
    again = world.bring("again.json", put("bob", 0), put("ann", 0, plan="gold"))
    plan = "SELECT properties ->> 'plan' AS plan FROM people WHERE person_id = 'ann'"
    assert world.rows(plan) == [{"plan": "gold"}]
    world.warehouse.undo([again.file_id], Audit("ann"))
    assert world.rows(plan) == [{"plan": "silver"}]


@pytest.mark.parametrize(("files", "winner"), [
    pytest.param([("9.json", 0), ("10.json", 0)], "10.json", id="keys in natural order"),
    pytest.param([("1.json", 60), ("2.json", 0)], "1.json", id="arrival before key"),
])  # fmt: skip
def test_at_equal_time_the_greater_position_wins(
    new_world: NewWorld, files: list[tuple[str, float]], winner: str
) -> None:
    for order in permutations(files):
        world = new_world()
        for key, arrived in order:
            world.bring(key, put("ann", 0, plan=key), arrived=arrived)
        assert world.rows("SELECT properties FROM people") == [{"properties": f'{{"plan":"{winner}"}}'}]


def test_kissmetrics_counts_one_event_a_second(world: World) -> None:
    world.bring(
        "a.json", record("ann", 0, "x"), record("ann", 0.25, "X", a=1), record("Ann", 0.999999, "x", a=2),
        record("ann", 1, "x"), record("ann", 0, "y"), record("bob", 0, "x"), record("cat", 0, "x"), alias("cat", "bob"),
    )  # fmt: skip
    assert world.count("events") == 7
    found = world.rows("SELECT person_id, event_key FROM kissmetrics_events")
    assert sorted((row["person_id"], row["event_key"]) for row in found) == [
        ("ann", "x"), ("ann", "x"), ("ann", "y"), ("bob", "x"),
    ]  # fmt: skip


# --- the same bytes --------------------------------------------------------------------------------------------------


def test_the_same_bytes_under_another_key_are_a_duplicate(world: World) -> None:
    original = world.bring("a.json", X, "bad")
    copy = world.bring("b.json", X, "bad")
    assert (copy.state, copy.duplicate_of) == ("duplicate", original.file_id)
    assert [row["duplicate_of"] for row in world.rows("SELECT * FROM ledger WHERE state = 'duplicate'")] == [
        original.file_id
    ]
    assert (world.count("commands"), world.count("failed_lines"), world.count("ledger")) == (1, 1, 2)
    again = world.load(world.store.describe("bucket", "b.json"))
    assert [(result.state, result.already) for result in again] == [("duplicate", True)]


def test_of_copies_in_one_load_the_first_is_loaded(world: World) -> None:
    files = [world.put(key, X) for key in ("1.json", "2.json", "3.json")]
    results = world.load(*files)
    assert [result.state for result in results] == ["loaded", "duplicate", "duplicate"]
    assert {result.duplicate_of for result in results[1:]} == {files[0].file_id}
    assert world.count("commands") == 1


def test_two_loaders_with_copies_at_once(world: World) -> None:
    """Both judged before either wrote."""
    one, other = world.put("1.json", X), world.put("2.json", X)
    with world.pipeline.judged([one]) as staged_one, world.pipeline.judged([other]) as staged_other:
        (first,) = world.warehouse.load(staged_one, "1", None)
        (second,) = world.warehouse.load(staged_other, "2", None)
    assert (first.state, second.state, second.duplicate_of) == ("loaded", "duplicate", one.file_id)


def test_a_forced_duplicate_is_loaded(world: World) -> None:
    world.bring("a.json", X)
    copy = world.put("b.json", X)
    world.load(copy)
    (forced,) = world.load(copy, force=True)
    assert (forced.state, forced.duplicate_of, forced.counts.duplicates) == ("loaded", None, 1)
    assert (world.count("commands"), world.count("events"), world.count("ledger")) == (2, 1, 2)


@pytest.mark.parametrize(("sources", "of_copy", "body"), [
    pytest.param([], "one_off", b"", id="empty files"),
    pytest.param([source("other")], "other", None, id="another source"),
    pytest.param([source("one_off", same_bytes="load")], "one_off", None, id="same_bytes is load"),
])  # fmt: skip
def test_copies_that_are_no_duplicates(
    new_world: NewWorld, sources: list[Source], of_copy: str, body: bytes | None
) -> None:
    world = new_world(*sources)
    world.bring("a.json", X, body=body)
    copy = world.bring("b.json", X, body=body, source=of_copy)
    assert (copy.state, copy.duplicate_of) == ("loaded", None)
    assert copy.counts.duplicates == copy.counts.records
    assert world.count("events") == copy.counts.records


def test_only_loaded_bytes_make_duplicates(new_world: NewWorld) -> None:
    world = new_world(source("web", max_failed_lines=0))
    assert world.bring("a.json", X, "bad", source="web").state == "rejected"
    assert world.bring("b.json", X, "bad", source="web").state == "rejected"
    world.sources = (source("web"),)
    assert world.bring("c.json", X, "bad", source="web").state == "loaded"
    assert world.bring("d.json", X, "bad", source="web").state == "duplicate"


@pytest.mark.parametrize("same_bytes", ["skip", "load"])
def test_equal_bytes_under_one_key_are_no_change(new_world: NewWorld, same_bytes: Any) -> None:
    """A multipart upload has another ETag for the same bytes."""
    world = new_world(source("web", same_bytes=same_bytes))
    world.bring("a.json", X, "bad", source="web", etag="one")
    world.bring("a.json", X, "bad", source="web", etag="two-3")
    assert (world.count("commands"), world.count("failed_lines"), world.count("events")) == (1, 1, 1)


# --- force -----------------------------------------------------------------------------------------------------------


def test_force_puts_a_file_in_the_place_of_its_rows(world: World) -> None:
    world.bring("before.json", record("zoe", 0, "x"))
    file = world.put("a.json", *MIXED, X)
    world.load(file)
    world.bring("after.json", X, alias("bob", "cat"))
    before = everything(world.warehouse)
    (forced,) = world.load(file, force=True)
    assert (forced.state, forced.already) == ("loaded", False)
    after = everything(world.warehouse)
    ours = [row for row in after["ledger"] if row["file_id"] == file.file_id]
    assert len(ours) == 1
    for table in ("commands", "failed_lines", "events", "identities", "people", "kissmetrics_events"):
        assert after[table] == before[table], table


def test_force_may_judge_otherwise(new_world: NewWorld) -> None:
    world = new_world(source("web"))
    file = world.put("a.json", record("ann", 0, "x", nested={"a": 1}), X, alias("ann", "bob"), source="web")
    (first,) = world.load(file)
    assert (first.counts.failed, first.counts.records) == (1, 1)
    world.sources = (source("web", nested="flatten"),)
    (forced,) = world.load(file, force=True)
    assert (forced.counts.failed, forced.counts.records) == (0, 2)
    assert (world.count("failed_lines"), world.count("commands"), world.count("events")) == (0, 3, 2)
    world.sources = (source("web", people_space="elsewhere"),)
    world.load(file, force=True)
    assert persons(world) == {"ann": "ann", "bob": "ann"}
    assert {row["people_space"] for row in world.rows("SELECT people_space FROM identities")} == {"elsewhere"}


def test_a_fact_outlives_the_row_that_was_its_first(new_world: NewWorld) -> None:
    """Force takes rows away: the fact stays one, shown by what is left, and aliases that are gone join nobody."""
    world = new_world(source("web"))
    first = world.put("1.json", X, alias("ann", "bob"), source="web")
    world.load(first)
    world.bring("2.json", X, alias("bob", "cat"), source="web")
    world.sources = (source("web", strict=True, max_failed_lines=None, people_space="elsewhere"),)
    world.load(first, force=True)
    (event,) = world.rows("SELECT * FROM events WHERE people_space = 'kissmetrics'")
    assert world.rows(f"SELECT key FROM ledger WHERE file_id = '{event['file_id']}'") == [{"key": "2.json"}]
    found = world.rows("SELECT * FROM identities WHERE people_space = 'kissmetrics'")
    assert {row["identity_key"]: row["person_id"] for row in found} == {"ann": "ann", "bob": "bob", "cat": "bob"}


def test_force_of_what_cannot_be_read_leaves_what_is_there(world: World) -> None:
    file = world.put("a.json", *MIXED)
    world.load(file)
    before = everything(world.warehouse)
    world.store.broken["a.json"] = "the store did not answer"
    (forced,) = world.load(file, force=True)
    assert (forced.state, forced.error) == ("retrying", "the store did not answer")
    assert everything(world.warehouse) == before


# --- rejected --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limits", "bad", "state"), [
    pytest.param({"max_failed_lines": 2}, 2, "loaded", id="as many as may be"),
    pytest.param({"max_failed_lines": 2}, 3, "rejected", id="one more"),
    pytest.param({"max_failed_lines": 0}, 0, "loaded", id="none may, none did"),
    pytest.param({"max_failed_lines": 0}, 1, "rejected", id="none may"),
    pytest.param({"max_failed_share": 0.5}, 4, "loaded", id="half of them"),
    pytest.param({"max_failed_share": 0.5}, 5, "rejected", id="over half; blank lines do not count"),
    pytest.param({"max_failed_share": 0.0}, 1, "rejected", id="no share at all"),
    pytest.param({"max_failed_share": 0.9, "max_failed_lines": 1}, 2, "rejected", id="both limits hold"),
    pytest.param({}, 9, "loaded", id="no limit"),
])  # fmt: skip
def test_limits(new_world: NewWorld, limits: dict[str, Any], bad: int, state: str) -> None:
    world = new_world(source("web", **limits))
    sound = [record("ann", n, "x") for n in range(3)]
    result = world.bring("a.json", *sound, *["bad"] * bad, alias("ann", "bob"), "", "", "", source="web")
    assert (result.state, result.counts.failed, result.counts.records) == (state, bad, 3)
    assert world.count("failed_lines") == bad
    loaded = state == "loaded"
    assert (world.count("commands"), world.count("events")) == ((4, 3) if loaded else (0, 0))
    assert (world.count("identities"), world.count("people")) == ((2, 1) if loaded else (0, 0))
    (entry,) = world.rows("SELECT * FROM ledger")
    assert (entry["state"], bool(entry["error"]), entry["failed"]) == (state, not loaded, bad)


def test_a_rejected_file_does_not_reject_its_neighbours_and_may_be_forced(new_world: NewWorld) -> None:
    world = new_world(source("web", max_failed_lines=0))
    files = [world.put(f"{n}.json", record("ann", n, "x"), *["bad"] * (n == 1), source="web") for n in range(3)]
    assert [result.state for result in world.load(*files)] == ["loaded", "rejected", "loaded"]
    assert world.count("commands") == 2
    assert [(r.state, r.already) for r in world.load(files[1])] == [("rejected", True)]
    (forced,) = world.load(files[1], force=True)
    assert (forced.state, forced.counts.failed, forced.counts.duplicates) == ("loaded", 1, 0)
    assert (world.count("commands"), world.count("failed_lines"), world.count("ledger")) == (3, 1, 3)


def test_facts_of_a_rejected_file_are_not_there_yet(new_world: NewWorld) -> None:
    world = new_world(source("web", max_failed_lines=0))
    world.bring("a.json", X, "bad", source="web")
    assert world.bring("b.json", X, source="web").counts.duplicates == 0
    assert world.count("events") == 1


# --- retrying --------------------------------------------------------------------------------------------------------


def due(world: World, file: SourceFile) -> datetime:
    (entry,) = world.rows(f"SELECT next_try_at FROM ledger WHERE file_id = '{file.file_id}'")
    at = entry["next_try_at"]
    assert isinstance(at, datetime)
    return at


@pytest.mark.slow
def test_a_broken_file_is_tried_again_less_and_less_often_and_holds_up_nobody(world: World) -> None:
    files = [world.put(f"{n}.json", record("ann", n, "x"), "bad", record("bob", n, "y")) for n in range(3)]
    world.store.broken["1.json"] = "it broke off"
    results = world.load(*files)
    assert [(result.state, result.error) for result in results] == [
        ("loaded", None),
        ("retrying", "it broke off"),
        ("loaded", None),
    ]
    assert (world.count("commands"), world.count("failed_lines")) == (4, 2)

    broken, now = files[1], due(world, files[1]) - timedelta(microseconds=1)
    assert world.warehouse.unseen(files, now) == []
    assert world.warehouse.unseen(files, due(world, broken)) == [broken]
    assert world.warehouse.known([broken]) == {}
    waits = []
    for attempt in range(2, 8):
        before = due(world, broken)
        world.load(broken)
        assert world.rows(f"SELECT attempts FROM ledger WHERE file_id = '{broken.file_id}'") == [{"attempts": attempt}]
        waits.append(due(world, broken) - before)
    assert waits == sorted(waits)
    assert waits[-1] > 4 * waits[0] > timedelta(0)

    world.store.broken.clear()
    (mended,) = world.load(broken)
    assert (mended.state, mended.counts.records, mended.error) == ("loaded", 2, None)
    (entry,) = world.rows(f"SELECT * FROM ledger WHERE file_id = '{broken.file_id}'")
    assert (entry["state"], entry["next_try_at"], entry["error"]) == ("loaded", None, None)
    assert (world.count("commands"), world.count("failed_lines"), world.count("ledger")) == (6, 3, 3)


# --- discovery -------------------------------------------------------------------------------------------------------


def test_unseen_is_the_listing_minus_the_ledger(new_world: NewWorld) -> None:
    world = new_world(source("web", max_failed_lines=0))
    loaded = world.put("1.json", X, source="web")
    rejected = world.put("2.json", "bad", source="web")
    copy = world.put("3.json", X, source="web")
    world.load(loaded, rejected, copy)
    changed = world.put("1.json", X, X, source="web")
    new = world.put("0.json", X, source="web")
    assert world.warehouse.unseen([changed, loaded, copy, new, rejected], ARRIVAL) == [changed, new]
    assert world.warehouse.unseen(iter([]), ARRIVAL) == []


def test_the_ledger_knows_a_file_by_bucket_key_and_version(world: World) -> None:
    file = world.put("a.json", X)
    world.load(file)
    others = [
        replace(file, bucket="other"), replace(file, key="b.json"), replace(file, etag="e"),
        replace(file, version_id="v", etag="e"),
    ]  # fmt: skip
    assert world.warehouse.unseen([file, *others], ARRIVAL) == others
    same = replace(file, last_modified=ARRIVAL, source="web", size_bytes=1)
    assert world.warehouse.unseen([same], ARRIVAL) == []
    versioned = replace(file, version_id="v")  # it may be seen only now: SPEC 4
    assert world.warehouse.unseen([versioned], ARRIVAL) == []
    assert [known.file_id for known in world.warehouse.recognise([versioned])] == [file.file_id]
    assert replace(versioned, etag="whatever").file_id == versioned.file_id


def test_a_dry_run_leaves_nothing(world: World) -> None:
    file = world.put("a.json", *MIXED)
    results: list[FileResult] = world.pipeline.would_load([file])
    assert [(result.state, result.counts.records, result.counts.failed) for result in results] == [("loaded", 2, 2)]
    assert (world.count("ledger"), world.count("commands"), world.count("failed_lines")) == (0, 0, 0)


# --- what pages show -------------------------------------------------------------------------------------------------


def test_files_that_wait_stand_in_the_order_in_which_they_are_due(world: World) -> None:
    """All of them are shown as of now."""
    often, once, twin = (world.put(f"{name}.json", X) for name in ("often", "once", "twin"))
    world.store.broken |= dict.fromkeys(("often.json", "once.json", "twin.json"), "it broke off")
    for files in [[often]] * 5 + [[once, twin]]:
        world.load(*files)
    there = world.bring("there.json", X)
    with world.warehouse.published() as published:
        for descending in (True, False):
            shown = published.files(FilesWanted(sources=("one_off",), descending=descending)).rows
            ids = [often.file_id, twin.file_id, once.file_id, there.file_id]
            if not descending:
                ids = [there.file_id, twin.file_id, once.file_id, often.file_id]
            assert [row["file_id"] for row in shown] == ids


@pytest.mark.slow
def test_failed_lines_are_counted_whatever_was_done_to_their_files(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.warehouse.engines.duckdb.published._QUICK_SECONDS", 3600.0)  # a copy each time
    world = new_world(source("web"), source("strict", max_failed_lines=0))
    wanted = FilesWanted(sources=("web", "strict"), folded=True)

    def seen() -> dict[str, Any]:
        assert broken_promises(world.warehouse) == {}
        with world.warehouse.published() as published:
            return {
                "files": [row["open_failures"] for row in published.files(wanted).rows],
                "to fix": published.files(replace(wanted, with_failures=True)).total,
                "of a code": published.files(replace(wanted, code="person_missing")).total,
                "days": [(day.source, day.files, day.lines, day.failed, day.open) for day in published.days(wanted)],
                "problems": [(one.code, one.open, one.files) for one in published.problems(wanted)],
                "groups": [
                    (group.code, group.lines, group.open, group.first_line)
                    for row in published.files(wanted).rows for group in published.failure_groups([row["file_id"]])
                ],
                "glances": [(one.source, one.open, one.files) for one in published.glances(wanted.sources)],
            }  # fmt: skip

    no_person = '{"_t": 1393344603, "_n": "x"}'
    one = world.bring("1.json", X, "bad", no_person, "bad", source="web")
    two = world.bring("2.json", X, record("bob", 1, "y"), no_person, source="web")
    assert seen() == {
        "files": [1, 3], "to fix": 2, "of a code": 2, "days": [("web", 2, 3, 4, 4)],
        "problems": [("not_json", 2, 1), ("person_missing", 2, 2)],
        "groups": [("person_missing", 1, 1, 3), ("not_json", 2, 2, 2), ("person_missing", 1, 1, 3)],
        "glances": [("web", 4, 2)],
    }  # fmt: skip
    fixed = b'2\t{"_p":"ann","_t":1393344700,"_n":"x"}\n3\t{"_p":"ann","_t":1393344701,"_n":"x"}\n4\tstill bad\n'
    outcome = redrive(world.pipeline, one.file_id, fixed, NOTE)
    assert outcome.result
    assert seen() == {
        "files": [1, 1], "to fix": 2, "of a code": 1, "days": [("web", 3, 5, 4, 2)],
        "problems": [("not_json", 1, 1), ("person_missing", 1, 1)],
        "groups": [("person_missing", 1, 1, 3), ("not_json", 2, 1, 2), ("person_missing", 1, 0, 3)],
        "glances": [("web", 2, 2)],
    }  # fmt: skip
    rejected = world.bring("3.json", "bad", source="strict")
    assert seen()["glances"] == [("strict", 1, 1), ("web", 2, 2)]
    world.warehouse.ignore([rejected.file_id], [], NOTE)
    world.warehouse.undo([two.file_id], NOTE)
    assert (seen()["to fix"], seen()["problems"]) == (1, [("not_json", 1, 1)])
    world.warehouse.undo([outcome.result.file_id], NOTE)  # what it mended is open again
    assert seen()["problems"] == [("not_json", 2, 1), ("person_missing", 1, 1)]
    world.load(world.store.describe("bucket", "1.json"), force=True)
    assert seen()["glances"] == [("strict", 0, 0), ("web", 3, 1)]
    world.warehouse.undo([one.file_id], NOTE)
    assert (seen()["to fix"], seen()["problems"], seen()["glances"]) == (0, [], [("strict", 0, 0), ("web", 0, 0)])


def test_ignored_identities_hold_backwards(tmp_path: Path) -> None:
    from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

    def persons(*ignored: str) -> list[str]:
        warehouse = DuckDBWarehouse(tmp_path / "w.duckdb", ignored_identities=frozenset(ignored))
        return [row["person_id"] for row in World(warehouse).rows("SELECT person_id FROM identities ORDER BY identity")]

    World(DuckDBWarehouse(tmp_path / "w.duckdb")).bring("a.json", alias("ann", "shared"), alias("bob", "shared"))
    assert persons() == ["ann", "ann", "ann"]
    assert persons("shared") == ["ann", "bob", "shared"]
    assert persons() == ["ann", "ann", "ann"]
