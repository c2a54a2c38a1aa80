"""What holds for any body whatever, in every format of documents: nothing raises, nothing is lost or told twice."""

import json
import re
import tracemalloc
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ingest.core import jsontext, schema
from ingest.core.commands import Item, Rules
from ingest.core.facts import row as to_row
from ingest.core.formats import open_format
from ingest.core.formats.bodies import Judged, iso_microseconds
from ingest.core.jsontext import Undecodable, decode, holds_more, in_range, place
from tests.core.bodies import retailrocket_bodies, vitally_bodies, webengage_bodies, woopra_visits
from tests.core.lines import any_json

BODIES = {
    "woopra": woopra_visits, "webengage": webengage_bodies, "retailrocket": retailrocket_bodies,
    "vitally": vitally_bodies,
}  # fmt: skip
# Codes of what a schema cannot say, or says only in part.
OUTSIDE = {"time_in_future", "date_not_iso"}
RULES = st.builds(
    Rules, people_space=st.just("p"), match=st.just("exact"), file_id=st.just("f"), strict=st.booleans(),
    received_at=st.sampled_from([0, 1_800_000_000_000_000]),
)  # fmt: skip


MENDED = [
    "{}", "[]", '{"name":"x"}', '{"eventName":"x","userId":"a"}', "x", '{"id":1e400,"email":1e99999999999}',
    '{"name":"x","time":1e99999999999}', '{"eventName":"x","userId":1e400,"eventTime":"9999-12-31T23:59:59-0800"}',
    '{"sessionExternalId":1e400,"productId":1}', '{"type":"track","userId":1e400,"event":"e","messageId":1e400}',
]  # fmt: skip
each_format = pytest.mark.parametrize("format", BODIES)


def check(items: list[Item], unit: bytes, rules: Rules, format: str) -> None:
    known = set(schema.codes(format))
    assert len({item.path for item in items}) == len(items)
    assert len({item.number for item in items}) == len(items)
    for item in items:
        assert bool(item.commands) != bool(item.failures)
        told = [(failure.code, failure.pointer) for failure in item.failures]
        assert len(told) == len(set(told))
        assert {code for code, _ in told} | set(item.warnings) <= known
        assert not (rules.strict and item.warnings)
        assert not (item.failures and item.warnings)
        assert not any("\0" in f"{one.pointer} {one.got} {one.message}" for one in item.failures)
        orjson.dumps([failure.told() for failure in item.failures])
        for command in item.commands:
            row = to_row(command, 7, cast("int", item.number), item.path, rules)
            assert orjson.loads(row.properties).keys() == command.properties.keys()
        if item.failures and item.path:
            raw = cast("bytes", item.raw)
            assert unit[item.start :].startswith(raw)
            where = place(unit.decode(), item.path)
            assert where
            assert unit.decode()[slice(*where)] == raw.decode()
            assert item.context


@each_format
def test_any_body_is_judged(format: str) -> None:
    judge = open_format(format).judge

    @settings(deadline=None, max_examples=200)
    @given(BODIES[format]() | any_json(), RULES)
    def check_one(text: str, rules: Rules) -> None:
        unit = text.strip(" \t\r\n").encode("utf-8", "replace")
        check(list(judge(unit, rules)), unit, rules, format)

    check_one()


@each_format
def test_any_bytes_are_judged(format: str) -> None:
    judge = open_format(format).judge

    @settings(deadline=None)
    @given(st.binary(), BODIES[format](), st.data(), RULES)
    def check_one(noise: bytes, text: str, data: st.DataObject, rules: Rules) -> None:
        failed = [item.path for item in judge(noise, rules) if not item.commands]
        assert failed or json.loads(noise) == []  # which asks for nothing
        whole = text.encode()
        start = data.draw(st.integers(0, len(whole)))
        damaged = whole[:start] + noise[:3] + whole[data.draw(st.integers(start, len(whole))) :]
        list(judge(damaged, rules))

    check_one()


@each_format
def test_an_item_judged_again_by_itself_comes_to_the_same(format: str) -> None:
    module = open_format(format)

    @settings(deadline=None)
    @given(BODIES[format](), RULES, st.sampled_from(MENDED))
    def check_one(text: str, rules: Rules, other: str) -> None:
        for item in module.judge(text.encode(), rules):
            if item.failures and item.path:
                (again,) = module.judge_item(cast("bytes", item.raw), item.path, item.context, rules)
                broken = {(failure.code, failure.pointer) for failure in again.failures}
                assert broken == {(failure.code, failure.pointer) for failure in item.failures}
                assert (again.path, again.number, again.context) == (item.path, item.number, item.context)
                (mended,) = module.judge_item(other.encode(), item.path, item.context, rules)
                assert bool(mended.commands) != bool(mended.failures)
                assert (mended.path, mended.number) == (item.path, item.number)

    check_one()


