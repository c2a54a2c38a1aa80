"""The statements of this engine, which is built on DuckDB's, and what makes its mirror and its table."""

from functools import cache

from ingest.core.schema import schemas_folder
from ingest.plans.changes import LEDGER_COLUMNS
from ingest.warehouse.engines.common import statements as common
from ingest.warehouse.engines.duckdb import statements as duckdb


def statement(name: str) -> str:
    """The text of one of them."""
    return all_of_them()[name]


@cache
def all_of_them() -> dict[str, str]:
    found = common.statements("duckdb", "iceberg")
    return found | {"fold": found["fold"].replace("{ledger}", ", ".join(f'"{name}"' for name in LEDGER_COLUMNS))}


@cache
def definitions() -> tuple[tuple[str, ...], str]:
    """What makes the mirror: the tables of a DuckDB warehouse, then its own, and views of what a session shows."""
    steps = sorted((schemas_folder() / "warehouse/iceberg").glob("[0-9]*.sql"))
    views = f"{changes()};\n{statement('nothing_shown')};\n{statement('command_rows')};\n{duckdb.definitions()[1]}"
    return (*duckdb.definitions()[0], *(step.read_text(encoding="utf-8") for step in steps)), views


@cache
def changes() -> str:
    """What makes the table of what one commit adds."""
    return (schemas_folder() / "warehouse/iceberg/lake.sql").read_text(encoding="utf-8")
