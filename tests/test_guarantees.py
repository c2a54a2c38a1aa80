"""What docs/guarantees.md promises is shown by tests that are there."""

import re

import pytest

from tests.support import ROOT

_ROWS = re.findall(r"^\| (?!…|---)(.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs/guarantees.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("happens", "shown_by"), [(row[0], row[2]) for row in _ROWS], ids=[row[0] for row in _ROWS])
def test_each_promise_names_tests_that_are_there(happens: str, shown_by: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", shown_by)
    assert named, happens
    for path, name in named:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {name}\b", text, re.MULTILINE), f"{path}::{name}"
