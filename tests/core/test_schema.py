"""The schema is the rule table: whole, documented, and of one mind with the judge."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ingest.core import schema
from ingest.core.commands import Rules
from ingest.core.facts import TRANSPORT_NAMES
from ingest.core.formats import open_format

FORMAT = open_format("kissmetrics")
RULES = Rules(received_at=1_800_000_000_000_000)
SCHEMA = schema.load("kissmetrics")

FAILURES = [
    "not_utf8",
    "not_json",
    "not_object",
    "line_too_long",
    "repeated_too_much",
    "nul_character",
    "number_out_of_range",
    "person_missing",
    "person_blank",
    "person_not_text",
    "person_too_long",
    "time_missing",
    "time_not_epoch_seconds",
    "time_in_milliseconds",
    "time_too_old",
    "time_in_future",
    "event_not_text",
    "event_too_long",
    "alias_not_text",
    "alias_too_long",
    "nested_value",
    "no_command",
    "document_not_lines",
    "wrong_format",
]
WARNINGS = [
    "repaired",
    "time_coerced",
    "event_blank",
    "alias_blank",
    "name_too_long",
    "value_too_long",
    "ignored_identity",
    "name_collision",
]


def test_every_published_code_is_there_with_its_meaning() -> None:
    codes = schema.codes("kissmetrics")
    assert sorted(codes) == sorted(FAILURES + WARNINGS)
    assert sorted(SCHEMA["x-warnings"]) == sorted(WARNINGS)
    assert all(text.endswith(".") for meaning in codes.values() for text in meaning)


def test_a_code_means_the_same_wherever_it_stands() -> None:
    meanings: dict[str, set[tuple[str, str]]] = {}
    for code, entry in schema._annotated(SCHEMA):
        meanings.setdefault(code, set()).add((entry["problem"], entry["remedy"]))
    assert all(len(different) == 1 for different in meanings.values())


_ASKED = {"not", "if", "patternProperties"}  # below these, to break a constraint is no failure


def _constraints(part: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """Every (schema, keyword) that can refuse a line."""
    for keyword in part.keys() & {"type", "required", "minimum", "exclusiveMaximum", "maxLength", "pattern", "not"}:
        yield part, keyword
    for keyword, value in part.items():
        if isinstance(value, dict) and not keyword.startswith("x-") and keyword not in _ASKED:
            for one in value.values() if keyword == "properties" else [value]:
                yield from _constraints(one)


def test_every_constraint_has_its_code() -> None:
    found = list(_constraints(SCHEMA))
    assert len(found) == 15
    for part, keyword in found:
        annotation = part["x-failures"][keyword]
        assert sorted(annotation) == sorted(
            part["required"] if keyword == "required" else ["code", "problem", "remedy"]
        )


def test_the_schema_is_sound_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_blank_is_what_python_strips() -> None:
    blank = next(p for p in SCHEMA["not"]["patternProperties"].values() if p is not True)["pattern"]
    not_blank = SCHEMA["properties"]["_p"]["pattern"]
    for character in map(chr, range(0x11000)):
        assert bool(re.search(blank, character)) == (not character.strip())
        assert bool(re.search(not_blank, character)) == bool(character.strip())


def test_transport_names_are_those_of_the_rows() -> None:
    names = next(names for names, allowed in SCHEMA["not"]["patternProperties"].items() if allowed is True)
    assert set(names.strip("^()$").split("|")) == TRANSPORT_NAMES | {"_p", "_t"}


LONG = "😀" * 255
RAW = [
    '{"_p":"ann","_t":1393344604,"_n":"x"}',
    '{"_p":"ann","_t":1393344604,"a":""}',
    '{"_p":"ann","_t":1393344604,"a":null}',
    '{"_p":"ann","_t":1393344604,"a":null,"b":false}',
    '{"_p":"ann","_t":1393344604,"a":[]}',
    '{"_p":"ann","_t":1393344604,"_k":1}',
    '{"_p":"ann","_t":1393344604,"_k":1,"_ip":"x","_x":null}',
    '{"_p":"ann","_t":1393344604,"_k":1,"_kk":2}',
    '{"_p":"ann","_t":1393344604,"_n":null}',
    '{"_p":"ann","_t":1393344604,"_n":" "}',
    '{"_p":"ann","_t":1393344604,"_n":" ","_p2":"\\u2003"}',
    '{"_p":"ann","_t":1393344604,"_n":7}',
    '{"_p":"ann","_t":1393344604,"_n":"x\\n"}',
    '{"_p":"ann","_t":1393344604,"_p2":"bob"}',
    '{"_p":"ann","_t":1393344604,"_p2":7}',
    '{"_p":"ann","_t":1393344604,"_p2":7.5}',
    '{"_p":"ann","_t":1393344604,"_p2":true}',
    '{"_p":7,"_t":1393344604,"_n":"x"}',
    '{"_p":7.0,"_t":1393344604,"_n":"x"}',
    '{"_p":7.5,"_t":1393344604,"_n":"x"}',
    '{"_p":null,"_t":1393344604,"_n":"x"}',
    '{"_p":" ","_t":1393344604,"_n":"x"}',
    '{"_t":1393344604,"_n":"x"}',
    '{"_p":"ann","_n":"x"}',
    '{"_p":"ann","_t":null,"_n":"x"}',
    '{"_p":"ann","_t":true,"_n":"x"}',
    '{"_p":"ann","_t":-1,"_n":"x"}',
    '{"_p":"ann","_t":1230767999,"_n":"x"}',
    '{"_p":"ann","_t":1230767999.5,"_n":"x"}',
    '{"_p":"ann","_t":1230768000,"_n":"x"}',
    '{"_p":"ann","_t":1393344604.5,"_n":"x"}',
    '{"_p":"ann","_t":100000000000,"_n":"x"}',
    '{"_p":"ann","_t":"soon","_n":"x"}',
    *(
        f'{{"_p":"ann","_t":1393344604,"_n":"x","{name}":"{text}"}}'
        for name in ("_p", "_n", "_p2", "a")
        for text in (LONG, LONG + "x")
    ),
    "{}", "[]", "[1]", "1", "null", '"x"',
]  # fmt: skip


@pytest.mark.parametrize("line", RAW, ids=lambda line: line[:60])
def test_any_validator_comes_to_the_same_verdict_on_a_raw_line(line: str) -> None:
    (item,) = FORMAT.judge(line.encode(), RULES)
    assert Draft202012Validator(SCHEMA).is_valid(json.loads(line)) == bool(item.commands)


def test_settings_take_the_place_of_defaults() -> None:
    early = {"_p": "ann", "_t": 5, "_n": "x"}
    assert [failure.code for failure in schema.explain(early, "kissmetrics")] == ["time_too_old"]
    assert not schema.explain(early, "kissmetrics", time_from=5)
    assert [failure.code for failure in schema.explain(early, "kissmetrics", time_from=6)] == ["time_too_old"]
    assert json.loads((schema.schemas_folder() / "kissmetrics.schema.json").read_bytes()) == SCHEMA


def test_decimals_are_numbers() -> None:
    def codes(instance: object) -> list[str]:
        return [failure.code for failure in schema.explain(instance, "kissmetrics")]

    sound = {"_p": "ann", "_t": Decimal("1393344604.5"), "a": Decimal("1E+999999")}
    assert codes(sound) == []
    assert codes(sound | {"_p": Decimal("1.5")}) == ["person_not_text"]
    assert codes(sound | {"_p": Decimal("1E+300")}) == []
    assert codes(sound | {"_t": Decimal("-0.5")}) == ["time_not_epoch_seconds"]


def test_what_is_missing_is_named_by_its_place() -> None:
    told = {(failure.code, failure.pointer) for failure in schema.explain({"_n": "x"}, "kissmetrics")}
    assert told == {("person_missing", "/_p"), ("time_missing", "/_t")}
