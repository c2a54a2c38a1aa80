"""Every row of the contract's table of Woopra visits, every code, and the vendor's own examples."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from jsonschema import Draft202012Validator

from ingest.core import schema
from ingest.core.commands import Command, Item, Rules
from ingest.core.facts import row as to_row
from ingest.core.formats import open_format

FORMAT = open_format("woopra")
NOW = 1_800_000_000_000_000
RULES = Rules(received_at=NOW, people_space="woopra", match="exact", file_id="f")
STRICT = Rules(received_at=NOW, people_space="woopra", match="exact", file_id="f", strict=True)
MS = 1_444_077_951_001
AT = MS * 1000

ALL_CODES = [
    "not_utf8", "not_json", "shape_wrong", "document_too_large", "nul_character", "number_out_of_range",
    "repeated_too_much",
    "identifier_missing", "identifier_too_long", "name_missing", "time_in_seconds", "time_in_future", "no_command",
    "unsupported_delete", "wrong_format",
]  # fmt: skip
ALL_WARNINGS = [
    "no_time", "time_coerced", "ignored_identity", "name_collision", "name_too_long", "value_too_long",
]  # fmt: skip


def judge(visit: Any, rules: Rules = RULES) -> dict[str, Item]:
    """The items by their paths."""
    text = visit if isinstance(visit, bytes) else visit.encode() if isinstance(visit, str) else orjson.dumps(visit)
    items = list(FORMAT.judge(text, rules))
    assert all(bool(item.commands) != bool(item.failures) for item in items)
    return {item.path: item for item in items}


def codes(items: dict[str, Item]) -> list[tuple[str, str, str]]:
    return sorted((path, one.code, one.pointer) for path, item in items.items() for one in item.failures)


def commands(items: dict[str, Item]) -> list[Command]:
    return [command for item in items.values() for command in item.commands]


def bare(command: Command) -> Command:
    """Without the visit's id, where it was made."""
    properties = {name: value for name, value in command.properties.items() if name != "visit.id"}
    return Command(
        command.kind, command.person, command.at, command.event, command.alias, properties, command.time_source
    )


def visit(visitor: dict[str, Any] | None = None, *actions: Any, **fields: Any) -> dict[str, Any]:
    return {"visitor": visitor or {"id": "ann"}, "actions": list(actions), **fields}


def action(**more: Any) -> dict[str, Any]:
    return {"name": "signup", "time": MS, **more}


def record(person: str = "ann", at: int = AT, source: Any = "event", /, **properties: Any) -> Command:
    return Command("record", person, at, "signup", None, properties, source)


def put(person: str, at: int = AT, source: Any = "event", /, **properties: Any) -> Command:
    return Command("set", person, at, None, None, properties, source)


