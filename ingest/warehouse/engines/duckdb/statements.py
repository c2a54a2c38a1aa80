"""The statements of this engine, and what makes its tables and views."""

from functools import partial
from pathlib import Path

from ingest.warehouse.engines.common import statements as common

FOLDER = Path(__file__).parent / "sql"
definitions = partial(common.definitions, "duckdb")


def statement(name: str) -> str:
    """The text of one of them."""
    return common.statements(FOLDER)[name]
