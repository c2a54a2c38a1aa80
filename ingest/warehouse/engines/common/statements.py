"""Statements by their names, in sections of a few files: those of every engine, and its own in place of them."""

import re
from functools import cache
from pathlib import Path

from ingest.core.schema import schemas_folder

_ENGINES = Path(__file__).parent.parent


@cache
def statements(*engines: str) -> dict[str, str]:
    """All statements of an engine, by their names. What it is built on comes first."""
    found: dict[str, str] = {}
    for engine in ("common", *engines):
        texts = (path.read_text(encoding="utf-8") for path in sorted((_ENGINES / engine / "sql").glob("*.sql")))
        sections = [section for text in texts for section in re.split(r"^-- name: ", text, flags=re.MULTILINE)[1:]]
        own = dict(section.split("\n", 1) for section in sections)
        assert len(own) == len(sections), "two statements have one name"
        found |= own
    return found


@cache
def definitions(engine: str) -> tuple[tuple[str, ...], str]:
    """What makes the tables of an engine, step by step, and what makes its views."""
    folder = schemas_folder() / "warehouse" / engine
    steps = tuple(step.read_text(encoding="utf-8") for step in sorted(folder.glob("[0-9]*.sql")))
    return steps, (folder / "views.sql").read_text(encoding="utf-8")
