"""Words for people, alike on a terminal, in a log and on a page."""

import re
from collections.abc import Sequence

_JSON_STRING_OR_OTHER = re.compile(r'"(?:[^"\\]|\\.)*"?|[^ -~]', re.DOTALL)


def count(number: int, noun: str) -> str:
    """1 line, 2 lines."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def alternatives(words: Sequence[str]) -> str:
    """a, b or c."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def visible(text: str) -> str:
    """`text` with control characters as escapes: a sequence in a producer's line must not reach the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def inert(json: str) -> str:
    """The JSON text `json` for a terminal: what that might obey is written as JSON escapes, which mean the same."""
    return _JSON_STRING_OR_OTHER.sub(lambda found: _inert(found[0]), json)


def _inert(part: str) -> str:
    if part in ("\n", "\t"):
        return part
    return " " if part == "\r" else "".join(c if c.isprintable() else _json_escape(c) for c in part)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