@each_format
def test_judge_and_schema_come_to_the_same_verdict(format: str) -> None:
    """The quick checks before the schema accept only what it accepts, and refuse nothing by themselves."""
    rules = Rules(people_space="p", match="exact", file_id="f", received_at=1_800_000_000_000_000)
    outside = {*schema.load(format)["x-outside"], *OUTSIDE}

    @settings(deadline=None, max_examples=300)
    @given(BODIES[format]() | any_json())
    def check_one(text: str) -> None:
        try:
            value = decode(text.encode())
            # An object under so long a name stays text, also where it holds nothing, which no schema can say.
            assume(not re.search(r'"x{256}"\s*:\s*\{', text))
        except (Undecodable, UnicodeEncodeError):
            return
        told = {failure.code for item in open_format(format).judge(text.encode(), rules) for failure in item.failures}
        by_schema = {failure.code for failure in schema.explain(_with_text_ids(value), format)}
        if '"link"' in text and "identifier_too_long" not in by_schema:
            told.discard("identifier_too_long")  # name and value together are, which no schema can say
        assert told - outside == by_schema - outside
        assert not (by_schema and not told)

    check_one()


NOBODY = {
    "woopra": ['{"visitor":{"id":%s},"actions":[{"name":"n"}]}', '{"visitor":{"id":"a","email":%s}}'],
    "webengage": ['{"users":[{"userId":%s}]}', '{"events":[{"anonymousId":%s,"eventName":"n"}]}'],
    "retailrocket": [
        '[{"view":{"sessionExternalId":%s,"productId":1}}]',
        '[{"view":{"link":{"name":"n","value":%s},"productId":1}}]',
        '[{"emailClick":{"email":%s}}]', '[{"setContact":{"sessionExternalId":"a","contactExternalId":%s}}]',
    ],
    "vitally": [
        '[{"type":"track","userId":%s,"event":"e","messageId":"2"}]', '[{"type":"user","userId":"a","messageId":%s}]',
    ],
}  # fmt: skip


@pytest.mark.parametrize(("format", "body"), [(format, body) for format, some in NOBODY.items() for body in some])
@pytest.mark.parametrize("number", ["1e400", "9" * 400, "9" * 401, "1e99999999999"])
def test_an_identity_beyond_a_double_fails_its_item_for_that_alone(format: str, body: str, number: str) -> None:
    (item,) = open_format(format).judge((body % number).encode(), Rules())
    assert [failure.code for failure in item.failures] == ["number_out_of_range"]


@pytest.mark.parametrize(
    ("time", "codes"),
    [
        ("1e99999999999", ["number_out_of_range", "time_in_future"]),
        ("1444077951." + "1" * 120, ["time_in_seconds"]),
        ("1e-99999999999", ["number_out_of_range", "time_in_seconds"]),
    ],
)
def test_a_time_of_any_size_is_told(time: str, codes: list[str]) -> None:
    (item,) = open_format("woopra").judge(
        b'{"visitor":{"id":"a"},"actions":[{"name":"n","time":%s}]}' % time.encode(), Rules()
    )
    assert [failure.code for failure in item.failures] == codes


MANY = {
    "woopra": b'{"visitor":{"id":"a"},"actions":[%s]}', "webengage": b'{"users":[],"events":[%s]}',
    "retailrocket": b"[%s]", "vitally": b"[%s]",
}  # fmt: skip


@pytest.mark.slow
@each_format
def test_items_are_judged_as_they_are_taken(format: str) -> None:
    """A small document may hold millions: what is kept of them is a few bytes each."""
    unit = MANY[format] % (b"0," * 20_000 + b"0")
    judge, rules = open_format(format).judge, Rules()
    list(judge(MANY[format] % b"0", rules))  # what is loaded once
    tracemalloc.start()
    refused = sum(bool(item.failures) for item in judge(unit, rules))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused == 20_001
    assert peak < 20 * len(unit)


@each_format
def test_a_document_of_too_many_values_is_refused_before_it_is_decoded(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsontext, "_VALUES_ALLOWED", 10)
    sound, rules = MANY[format] % b'",,,,[[[[{{{{"', Rules(max_document_bytes=200)
    (item,) = open_format(format).judge(sound, rules)
    assert "document_too_large" not in [failure.code for failure in item.failures]
    (item,) = open_format(format).judge(MANY[format] % (b"0," * 17), rules)
    (failure,) = item.failures
    assert (failure.code, item.path, item.raw) == ("document_too_large", "", None)
    assert "It holds more than 16 values" in failure.message


@each_format
def test_where_a_body_breaks_a_rule_everywhere_the_first_places_are_told_and_how_many_there_are(format: str) -> None:
    whole = {"woopra": b'{"visitor":{},"actions":[%s]}', "webengage": b'{"x":1,"users":[%s]}'}
    unit = whole.get(format, b'[{"a":[%s]}]') % b",".join([b"1e999"] * 1500)
    told, places = Counter[str](), Counter[str]()
    for item in open_format(format).judge(unit, Rules()):
        told.update(failure.code for failure in item.failures)
        places.update({failure.code: 1 + failure.more for failure in item.failures if failure.more})
        assert [failure.more > 0 for failure in item.failures if failure.code == "number_out_of_range"] == [
            *[False] * 9, True,
        ]  # fmt: skip
    assert max(told.values()) == told["number_out_of_range"] == 10
    assert told["number_out_of_range"] - 1 + places["number_out_of_range"] == 1500


