"""Every row of the contract's table of WebEngage bodies, every code, and the vendor's own examples."""

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

FORMAT = open_format("webengage")
NOW = 1_800_000_000_000_000
RULES = Rules(received_at=NOW, people_space="webengage", match="exact", file_id="f")
STRICT = Rules(received_at=NOW, people_space="webengage", match="exact", file_id="f", strict=True)
TIME = "2018-09-15T18:29:00-0800"
AT = 1_537_064_940_000_000  # 2018-09-16 02:29 UTC

ALL_CODES = [
    "not_utf8", "not_json", "shape_wrong", "document_too_large", "nul_character", "number_out_of_range",
    "repeated_too_much",
    "identifier_missing", "identifier_too_long", "name_missing", "date_not_iso", "reserved_event", "wrong_format",
]  # fmt: skip
ALL_WARNINGS = [
    "no_time", "time_zone_assumed", "ignored_identity", "name_collision", "name_too_long", "value_too_long",
    "reserved_name", "over_request_limit", "phone_not_e164", "gender_unknown", "birth_date_not_iso",
]  # fmt: skip


def judge(body: Any, rules: Rules = RULES) -> dict[str, Item]:
    """The items by their paths."""
    text = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
    items = list(FORMAT.judge(text, rules))
    assert all(bool(item.commands) != bool(item.failures) for item in items)
    return {item.path: item for item in items}


def codes(items: dict[str, Item]) -> list[tuple[str, str, str]]:
    return sorted((path, one.code, one.pointer) for path, item in items.items() for one in item.failures)


def users(*some: Any) -> dict[str, Any]:
    return {"users": list(some)}


def events(*some: Any) -> dict[str, Any]:
    return {"events": list(some)}


def user(**more: Any) -> dict[str, Any]:
    return {"userId": "ann", **more}


def event(**more: Any) -> dict[str, Any]:
    return {"userId": "ann", "eventName": "bought", "eventTime": TIME, **more}


def put(person: str = "ann", /, **properties: Any) -> Command:
    return Command("set", person, NOW, properties=properties, time_source="received")


def record(person: str = "ann", at: int = AT, source: Any = "event", /, **properties: Any) -> Command:
    return Command("record", person, at, "bought", None, properties, source)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(users(user(firstName="Ann")), [put(firstName="Ann")], id="user"),
        pytest.param(users({"anonymousId": "x", "a": 1}), [put("x", a=1)], id="nobody yet"),
        pytest.param(users({"userId": " ", "anonymousId": "x"}), [put("x")], id="blank is absent"),
        pytest.param(users(user(anonymousId="x", a=1)), [put(a=1)], id="anonymousId is ignored, and joins nobody"),
        pytest.param(users(user(anonymousId="x" * 101)), [put()], id="also where it is too long"),
        pytest.param(users(user(anonymousId={"a": ["\0"]})), [put()], id="or is no text, and odd"),
        pytest.param(events(event(anonymousId=[7])), [record()], id="with an event likewise"),
        pytest.param(users({"userId": 7}), [put("7")], id="an integer is its text"),
        pytest.param(users(user()), [put()], id="somebody, of whom nothing is said"),
        pytest.param(
            users(user(city=None, emailOptIn=False, attributes={"Age": "31", "a": {"b": [1, 2]}, "n": None})),
            [put(emailOptIn=False, Age="31", **{"a.b": "1,2"})],
            id="attributes under their own names, flat",
        ),
        pytest.param(
            users(user(email="a@b", attributes={"email": "c@d", "attributes": 1})),
            [put(email="a@b", attributes=1, **{"attributes.email": "c@d"})],
            id="two names for one property both stay",
        ),
        pytest.param(users(user(attributes={"we_x": 1, "web": 2}, we_top=3)), [put(web=2, we_top=3)], id="we_"),
        pytest.param(events(event(eventData={"Price": 39.8})), [record(Price=Decimal("39.8"))], id="event"),
        pytest.param(events({"anonymousId": "x", "eventName": "bought", "eventTime": TIME}), [record("x")], id="who"),
        pytest.param(events(event(eventData=None)), [record()], id="no data"),
        pytest.param(
            events(event(source="app", eventData={"source": 1, "we_x": 1})),
            [record(source="app", **{"eventData.source": 1})],
            id="what stands beside the data",
        ),
        pytest.param(events({"userId": "ann", "eventName": "bought"}), [record("ann", NOW, "received")], id="no time"),
        pytest.param(events(event(eventTime=None)), [record("ann", NOW, "received")], id="time null"),
        pytest.param(events(event(eventTime=" \n")), [record("ann", NOW, "received")], id="time blank"),
        pytest.param(
            events(event(eventData='\n{"Price": 39.80, "a": {"b": [1, 2]}, "Price": 1.10}')),
            [record(Price=Decimal("1.10"), **{"a.b": "1,2"})],
            id="data that is the text of an object",
        ),
        pytest.param(
            {"events": [event()], "users": [user()]}, [record(), put()], id="both in one body, as they stand"
        ),
        pytest.param(users(), [], id="an empty batch asks for nothing"),
    ],
)  # fmt: skip
def test_what_a_body_asks_for(sent: Any, expected: list[Command]) -> None:
    items = judge(sent)
    assert [command for item in items.values() for command in item.commands] == expected
    assert codes(items) == []