def alias(person: str, other: str, at: int = AT, source: Any = "event") -> Command:
    return Command("alias", person, at, None, other, {}, source)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(visit({"id": "ann"}, action()), [record()], id="id alone says who acted"),
        pytest.param(visit({"email": "a@b"}, action()), [record("a@b")], id="email alone"),
        pytest.param(visit({"cookie": "c"}, action()), [record("c")], id="cookie alone"),
        pytest.param(visit({"id": 7}, action()), [record("7")], id="an integer is its text"),
        pytest.param(visit({"id": "", "email": None, "cookie": "c"}, action()), [record("c")], id="blank is absent"),
        pytest.param(
            visit({"cookie": "c", "email": "a@b", "id": "ann"}, action()),
            [alias("ann", "a@b"), put("ann", cookie="c", email="a@b"), record()],
            id="id and email are one person, and email stays a property",
        ),
        pytest.param(
            visit({"cookie": "c", "email": "a@b"}, action()), [put("a@b", cookie="c"), record("a@b")],
            id="email goes before cookie, which joins nobody",
        ),
        pytest.param(
            visit({"id": "ann", "plan": "pro", "n": None, "blank": "", "o": {"a": [1, "x"], "b": [{}]}}, action()),
            [put("ann", plan="pro", blank="", **{"o.a": "1,x", "o.b": "[{}]"}), record()],
            id="the visitor's properties, flat",
        ),
        pytest.param({"visitor": {"id": "ann", "plan": "pro"}, "time": MS}, [put("ann", plan="pro")], id="visit time"),
        pytest.param(
            visit({"id": "ann", "plan": "pro"}, action(time=None), action(time=MS + 1), action(), time=None),
            [
                put("ann", AT + 1000, plan="pro"), record("ann", NOW, "received"), record("ann", AT + 1000), record(),
            ],
            id="else the time of the first action that has one",
        ),
        pytest.param(
            visit({"id": "ann", "plan": "pro"}, action(time=""), action(), time=" "),
            [put("ann", plan="pro"), record("ann", NOW, "received"), record()],
            id="a blank time is none",
        ),
        pytest.param(
            {"visitor": {"id": "ann", "plan": "pro"}, "actions": None}, [put("ann", NOW, "received", plan="pro")],
            id="else of the file",
        ),
        pytest.param(
            {"visitor": {"id": "ann", "email": "a@b"}},
            [alias("ann", "a@b", NOW, "received"), put("ann", NOW, "received", email="a@b")],
            id="two identifiers alone",
        ),
        pytest.param(
            visit(None, action(properties={"price": 20, "a": {"b": 1}, "event_name": "x", "none": None}, id="i")),
            [record(price=20, event_name="x", id="i", **{"a.b": 1})],
            id="properties of an action, flat, and what stands beside them",
        ),
        pytest.param(
            visit(None, action(time=MS + 1), city="Rome", time=MS, lng=12.5, referrer={"url": "u"}, x=None),
            [record("ann", AT + 1000, **{
                "visit.city": "Rome", "visit.time": MS, "visit.lng": Decimal("12.5"), "visit.referrer.url": "u",
            })],
            id="fields of the visit, as they are",
        ),
        pytest.param(
            {"visitor": {"id": "ann"}, "time": MS, "city": "Rome"},
            [put("ann", **{"visit.city": "Rome", "visit.time": MS})],
            id="fields of a visit without actions",
        ),
        pytest.param(visit(None, action(time=1444077951001.0)), [record()], id="a time with a point"),
        pytest.param(visit(None, action(time=1444077951001.5)), [record("ann", AT + 500)], id="to the microsecond"),
        pytest.param(visit(None, action(time=str(MS))), [record()], id="a time in quotes"),
        pytest.param(visit(None, action(time=10**11)), [record("ann", 10**14)], id="the earliest that is milliseconds"),
        pytest.param(visit({"id": "x" * 255}, action()), [record("x" * 255)], id="the longest identifier"),
    ],
)  # fmt: skip
def test_what_a_visit_asks_for(sent: dict[str, Any], expected: list[Command]) -> None:
    assert [bare(command) for command in commands(judge(sent))] == expected


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(b"\xff", [("", "not_utf8", "")], id="not UTF-8"),
        pytest.param('{"visitor":{}', [("", "not_json", "")], id="cut off"),
        pytest.param("[]", [("", "shape_wrong", "")], id="an array"),
        pytest.param('"x"', [("", "shape_wrong", "")], id="a text"),
        pytest.param({}, [("", "identifier_missing", "/visitor")], id="no visitor"),
        pytest.param({"visitor": None}, [("", "identifier_missing", "/visitor")], id="visitor null"),
        pytest.param({"visitor": "ann"}, [("", "shape_wrong", "/visitor")], id="visitor a text"),
        pytest.param(
            visit({"id": " ", "email": ""}, action(), {"time": 5}),
            [
                ("", "identifier_missing", "/visitor"), ("", "name_missing", "/actions/1/name"),
                ("", "time_in_seconds", "/actions/1/time"),
            ],
            id="nobody: the whole visit is told of all its rules",
        ),
        pytest.param(visit({"id": True}, action()), [("", "shape_wrong", "/visitor/id")], id="an id that is true"),
        pytest.param(visit({"id": "a", "email": []}), [("", "shape_wrong", "/visitor/email")], id="an email of a list"),
        pytest.param(visit({"id": "x" * 256}, action()), [("", "identifier_too_long", "/visitor/id")], id="256"),
        pytest.param(visit({"id": "a\0"}, action()), [("", "nul_character", "/visitor/id")], id="U+0000 in the id"),
        pytest.param(visit(None, action(), city="\0"), [("", "nul_character", "/city")], id="U+0000 in a field"),
        pytest.param(visit(None, action(), time=MS // 1000), [("", "time_in_seconds", "/time")], id="visit in seconds"),
        pytest.param(visit(None, action(), time="soon"), [("", "shape_wrong", "/time")], id="visit at no time"),
        pytest.param(visit(None, action(), time=MS * 1000), [("", "time_in_future", "/time")], id="visit in future"),
        pytest.param(
            visit(time=MS * 1000), [("", "no_command", ""), ("", "time_in_future", "/time")],
            id="visit in future that asks for nothing",
        ),
        pytest.param({"visitor": {"id": "a"}, "actions": {}}, [("", "shape_wrong", "/actions")], id="no list"),
        pytest.param({"visitor": {"id": "a"}}, [("", "no_command", "")], id="an identifier alone"),
        pytest.param(visit({"email": "a", "x": {}}, time=MS), [("", "no_command", "")], id="and nothing else"),
        pytest.param({"type": "delete", "pid": "p"}, [("", "unsupported_delete", "")], id="a delete line"),
        pytest.param(
            {"type": "system", "method": "delete"}, [("", "unsupported_delete", "")], id="a delete line of old"
        ),
        pytest.param(visit(None, 7), [("/actions/0", "shape_wrong", "")], id="an action that is a number"),
        pytest.param(visit(None, {"time": MS}), [("/actions/0", "name_missing", "/name")], id="no name"),
        pytest.param(visit(None, action(name=" ")), [("/actions/0", "name_missing", "/name")], id="a blank name"),
        pytest.param(visit(None, action(name=None)), [("/actions/0", "name_missing", "/name")], id="name null"),
        pytest.param(visit(None, action(name=7)), [("/actions/0", "shape_wrong", "/name")], id="name a number"),
        pytest.param(visit(None, action(properties=[])), [("/actions/0", "shape_wrong", "/properties")], id="a list"),
        pytest.param(visit(None, action(time=True)), [("/actions/0", "shape_wrong", "/time")], id="time true"),
        pytest.param(visit(None, action(time=-1)), [("/actions/0", "shape_wrong", "/time")], id="time negative"),
        pytest.param(visit(None, action(time="2015-10-05")), [("/actions/0", "shape_wrong", "/time")], id="a date"),
        pytest.param(visit(None, action(time=0)), [("/actions/0", "time_in_seconds", "/time")], id="time 0"),
        pytest.param(visit(None, action(time=10**11 - 1)), [("/actions/0", "time_in_seconds", "/time")], id="11"),
        pytest.param(visit(None, action(time="1444077951")), [("/actions/0", "time_in_seconds", "/time")], id="quoted"),
        pytest.param(visit(None, action(time=AT)), [("/actions/0", "time_in_future", "/time")], id="microseconds"),
        pytest.param(
            visit(None, action(properties={"a": "\0"}), action()),
            [("/actions/0", "nul_character", "/properties/a")], id="U+0000 in an action",
        ),
        pytest.param(
            '{"visitor":{"id":"a","n":1e400},"actions":[{"name":"x"}]}', [("/visitor", "number_out_of_range", "/n")],
            id="a number out of range in the visitor",
        ),
        pytest.param(
            visit(None, {"time": 5, "name": 7, "properties": 1}),
            [
                ("/actions/0", "shape_wrong", "/name"), ("/actions/0", "shape_wrong", "/properties"),
                ("/actions/0", "time_in_seconds", "/time"),
            ], id="every broken rule of an action",
        ),
    ],
)  # fmt: skip
def test_what_a_visit_breaks(sent: Any, told: list[tuple[str, str, str]]) -> None:
    items = judge(sent)
    assert codes(items) == told
    assert {code for _, code, _ in told} <= set(ALL_CODES)
    if told[0][0]:  # the other items are none the worse
        others = [item for path, item in items.items() if path != told[0][0]]
        assert not any(item.failures for item in others)


