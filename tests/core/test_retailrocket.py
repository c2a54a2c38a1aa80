"""Every envelope of Retail Rocket's visitorEvents, every code, and the order in which things were done."""

import json
from decimal import Decimal
from typing import Any, cast

import orjson
import pytest
from jsonschema import Draft202012Validator

from ingest.core import schema
from ingest.core.commands import Command, Item, Rules
from ingest.core.facts import row as to_row
from ingest.core.formats import open_format
from ingest.core.formats.retailrocket import ENVELOPES

FORMAT = open_format("retailrocket")
NOW = 1_800_000_000_000_000
RULES = Rules(received_at=NOW, people_space="retailrocket", match="exact", file_id="f")
STRICT = Rules(received_at=NOW, people_space="retailrocket", match="exact", file_id="f", strict=True)
TIME = "2026-01-05T10:00:00Z"
AT = 1_767_607_200_000_000

ALL_CODES = [
    "not_utf8", "not_json", "shape_wrong", "document_too_large", "nul_character", "number_out_of_range",
    "repeated_too_much",
    "identifier_missing", "identifier_too_long", "date_not_iso", "unknown_envelope", "wrong_format",
]  # fmt: skip
ALL_WARNINGS = [
    "no_time", "time_zone_assumed", "ignored_identity", "name_collision", "name_too_long", "value_too_long",
    "phone_not_e164",
]  # fmt: skip
# What the docs ask for in each envelope, besides a session and a timestamp.
FIELDS: dict[str, dict[str, Any]] = {
    "view": {"productId": 41},
    "groupView": {"groupId": 7, "productIds": [41, 42]},
    "addToBasket": {"productId": 41},
    "order": {"productId": 41, "price": 10.5, "quantity": 2, "transaction": "T1"},
    "categoryView": {"categoryId": 3},
    "search": {"searchPhrase": "red shoes"},
    "setContact": {"contactExternalId": "C1"},
    "impressionContentViewed": {"impressionContentId": "i"},
    "impressionContentClicked": {"impressionContentId": "i"},
    "emailClick": {},
    "welcomeSequence": {},
    "recomBlockViewed": {"recomBlockId": "b"},
    "recomTap": {"recomBlockId": "b"},
    "recomAddToBasket": {"recomBlockId": "b"},
}


def judge(body: Any, rules: Rules = RULES) -> dict[str, Item]:
    """The items by their paths."""
    text = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else orjson.dumps(body)
    items = list(FORMAT.judge(text, rules))
    assert all(bool(item.commands) != bool(item.failures) for item in items)
    return {item.path: item for item in items}


def codes(items: dict[str, Item]) -> list[tuple[str, str, str]]:
    return sorted((path, one.code, one.pointer) for path, item in items.items() for one in item.failures)


def envelope(kind: str, /, **more: Any) -> dict[str, Any]:
    """A sound one; names given as None are left out."""
    fields = {"sessionExternalId": "ann", **FIELDS[kind], "timestamp": TIME, **more}
    return {kind: {name: value for name, value in fields.items() if value is not None}}


def view(**more: Any) -> dict[str, Any]:
    return envelope("view", **more)


def record(kind: str, person: str = "ann", at: int = AT, /, **properties: Any) -> Command:
    return Command("record", person, at, kind, None, properties, "event" if at == AT else "received")


PLAIN = [kind for kind in ENVELOPES if kind != "setContact"]


def test_the_table_names_every_envelope() -> None:
    assert list(FIELDS) == list(ENVELOPES)
    assert set(schema.load("retailrocket")["$defs"]["envelope"]["then"]["properties"]) == set(ENVELOPES)


@pytest.mark.parametrize("kind", PLAIN)
def test_each_envelope_is_a_record_of_its_name(kind: str) -> None:
    (item,) = judge([envelope(kind, stockId="msk", more={"a": [1, None, "x"]})]).values()
    flat: dict[str, Any] = {
        name: Decimal(str(value)) if isinstance(value, float) else ",".join(map(str, value)) if type(value) is list
        else value for name, value in FIELDS[kind].items()
    }  # fmt: skip
    expected = record(kind, **flat, stockId="msk", **{"more.a": "1,x"})
    assert (item.path, item.number, item.commands, item.warnings) == (f"/0/{kind}", 0, (expected,), ())


