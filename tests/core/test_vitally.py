"""Every type of Vitally's messages, every code, and the vendor's own example."""

import json
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from jsonschema import Draft202012Validator

from ingest.core import schema
from ingest.core.commands import Command, Item, Rules
from ingest.core.facts import row as to_row
from ingest.core.formats import open_format

FORMAT = open_format("vitally")
NOW = 1_800_000_000_000_000
RULES = Rules(received_at=NOW, people_space="vitally", match="exact", file_id="f")
STRICT = Rules(received_at=NOW, people_space="vitally", match="exact", file_id="f", strict=True)
TIME = "2018-05-15T12:31:12.123Z"
AT = 1_526_387_472_123_000

ALL_CODES = [
    "not_utf8", "not_json", "shape_wrong", "document_too_large", "nul_character", "number_out_of_range",
    "repeated_too_much",
    "identifier_missing", "identifier_too_long", "name_missing", "date_not_iso", "unknown_type",
    "message_id_or_timestamp_missing", "wrong_format",
]  # fmt: skip
ALL_WARNINGS = [
    "no_time", "time_zone_assumed", "ignored_identity", "name_collision", "name_too_long", "value_too_long",
    "over_request_limit",
]  # fmt: skip


def judge(body: Any, rules: Rules = RULES) -> dict[str, Item]:
    """The items by their paths."""
    text = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
    items = list(FORMAT.judge(text, rules))
    assert all(bool(item.commands) != bool(item.failures) for item in items)
    return {item.path: item for item in items}


def codes(items: dict[str, Item]) -> list[tuple[str, str, str]]:
    return sorted((path, one.code, one.pointer) for path, item in items.items() for one in item.failures)


def message(kind: Any, /, **more: Any) -> dict[str, Any]:
    return {"type": kind, "timestamp": TIME, **more}


def user(**more: Any) -> dict[str, Any]:
    return message("user", **{"userId": "32", **more})


def track(**more: Any) -> dict[str, Any]:
    return message("track", **{"userId": "32", "event": "scored", **more})


def put(person: str = "32", /, **properties: Any) -> Command:
    space = "vitally/accounts" if "/" in person else None
    return Command("set", person, AT, properties=properties, people_space=space)