@pytest.mark.parametrize(
    ("sent", "warnings"),
    [
        pytest.param(visit(None, action(time=None)), {"/actions/0": ("no_time",)}, id="no_time"),
        pytest.param(visit(None, action(time=" "), time=""), {"/actions/0": ("no_time",)}, id="blank times"),
        pytest.param({"visitor": {"id": "a", "b": 1}}, {"/visitor": ("no_time",)}, id="no_time of a visitor"),
        pytest.param(visit(None, action(time=str(MS))), {"/actions/0": ("time_coerced",)}, id="time_coerced"),
        pytest.param(
            visit({"id": "a", "b": 1}, action(), time=float(MS)), {"/visitor": ("time_coerced",), "/actions/0": ()},
            id="time_coerced of a visit",
        ),
        pytest.param(visit({"id": "anonymous"}, action()), {"/actions/0": ("ignored_identity",)}, id="nobody acts"),
        pytest.param(
            visit({"id": "a", "email": "null"}, action()), {"/visitor": ("ignored_identity",), "/actions/0": ()},
            id="an email of nobody",
        ),
        pytest.param(
            visit(None, action(a=1, properties={"a": 2})), {"/actions/0": ("name_collision",)}, id="name_collision"
        ),
        pytest.param(
            visit(None, action(properties={"visit.city": 2}), city="Rome"), {"/actions/0": ("name_collision",)},
            id="a property named like a field",
        ),
        pytest.param(visit(None, action(name="x" * 256)), {"/actions/0": ("name_too_long",)}, id="a long name"),
        pytest.param(visit(None, action(**{"x" * 256: 1})), {"/actions/0": ("name_too_long",)}, id="of a property"),
        pytest.param(visit(None, action(a="x" * 8193)), {"/actions/0": ("value_too_long",)}, id="value_too_long"),
        pytest.param(visit({"id": "x" * 255}, action(a="x" * 8192)), {"/actions/0": ()}, id="just short enough"),
    ],
)  # fmt: skip
def test_what_is_accepted_with_a_warning(sent: dict[str, Any], warnings: dict[str, tuple[str, ...]]) -> None:
    items = judge(sent)
    assert {path: item.warnings for path, item in items.items()} == warnings
    assert {code for told in warnings.values() for code in told} <= set(ALL_WARNINGS)
    refused = {code for _, code, _ in codes(judge(sent, STRICT))}
    assert refused == {code for told in warnings.values() for code in told}