@pytest.mark.parametrize(
    ("time", "at"),
    [
        ("2018-09-15T18:29:00-0800", AT), ("2018-09-15T18:29:00-08:00", AT), ("2018-09-16T02:29:00Z", AT),
        ("2018-09-16T02:29:00.123Z", AT + 123_000), ("2018-09-16T02:29:00,123456789+00:00", AT + 123_456),
        ("2018-09-16T02:29+0000", AT), ("2018-09-16T02:29Z", AT), ("2018-09-16 02:29:00+00", AT),
    ],
)  # fmt: skip
def test_times_as_they_are_met(time: str, at: int) -> None:
    (item,) = judge(events(event(eventTime=time))).values()
    assert (item.commands, item.warnings) == ((record("ann", at),), ())
    (assumed,) = judge(events(event(eventTime="2018-09-16T02:29:00"))).values()
    assert (assumed.commands, assumed.warnings) == ((record(),), ("time_zone_assumed",))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(b"\xff", [("", "not_utf8", "")], id="not UTF-8"),
        pytest.param('{"users":[', [("", "not_json", "")], id="cut off"),
        pytest.param([user()], [("", "shape_wrong", "")], id="an array"),
        pytest.param({}, [("", "shape_wrong", "")], id="neither users nor events"),
        pytest.param(user(), [("", "shape_wrong", "")], id="a user alone"),
        pytest.param(users() | {"more": 1}, [("", "shape_wrong", "")], id="an unknown name"),
        pytest.param({"users": {}}, [("", "shape_wrong", "/users")], id="users an object"),
        pytest.param(
            {"users": None, "events": [{}]},
            [
                ("", "identifier_missing", "/events/0"), ("", "name_missing", "/events/0/eventName"),
                ("", "shape_wrong", "/users"),
            ], id="users null: the whole body is told of all its rules",
        ),
        pytest.param('{"users":[],"\\u0000":1}', [("", "nul_character", ""), ("", "shape_wrong", "")], id="U+0000"),
        pytest.param(users(7, user()), [("/users/0", "shape_wrong", "")], id="a user that is a number"),
        pytest.param(users({"a": 1}, user()), [("/users/0", "identifier_missing", "")], id="nobody"),
        pytest.param(users({"userId": ""}), [("/users/0", "identifier_missing", "")], id="blank"),
        pytest.param(users(user(attributes=[])), [("/users/0", "shape_wrong", "/attributes")], id="attributes a list"),
        pytest.param(users({"userId": True}), [("/users/0", "shape_wrong", "/userId")], id="an id that is true"),
        pytest.param(users({"userId": "x" * 101}), [("/users/0", "identifier_too_long", "/userId")], id="101"),
        pytest.param(
            events(event(userId=None, anonymousId="x" * 101)), [("/events/0", "identifier_too_long", "/anonymousId")],
            id="an anonymousId of 101",
        ),
        pytest.param(users({"userId": "a\0"}), [("/users/0", "nul_character", "/userId")], id="U+0000 in an id"),
        pytest.param('{"users":[{"userId":"a","b":1e999}]}', [("/users/0", "number_out_of_range", "/b")], id="1e999"),
        pytest.param(events(7, event()), [("/events/0", "shape_wrong", "")], id="an event that is a number"),
        pytest.param(events({"userId": "a"}), [("/events/0", "name_missing", "/eventName")], id="no name"),
        pytest.param(events(event(eventName="")), [("/events/0", "name_missing", "/eventName")], id="a blank name"),
        pytest.param(events(event(eventName=None)), [("/events/0", "name_missing", "/eventName")], id="name null"),
        pytest.param(events(event(eventName=7)), [("/events/0", "shape_wrong", "/eventName")], id="name a number"),
        pytest.param(events(event(eventName="we_x")), [("/events/0", "reserved_event", "/eventName")], id="we_"),
        *(
            pytest.param(events(event(eventData=text)), [("/events/0", "shape_wrong", "/eventData")], id=f"data {text}")
            for text in ("", "x", "[1]", '"{}"', "{a}", '{"a":1} {"a":1}', '{"a":' * 200 + "1" + "}" * 200)
        ),
        pytest.param(
            events(event(eventData='{"a":"\\u0000","b":1e999}')),
            [("/events/0", "nul_character", "/eventData/a"), ("/events/0", "number_out_of_range", "/eventData/b")],
            id="oddities in the text of data",
        ),
        pytest.param(events(event(eventTime=5)), [("/events/0", "date_not_iso", "/eventTime")], id="time a number"),
        pytest.param(events(event(eventTime="2018-09-15")), [("/events/0", "date_not_iso", "/eventTime")], id="a day"),
        pytest.param(
            events(event(eventTime="2018-02-30T00:00:00Z")), [("/events/0", "date_not_iso", "/eventTime")],
            id="no such day",
        ),
        pytest.param(
            events({"eventTime": 5, "eventData": 5}),
            [
                ("/events/0", "date_not_iso", "/eventTime"), ("/events/0", "identifier_missing", ""),
                ("/events/0", "name_missing", "/eventName"), ("/events/0", "shape_wrong", "/eventData"),
            ], id="every broken rule of an event",
        ),
    ],
)  # fmt: skip
def test_what_a_body_breaks(sent: Any, told: list[tuple[str, str, str]]) -> None:
    items = judge(sent)
    assert codes(items) == told
    assert {code for _, code, _ in told} <= set(ALL_CODES)
    assert all(item.commands for path, item in items.items() if path != told[0][0])