@pytest.mark.parametrize("kind", ENVELOPES)
def test_what_the_docs_ask_for_has_to_be_there(kind: str) -> None:
    for name in FIELDS[kind]:
        code = "identifier_missing" if name == "contactExternalId" else "shape_wrong"
        expected = [(f"/0/{kind}", code, f"/{name}")]
        assert codes(judge([envelope(kind, **{name: None})])) == expected
        assert codes(judge([{kind: envelope(kind)[kind] | {name: None}}])) == expected
        wrong = [(f"/0/{kind}", "shape_wrong", f"/{name}")]
        others: list[Any] = [True, {}, [{}] if name == "productIds" else []]
        for other in others:
            found = codes(judge([{kind: envelope(kind)[kind] | {name: other}}]))
            assert [(path, code, pointer.removesuffix("/0")) for path, code, pointer in found] == wrong


def contact(**more: Any) -> dict[str, Any]:
    return envelope("setContact", **more)


ALIAS = Command("alias", "ann", AT, alias="C1")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        pytest.param(contact(), [ALIAS], id="a contact, of whom nothing is said"),
        pytest.param(
            contact(email="a@b", phone="+79001234567", stockId="msk", customData={"age": 31, "a": {"b": None, "c": 1}}),
            [
                ALIAS,
                Command("set", "ann", AT, properties={
                    "email": "a@b", "phone": "+79001234567", "stockId": "msk", "customData.age": 31, "customData.a.c": 1
                }),
            ], id="what is known of a contact",
        ),
        pytest.param(
            contact(contactExternalId=7, customData="x"),
            [Command("alias", "ann", AT, alias="7"), Command("set", "ann", AT, properties={"customData": "x"})],
            id="an integer is its text",
        ),
        pytest.param(view(sessionExternalId=7), [record("view", "7", productId=41)], id="session an integer"),
        pytest.param(
            view(sessionExternalId=None, link={"name": "visitor", "value": "a:b"}),
            [record("view", "visitor/a:b", productId=41)], id="link",
        ),
        pytest.param(
            view(sessionExternalId=" ", link=[{"name": "visitor", "value": 7}]),
            [record("view", "visitor/7", productId=41)], id="link an array; a blank session is absent",
        ),
        pytest.param(
            view(sessionExternalId=None, link=[{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]),
            [record("view", "a/1", productId=41, link='[{"name":"a","value":"1"},{"name":"b","value":"2"}]')],
            id="of several links the first, and all are kept",
        ),
        pytest.param(
            view(sessionExternalId=None, link={"name": "a", "value": "1", "since": 3}),
            [record("view", "a/1", productId=41, **{"link.name": "a", "link.value": "1", "link.since": 3})],
            id="a link that says more is kept",
        ),
        pytest.param(
            view(link={"name": "a", "value": "1"}),
            [record("view", productId=41, **{"link.name": "a", "link.value": "1"})], id="a session goes before",
        ),
        pytest.param(
            {"emailClick": {"email": "a@b", "x": 1, "timestamp": TIME}},
            [record("emailClick", "a@b", email="a@b", x=1)], id="emailClick by its email",
        ),
        pytest.param(
            envelope("welcomeSequence", email="a@b"), [record("welcomeSequence", email="a@b")],
            id="welcomeSequence with both",
        ),
        pytest.param(view(timestamp=None), [record("view", "ann", NOW, productId=41)], id="no time"),
        pytest.param(
            {"view": view()["view"] | {"timestamp": None}}, [record("view", "ann", NOW, productId=41)], id="time null"
        ),
        pytest.param(view(timestamp="2026-01-05T13:00:00+03:00"), [record("view", productId=41)], id="with an offset"),
        pytest.param(view(productId="41"), [record("view", productId="41")], id="digits in quotes stay text"),
        pytest.param(
            envelope("order", price="10.50", quantity="2", transaction=1001),
            [record("order", productId=41, price="10.50", quantity="2", transaction=1001)], id="so do prices",
        ),
        pytest.param(envelope("search", searchPhrase=""), [record("search", searchPhrase="")], id="for nothing"),
        pytest.param(envelope("search", searchPhrase=42), [record("search", searchPhrase=42)], id="for a number"),
        pytest.param(
            envelope("groupView", productIds=[]), [record("groupView", groupId=7, productIds="")], id="an empty group"
        ),
    ],
)  # fmt: skip
def test_what_an_envelope_asks_for(sent: Any, expected: list[Command]) -> None:
    items = judge([sent])
    assert [command for item in items.values() for command in item.commands] == expected
    assert codes(items) == []


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        pytest.param(b"\xff", [("", "not_utf8", "")], id="not UTF-8"),
        pytest.param('[{"view":{}},]', [("", "not_json", "")], id="a comma too many"),
        pytest.param(view(), [("", "shape_wrong", "")], id="an envelope alone"),
        pytest.param('{"\\u0000":1}', [("", "nul_character", ""), ("", "shape_wrong", "")], id="an odd object"),
        pytest.param([7, view()], [("/0", "shape_wrong", "")], id="an element that is a number"),
        pytest.param([None, view()], [("/0", "shape_wrong", "")], id="or null"),
        pytest.param([{}, view()], [("/0", "unknown_envelope", "")], id="no name"),
        pytest.param([view() | envelope("search"), view()], [("/0", "unknown_envelope", "")], id="two names"),
        pytest.param([{"view": {}, "order": {}}, view()], [("/0", "unknown_envelope", "")], id="two of any content"),
        pytest.param([{"View": {}}, view()], [("/0", "unknown_envelope", "")], id="a name that is not known"),
        pytest.param('[{"a\\u0000":1}]', [("/0", "nul_character", ""), ("/0", "unknown_envelope", "")], id="U+0000"),
        pytest.param([{"view": []}, view()], [("/0/view", "shape_wrong", "")], id="an envelope with an array"),
        pytest.param([{"view": None}], [("/0/view", "shape_wrong", "")], id="with null"),
        pytest.param([view(sessionExternalId=None)], [("/0/view", "identifier_missing", "")], id="nobody"),
        pytest.param([view(sessionExternalId="")], [("/0/view", "identifier_missing", "")], id="a blank session"),
        pytest.param(
            [view(sessionExternalId=None, link=[])], [("/0/view", "identifier_missing", "")], id="an empty link"
        ),
        pytest.param(
            [view(sessionExternalId=None, link={"name": "", "value": "x"})], [("/0/view", "identifier_missing", "")],
            id="a link without a name",
        ),
        pytest.param(
            [view(sessionExternalId=None, link="x")],
            [("/0/view", "identifier_missing", ""), ("/0/view", "shape_wrong", "/link")], id="a link that is text",
        ),
        pytest.param([view(sessionExternalId=7.5)], [("/0/view", "shape_wrong", "/sessionExternalId")], id="7.5"),
        pytest.param(
            [view(sessionExternalId="x" * 256)], [("/0/view", "identifier_too_long", "/sessionExternalId")], id="256"
        ),
        pytest.param(
            [view(sessionExternalId=None, link={"name": "n", "value": "x" * 256})],
            [("/0/view", "identifier_too_long", "/link/value")], id="a link of 256",
        ),
        pytest.param(
            [view(sessionExternalId=None, link=[{"name": "n" * 55, "value": "x" * 200}])],
            [("/0/view", "identifier_too_long", "/link")], id="a link whose name and value together are 256",
        ),
        pytest.param(
            [contact(contactExternalId="x" * 256)], [("/0/setContact", "identifier_too_long", "/contactExternalId")],
            id="a contact of 256",
        ),
        pytest.param([contact(contactExternalId=" ")], [("/0/setContact", "identifier_missing", "/contactExternalId")],
                     id="a blank contact"),
        pytest.param([{"emailClick": {"x": 1}}], [("/0/emailClick", "identifier_missing", "")], id="nobody clicked"),
        pytest.param([{"view": {"email": "a@b", "productId": 1}}], [("/0/view", "identifier_missing", "")],
                     id="an email names nobody elsewhere"),
        pytest.param([view(productId="4a")], [("/0/view", "shape_wrong", "/productId")], id="no digits"),
        pytest.param([view(productId=1.5)], [("/0/view", "shape_wrong", "/productId")], id="a half product"),
        pytest.param([envelope("order", price="10,50")], [("/0/order", "shape_wrong", "/price")], id="a decimal comma"),
        pytest.param([envelope("order", transaction=" ")], [("/0/order", "shape_wrong", "/transaction")], id="blank"),
        pytest.param(
            [envelope("groupView", productIds=[1, "x"])], [("/0/groupView", "shape_wrong", "/productIds/1")], id="in it"
        ),
        pytest.param([view(timestamp=5)], [("/0/view", "date_not_iso", "/timestamp")], id="time a number"),
        pytest.param([view(timestamp="2026-02-30T00:00Z")], [("/0/view", "date_not_iso", "/timestamp")], id="day"),
        pytest.param('[{"view":{"sessionExternalId":"a","productId":1,"x":1e999}}]',
                     [("/0/view", "number_out_of_range", "/x")], id="1e999"),
        pytest.param(
            [{"order": {"price": "x", "timestamp": 1}}],
            [
                ("/0/order", "date_not_iso", "/timestamp"), ("/0/order", "identifier_missing", ""),
                ("/0/order", "shape_wrong", "/price"), ("/0/order", "shape_wrong", "/productId"),
                ("/0/order", "shape_wrong", "/quantity"), ("/0/order", "shape_wrong", "/transaction"),
            ], id="every broken rule of an envelope",
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
        (view(timestamp=None), ("no_time",)),
        (view(timestamp=""), ("no_time",)),
        (view(timestamp=" \t"), ("no_time",)),
        (view(timestamp=TIME[:-1]), ("time_zone_assumed",)),
        (view(sessionExternalId="null"), ("ignored_identity",)),
        (contact(contactExternalId="0"), ("ignored_identity",)),
        (view(a={"b": 1}, **{"a.b": 2}), ("name_collision",)),
        (view(**{"x" * 256: 1}), ("name_too_long",)),
        (view(a="x" * 8193), ("value_too_long",)),
        (contact(phone="89001234567"), ("phone_not_e164",)),
        (contact(phone=79001234567), ("phone_not_e164",)),
        (view(phone="1"), ()),
    ],
)
def test_what_is_accepted_with_a_warning(sent: Any, warnings: tuple[str, ...]) -> None:
    (item,) = judge([sent]).values()
    assert item.warnings == warnings
    assert set(warnings) <= set(ALL_WARNINGS)
    assert sorted(code for _, code, _ in codes(judge([sent], STRICT))) == sorted(warnings)


