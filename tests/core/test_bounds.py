"""What is kept of an item grows no faster than what was sent, whatever it breaks and however often."""

import gc
import json
from itertools import product
from typing import Any

import pytest
from jsonschema.exceptions import ValidationError

from ingest.core import schema
from ingest.core.commands import Item, Rules
from ingest.core.flatten import REPEATED_AT_MOST, RepeatedTooMuch, flatten
from ingest.core.formats import open_format
from ingest.core.jsontext import oddities

NOW = 1_800_000_000
KM = '"_p":"ann","_t":1393344603,"_n":"x"'
HALF = "n" * 500_000  # half a line of the greatest length


def judged(text: str, format: str = "kissmetrics", **rules: Any) -> list[Item]:
    return list(open_format(format).judge(text.encode(), Rules(received_at=NOW * 1_000_000, **rules)))


def told(item: Item) -> dict[str, tuple[int, int]]:
    """Of each code, how many places are kept and how many more are counted."""
    found: dict[str, tuple[int, int]] = {}
    for failure in item.failures:
        kept, more = found.get(failure.code, (0, 0))
        assert not more, "the last one says how many more there are"
        found[failure.code] = kept + 1, failure.more
    return found


def kept_bytes(item: Item) -> int:
    return len(json.dumps([failure.told() for failure in item.failures]))


MANY = {
    "kissmetrics": '{"_t":"soon",%s}',
    "woopra": '{"visitor":{"id":"a"},"actions":[{"name":7,"properties":{%s}}]}',
    "webengage": '{"users":[{"attributes":{%s}}]}',
    "vitally": '[{"type":"track","properties":{%s}}]',
    "retailrocket": '[{"view":{"customData":{%s}}}]',
}


@pytest.mark.parametrize("format", MANY)
def test_of_an_item_that_is_wrong_everywhere_little_is_kept_and_all_is_counted(format: str) -> None:
    members = ",".join(f'"x{n}":[1e999]' for n in range(3_000))
    item = next(item for item in judged(MANY[format] % members, format) if item.failures)
    assert told(item)["number_out_of_range"] == (10, 2_990)
    if format == "kissmetrics":
        assert told(item)["nested_value"] == (10, 2_990)
        assert {"person_missing", "time_not_epoch_seconds"} <= told(item).keys()  # all codes, still
        assert [failure.pointer for failure in item.failures if failure.code == "nested_value"] == [
            f"/x{n}" for n in range(10)
        ]
    assert kept_bytes(item) < 10_000


def nested(number: int) -> list[str]:
    return [f'"x{n}":[]' for n in range(number)]


def test_a_failure_says_how_many_more_only_where_there_are_any() -> None:
    few, many = (judged(f"{{{KM},{','.join(nested(number))}}}")[0] for number in (10, 11))
    assert [sorted(failure.told()) for failure in few.failures] == [["code", "got", "message", "pointer"]] * 10
    assert [failure.told().get("more") for failure in many.failures] == [*[None] * 9, 1]


@pytest.mark.parametrize(
    "member", [f'"{HALF}":[]', f'"{HALF}":{{"{HALF}":1}}', f'"x":["{HALF}"]', f'"x":[{{"{HALF}":1}}]']
)
def test_names_and_values_are_told_as_far_as_anybody_reads(member: str) -> None:
    (item,) = judged(f"{{{KM},{member}}}")
    (failure,) = item.failures
    assert failure.code == "nested_value"
    assert kept_bytes(item) < 1_500


def test_warnings_that_became_failures_are_counted_too() -> None:
    long = ",".join(f'"{"n" * 256}{n}":1' for n in range(50))
    (line,) = judged(f"{{{KM},{long}}}", strict=True)
    assert told(line) == {"name_too_long": (10, 40)}
    sent = f'{{"userId":"a","attributes":{{{long}}}}}'
    (user,) = judged(f'{{"users":[{sent}]}}', "webengage", strict=True)
    assert told(user)["name_too_long"] == (10, 40)
    taken = ",".join(f'"{n}.a":1,"{n}":{{"a":1}}' for n in range(30))
    (whole,) = judged(f'{{"visitor":{{"id":"a","x":1}},{taken}}}', "woopra", strict=True)
    assert told(whole) == {"name_collision": (10, 20)}


def test_what_a_user_need_not_send_is_not_counted() -> None:
    user = '{"userId":"a","anonymousId":[NULS],"attributes":{"x":[NULS]}}'
    user = user.replace("NULS", ",".join(['"\\u0000"'] * 30))
    (item,) = judged(f'{{"users":[{user}]}}', "webengage")
    assert told(item) == {"nul_character": (10, 20)}


