"""The statements of this engine, and what makes its tables and views."""

import re
from functools import cache
from pathlib import Path

from ingest.core.schema import schemas_folder

_FOLDER = Path(__file__).parent / "sql"


@cache
def statements() -> dict[str, str]:
    """All statements in sql/, by their names."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.sql")))
    sections = [section for text in texts for section in re.split(r"^-- name: ", text, flags=re.MULTILINE)[1:]]
    found = dict(section.split("\n", 1) for section in sections)
    assert len(found) == len(sections), "two statements have one name"
    return found


def statement(name: str) -> str:
    """The text of one of them."""
    return statements()[name]


@cache
def definitions() -> tuple[tuple[str, ...], str]:
    """What makes the tables, step by step, and what makes the views."""
    folder = schemas_folder() / "warehouse" / "duckdb"
    steps = tuple(step.read_text(encoding="utf-8") for step in sorted(folder.glob("[0-9]*.sql")))
    return steps, (folder / "views.sql").read_text(encoding="utf-8")