def test_the_codes_are_these() -> None:
    assert sorted(schema.codes("retailrocket")) == sorted(ALL_CODES + ALL_WARNINGS)
    Draft202012Validator.check_schema(schema.load("retailrocket"))
    assert judge([]) == {}


# --- equal items -----------------------------------------------------------------------------------------------------


def facts(items: list[Item]) -> list[bytes]:
    return [
        to_row(command, 1, item.number or 0, item.path, RULES).command_id
        for item in items for command in item.commands
    ]  # fmt: skip


def test_equal_items_of_a_visitor_are_as_many_facts_and_the_first_is_plain() -> None:
    other = view(sessionExternalId="bob")
    body = [view(), other, view(), envelope("addToBasket"), view(timestamp="2026-01-05T13:00:00+03:00"), other]
    items = list(judge(body).values())
    assert [item.commands[0].identity for item in items] == [(), (), ("also", 1), (), ("also", 2), ("also", 1)]
    assert len(set(facts(items))) == 6
    # The same body again, and one that holds part of it, say nothing new.
    assert facts(list(FORMAT.judge(orjson.dumps(body), RULES))) == facts(items)
    assert set(facts(list(FORMAT.judge(orjson.dumps([view(), view()]), RULES)))) < set(facts(items))


def test_untimed_items_are_told_apart_by_their_places() -> None:
    items = list(judge([view(timestamp=None), view(timestamp=None)]).values())
    assert [item.commands[0].identity for item in items] == [(), ()]
    assert len(set(facts(items))) == 2


