"""Statements by their names, in sections of a few files: those of every engine, and its own."""

import re
from functools import cache
from pathlib import Path

from ingest.core.schema import schemas_folder


@cache
def statements(engine: str) -> dict[str, str]:
    """All statements of an engine, by their names."""
    folders = (Path(__file__).parent.with_name(name) / "sql" for name in ("common", engine))
    texts = (path.read_text(encoding="utf-8") for folder in folders for path in sorted(folder.glob("*.sql")))
    sections = [section for text in texts for section in re.split(r"^-- name: ", text, flags=re.MULTILINE)[1:]]
    found = dict(section.split("\n", 1) for section in sections)
    assert len(found) == len(sections), "two statements have one name"
    return found


@cache
def definitions(engine: str) -> tuple[tuple[str, ...], str]:
    """What makes the tables of an engine, step by step, and what makes its views."""
    folder = schemas_folder() / "warehouse" / engine
    steps = tuple(step.read_text(encoding="utf-8") for step in sorted(folder.glob("[0-9]*.sql")))
    return steps, (folder / "views.sql").read_text(encoding="utf-8")
