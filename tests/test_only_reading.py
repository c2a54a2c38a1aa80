"""Who only reads makes no warehouse: not one file appears, and what cannot be done without one is said."""

import json
from pathlib import Path

import pytest

from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import record
from tests.test_cli import GOOD, Shell, ingest

__all__ = ["ingest"]  # a fixture


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def landing(ingest: Shell) -> Shell:
    ingest.config({"name": "web", "bucket": "file", "prefix": str(ingest.folder / "web")})
    ingest.file("web/1.json", *GOOD)
    return ingest


@pytest.mark.parametrize("arguments", [
    ("files",), ("failures",), ("failures", "--code", "not_json"), ("sources",), ("reconcile",),
    ("sql", "select * from events"), ("load", "web/1.json", "--dry-run"), ("check", "web/1.json"),
    ("undo", "--source", "web", "--dry-run"),
])  # fmt: skip
def test_a_command_that_only_reads_makes_no_file(landing: Shell, arguments: tuple[str, ...]) -> None:
    before = names(landing.folder)
    for more in ([], ["--json"]):
        ran = landing(*arguments, *more)
        assert ran.code in (0, 1), ran.err
        assert names(landing.folder) == before
        assert (arguments[0] == "check") != ("warehouse.duckdb (not made yet)" in ran.err)


@pytest.mark.parametrize("arguments", [
    ("snapshot", "copy.duckdb"), ("export", "--to", "out"), ("copy", "--to", "duckdb:///other.duckdb"),
    ("failures", "abc"), ("undo", "abc"), ("redrive", "abc"),
])  # fmt: skip
def test_what_needs_a_warehouse_makes_none(landing: Shell, arguments: tuple[str, ...]) -> None:
    before = names(landing.folder)
    ran = landing(*arguments, "--json")
    assert (ran.code, [*ran.json], names(landing.folder)) == (2, ["error"], before)
    assert ("so there is nothing to" in ran.err) == (arguments[0] in ("snapshot", "export", "copy"))


@pytest.mark.parametrize("arguments", [("reconcile",), ("snapshot", "copy.duckdb")])
def test_without_settings_and_warehouse_that_is_said(ingest: Shell, arguments: tuple[str, ...]) -> None:
    ran = ingest(*arguments, "--json")
    assert (ran.code, names(ingest.folder)) == (2, [])
    assert "There is no warehouse at " in ran.json["error"]
    assert f"There is no ingest.toml in {ingest.folder}, either." in ran.json["error"]


def test_the_tables_are_those_of_a_warehouse_that_was_made(ingest: Shell) -> None:
    """Columns and types alike, and an empty file is as none."""
    ours = "database_name = 'warehouse' and table_name <> 'schema_version'"
    sql = f"select table_name, column_name, data_type from duckdb_columns() where {ours} order by all"
    before = ingest.json("sql", sql)
    ingest.file("warehouse.duckdb", body=b"")
    assert ingest.json("sql", sql) == before
    assert (ingest.folder / "warehouse.duckdb").read_bytes() == b""
    ingest.json("load", ingest.file("a.json", record("ann", 0, "x")))
    assert ingest.json("sql", sql) == before
    assert json.dumps(before).count("failed_lines")


def test_it_is_there_once_something_wrote(tmp_path: Path) -> None:
    warehouse = DuckDBWarehouse(tmp_path / "w.duckdb")
    assert (warehouse.known([]), warehouse.is_there) == ({}, False)
    with warehouse.writing():
        pass
    assert warehouse.is_there