# --- a mended item ---------------------------------------------------------------------------------------------------


def mended(item: Item, text: Any) -> Item:
    raw = text if isinstance(text, bytes) else orjson.dumps(text)
    (again,) = FORMAT.judge_item(raw, item.path, item.context, RULES)
    assert (again.path, again.number) == (item.path, item.number)
    return again


def test_a_mended_item_is_what_it_would_have_been_in_its_body() -> None:
    broken = judge([view(), view(productId="x"), {"View": {}}, view(), envelope("search")])
    expected = list(judge([view(), view(), view(), view(), envelope("search")]).values())
    one, two = broken["/1/view"], broken["/2"]
    assert mended(one, cast("bytes", one.raw)).failures == one.failures
    bad = mended(one, b"[")
    assert (bad.failures[0].code, bad.context) == ("not_json", one.context)
    assert mended(two, view()["view"]).failures[0].code == "unknown_envelope"
    # By itself it is one fact more, as in the body that was sent right.
    whole = [item for path, item in broken.items() if item.commands]
    right = judge([view(), view(), envelope("search"), view()])
    assert set(facts([*whole, mended(one, view()["view"])])) == set(facts(list(right.values())))
    assert facts([mended(two, view(productId=9))]) == facts(list(judge([view(productId=9)]).values()))
    assert len(set(facts(expected))) == 5


