"""The documentation is true: its commands are run and their output compared, its tables held against the program.

In a `console` block a line `$ …` is run by bash, and what follows is what it prints on stdout, at 100 columns. `…`
stands for any lines; ids of files and times of today may differ. `$ cat NAME` makes the file NAME, as it is shown.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from ingest.cli import cli
from ingest.settings import INTAKE_SETTINGS, SOURCE_SETTINGS, TOP_SETTINGS, UPLOADS_SETTINGS, VARIABLES
from tests import postgres
from tests.conftest import S3
from tests.support import ROOT, module_at
from tests.support import TABLES as SHOWN

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WAREHOUSE = (ROOT / "docs" / "warehouse.md").read_text(encoding="utf-8")
DOCS = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BUCKET = "acme-events"
TABLES = (*SHOWN, "accounts", "history")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def steps(text: str) -> Iterator[tuple[str, str]]:
    """(command, what it prints) of every console block."""
    for block in blocks(text, "console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = step.partition("\n")
            yield command, printed


def as_pattern(printed: str) -> str:
    any_lines = re.escape(printed.rstrip()).replace(re.escape("…"), "(?s:.*)")
    any_id = re.sub(r"(?m)^[0-9a-f]{8}(?=\\ )", "[0-9a-f]{8}", any_lines)
    return re.sub(r"20[23]\d\\-\d\d\\-\d\d\\ \d\d:\d\d", r"\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d", any_id)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the examples in it, and `ingest` on the path."""
    here = tmp_path / "here"
    shutil.copytree(ROOT / "examples", here / "examples")
    program = tmp_path / "bin" / "ingest"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ingest "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "100")
    return here


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", ["README.md", "docs/formats/kissmetrics.md"])
def test_a_page_prints_what_it_says(page: str, folder: Path, s3: S3) -> None:
    s3.client.create_bucket(Bucket=BUCKET)
    count = 0
    for command, printed in steps((ROOT / page).read_text(encoding="utf-8")):
        if made := re.fullmatch(r"cat (\S+)", command):
            (folder / made[1]).write_text(printed, encoding="utf-8")
            if made[1].endswith(".json"):
                s3.client.put_object(Bucket=BUCKET, Key=f"landing/website/{made[1]}", Body=printed.encode())
            continue
        ran = run(command, folder)
        assert re.fullmatch(as_pattern(printed), ran.stdout.rstrip()), f"$ {command}\n{ran.stdout}{ran.stderr}"
        assert ran.returncode in (0, 1), ran.stderr
        count += 1
    assert count


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(README.encode()) <= 8000


def test_every_query_of_the_docs_answers(folder: Path, postgres_server: postgres.Server) -> None:
    assert run("ingest load examples/*.json", folder).returncode == 1
    statements = re.findall(r"\| `(select [^`]+)` \|", WAREHOUSE)
    assert len(statements) >= 8
    of_other_engines = {ROOT / "docs/postgres.md", ROOT / "docs/iceberg.md"}
    for page in {*(ROOT / "docs").glob("*.md")} - of_other_engines:
        for block in blocks(page.read_text(encoding="utf-8"), "sql"):
            statements += [part for part in block.split(";") if part.strip()]
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as warehouse:
        for statement in statements:
            warehouse.execute(statement).fetchall()
    url = postgres_server.bare("docs")
    assert run(f"ingest copy --to {url}", folder).returncode == 0
    for statement in statements:
        postgres_server.sql(statement, "docs")


def test_every_column_is_documented(folder: Path) -> None:
    run("ingest load examples/sample.json", folder)
    told = {frozenset(names.split(", ")) for names in re.findall(r"`(\w+(?:, \w+)+)`", WAREHOUSE)}
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as warehouse:
        for table in TABLES:
            assert f"| `{table}` |" in WAREHOUSE
            columns = [name for name, *_ in warehouse.execute(f"DESCRIBE {table}").fetchall()]
            assert frozenset(columns) in told, f"{table}: `{', '.join(columns)}`"


def test_what_is_made_from_the_program_is_what_it_says_today() -> None:
    for place, text in module_at(ROOT / "docs" / "generate.py").pages().items():
        assert place.read_text(encoding="utf-8") == text, "run: .venv/bin/python docs/generate.py"


@pytest.mark.parametrize(
    "setting",
    sorted({*SOURCE_SETTINGS, *TOP_SETTINGS, *UPLOADS_SETTINGS, *INTAKE_SETTINGS, *VARIABLES} - {"source"}),
)
def test_every_setting_is_documented(setting: str) -> None:
    assert re.search(rf"`(\[+)?{setting}\b", (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8"))


def test_every_setting_says_what_it_does() -> None:
    for table in (SOURCE_SETTINGS, UPLOADS_SETTINGS, INTAKE_SETTINGS, VARIABLES):
        assert [name for name, allowed in table.items() if not allowed.about] == []
    assert [name for name, allowed in TOP_SETTINGS.items() if not allowed.about] == ["uploads", "intake", "source"]


def test_every_command_that_is_named_is_there() -> None:
    named = set(re.findall(r"\bingest ([a-z]+)\b(?! for)", " ".join(re.findall(r"`[^`\n]+`", DOCS))))
    assert named <= cli.commands.keys(), named - cli.commands.keys()


def test_the_first_policy_has_reading_rights_only() -> None:
    policy, _ = map(json.loads, blocks((ROOT / "docs/operations.md").read_text(encoding="utf-8"), "json"))
    actions = {action for one in policy["Statement"] for action in (
        [one["Action"]] if isinstance(one["Action"], str) else one["Action"])}  # fmt: skip
    assert actions == {
        "s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning", "s3:GetObject", "s3:GetObjectVersion",
    }  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        if "://" in link:
            continue
        assert target.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}, link


def test_make_targets_that_are_named_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z][a-z-]*)", " ".join(re.findall(r"`[^`\n]+`", DOCS)))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_one_range_of_python_is_named_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least, beyond = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", project["requires-python"]).groups())  # type: ignore[union-attr]
    named = [one.rpartition(".")[2] for one in project["classifiers"] if ":: Python :: 3." in one]
    assert named == [str(minor) for minor in range(least, beyond)]
    for name in ("README.md", "CONTRIBUTING.md", "docs/airflow.md", ".ci/run", "Makefile"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert f"Python 3.{least} to 3.{beyond - 1}" in text, name
    assert re.findall(r"\(3, (\d+)\) <= \S+ < \(3, (\d+)\)", text) == [(str(least), str(beyond))] * 2
