"""The statements of this engine, and what makes its tables and views."""

from functools import partial

from ingest.warehouse.engines.common import statements as common

definitions = partial(common.definitions, "duckdb")


def statement(name: str) -> str:
    """The text of one of them."""
    return common.statements("duckdb")[name]