@pytest.mark.parametrize(
    ("sent", "warnings"),
    [
        pytest.param(users(user()), ("no_time",), id="users have no time"),
        pytest.param(events(event(eventTime=None)), ("no_time",), id="nor has this event"),
        pytest.param(events(event(eventTime="")), ("no_time",), id="nor this"),
        pytest.param(events(event(eventTime=TIME[:-5])), ("time_zone_assumed",), id="time_zone_assumed"),
        pytest.param(events(event(userId="null")), ("ignored_identity",), id="ignored_identity"),
        pytest.param(events(event(a=1, eventData={"a": 2})), ("name_collision",), id="name_collision"),
        pytest.param(events(event(eventName="x" * 256)), ("name_too_long",), id="name_too_long"),
        pytest.param(events(event(eventData={"a": "x" * 8193})), ("value_too_long",), id="value_too_long"),
        pytest.param(events(event(eventData={"we_a": 1})), ("reserved_name",), id="reserved_name"),
        pytest.param(users(user(phone="551155256325")), ("phone_not_e164", "no_time"), id="a phone without a plus"),
        pytest.param(users(user(phone=7)), ("phone_not_e164", "no_time"), id="a phone that is a number"),
        pytest.param(users(user(phone="+551155256325", gender="other")), ("no_time",), id="as the page asks"),
        pytest.param(users(user(gender="F")), ("gender_unknown", "no_time"), id="gender_unknown"),
        pytest.param(users(user(birthDate="1986-08-19")), ("birth_date_not_iso", "no_time"), id="a day of birth"),
        pytest.param(users(user(birthDate="1986-08-19T15:45:00-0800", gender=None)), ("no_time",), id="birth"),
    ],
)  # fmt: skip
def test_what_is_accepted_with_a_warning(sent: Any, warnings: tuple[str, ...]) -> None:
    (item,) = judge(sent).values()
    assert item.warnings == warnings
    assert set(warnings) <= set(ALL_WARNINGS)
    assert sorted(code for _, code, _ in codes(judge(sent, STRICT))) == sorted(warnings)


def test_each_item_over_the_vendors_limit_is_told() -> None:
    items = list(judge({"users": [user()] * 20, "events": [event()] * 7}).values())
    assert ["over_request_limit" in item.warnings for item in items] == [False] * 25 + [True] * 2
    assert not any(item.failures for item in items)


