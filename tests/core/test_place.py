"""Where in a JSON text a value stands: as `json.loads` reads it, whatever else is there."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.core.jsontext import place, pointer

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(["", "a", "a/b", "~", "0"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
LAYOUTS = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}])


def places(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """Every pointer into a value, with what it names."""
    yield at, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from places(child, at + pointer(str(name)))


@given(VALUES, LAYOUTS, st.sampled_from(["", " ", "\t\r\n "]))
def test_it_agrees_with_the_reader(value: Any, layout: dict[str, Any], around: str) -> None:
    text = around + json.dumps(value, **layout) + around
    told = dict(places(value))  # U+0000 in a name is told as U+2400, as in failures: of two such names the last counts
    for at, named in told.items():
        found = place(text, at)
        assert found is not None, at
        assert json.loads(text[slice(*found)]) == named


@given(st.text(), st.text())
def test_whatever_is_asked_it_is_within_the_text(text: str, at: str) -> None:
    found = place(text, at)
    assert found is None or 0 <= found[0] < found[1] <= len(text)


@pytest.mark.parametrize(
    ("text", "at", "value"),
    [
        pytest.param('{"a": 1, "a": 22}', "/a", "22", id="of a name that comes twice the last counts"),
        pytest.param('{"a": {"b": [10, {"c": "x"}]}}', "/a/b/1/c", '"x"', id="deep"),
        pytest.param('{"a/b": 1, "~": 2}', "/a~1b", "1", id="escaped"),
        pytest.param('{"a\\u0000": 1}', "/a␀", "1", id="U+0000"),
        pytest.param('{"a": 1}', "/b", None, id="not there"),
        pytest.param("[1, 2]", "/2", None, id="beyond the end"),
        pytest.param("[1, 2]", "/-1", None, id="no place"),
        pytest.param('{"a": 1', "/a", None, id="cut off"),
        pytest.param('{"a": "b"}', "/a/0", None, id="into a text"),
        pytest.param("", "", None, id="nothing"),
        pytest.param('{"a": NaN}', "/a", None, id="no JSON"),
        pytest.param("[" * 200_000, "/0", None, id="too deep"),
    ],
)
def test_places(text: str, at: str, value: str | None) -> None:
    found = place(text, at)
    assert (None if found is None else text[slice(*found)]) == value