def record(person: str = "32", event: str = "scored", /, **properties: Any) -> Command:
    space = "vitally/accounts" if "/" in person else None
    return Command("record", person, AT, event, properties=properties, people_space=space)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(user(accountId="7", traits={"name": "Ann"}), put(accountId="7", name="Ann"), id="user"),
        pytest.param(
            user(accountId=7, organizationId="o", traits={}), put(accountId="7", organizationId="o"), id="both ids"
        ),
        pytest.param(
            user(accountId=None, organizationId="", traits={"a": None, "b": "N/A"}), put(b="N/A"),
            id="null and blank are absent",
        ),
        pytest.param(user(userId=32), put(), id="an id that is an integer"),
        pytest.param(
            user(traits={"createdAt": 1526387472, "address": {"city": "Rome"}, "tags": ["a", "b"]}),
            put(createdAt=1526387472, **{"address.city": "Rome", "tags": "a,b"}), id="traits are flat and plain",
        ),
        pytest.param(
            user(accountId="7", traits={"accountId": "8"}), put(accountId="7", **{"traits.accountId": "8"}),
            id="two names for one property both stay",
        ),
        pytest.param(
            user(name="Ann", event="x", properties={"a": 1}), put(name="Ann", event="x", **{"properties.a": 1}),
            id="names that the docs do not know",
        ),
        pytest.param(
            message("account", accountId="7", organizationId="o", traits={"name": "A"}),
            put("account/7", organizationId="o", name="A"), id="account",
        ),
        pytest.param(message("account", accountId=7, traits=None), put("account/7"), id="an account by a number"),
        pytest.param(
            message("organization", organizationId="o", traits={"sport": "futbol"}),
            put("organization/o", sport="futbol"), id="organization",
        ),
        pytest.param(
            track(accountId="7", organizationId="o", properties={"minute": 14}),
            record(accountId="7", organizationId="o", minute=14), id="track: ids that are not used are properties",
        ),
        pytest.param(
            track(userId=None, accountId="7", organizationId="o"), record("account/7", organizationId="o"),
            id="track of an account",
        ),
        pytest.param(track(userId="", organizationId="o"), record("organization/o"), id="track of an organization"),
        pytest.param(track(properties=None, traits={"a": 1}), record(**{"traits.a": 1}), id="track without properties"),
        pytest.param(
            message("unlink", userId="32", accountId="7"), record("32", "unlink", accountId="7"), id="unlink"
        ),
        pytest.param(message("unlink", userId="32", accountId="7", event="x"),
                     record("32", "unlink", accountId="7", event="x"), id="unlink with an event"),
    ],
)  # fmt: skip
def test_what_a_message_asks_for(sent: Any, expected: Command) -> None:
    (item,) = judge([sent]).values()
    assert (item.path, item.number, item.commands) == ("/0", 0, (expected,))


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(b"\xff", [("", "not_utf8", "")], id="not UTF-8"),
        pytest.param("[{]", [("", "not_json", "")], id="not JSON"),
        pytest.param(user(), [("", "shape_wrong", "")], id="a message alone"),
        pytest.param('{"\\u0000":1}', [("", "nul_character", ""), ("", "shape_wrong", "")], id="an odd object"),
        pytest.param([7, user()], [("/0", "shape_wrong", "")], id="a message that is a number"),
        pytest.param([{"timestamp": TIME, "userId": "a"}, user()], [("/0", "unknown_type", "/type")], id="no type"),
        pytest.param([message(None, userId="a")], [("/0", "unknown_type", "/type")], id="type null"),
        pytest.param([message("User", userId="a")], [("/0", "unknown_type", "/type")], id="type misspelt"),
        pytest.param([message({}, userId="a")], [("/0", "unknown_type", "/type")], id="type an object"),
        pytest.param([message("identify", userId="a")], [("/0", "unknown_type", "/type")], id="another system's"),
        pytest.param(
            [message("customobjectinstance", externalId="x", customObjectId="c", accountId="7", traits={})],
            [("/0", "unknown_type", "/type")], id="a custom object",
        ),
        pytest.param([user(userId=None), user()], [("/0", "identifier_missing", "/userId")], id="no user"),
        pytest.param([user(userId=" ")], [("/0", "identifier_missing", "/userId")], id="a blank user"),
        pytest.param([message("account")], [("/0", "identifier_missing", "/accountId")], id="no account"),
        pytest.param(
            [message("organization", accountId="7")], [("/0", "identifier_missing", "/organizationId")],
            id="no organization",
        ),
        pytest.param([track(userId=None)], [("/0", "identifier_missing", "")], id="nobody did it"),
        pytest.param([message("unlink", userId="32")], [("/0", "identifier_missing", "/accountId")], id="of what"),
        pytest.param([message("unlink", accountId="7")], [("/0", "identifier_missing", "/userId")], id="of whom"),
        pytest.param([user(userId=7.5)], [("/0", "shape_wrong", "/userId")], id="an id of 7.5"),
        pytest.param([user(accountId=True)], [("/0", "shape_wrong", "/accountId")], id="an id that is true"),
        pytest.param([user(userId="x" * 256)], [("/0", "identifier_too_long", "/userId")], id="an id of 256"),
        pytest.param([user(messageId={})], [("/0", "shape_wrong", "/messageId")], id="a messageId that is an object"),
        pytest.param([user(traits=[])], [("/0", "shape_wrong", "/traits")], id="traits an array"),
        pytest.param([track(properties="{}")], [("/0", "shape_wrong", "/properties")], id="properties a text"),
        pytest.param([track(event=None)], [("/0", "name_missing", "/event")], id="event null"),
        pytest.param([track(event=" ")], [("/0", "name_missing", "/event")], id="event blank"),
        pytest.param([track(event=7)], [("/0", "shape_wrong", "/event")], id="event a number"),
        pytest.param([user(timestamp=None)], [("/0", "message_id_or_timestamp_missing", "")], id="neither"),
        pytest.param(
            [user(timestamp=None, messageId="")], [("/0", "message_id_or_timestamp_missing", "")], id="a blank one"
        ),
        pytest.param([user(timestamp=1526387472)], [("/0", "date_not_iso", "/timestamp")], id="time a number"),
        pytest.param([user(timestamp=" ")], [("/0", "message_id_or_timestamp_missing", "")], id="time blank"),
        pytest.param([user(timestamp="2018-13-15T12:31:12Z")], [("/0", "date_not_iso", "/timestamp")], id="no month"),
        pytest.param([user(traits={"a": "\0"})], [("/0", "nul_character", "/traits/a")], id="U+0000"),
        pytest.param(
            '[{"type":"user","userId":"a","messageId":"m","traits":{"b":1e999}}]',
            [("/0", "number_out_of_range", "/traits/b")], id="1e999",
        ),
        pytest.param(
            [{"type": "track", "properties": 7}],
            [
                ("/0", "identifier_missing", ""), ("/0", "message_id_or_timestamp_missing", ""),
                ("/0", "name_missing", "/event"), ("/0", "shape_wrong", "/properties"),
            ], id="every broken rule of a message",
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
        (user(timestamp=None, messageId="m"), ("no_time",)),
        (user(timestamp="", messageId="m"), ("no_time",)),
        (user(timestamp=TIME[:-1]), ("time_zone_assumed",)),
        (user(userId="undefined"), ("ignored_identity",)),
        (message("account", accountId="0"), ()),
        (user(accountId="7", traits={"accountId": "8"}), ("name_collision",)),
        (track(event="x" * 256), ("name_too_long",)),
        (user(traits={"x" * 256: 1}), ("name_too_long",)),
        (track(properties={"a": "x" * 8193}), ("value_too_long",)),
    ],
)
def test_what_is_accepted_with_a_warning(sent: Any, warnings: tuple[str, ...]) -> None:
    (item,) = judge([sent]).values()
    assert item.warnings == warnings
    assert set(warnings) <= set(ALL_WARNINGS)
    assert sorted(code for _, code, _ in codes(judge([sent], STRICT))) == sorted(warnings)