def test_of_a_name_that_comes_twice_the_last_is_the_item() -> None:
    unit = b'{"users":[7],"users":[{"userId":"a"},8,9]}'
    items = list(open_format("webengage").judge(unit, Rules()))
    assert [(item.path, item.raw, item.start) for item in items if item.failures] == [
        ("/users/1", b"8", unit.index(b"8")), ("/users/2", b"9", unit.index(b"9")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "signs"),
    [(b"7", 0), (b"[]", 1), (b"[1,2]", 2), (b'{"a":[{}],"b":"[,{"}', 4), (rb'["\\",",\",",[]]', 4), (b'"[,', 0)],
)
def test_values_are_counted_without_decoding(text: bytes, signs: int) -> None:
    assert not holds_more(text, signs)
    assert holds_more(text, signs - 1)


def _with_text_ids(value: Any) -> Any:
    """As the program turns them before it asks the schema: see each schema's description."""
    if isinstance(value, list):
        return [_with_text_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    names = (
        "userId", "anonymousId", "id", "email", "cookie", "sessionExternalId", "contactExternalId", "accountId",
        "organizationId",
    )  # fmt: skip
    return {
        name: _text_id(item) if name in names else _link(item) if name == "link" else _with_text_ids(item)
        for name, item in value.items()
        if not (name == "visitor" and item is None)
    }


def _link(link: Any) -> Any:
    """Of a link, or the first of several, name and value."""
    if isinstance(link, list):
        return [_link(link[0]), *link[1:]] if link and not isinstance(link[0], list) else link
    if not isinstance(link, dict):
        return link
    return {name: _text_id(item) if name in ("name", "value") else item for name, item in link.items()}


def _text_id(item: Any) -> Any:
    is_number = isinstance(item, (int, Decimal)) and not isinstance(item, bool)
    if not is_number or item != Decimal(item).to_integral_value():
        return item
    return str(int(item)) if in_range(item) else "7"  # which is told by number_out_of_range alone


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1, 1, 2)), st.booleans(), st.booleans())  # noqa: DTZ001
def test_every_time_that_python_prints_is_read(at: Any, with_zone: bool, compact: bool) -> None:
    text = at.isoformat() + ("+0530" if compact else "+05:30") * with_zone
    micros = (at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert iso_microseconds(text) == (micros - 19_800_000_000 * with_zone, not with_zone)


@pytest.mark.parametrize(
    "text",
    [
        *["9999-12-31T23:59:59-0800", "9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+0800", "0000-01-01T00:00:00Z"],
        *[f"2018-09-15T18:29:00.{'0' * 44}+0800", f"2018-09-15T18:29:00{' ' * 50}+0800"],
    ],
)
def test_what_lies_outside_the_calendar_or_is_not_told_in_full_is_no_time(text: str) -> None:
    assert iso_microseconds(text) is None


def test_the_ends_of_the_calendar_are_times() -> None:
    assert iso_microseconds("9999-12-31T23:59:59+0800")
    assert iso_microseconds("0001-01-01T00:00:00-0800")


@settings(deadline=None)
@given(st.text())
def test_no_other_text_is_a_time(text: str) -> None:
    assert iso_microseconds(text) is None


def test_names_are_told_apart_however_often_they_are_taken() -> None:
    judged = Judged("woopra", Rules(strict=True))
    flat: dict[str, object] = {"a": 1, "p.a": 2}
    judged.merge(flat, {"a": 3, "b": {"c": 4}}, "p")
    assert flat == {"a": 1, "p.a": 2, "p.p.a": 3, "b.c": 4}
    assert [(warning.code, warning.pointer) for warning in judged.warnings] == [("name_collision", "/p/a")]


@pytest.mark.parametrize(
    ("format", "sent", "said"),
    [
        ("retailrocket", '[{"view":{"sessionExternalId":"a"}}]', "productId is missing."),
        ("retailrocket", '[{"view":{"sessionExternalId":"a","productId":[]}}]', "Expected an integer or text."),
        ("retailrocket", '{"view":{"sessionExternalId":"a"}}', "Expected an array. A body is one array of envelopes,"),
        ("vitally", '{"type":"track","userId":"a"}', "Expected an array. A body is one array of messages,"),
        ("vitally", '[{"type":"user","userId":"a","messageId":"m","traits":7}]', "Expected an object."),
        ("woopra", '[{"visitor":{"id":"a"}}]', "Expected an object. A body is one visit:"),
        ("webengage", '[{"userId":"a"}]', "Expected an object. A body is one object:"),
        ("webengage", '{"userId":"a"}', "A body has no names but users and events."),
        ("webengage", "{}", "Neither users nor events is there."),
        ("webengage", '{"users":{}}', "Expected an array."),
    ],
)
def test_a_wrong_shape_tells_what_was_expected(format: str, sent: str, said: str) -> None:
    (item,) = open_format(format).judge(sent.encode(), Rules())
    (failure,) = item.failures
    assert (failure.code, said in failure.message) == ("shape_wrong", True)
