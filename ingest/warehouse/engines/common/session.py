"""One transaction on an engine with tables: its statements by name, and the steps that loads and actions share.

What differs between engines is their SQL and how Arrow gets to them; the order of the statements stands here, once.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest.core.components import Key, components
from ingest.core.matching import is_ignored
from ingest.ports import FailuresWanted

Value = str | int | datetime | None


class Session(ABC):
    """A subclass per engine. Values of a statement stand in it as `$name`."""

    ignored_identities: frozenset[str] = frozenset()

    @abstractmethod
    def statement(self, name: str) -> str:
        """The text of a statement of this engine."""

    @abstractmethod
    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement; none of one that gives none."""

    @abstractmethod
    def fetch(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        """The same, each by the names of its columns."""

    @abstractmethod
    def run(self, name: str, **values: Any) -> None:
        """A statement by its name; without values it may be several."""

    @abstractmethod
    def table(self, name: str, table: pa.Table) -> AbstractContextManager[None]:
        """Some rows of ours under a name, for a while."""

    @abstractmethod
    def listing(self, name: str, path: Path) -> None:
        """What a Parquet file lists, under a name."""

    @abstractmethod
    def streamed(self, name: str, **told: Value) -> AbstractContextManager[Iterator[dict[str, Any]]]:
        """The rows of a statement by its name, some at a time; what is told stands in place of `{name}`.

        With values an engine would hold its whole answer.
        """

    @abstractmethod
    def open_lines(self, wanted: FailuresWanted) -> AbstractContextManager[Iterator[dict[str, Any]]]:
        """The open failed lines with a code, newest file first, some at a time."""

    def named(self, name: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement by its name."""
        return self.rows(self.statement(name), **values)

    # --- rows that leave ---------------------------------------------------------------------------------------------

    def take_away(self, file_nos: Collection[int]) -> None:
        """Remove the rows of files, as if they had never been loaded: all at once, since each time costs a pass."""
        if not file_nos:
            return
        with self.table("leaving", pa.table({"file_no": pa.array(file_nos, pa.int64())})):
            for step in ("lost_facts", "other_rows", "promote_first"):
                self.run(step)
            aliases = self.named("leaving_alias_pairs")
            for step in ("delete_commands", "delete_failed"):
                self.run(step)
        if not aliases:
            return
        with self.table("touched", _keys({key for pair in self.joining(aliases) for key in pair})):
            members = {Key(space, key) for space, key in self.named("component_members")}
        with self.table("members", _keys(members)):
            self.run("delete_links")
            remaining = self.named("remaining_alias_pairs")
        self._link(components(self.joining(remaining)))

    # --- persons -----------------------------------------------------------------------------------------------------

    def join_persons(self, file_nos: Collection[int]) -> None:
        """Join the components that the aliases of these files touch: the others are not even read."""
        pairs = self.joining(self.named("new_alias_pairs", file_nos=list(file_nos)))
        with self.table("touched", _keys({key for pair in pairs for key in pair})):
            so_far = {Key(space, key): Key(space, person) for space, key, person in self.named("touched_links")}
        belongs = components((so_far.get(one, one), so_far.get(other, other)) for one, other in pairs)
        persons = set(so_far.values())
        merged = [(key.people_space, key.key, to.key) for key, to in belongs.items() if key in persons and key != to]
        if merged:
            columns = dict(zip(("people_space", "person_id", "merged_into"), zip(*merged, strict=True), strict=True))
            with self.table("merged", pa.table(columns)):
                self.run("merge_links")
        new = {key for pair in pairs for key in pair} - so_far.keys()
        self._link({key: belongs[key] for key in new})

    def join_persons_anew(self) -> None:
        """Forget whom aliases join, and find it again from all of them."""
        self.run("forget_links")
        self._link(components(self.joining(self.named("all_alias_pairs"))))

    def joining(self, aliases: Iterable[tuple[Any, ...]]) -> list[tuple[Key, Key]]:
        """The pairs of (people_space, person_key, alias_key) that join somebody: names that mean nobody do not."""
        return [
            (Key(space, one), Key(space, other))
            for space, one, other in aliases
            if not is_ignored(one, self.ignored_identities) and not is_ignored(other, self.ignored_identities)
        ]

    def _link(self, persons: dict[Key, Key]) -> None:
        links = {
            "people_space": [key.people_space for key in persons],
            "identity_key": [key.key for key in persons],
            "person_id": [person.key for person in persons.values()],
        }
        if persons:
            with self.table("links", pa.table(links)):
                self.run("insert_links")

    def mark_first_anew(self) -> None:
        """Of each fact whose rows are marked wrongly the one with the smallest position is the first."""
        self.run("wrong_first")
        self.run("mark_first")


def with_literals(sql: str, told: Mapping[str, Value]) -> str:
    """A statement with these in place of their `{name}`."""
    return re.sub(r"\{([a-z_]+)\}", lambda found: _literal(told[found[1]]), sql)


def _literal(value: Value) -> str:
    if value is None or isinstance(value, int):
        return "NULL" if value is None else str(value)
    text = value if isinstance(value, str) else value.isoformat()
    return "'" + text.replace("'", "''") + "'"


def _keys(keys: set[Key]) -> pa.Table:
    ordered = sorted(keys)
    return pa.table(
        {
            "people_space": pa.array([key.people_space for key in ordered], pa.string()),
            "identity_key": pa.array([key.key for key in ordered], pa.string()),
        }
    )