def test_each_message_over_the_vendors_limit_is_told() -> None:
    items = list(judge([user()] * 102).values())
    assert [item.warnings for item in items] == [()] * 100 + [("over_request_limit",)] * 2


def test_the_codes_are_these() -> None:
    assert sorted(schema.codes("vitally")) == sorted(ALL_CODES + ALL_WARNINGS)
    Draft202012Validator.check_schema(schema.load("vitally"))
    assert judge([]) == {}


# --- one fact --------------------------------------------------------------------------------------------------------


def fact(sent: Any, rules: Rules = RULES, line: int = 1) -> bytes:
    (item,) = judge([sent], rules).values()
    return to_row(item.commands[0], line, 0, item.path, rules).command_id


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        pytest.param(user(), user(traits={"a": 1}), True, id="what else it says"),
        pytest.param(user(), user(timestamp=None), True, id="its time"),
        pytest.param(user(), user(messageId="n"), False, id="messageId"),
        pytest.param(user(), user(userId="33"), False, id="the user"),
        pytest.param(user(), user(accountId="7"), False, id="another id"),
        pytest.param(user(userId="7"), message("account", accountId="7"), False, id="the type"),
        pytest.param(track(userId="7"), message("unlink", userId="7", accountId="7"), False, id="track and unlink"),
        pytest.param(track(), track(event="missed"), False, id="the event"),
        pytest.param(track(), track(properties={"minute": 15}), True, id="properties"),
    ],
)
def test_with_a_message_id_type_ids_and_event_are_all_that_counts(one: Any, other: Any, is_same: bool) -> None:
    assert (fact({"messageId": "m", **one}) == fact({"messageId": "m", **other}, line=2)) == is_same