def test_items_that_were_broken_alike_and_mended_alike_are_as_many_facts() -> None:
    broken = judge([view(productId="x"), view(productId="x"), view(), {"V": 1}, {"V": 1}])
    some = [mended(item, view()["view"]) for path, item in broken.items() if path.endswith("/view") and item.failures]
    others = [mended(item, view(productId=9)) for path, item in broken.items() if not path.endswith("/view")]
    assert [len(set(facts(list(found)))) for found in (some, others)] == [2, 2]
    assert len(set(facts([broken["/2/view"], *some, *others]))) == 5


def test_what_is_remembered_for_refused_items_has_a_limit() -> None:
    body = [view(productId=number) for number in range(500)] + [view(productId="x")] * 300
    refused = [item for item in judge(body).values() if item.failures]
    assert sum(len(cast("bytes", item.context)) for item in refused) < 100_000
    assert len({fact for item in refused for fact in facts([mended(item, view()["view"])])}) == 300


# --- schema and judge ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [
    {}, [], 7, [7], [{}], [view()], [view() | envelope("search")], [{"x": {}}], [{"view": 7}], [{"view": {}}],
    [view(sessionExternalId=7)], [view(sessionExternalId=7.5)], [view(sessionExternalId="😀" * 255)],
    [view(sessionExternalId="😀" * 256)], [view(productId=True)], [view(productId="12")], [view(productId=" 12")],
    [view(productId=1.0)], [view(sessionExternalId=None, link={"name": "a", "value": "b"})],
    [view(sessionExternalId=None, link=[{"name": "a", "value": 1}, 7])], [view(link=7)], [view(link=[7])],
    [view(timestamp="")], [view(timestamp=" ")],
    [view(sessionExternalId=None, link=[7])], [view(link={"name": {}})], [envelope("order", price="1.")],
    [envelope("order", price="-1.5")], [envelope("order", price=None)], [envelope("emailClick")],
    [{"emailClick": {"email": "a"}}], [{"emailClick": {"email": " "}}], [{"welcomeSequence": {"email": 7}}],
    [{"view": {"email": "a", "productId": 1}}], [envelope("search", searchPhrase=True)],
    [envelope("groupView", productIds=[1, "2"])], [envelope("groupView", productIds=[1.5])], [contact()],
    [contact(contactExternalId=None)], [contact(contactExternalId=7)], [view(timestamp=7)], [view(timestamp="x")],
    *([envelope(kind)] for kind in ENVELOPES),
], ids=lambda sent: json.dumps(sent)[:60])  # fmt: skip
def test_any_validator_comes_to_the_same_verdict(sent: Any) -> None:
    is_sound = not any(item.failures for item in judge(sent).values())
    assert Draft202012Validator(schema.load("retailrocket")).is_valid(sent) == is_sound
