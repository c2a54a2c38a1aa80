"""The statements of this engine, and what makes its tables and views."""

import re
from functools import cache, partial

from ingest.warehouse.engines.common import statements as common

definitions = partial(common.definitions, "postgres")


def statement(name: str) -> str:
    """The text of one of them."""
    return common.statements("postgres")[name]


@cache
def apart(text: str) -> tuple[str, ...]:
    """Each statement of a text, which ends before an empty line: the server takes one at a time."""
    without_comments = re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE)
    return tuple(one for one in re.split(r";[ \t]*(?:--.*)?(?:\n\s*\n|\s*\Z)", without_comments) if one.strip())
