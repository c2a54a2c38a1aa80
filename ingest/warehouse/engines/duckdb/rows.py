"""The rows of files within one writing session: how they leave, and whom their aliases join."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from ingest.core.identity import is_ignored
from ingest.core.people import Key, components
from ingest.warehouse.engines.duckdb.statements import statement


@dataclass(slots=True)
class Rows:
    """The statements that loads and actions share."""

    connection: duckdb.DuckDBPyConnection
    ignored_identities: frozenset[str]

    def join_persons(self, first_file_no: int) -> None:
        """Join the components that this load's aliases touch: the others are not even read."""
        found = self.connection.execute(statement("new_alias_pairs"), {"first_file_no": first_file_no}).fetchall()
        pairs = self.joining(found)
        with self.table("touched", _keys({key for pair in pairs for key in pair})):
            so_far = {
                Key(space, key): Key(space, person)
                for space, key, person in self.connection.execute(statement("touched_links")).fetchall()
            }
        belongs = components((so_far.get(one, one), so_far.get(other, other)) for one, other in pairs)
        persons = set(so_far.values())
        merged = [(key.people_space, key.key, to.key) for key, to in belongs.items() if key in persons and key != to]
        if merged:
            columns = dict(zip(("people_space", "person_id", "merged_into"), zip(*merged, strict=True), strict=True))
            with self.table("merged", pa.table(columns)):
                self.connection.execute(statement("merge_links"))
        new = {key for pair in pairs for key in pair} - so_far.keys()
        self._link({key: belongs[key] for key in new})

    def _link(self, persons: dict[Key, Key]) -> None:
        links = {
            "people_space": [key.people_space for key in persons],
            "identity_key": [key.key for key in persons],
            "person_id": [person.key for person in persons.values()],
        }
        if persons:
            with self.table("links", pa.table(links)):
                self.connection.execute(statement("insert_links"))

    def take_away(self, file_nos: Collection[int]) -> None:
        """Remove the rows of files, as if they had never been loaded: all at once, since each time costs a pass."""
        if not file_nos:
            return
        with self.table("leaving", pa.table({"file_no": pa.array(file_nos, pa.int64())})):
            for step in ("lost_facts", "other_rows", "promote_first"):
                self.connection.execute(statement(step))
            aliases = self.connection.execute(statement("leaving_alias_pairs")).fetchall()
            for rows in ("command_rows", "failed_line_rows"):
                self.connection.execute(f"DELETE FROM {rows} WHERE file_no IN (SELECT file_no FROM leaving)")
        if not aliases:
            return
        with self.table("touched", _keys({key for pair in self.joining(aliases) for key in pair})):
            found = self.connection.execute(statement("component_members")).fetchall()
        members = {Key(space, key) for space, key in found}
        with self.table("members", _keys(members)):
            self.connection.execute(statement("delete_links"))
            remaining = self.connection.execute(statement("remaining_alias_pairs")).fetchall()
        self._link(components(self.joining(remaining)))

    def join_persons_anew(self) -> None:
        """Forget whom aliases join, and find it again from all of them."""
        self.connection.execute("DELETE FROM person_links")
        self._link(components(self.joining(self.connection.execute(statement("all_alias_pairs")).fetchall())))

    def joining(self, aliases: Iterable[tuple[str, str, str]]) -> list[tuple[Key, Key]]:
        """The pairs of (people_space, person_key, alias_key) that join somebody: names that mean nobody do not."""
        return [
            (Key(space, one), Key(space, other))
            for space, one, other in aliases
            if not is_ignored(one, self.ignored_identities) and not is_ignored(other, self.ignored_identities)
        ]

    # --- handing over Arrow ------------------------------------------------------------------------------------------

    def fetch(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.connection.sql(sql, params=parameters).to_arrow_table().to_pylist()
        return rows

    @contextmanager
    def table(self, name: str, table: pa.Table) -> Iterator[None]:
        self.connection.register(name, table)
        try:
            yield
        finally:
            self.connection.unregister(name)


def _keys(keys: set[Key]) -> pa.Table:
    ordered = sorted(keys)
    return pa.table(
        {
            "people_space": pa.array([key.people_space for key in ordered], pa.string()),
            "identity_key": pa.array([key.key for key in ordered], pa.string()),
        }
    )
