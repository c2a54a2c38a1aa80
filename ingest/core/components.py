"""Who is one person: components of keys that aliases join.

Aliases have no direction and carry over; a component is named by its smallest key, so the order of loading does not
matter. Source: Kissmetrics' specifications page ("John"–"User-123", "John"–"User-456" are one person).
"""

from collections.abc import Iterable
from typing import NamedTuple


class Key(NamedTuple):
    """An identity key within its people space."""

    people_space: str
    key: str


def components(pairs: Iterable[tuple[Key, Key]]) -> dict[Key, Key]:
    """Every key named in `pairs` → the smallest key of its component."""
    parent: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        parent.setdefault(key, key)
        while (up := parent[key]) != key:
            parent[key] = parent[up]  # halve the path, so that long chains stay cheap
            key = up
        return key

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return {key: root(key) for key in parent}
