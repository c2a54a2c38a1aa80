"""Properties that hold objects and arrays, made flat.

Objects flatten with `.`, arrays of scalars join with `,`, other arrays stay JSON text; null is absent. Where two names
flatten to one, the top-level one stays and the other gets its parent's name in front.
Names of parents stand before each of their parts: from a kilobyte can come gigabytes, so that is limited.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from ingest.core.jsontext import dumps

_MAX_PARENT: Final = 255  # an object under a longer name stays JSON text: its name is repeated before each of its parts
_PLAIN: Final = frozenset({str, int, bool, Decimal})  # where all are, they stay as they are
REPEATED_AT_MOST: Final = 16 << 20  # characters (or bytes) that what was sent once may come to in the rows of one item
REPEATED_OF_SENT: Final = 16  # or, of a document, so many times what was sent, where that is more


class RepeatedTooMuch(ValueError):
    """What was sent once would stand in the rows of an item so often that it comes to more than is allowed."""

    code = "repeated_too_much"


def flatten(properties: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The flat properties, and the names that were made longer since theirs was taken. Raises RepeatedTooMuch."""
    if _PLAIN.issuperset(map(type, properties.values())):
        return dict(properties), []
    flat: dict[str, object] = {}
    nested: list[tuple[str, Mapping[str, object]]] = []
    for name, value in properties.items():
        if isinstance(value, dict) and len(name) <= _MAX_PARENT:
            nested.append((name, value))
        elif value is not None:
            flat[name] = _scalar(value)
    collisions, left = [], REPEATED_AT_MOST
    for top, members in nested:
        for parent, leaf, value in _leaves(top, members):
            name = f"{parent}.{leaf}"
            left -= len(parent)
            if name in flat:
                while name in flat and left >= 0:
                    name = f"{parent}.{name}"
                    left -= len(name)
                collisions.append(name)
            if left < 0:
                raise RepeatedTooMuch
            flat[name] = value
    return flat, collisions


def _leaves(parent: str, members: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    """Every scalar below `parent`: the flat name of what holds it, its own name, its value."""
    for name, value in members.items():
        if isinstance(value, dict) and len(parent) + len(name) < _MAX_PARENT:
            yield from _leaves(f"{parent}.{name}", value)
        elif value is not None:
            yield parent, name, _scalar(value)


def _scalar(value: object) -> object:
    """A value that is no flat object: scalars as they are, arrays (and objects under very long names) as text."""
    if isinstance(value, dict):
        return dumps(value)
    if not isinstance(value, list):
        return value
    if any(isinstance(item, (dict, list)) for item in value):
        return dumps(value)
    return ",".join(item if isinstance(item, str) else dumps(item) for item in value if item is not None)
