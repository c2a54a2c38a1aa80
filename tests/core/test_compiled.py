"""The compiled schemas against `jsonschema`: which constraints a value breaks, and where."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from ingest.core import schema
from ingest.core.compiled import Broken, UnknownKeyword, compiled

FORMATS = ("kissmetrics", "woopra", "webengage", "retailrocket", "vitally")


def _is_number(_: object, value: object) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _is_integer(_: object, value: Any) -> bool:
    return _is_number(_, value) and value == (value.to_integral_value() if isinstance(value, Decimal) else int(value))


_KINDS = Draft202012Validator.TYPE_CHECKER.redefine_many({"number": _is_number, "integer": _is_integer})
Reference: Any = extend(Draft202012Validator, type_checker=_KINDS)  # type: ignore[no-untyped-call]


def _by_reference(errors: Any) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    for error in errors:
        yield str(error.validator), json.dumps(error.schema), tuple(error.absolute_path)
        yield from _by_reference(error.context or ())


def _ours(broken: Any) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    one: Broken
    for one in broken:
        yield one.keyword, json.dumps(one.schema), one.path
        yield from _ours(one.branches)


def _agree(part: dict[str, Any], value: Any) -> None:
    ours, reference = compiled(part), Reference(part)
    assert ours.is_valid(value) == reference.is_valid(value)
    told = set(_ours(ours.broken(value))) if not ours.is_valid(value) else set()
    assert told == set(_by_reference(reference.iter_errors(value)))


def _names(part: Any) -> Iterator[str]:
    """Names, and words that a schema knows: what is drawn from them gets far."""
    if isinstance(part, dict):
        yield from part.get("properties", ())
        yield from (one for one in part.get("enum", [part.get("const")]) if isinstance(one, str))
        for value in part.values():
            yield from _names(value)
    elif isinstance(part, list):
        for value in part:
            yield from _names(value)


def _values(name: str) -> st.SearchStrategy[Any]:
    names = st.sampled_from(sorted(set(_names(schema.load(name)))))
    texts = st.one_of(
        names, st.sampled_from(["", " ", "x", "7", "-7.5", "2026-11-01T10:00:00Z", "{}", "😀" * 255, "😀" * 256])
    )
    numbers = st.sampled_from(
        [0, -1, 7, 7.0, 7.5, 2**70, 1_393_344_604, 10**11, 10**12, Decimal("1.5"), Decimal("1E+30"), Decimal("7.0")]
    )
    leaves = st.one_of(texts, texts, numbers, st.none(), st.booleans())
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.one_of(names, names, texts), inner, max_size=5)
        ),
        max_leaves=25,
    )


@pytest.mark.parametrize("name", FORMATS)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_the_same_constraints_are_broken_at_the_same_places(name: str, data: st.DataObject) -> None:
    whole = schema.load(name)
    value = data.draw(_values(name))
    part = data.draw(st.sampled_from(["", *whole.get("$defs", ())]))
    _agree({"$defs": whole["$defs"], "$ref": f"#/$defs/{part}"} if part else whole, value)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(value=st.dictionaries(st.sampled_from(["_p", "_t", "_n", "_p2", "_k", "a", "_x"]), _values("kissmetrics")))
def test_of_objects_too(value: dict[str, Any]) -> None:
    _agree(schema.load("kissmetrics"), value)


@pytest.mark.parametrize(
    "part",
    [
        *({one: 2} for one in ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")),
        {"minimum": 2}, {"exclusiveMaximum": 2}, {"pattern": "^ab"}, {"required": ["a", "b"]}, {"const": "ab"},
        {"prefixItems": [{"type": "null"}, {"type": "string"}], "items": {"type": "number"}},
        {"properties": {"a": {"type": "null"}}, "patternProperties": {"^b": {"type": "null"}, "b$": {"minimum": 2}},
         "additionalProperties": {"type": "null"}},
        {"patternProperties": {"^b": True}, "additionalProperties": False},
        {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "array"}},
        {"anyOf": [{"minLength": 2}, {"type": "integer"}]}, {"allOf": [{"minLength": 2}, {"type": "string"}]},
        {"not": {"minLength": 2}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}, "maxItems": 2}}},
        *({"type": one} for one in ("array", "boolean", "integer", "null", "number", "object", "string")),
        {"properties": {"a": True}},
    ],
    ids=str,
)  # fmt: skip
def test_each_keyword_at_its_limits(part: Any) -> None:
    values: tuple[Any, ...] = (
        "", "a", "ab", "abc", 1, 2, 3, 2.0, 2.5, Decimal(2), Decimal("2.5"), True, False, None,
        [], [1], [None], [None, "x"], [None, 1], [None, "x", 1], [None, "x", "y"], ["x", "x", 1, "y"], [[[], [], []]],
        {}, {"a": None}, {"a": 1, "b": None}, {"a": None, "b": 1, "c": 1}, {"b": 2, "bb": 1}, {"bc": 1, "cb": None},
    )  # fmt: skip
    for value in values:
        _agree(part, value)


@pytest.mark.parametrize(
    "part",
    [
        {"uniqueItems": True},
        {"properties": {"a": False}},
        {"const": 7},
        {"enum": ["a", None]},
    ],
    ids=str,
)
def test_what_is_not_compiled_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(UnknownKeyword):
        compiled(part)
