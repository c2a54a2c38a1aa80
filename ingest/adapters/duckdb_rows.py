"""The rows of files within one writing session: how they leave, and whom their aliases join."""

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from ingest.adapters.duckdb import statement
from ingest.core.identity import is_ignored
from ingest.core.people import Key, components
from ingest.ports import Note


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

    def take_away(self, file_no: int) -> None:
        """Remove a file's rows, as if it had never been loaded."""
        parameters = {"file_no": file_no}
        self.connection.execute(statement("promote_first"), parameters)
        aliases = self.connection.execute(statement("alias_pairs_of_file"), parameters).fetchall()
        self.connection.execute("DELETE FROM command_rows WHERE file_no = $file_no", parameters)
        self.connection.execute("DELETE FROM failed_line_rows WHERE file_no = $file_no", parameters)
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

    def take_away_redrives(self, file_id: str, only: AbstractSet[str] | None = None) -> list[str]:
        """Remove the rows of what mended lines of this file brought; their file_ids."""
        sql = "SELECT file_id, file_no FROM ledger WHERE redrive_of = $file_id AND state = 'loaded' ORDER BY file_no"
        redrives = [row for row in self.fetch(sql, {"file_id": file_id}) if only is None or row["file_id"] in only]
        for redrive in redrives:
            self.take_away(redrive["file_no"])
        return [redrive["file_id"] for redrive in redrives]

    def reopen(self, redrives: Iterable[str]) -> None:
        """The lines that these redrives mended are open again."""
        self.connection.execute(
            "UPDATE failed_line_rows SET redriven_at = NULL, redriven_by = NULL"
            " WHERE list_contains($redrives, redriven_by)",
            {"redrives": list(redrives)},
        )

    def mended_lines(self, file_no: int) -> list[dict[str, Any]]:
        """The failed lines of a file that redrives have mended, so that they stay mended if it is put anew."""
        sql = (
            "SELECT line, item, raw_sha256, redriven_at, redriven_by FROM failed_line_rows"
            " WHERE file_no = $file_no AND redriven_by IS NOT NULL"
        )
        return self.fetch(sql, {"file_no": file_no})

    def set_state(self, file_ids: Iterable[str], state: str, replaced_by: str | None = None) -> None:
        """Write down what became of files whose rows were taken away."""
        self.connection.execute(
            "UPDATE ledger SET state = $state, replaced_by = $replaced_by WHERE list_contains($file_ids, file_id)",
            {"state": state, "replaced_by": replaced_by, "file_ids": list(file_ids)},
        )

    def remember(self, action: str, file_ids: Iterable[str], note: Note, at: datetime) -> None:
        """Append to `history`."""
        self.connection.execute(
            "INSERT INTO history SELECT unnest($file_ids), $action, $at, $by, $reason, $run_id",
            {
                "file_ids": list(file_ids), "action": action, "at": at, "by": note.by, "reason": note.reason or None,
                "run_id": note.run_id,
            },
        )  # fmt: skip

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