def test_two_names_for_one_property_both_stay() -> None:
    items = judge(visit(None, action(a=1, properties={"a": 2, "visit.city": "P"}), city="Rome"))
    (command,) = commands(items)
    assert bare(command).properties == {"a": 1, "properties.a": 2, "visit.city": "P", "visit.visit.city": "Rome"}


@pytest.mark.parametrize("fields", ['"geo":{"x":1},"geo.x":2', '"geo.x":2,"geo":{"x":1}'])
def test_of_two_fields_of_a_visit_with_one_name_the_top_level_one_stays(fields: str) -> None:
    items = judge(f'{{"visitor":{{"id":"ann"}},"actions":[{{"name":"n","time":{MS}}}],{fields}}}')
    (command,) = commands(items)
    assert bare(command).properties == {"visit.geo.x": 2, "visit.geo.geo.x": 1}
    assert items["/actions/0"].warnings == ("name_collision",)


def test_strict_refuses_a_visit_of_nobody_as_a_whole() -> None:
    assert codes(judge(visit({"id": "anonymous"}, action()), STRICT)) == [("", "ignored_identity", "/visitor/id")]


@pytest.mark.parametrize(("time", "meant"), [(1444077951, "1444077951000"), (1444077951.25, "1444077951250")])
def test_of_seconds_it_is_told_which_milliseconds_were_meant(time: float, meant: str) -> None:
    (failure,) = judge(visit(None, action(time=time)))["/actions/0"].failures
    assert failure.message.endswith(f" It reads as 2015-10-05 20:45:51 UTC: send {meant}.")


@pytest.mark.parametrize("time", ["0", '"0"', "0.0", "1e-300"])
def test_of_no_time_at_all_nothing_is_guessed(time: str) -> None:
    items = judge(f'{{"visitor":{{"id":"ann"}},"actions":[{{"name":"n","time":{time}}}]}}')
    (failure,) = items["/actions/0"].failures
    assert (failure.code, "send" in failure.message) == ("time_in_seconds", False)


def test_the_codes_are_these() -> None:
    assert sorted(schema.codes("woopra")) == sorted(ALL_CODES + ALL_WARNINGS)
    Draft202012Validator.check_schema(schema.load("woopra"))


# --- a visit's id ----------------------------------------------------------------------------------------------------


def visit_ids(sent: dict[str, Any]) -> list[object]:
    return [command.properties.get("visit.id") for command in commands(judge(sent)) if command.kind == "record"]


def test_the_actions_of_a_visit_share_its_id() -> None:
    assert visit_ids(visit(None, action(), action(), id="v7", pid="p")) == ["v7", "v7"]
    assert visit_ids(visit(None, action(), pid="p")) == ["p"]
    one, other = visit_ids(visit(None, action(), action(time=MS + 5)))
    assert one == other
    assert isinstance(one, str)
    # The same visit later, seen longer; another visit of the person; the visit of another person.
    assert visit_ids(visit(None, action(), action(time=MS + 9), action(time=MS + 10))) == [one] * 3
    assert visit_ids(visit(None, action(time=MS + 5))) != [one]
    assert visit_ids(visit({"id": "bob"}, action())) != [one]
    assert visit_ids(visit(None, action(), time=MS)) == [one]
    assert visit_ids(visit(None, action(time=None))) != visit_ids(visit(None, action(time=None), city="Rome"))


# --- a mended item ---------------------------------------------------------------------------------------------------