def test_much_below_a_long_name_takes_no_longer() -> None:
    """It took a name of half a megabyte for each value below it: minutes."""
    value = {HALF: [{"x": ["\0"] * 50_000}]}
    assert sum(1 for _ in oddities(value)) == 50_000
    assert max(len(odd.pointer) for odd in oddities({HALF: [HALF + "\0", 10**400]})) <= 500


# --- names and fields that are repeated ------------------------------------------------------------------------------


def in_every_way(names: int) -> dict[str, Any]:
    """An object whose every leaf flattens to one name, `a.a.a…`."""
    tree: dict[str, Any] = {}
    for cuts in product((False, True), repeat=names - 1):
        parts = ["a"]
        for cut in cuts:
            parts = [*parts, "a"] if cut else [*parts[:-1], f"{parts[-1]}.a"]
        at = tree
        for part in parts[:-1]:
            at = at.setdefault(part, {})
        at[parts[-1]] = 1
    return tree


def test_a_name_that_is_taken_a_thousand_times_ends() -> None:
    assert len(flatten(in_every_way(8))[0]) == 2**7
    with pytest.raises(RepeatedTooMuch):
        flatten(in_every_way(13))  # 40 KB, which took hours


def test_names_of_parents_come_to_so_much_and_no_more() -> None:
    parent, parts = "p" * 250, {str(n): 1 for n in range(REPEATED_AT_MOST // 250)}
    assert len(flatten({parent: parts})[0]) == len(parts)
    with pytest.raises(RepeatedTooMuch):
        flatten({parent: parts | {"one more": 1}})


@pytest.mark.parametrize(("format", "unit", "place"), [
    ("kissmetrics", '{"_t":"soon",%s}', ""),
    ("woopra", '{"visitor":{"id":"a"},"actions":[{"name":"x","time":1393344603000,"properties":{%s}}]}', "/actions/0"),
    ("woopra", '{"visitor":{"id":"a"},"actions":[],%s}', ""),
    ("webengage", '{"users":[{"userId":"a","attributes":{%s}},{"userId":"b"}]}', "/users/0"),
    ("vitally", '[{"type":"user","userId":"a","messageId":"m","traits":{%s}}]', "/0"),
    ("retailrocket", '[{"view":{"sessionExternalId":"a","productId":1,"customData":{%s}}}]', "/0/view"),
])  # fmt: skip
def test_an_item_that_grows_too_large_is_refused_alone_with_all_its_codes(format: str, unit: str, place: str) -> None:
    much = json.dumps(in_every_way(13))[1:-1]
    items = judged(unit % much, format, nested="flatten")
    refused = [item for item in items if item.failures]
    assert [item.path for item in refused] == [place]
    codes = set(told(refused[0]))
    assert codes == {"repeated_too_much"} | (
        {"person_missing", "time_not_epoch_seconds"} if format == "kissmetrics" else set()
    )
    assert all(item.commands for item in items if item not in refused)


@pytest.mark.parametrize("action", ['{"name":"x","time":1393344603000}', '{"name":7}'])
def test_fields_of_a_visit_in_each_action_come_to_so_much_and_no_more(action: str) -> None:
    """Beside each failed action they stand, too: it is judged with them once it is mended."""
    visit = '{"visitor":{"id":"a"},"time":1393344603000,"field":"%s","actions":[%s]}'
    allowed = REPEATED_AT_MOST // (500_000 + 16)
    items = judged(visit % (HALF, ",".join([action] * allowed)), "woopra")
    assert len(items) == allowed
    (item,) = judged(visit % (HALF, ",".join([action] * (allowed + 1))), "woopra")
    assert (item.path, item.failures[0].code) == ("", "repeated_too_much")
    assert kept_bytes(item) < 10_000


def test_a_large_visit_with_ordinary_fields_is_taken() -> None:
    """More than 16 MB of fields, and less than 16 times what was sent."""
    action = '{"name":"x","time":1393344603000,"properties":{"page":"%s"}}' % ("p" * 100)
    visit = f'{{"visitor":{{"id":"a"}},"field":"{"v" * 1_800}","actions":[{",".join([action] * 10_000)}]}}'
    assert sum(len(item.commands) for item in judged(visit, "woopra")) == 10_000


# --- memory ----------------------------------------------------------------------------------------------------------


def test_no_error_outlives_its_item() -> None:
    """While judging no collector runs, and errors of branches would hold each other: a MiB of `{}` took 2.9 GB."""

    def errors() -> int:
        return sum(issubclass(type(one), ValidationError) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    before = errors()
    try:
        assert schema.explain({"users": [{}] * 300}, "webengage")
        assert len(judged(f'{{"users":[{",".join(["{}"] * 300)}]}}', "webengage")) == 300
        assert errors() - before < 10
    finally:
        gc.enable()