def test_without_a_message_id_it_is_what_it_says() -> None:
    assert fact(user(traits={"a": 1})) == fact(user(traits={"a": 1}), line=2)
    assert fact(user(traits={"a": 1})) != fact(user(traits={"a": 2}))
    assert fact(user()) != fact(user(timestamp="2018-05-15T12:31:13Z"))


# --- a mended message ------------------------------------------------------------------------------------------------


def test_a_mended_message_is_what_it_would_have_been_in_its_body() -> None:
    broken = judge([user(), user(traits=7), track(event=None)])
    expected = judge([user(), user(traits={"a": 1}), track(messageId="m")])
    for path, mended in (("/1", user(traits={"a": 1})), ("/2", track(messageId="m"))):
        item = broken[path]
        (again,) = FORMAT.judge_item(cast("bytes", item.raw), path, item.context, RULES)
        assert (again.failures, again.path, again.number) == (item.failures, path, item.number)
        (good,) = FORMAT.judge_item(orjson.dumps(mended), path, item.context, RULES)
        assert good == expected[path]
        (bad,) = FORMAT.judge_item(b"[", path, item.context, RULES)
        assert (bad.failures[0].code, bad.path, bad.context) == ("not_json", path, item.context)


def test_what_is_sent_again_by_itself_is_over_no_limit() -> None:
    failed = judge([*[user()] * 110, 7])["/110"]
    (item,) = FORMAT.judge_item(orjson.dumps(user()), "/110", failed.context, RULES)
    assert (item.warnings, item.number) == ((), 110)


# --- the vendor's page -----------------------------------------------------------------------------------------------


def test_the_example_of_the_page_gives_a_fact_for_each_message_though_all_have_one_message_id() -> None:
    items = judge((Path(__file__).parents[1] / "cases" / "vitally" / "vendor_page.json").read_bytes())
    commands = [command for item in items.values() for command in item.commands]
    assert [(item.warnings, item.failures) for item in items.values()] == [((), ())] * 4
    assert [(one.kind, one.person, one.event, one.people_space, one.at) for one in commands] == [
        ("set", "organization/abcdefg", None, "vitally/accounts", AT),
        ("set", "account/123456", None, "vitally/accounts", AT),
        ("set", "32", None, None, AT),
        ("record", "32", "scored-goal", None, AT),
    ]
    assert [one.properties for one in commands] == [
        {"name": "World Cup", "sport": "futbol"},
        {"organizationId": "abcdefg", "name": "Argentina", "group": "D"},
        {
            "accountId": "123456", "organizationId": "abcdefg", "name": "Lionel Messi", "position": "Forward",
            "number": 10, "email": "messi@barcelona.sp",
        },
        {"minute": 14, "opponentId": 421243, "matchId": 9},
    ]  # fmt: skip
    assert len({to_row(one, 1, 0, "", RULES)[-1] for one in commands}) == 4


# --- schema and judge ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [
    {}, [], 7, [7], [{}], [user()], [user(userId=7)], [user(userId=7.5)], [user(userId="")], [user(userId="😀" * 255)],
    [user(userId="😀" * 256)], [user(traits=None)], [user(traits=7)], [user(properties=7)], [user(timestamp=None)],
    [user(timestamp=None, messageId=7)], [user(timestamp=None, messageId=" ")], [user(timestamp="x")],
    [user(timestamp="")], [user(timestamp=" ", messageId="m")], [user(timestamp="\u3000", messageId="m")],
    [user(messageId=[])], [user(messageId=1.5)], [track()], [track(event="")], [track(event=7)], [track(traits=7)],
    [track(properties=7)], [track(userId=None, accountId="7")], [track(userId=None)], [message("unlink", userId="3")],
    [message("unlink", userId="3", accountId="7")], [message("account", accountId="7")], [message("account")],
    [message("organization", organizationId=7)], [message("x", userId="7")], [message(None)],
], ids=lambda sent: json.dumps(sent)[:60])  # fmt: skip
def test_any_validator_comes_to_the_same_verdict(sent: Any) -> None:
    is_sound = not any(item.failures for item in judge(sent).values())
    assert Draft202012Validator(schema.load("vitally")).is_valid(sent) == is_sound
