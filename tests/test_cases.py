"""Whole files, and all that `ingest check --json` says of each: `cases/x.jsonl` beside `cases/x.expected.json`.

What is expected was held against SPEC 2 line by line when it was written. A new case is its lines and its answer.
"""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingest.cli import cli

CASES = sorted(path.stem for path in (Path(__file__).parent / "cases").glob("*.jsonl"))


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent / "cases")
    ran = CliRunner().invoke(cli, ["check", f"{name}.jsonl", "--json"], standalone_mode=False)
    assert ran.exception is None
    said = json.loads(re.sub(r'"file": ".*/', '"file": "', ran.stdout), parse_float=str)
    expected = json.loads(Path(f"{name}.expected.json").read_text(encoding="utf-8"), parse_float=str)
    assert said == expected
    assert ran.return_value == (1 if expected["failed"] else 0)


def test_every_case_has_its_answer() -> None:
    answers = {
        path.name.removesuffix(".expected.json") for path in (Path(__file__).parent / "cases").glob("*.expected.json")
    }
    assert answers == set(CASES)
