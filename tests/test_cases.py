"""Whole files, and all that `ingest check --json` says of each: `cases/x.jsonl` beside `cases/x.expected.json`.

Kissmetrics lines stand in `cases`, documents of another format in the folder of its name. What is expected was held
against SPEC 2 and 3 item by item when it was written. A new case is its lines and its answer.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from ingest.cli import cli

WRITTEN = 1_767_225_600  # 2026-01-01 UTC: what items without a time of their own have
FOLDER = Path(__file__).parent / "cases"
CASES = sorted(
    str(path.relative_to(FOLDER))
    for path in (*FOLDER.glob("*.jsonl"), *FOLDER.glob("*/*.json"))
    if not path.name.endswith(".expected.json")
)


def answer(name: str) -> Path:
    return (FOLDER / name).with_suffix(".expected.json")


@pytest.mark.parametrize("name", CASES)
def test_case(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FOLDER / name
    format = "kissmetrics" if path.parent == FOLDER else path.parent.name
    copied = shutil.copy(path, tmp_path)
    os.utime(copied, (WRITTEN, WRITTEN))
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(cli, ["check", path.name, "--format", format, "--json"], standalone_mode=False)
    assert ran.exception is None
    said = json.loads(re.sub(r'"file": ".*/', '"file": "', ran.stdout), parse_float=str)
    expected = json.loads(answer(name).read_text(encoding="utf-8"), parse_float=str)
    assert said == expected
    assert ran.return_value == (1 if expected["failed"] else 0)


def test_every_case_has_its_answer() -> None:
    answers = {*FOLDER.glob("*.expected.json"), *FOLDER.glob("*/*.expected.json")}
    assert answers == {answer(name) for name in CASES}