def test_the_codes_are_these() -> None:
    assert sorted(schema.codes("webengage")) == sorted(ALL_CODES + ALL_WARNINGS)
    Draft202012Validator.check_schema(schema.load("webengage"))


# --- a mended item ---------------------------------------------------------------------------------------------------


def test_a_mended_item_is_what_it_would_have_been_in_its_body() -> None:
    broken = judge({"users": [user(attributes=1), user()], "events": [event(), event(eventName=None)]})
    expected = judge({"users": [user(a=1), user()], "events": [event(), event(a=2)]})
    assert [path for path, item in broken.items() if item.failures] == ["/users/0", "/events/1"]
    for path, mended in (("/users/0", user(a=1)), ("/events/1", event(a=2))):
        item = broken[path]
        (again,) = FORMAT.judge_item(cast("bytes", item.raw), path, item.context, RULES)
        assert (again.failures, again.path, again.number) == (item.failures, path, item.number)
        (good,) = FORMAT.judge_item(orjson.dumps(mended), path, item.context, RULES)
        assert good == expected[path]
        (bad,) = FORMAT.judge_item(b"[", path, item.context, RULES)
        assert (bad.failures[0].code, bad.path, bad.number, bad.context) == (
            "not_json", path, item.number, item.context,
        )  # fmt: skip


def test_what_is_sent_again_by_itself_is_over_no_limit() -> None:
    failed = judge(users(*[user()] * 30, 7))["/users/30"]
    (item,) = FORMAT.judge_item(b'{"userId":"ann"}', "/users/30", failed.context, RULES)
    assert (item.warnings, item.number) == (("no_time",), 30)


# --- the vendor's page -----------------------------------------------------------------------------------------------

CASES = Path(__file__).parents[1] / "cases" / "webengage"


def test_the_examples_of_the_page() -> None:
    """Each prints one item twice. The event is one fact; users have no time, and then each is a fact of its own."""
    known = judge((CASES / "vendor_page_users.json").read_bytes())
    done = judge((CASES / "vendor_page_events.json").read_bytes())
    john = Command(
        "set", "johndoe", NOW, time_source="received",
        properties={
            "firstName": "John", "lastName": "Doe", "birthDate": "1986-08-19T15:45:00-0800", "gender": "male",
            "email": "[email protected]", "phone": "+551155256325", "company": "Alphabet Inc.", "Age": "31",
            "Twitter username": "@origjohndoe86", "Dollars spent": Decimal("461.93"), "Points earned": 78732,
        },
    )  # fmt: skip
    added = Command(
        "record", "johndoe", AT, "Added to Cart",
        properties={
            "Product ID": 1337, "Price": Decimal("39.8"), "Quantity": 1, "Product": "Givenchy Pour Homme Cologne",
            "Category": "Fragrance", "Currency": "USD",
        },
    )  # fmt: skip
    assert [item.commands for item in known.values()] == [(john,), (john,)]
    assert [item.warnings for item in known.values()] == [("no_time",)] * 2
    assert [(item.commands, item.warnings) for item in done.values()] == [((added,), ())] * 2
    for items, facts in ((known, 2), (done, 1)):
        ids = {to_row(item.commands[0], 1, 0, path, RULES)[-1] for path, item in items.items()}
        assert len(ids) == facts


# --- schema and judge ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [
    {}, [], 7, users(), events(), users(user()), users(7), users({}), users({"userId": 7}), users({"userId": 7.5}),
    users({"userId": ""}), users({"userId": None, "anonymousId": "x"}), users(user(attributes=None)),
    users(user(attributes=1)), users({"userId": "😀" * 100}), users({"userId": "😀" * 101}), {"users": None},
    users() | {"a": 1}, events(event()), events(event(eventName=" ")), events(event(eventName="we_")),
    events(event(eventName=" we_")), events(event(eventTime="2018-09-15T18:29")), events(event(eventTime="2018")),
    events(event(eventTime=" 2018-09-15T18:29:00Z ")), events(event(eventData=[])),
    events(event(eventTime="")), events(event(eventTime=" ")), events(event(eventData="{}")),
    events(event(eventData="")), events(event(eventData=" { } ")), events(event(eventData="[]")),
], ids=lambda sent: json.dumps(sent)[:60])  # fmt: skip
def test_any_validator_comes_to_the_same_verdict(sent: Any) -> None:
    is_sound = not any(item.failures for item in judge(sent).values())
    assert Draft202012Validator(schema.load("webengage")).is_valid(sent) == is_sound
