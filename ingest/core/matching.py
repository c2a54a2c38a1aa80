"""When two spellings are one name: the keys by which persons, events and aliases match.

Keys are made once, here, and stored: engines disagree on `lower()` of İ and final Σ.
Source: Kissmetrics' technical limitations page (commas and colons become spaces, case is ignored).
"""

import re
from typing import Literal, NamedTuple

Match = Literal["kissmetrics", "exact"]


class Naming(NamedTuple):
    """Whom the names of a file may mean, and when two of them mean the same."""

    people_space: str
    match: Match


# Values that stand for "nobody" in real exports; joining them would make one person of thousands.
IGNORED_IDENTITIES = frozenset(
    {
        "anonymous", "guest", "null", "none", "nil", "undefined", "nan", "true", "false", "0", "-1", "unknown",
        "n/a", "na", "not set", "(not set)", "not_authenticated", "distinct_id", "id", "anon", "your email",
        "[object object]", "00000000-0000-0000-0000-000000000000",
    }
)  # fmt: skip

_TO_SPACE = str.maketrans(",:", "  ")
_DIGITS = re.compile(r"[0-9]+")


def key(name: str, match: Match) -> str:
    """The form under which `name` is compared and joined."""
    if match == "exact":
        return name.strip()
    if "," in name or ":" in name:  # `translate` is slow, and few names need it
        name = name.translate(_TO_SPACE)
    return name.strip().lower()


def is_ignored(name: str, ignored: frozenset[str]) -> bool:
    """Whether `name` stands for nobody: compared trimmed and without case, whatever the source's match."""
    return name.strip().lower() in ignored


def natural(text: str) -> str:
    """`text` so that sorting as text is natural order: each digit run, stripped of zeros, behind its length.

    Equal runs that differ in leading zeros ("01", "1") keep an order through the original text at the end.
    """
    padded = _DIGITS.sub(lambda run: f"{len(digits := run[0].lstrip('0') or '0'):03d}{digits}", text)
    return f"{padded}\x1f{text}"
