"""The files in examples/ are what they say they are."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ingest.cli import cli
from ingest.core.schema import codes, load
from ingest.settings import load_settings
from tests.support import ROOT

EXAMPLES = ROOT / "examples"
DOCUMENT = "document_not_lines"  # of a whole file
OTHER = "wrong_format"  # of a whole file too
TOO_LONG = "line_too_long"  # of more than a MiB
REPEATED = "repeated_too_much"  # only where nested = "flatten"


def check(path: Path) -> tuple[int, dict[str, Any]]:
    ran = CliRunner().invoke(cli, ["check", str(path), "--json"], standalone_mode=False)
    return ran.return_value, json.loads(ran.stdout_bytes)


def codes_of(report: dict[str, Any]) -> Counter[str]:
    return Counter(code for line in report["failures"] for code in line["codes"])


def failure_codes() -> set[str]:
    return codes("kissmetrics").keys() - set(load("kissmetrics")["x-warnings"])


def test_the_sample_shows_every_kind_of_line_and_all_are_accepted() -> None:
    code, report = check(EXAMPLES / "sample.json")
    assert (code, report["failures"]) == (0, [])
    counts = {name: report[name] for name in ("lines", "blank", "records", "sets", "aliases", "repaired")}
    assert counts == {"lines": 21, "blank": 1, "records": 13, "sets": 3, "aliases": 6, "repaired": 1}
    assert report["warnings"] == {"alias_blank": 1, "ignored_identity": 1, "repaired": 1, "time_coerced": 3}


def test_the_sample_holds_what_the_vendor_shows() -> None:
    ours = (EXAMPLES / "sample.json").read_text(encoding="utf-8").splitlines()
    theirs = (ROOT / "tests" / "cases" / "vendor_page.jsonl").read_text(encoding="utf-8").splitlines()
    assert set(filter(None, theirs)) <= set(ours)


def test_the_bad_sample_breaks_every_rule_of_a_line_once() -> None:
    code, report = check(EXAMPLES / "sample-bad.json")
    assert code == 1
    assert report["failed"] == report["lines"] == len(report["failures"])
    assert codes_of(report) == Counter(failure_codes() - {DOCUMENT, OTHER, TOO_LONG, REPEATED})


@pytest.mark.parametrize(("body", "broken"), [
    pytest.param(b'{"links":\n [\n {"_p":"a"},\n ]\n}\n', DOCUMENT, id="document"),
    pytest.param(b'{"_p":"' + b"a" * (1 << 20) + b'"}\n', TOO_LONG, id="long line"),
    pytest.param(b'{"visitor":{"id":"ann"},"actions":[]}\n' * 3, OTHER, id="another format"),
])  # fmt: skip
def test_the_rules_that_need_a_file_of_their_own(tmp_path: Path, body: bytes, broken: str) -> None:
    (tmp_path / "a.json").write_bytes(body)
    code, report = check(tmp_path / "a.json")
    assert (code, codes_of(report)) == (1, Counter([broken]))


def test_the_settings_are_sound() -> None:
    path = EXAMPLES / "ingest.toml"
    settings = load_settings({"INGEST_CONFIG": str(path)})
    assert [source.name for source in settings.sources.values()] == ["website"]


def test_the_commented_settings_are_sound_too(tmp_path: Path) -> None:
    text = (EXAMPLES / "ingest.toml").read_text(encoding="utf-8")
    settings = [
        line.removeprefix("# ") if "=" in line or line.startswith("# [") else line for line in text.splitlines()
    ]
    (tmp_path / "ingest.toml").write_text("\n".join(settings), encoding="utf-8")
    loaded = load_settings({"INGEST_CONFIG": str(tmp_path / "ingest.toml")})
    assert list(loaded.sources) == ["website", "shop"]
    assert loaded.sources["website"].max_failed_share == 0.2
    assert loaded.uploads_bucket == "landfall"
