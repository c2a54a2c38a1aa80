"""The statements of this engine, and what makes its tables and views."""

from functools import cache
from pathlib import Path

from ingest.core.schema import schemas_folder

_FOLDER = Path(__file__).parent / "sql"


@cache
def statement(name: str) -> str:
    """The text of one statement in sql/."""
    return (_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


@cache
def definitions() -> tuple[tuple[str, ...], str]:
    """What makes the tables, step by step, and what makes the views."""
    folder = schemas_folder() / "warehouse" / "duckdb"
    steps = tuple(step.read_text(encoding="utf-8") for step in sorted(folder.glob("[0-9]*.sql")))
    return steps, (folder / "views.sql").read_text(encoding="utf-8")