def test_a_mended_item_is_what_it_would_have_been_in_its_visit() -> None:
    broken = visit({"id": "ann", "a": "\0"}, action(), action(time=5, properties={"p": 1}), 7, city="Rome", lng=1.10)
    sound = visit({"id": "ann", "a": "b"}, action(), action(properties={"p": 1}), action(), city="Rome", lng=1.10)
    expected, items = judge(sound), judge(broken)
    assert [path for path, item in items.items() if item.failures] == ["/visitor", "/actions/1", "/actions/2"]
    for path, mended in (("/visitor", sound["visitor"]), *((f"/actions/{n}", sound["actions"][n]) for n in (1, 2))):
        item = items[path]
        (again,) = FORMAT.judge_item(cast("bytes", item.raw), path, item.context, RULES)
        assert (again.failures, again.path, again.number) == (item.failures, path, item.number)
        (good,) = FORMAT.judge_item(orjson.dumps(mended), path, item.context, RULES)
        assert good == expected[path]


@pytest.mark.parametrize(
    ("raw", "path", "told"),
    [
        ('{"id":"ann"}', "/visitor", [("no_command", "")]),
        ("{}", "/visitor", [("identifier_missing", "")]),
        ('{"id":"a\\u0000"}', "/visitor", [("nul_character", "/id")]),
        ("[", "/visitor", [("not_json", "")]),
        ("[", "/actions/0", [("not_json", "")]),
        ("[]", "/actions/0", [("shape_wrong", "")]),
        ('{"name":"x","time":5}', "/actions/0", [("time_in_seconds", "/time")]),
    ],
)
def test_a_mended_item_that_is_wrong_says_why(raw: str, path: str, told: list[tuple[str, str]]) -> None:
    failed = judge(visit({"id": "ann", "a": "\0"}, 7))[path]
    (item,) = FORMAT.judge_item(raw.encode(), path, failed.context, RULES)
    assert [(failure.code, failure.pointer) for failure in item.failures] == told
    assert (item.path, item.number, item.context) == (path, failed.number, failed.context)


# --- the vendor's page -----------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "cases" / "woopra" / "vendor_page.json").read_bytes().split(b"\n")


def test_the_example_of_the_page() -> None:
    """Its first line is printed one bracket short; as it was meant, it gives what the page says."""
    assert codes(judge(PAGE[0])) == [("", "not_json", "")]
    (bought,) = commands(judge(PAGE[0].replace(b"}]}", b"}}]}")))
    assert bare(bought) == Command(
        "record", "[email\u00a0protected]", 1_444_077_951_001_000, "purchase", None, {"price": 20, "currency": "$"}
    )
    named, signed = commands(judge(PAGE[1]))
    assert named == Command("set", "[email\u00a0protected]", 1_444_077_951_891_000, properties={"username": "test2"})
    assert bare(signed) == Command(
        "record", "[email\u00a0protected]", 1_444_077_951_891_000, "signup", None, {"campaign": True}
    )


# --- schema and judge ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [
    visit(None, action()), visit({"id": 7}, action(time=str(MS))), visit({"id": ""}, action()), visit({"id": None}),
    {"visitor": {"id": "a"}}, {"visitor": {"id": "a", "b": {"c": None}}}, {"visitor": {"id": "a"}, "x": {}},
    {"visitor": {"id": "a"}, "city": "Rome"}, {"visitor": {"id": "a", "cookie": "b"}},
    {"visitor": {"id": "a", "cookie": " "}}, {"type": "delete"}, {"type": "system", "visitor": {"id": "a", "b": 1}},
    [], 7, {"visitor": {"id": "a"}, "actions": None}, visit(None, {}), visit(None, action(time=5)),
    visit(None, action(time="0999999999999")), visit(None, action(name="")),
    visit({"id": "x" * 256}), visit({"email": "😀" * 255, "a": 1}), visit(None, action(), time="5"),
    visit(None, action(time="")), visit(None, action(time=" "), time="\t"), visit({"id": "a"}, time=" "),
], ids=lambda sent: json.dumps(sent)[:60])  # fmt: skip
def test_any_validator_comes_to_the_same_verdict(sent: Any) -> None:
    is_sound = not any(item.failures for item in judge(sent).values())
    assert Draft202012Validator(schema.load("woopra")).is_valid(sent) == is_sound


def test_rows_are_numbered_as_their_items_stand() -> None:
    items = list(FORMAT.judge(orjson.dumps(visit({"id": "a", "b": 1}, 7, action())), RULES))
    assert [(item.path, item.number) for item in items] == [("/visitor", 0), ("/actions/0", 1), ("/actions/1", 2)]
    row = to_row(items[2].commands[0], 3, cast("int", items[2].number), items[2].path, RULES)
    assert row[:4] == (3, 2, "/actions/1", "record")
