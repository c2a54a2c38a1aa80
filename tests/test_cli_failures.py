"""`ingest failures` without a file: what is open over all files, by code, and the lines of one code."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.ports import FailuresWanted, Warehouse
from ingest.warehouse.engines.duckdb.statements import statement
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import World, record
from tests.test_cli import GOOD, Shell
from tests.test_cli import ingest as in_a_folder

__all__ = ["in_a_folder"]  # a fixture

MS = f'{{"_p":"ann","_t":{1_393_344_603_000},"_n":"x"}}'


@pytest.fixture
def ingest(
    in_a_folder: Shell,
    new_warehouse: Callable[[], Warehouse],
    monkeypatch: pytest.MonkeyPatch,
) -> Shell:
    monkeypatch.setenv("INGEST_WAREHOUSE", new_warehouse().name)
    return in_a_folder


@pytest.fixture
def three(ingest: Shell) -> Shell:
    """Two sources, three files with failed lines, one of which is fixed."""
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web")})
    ingest.file("web/1.json", *GOOD, "no json", MS)
    ingest.file("web/2.json", record("bob", 0, "x"), MS, MS)
    ingest.file("other.json", record("cy", 0, "x"), "no json either")
    assert ingest("poll").code == 1
    assert ingest("load", "other.json").code == 1
    ids = {Path(file["key"]).name: file["file_id"] for file in ingest.json("files")["files"]}
    ingest.file("fixed.txt", "4\t" + json.dumps(record("ann", 9, "y")))
    assert ingest.json("redrive", ids["1.json"], "fixed.txt")["open"] == 1
    return ingest


def test_open_lines_of_all_files_by_code(three: Shell) -> None:
    told = three.json("failures")
    assert [(one["code"], one["open"], one["files"], Path(one["key"]).name) for one in told["codes"]] == [
        ("time_in_milliseconds", 3, 2, "2.json"), ("not_json", 1, 1, "other.json"),
    ]  # fmt: skip
    assert all(one["problem"] and one["remedy"] for one in told["codes"])
    assert (told["failures"], told["more_codes"]) == ([], 0)
    web = three.json("failures", "--source", "web")["codes"]
    assert [(one["code"], one["open"]) for one in web] == [("time_in_milliseconds", 3)]
    shown = three("failures")
    assert (shown.code, b"time_in_milliseconds" in shown.out, b"not_json" in shown.out) == (0, True, True)
    assert "ingest failures --code time_in_milliseconds" in shown.err
    assert b"\nWhat to do\n" in shown.out
    limited = three("failures", "--limit", "1")
    assert (b"not_json" in limited.out, "1 more code: --limit shows more." in limited.err) == (False, True)


def test_the_lines_of_a_code_over_files(three: Shell) -> None:
    told = three.json("failures", "--code", "time_in_milliseconds")
    assert [(Path(one["key"]).name, one["line"], one["raw"]) for one in told["failures"]] == [
        ("2.json", 2, MS), ("2.json", 3, MS), ("1.json", 5, MS),
    ]  # fmt: skip
    assert {one["source"] for one in told["failures"]} == {"web"}
    assert [one["code"] for one in told["codes"]] == ["time_in_milliseconds"]
    ran = three("failures", "--code", "time_in_milliseconds", "--limit", "2", "--json")
    assert [one["line"] for one in ran.json["failures"]] == [2, 3]
    shown = three("failures", "--code", "time_in_milliseconds", "--limit", "2")
    named = shown.out.partition(b"1 code of open lines")[0]
    assert (named.count(b"2.json\n"), b"line 3" in shown.out, b"1.json\n" in shown.out) == (1, True, False)
    assert "1 more line with this code: --limit shows more." in shown.err


def test_lines_of_files_that_are_ignored_are_not_to_be_fixed(ingest: Shell) -> None:
    ingest.file("a.json", "no json")
    (file,) = ingest("load", "a.json", "--json").json["files"]
    assert [one["code"] for one in ingest.json("failures")["codes"]] == ["not_json"]
    assert ingest("ignore", file["file_id"]).code == 0
    assert b"No failed line is open." in ingest("failures").out
    assert ingest.json("failures", "--code", "not_json")["failures"] == []


def test_only_files_since_then(three: Shell) -> None:
    assert len(three.json("failures", "--since", "1h")["codes"]) == 2
    assert three.json("failures", "--since", "2999-01-01") == {"codes": [], "more_codes": 0, "failures": []}
    assert three("failures", "--since", "2999-01-01").out == b"No such failed line is open.\n"


@pytest.mark.parametrize(("arguments", "said"), [
    (("--code", "nope"), "There is no code 'nope'"), (("--lines",), "--lines needs a FILE_ID"),
    (("abc", "--code", "not_json"), "FILE_ID names one: not both"), (("--since", "soon"), "--since is a day"),
])  # fmt: skip
def test_what_cannot_be_asked_is_said(ingest: Shell, arguments: tuple[str, ...], said: str) -> None:
    ran = ingest("failures", *arguments, "--json")
    assert (ran.code, said in ran.json["error"]) == (2, True)


def test_a_source_that_nobody_knows_is_said(ingest: Shell) -> None:
    ran = ingest("failures", "--source", "nobody", "--json")
    assert (ran.code, "no source nobody" in ran.err, "no source nobody" in ran.json["error"]) == (2, True, True)


def test_long_lines_are_read_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever --limit says: some MB of failed lines are held, not all."""
    warehouse = DuckDBWarehouse(tmp_path / "w.duckdb")
    World(warehouse).bring("a.json", record("ann", 0, "x"), *(f"no json {n} {'x' * 900_000}" for n in range(30)))
    parts = list[int]()

    class Counting(str):
        __slots__ = ()

        def replace(self, *rows: Any) -> str:
            parts.append(rows[1].count(",") + 1)
            return str.replace(self, *rows)

    monkeypatch.setattr(
        "ingest.warehouse.engines.duckdb.applying.statement",
        lambda name: Counting(statement(name)) if name == "open_lines" else statement(name),
    )
    with warehouse.open_failures(FailuresWanted(code="not_json", limit=1000)) as found:
        assert [row["line"] for row in found.lines] == list(range(2, 32))
    assert sum(parts) == 30
    assert max(parts) <= 10
