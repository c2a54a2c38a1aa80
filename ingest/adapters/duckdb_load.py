"""One load into DuckDB: staged files become rows and ledger entries in one transaction, or nothing does.

The order within: what is in the ledger already is passed over; copies of loaded bytes become `duplicate`; of the rest
the rows are inserted, each knowing whether its fact is new; the ledger rows follow; persons that an alias joined are
joined. Nothing is seen before the commit.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import orjson
import pyarrow as pa

from ingest.adapters.duckdb import result_of, statement
from ingest.core.identity import is_ignored
from ingest.core.people import Key, components
from ingest.errors import TransientError
from ingest.ports import COUNTED, FINAL_STATES, FileResult, StagedFile, Staging, State

if TYPE_CHECKING:
    from ingest.adapters.duckdb import DuckDBWarehouse

_BYTES_AT_ONCE = 256 << 20  # of staged rows: what the engine compares at once must fit its memory
_FIRST_DELAY = timedelta(minutes=1)
_LONGEST_DELAY = timedelta(hours=6)


@dataclass(slots=True)
class _Entry:
    """A staged file on its way into the ledger."""

    staged: StagedFile
    file_no: int
    state: State
    attempts: int
    match: str
    duplicate_of: str | None = None
    duplicates: int = 0

    def row(self, load_id: str, run_id: str | None, now: datetime) -> dict[str, Any]:
        file, counts = self.staged.file, self.staged.counts
        retrying = self.state == "retrying"
        # Twice as long after each attempt, so that a broken object costs less and less and is never given up.
        delay = min(_FIRST_DELAY * 2 ** min(self.attempts - 1, 30), _LONGEST_DELAY)
        return {
            "file_id": file.file_id, "file_no": self.file_no, "source": file.source, "bucket": file.bucket,
            "key": file.key, "etag": file.etag, "version_id": file.version_id, "last_modified": file.last_modified,
            "sha256": self.staged.sha256 or None, "size_bytes": file.size_bytes, "format": file.format,
            "people_space": self.staged.people_space, "state": self.state, "duplicates": self.duplicates,
            **{name: getattr(counts, name) for name in COUNTED if name != "duplicates"},
            "warnings": orjson.dumps(counts.warnings).decode(), "load_id": load_id, "run_id": run_id,
            "loaded_at": None if retrying else now, "attempts": self.attempts,
            "next_try_at": now + delay if retrying else None, "duplicate_of": self.duplicate_of,
            "error": self.staged.error or None, "position": file.position,
        }  # fmt: skip


def load(
    warehouse: "DuckDBWarehouse", staging: Staging, load_id: str, run_id: str | None, *, force: bool
) -> list[FileResult]:
    """See `ingest.ports.Warehouse.load`."""
    files = [file for file in staging.files if file.outcome != "gone"]
    if not files:
        return []
    try:
        with warehouse.writing() as connection:
            return _Load(connection, staging, warehouse.ignored_identities).run(files, load_id, run_id, force=force)
    except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.InternalException, duckdb.FatalException) as error:
        raise TransientError(f"{warehouse.name} could not be written (is the disk full?): {error}") from error
    except duckdb.Error as error:
        # Something in one file that the engine refuses, which judging should have caught: find out which.
        if len(files) > 1:
            alone = [replace(staging, files=[file]) for file in files]
            return [result for one in alone for result in load(warehouse, one, load_id, run_id, force=force)]
        if files[0].outcome == "retrying":
            raise TransientError(f"{warehouse.name} refused a ledger row: {error}") from error
        refused = replace(files[0], outcome="retrying", error=f"The warehouse refused its rows: {error}")
        return load(warehouse, replace(staging, files=[refused]), load_id, run_id, force=force)


@dataclass(slots=True)
class _Load:
    """The statements of one load, in order."""

    connection: duckdb.DuckDBPyConnection
    staging: Staging
    ignored_identities: frozenset[str]
    entries: list[_Entry] = field(default_factory=list)
    results: dict[str, FileResult] = field(default_factory=dict)

    def run(self, files: Sequence[StagedFile], load_id: str, run_id: str | None, *, force: bool) -> list[FileResult]:
        now = datetime.now(UTC)
        self._claim(files, force=force)
        if not force:
            self._find_copies()
        taken = [entry for entry in self.entries if entry.state == "loaded"]
        kept = [entry for entry in self.entries if entry.state in ("loaded", "rejected")]
        if any(entry.staged.counts.failed for entry in kept):
            self._insert_failed(kept)
        if taken and self.staging.commands:
            self._insert_commands(taken)
        self._enter(load_id, run_id, now)
        if any(entry.staged.counts.aliases for entry in taken):
            self._join_persons(min(entry.file_no for entry in taken))
        return [self.results[file.file.file_id] for file in files]

    def _claim(self, files: Sequence[StagedFile], *, force: bool) -> None:
        """Which files are this load's to deal with. Nobody else writes now, so what is read here stays true."""
        ids = [file.file.file_id for file in files]
        rows = self._fetch("SELECT * FROM ledger WHERE list_contains($ids, file_id)", {"ids": ids})
        before = {row["file_id"]: row for row in rows}
        for file in files:
            row = before.get(file.file.file_id)
            if row and row["state"] in FINAL_STATES:
                if not force:
                    self.results[row["file_id"]] = result_of(row, already=True)
                    continue
                if file.outcome == "retrying":  # what is there stays until there is something better
                    self.results[row["file_id"]] = replace(result_of(row), state="retrying", error=file.error)
                    continue
                self._take_away(row["file_no"])
            ((number,),) = self.connection.execute("SELECT nextval('file_numbers')").fetchall()
            attempts = (row["attempts"] if row else 0) + 1
            self.entries.append(_Entry(file, number, file.outcome, attempts, file.match))

    def _find_copies(self) -> None:
        """Bytes that are loaded already are not loaded again: under the same key never, under another as told."""
        new = [entry for entry in self.entries if entry.state == "loaded" and entry.staged.file.size_bytes]
        if not new:
            return
        columns = ("file_id", "source", "bucket", "key")
        candidates = [
            {name: getattr(entry.staged.file, name) for name in columns} | {"sha256": entry.staged.sha256}
            for entry in new
        ]
        with self._table("candidates", pa.Table.from_pylist(candidates)):
            found = self._fetch(statement("known_same_bytes"), {})
        same_key = {row["file_id"]: row["loaded_file_id"] for row in found if row["same_key"]}
        loaded = {row["file_id"]: row["loaded_file_id"] for row in found}
        in_this_load: dict[tuple[str, str], str] = {}
        for entry in new:
            file = entry.staged.file
            original = same_key.get(file.file_id)
            if entry.staged.skip_same_bytes:
                original = original or loaded.get(file.file_id) or in_this_load.get((file.source, entry.staged.sha256))
            if original:
                entry.state, entry.duplicate_of = "duplicate", original
            else:
                in_this_load[file.source, entry.staged.sha256] = file.file_id

    def _insert_failed(self, kept: Sequence[_Entry]) -> None:
        entered = {"staged_no": [e.staged.staged_no for e in kept], "file_no": [e.file_no for e in kept]}
        self._staged("staged_failed", self.staging.failed)
        with self._table("entered", pa.table(entered)):
            self.connection.execute(statement("insert_failed"))

    def _insert_commands(self, taken: Sequence[_Entry]) -> None:
        in_order = sorted(taken, key=lambda entry: entry.staged.file.position)
        table = {
            "place": range(1, 2 * len(in_order), 2),
            "staged_no": [entry.staged.staged_no for entry in in_order],
            "file_no": [entry.file_no for entry in in_order],
            "position": [entry.staged.file.position for entry in in_order],
        }
        entries = {entry.staged.staged_no: entry for entry in taken}
        with self._table("taken", pa.table(table)):
            for some in _in_groups(self.staging.commands):
                self._staged("staged_rows", some)
                for step in ("staged_commands", "staged_facts", "repeated_facts"):
                    self.connection.execute(statement(step))
                for staged_no, duplicates in self.connection.execute(statement("count_duplicates")).fetchall():
                    entries[staged_no].duplicates += duplicates
                self.connection.execute(statement("yield_first"))
                self.connection.execute(statement("insert_commands"))
        for space, match in {(entry.staged.people_space, entry.match) for entry in taken}:
            self.connection.execute(statement("enter_people_space"), {"people_space": space, "match": match})

    def _join_persons(self, first_file_no: int) -> None:
        """Join the components that this load's aliases touch: the others are not even read."""
        found = self.connection.execute(statement("new_alias_pairs"), {"first_file_no": first_file_no}).fetchall()
        pairs = self._joining(found)
        with self._table("touched", _keys({key for pair in pairs for key in pair})):
            so_far = {
                Key(space, key): Key(space, person)
                for space, key, person in self.connection.execute(statement("touched_links")).fetchall()
            }
        belongs = components((so_far.get(one, one), so_far.get(other, other)) for one, other in pairs)
        persons = set(so_far.values())
        merged = [(key.people_space, key.key, to.key) for key, to in belongs.items() if key in persons and key != to]
        if merged:
            columns = dict(zip(("people_space", "person_id", "merged_into"), zip(*merged, strict=True), strict=True))
            with self._table("merged", pa.table(columns)):
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
            with self._table("links", pa.table(links)):
                self.connection.execute(statement("insert_links"))

    def _take_away(self, file_no: int) -> None:
        """Remove a file's rows, as if it had never been loaded."""
        parameters = {"file_no": file_no}
        self.connection.execute(statement("promote_first"), parameters)
        aliases = self.connection.execute(statement("alias_pairs_of_file"), parameters).fetchall()
        self.connection.execute("DELETE FROM command_rows WHERE file_no = $file_no", parameters)
        self.connection.execute("DELETE FROM failed_line_rows WHERE file_no = $file_no", parameters)
        if not aliases:
            return
        with self._table("touched", _keys({key for pair in self._joining(aliases) for key in pair})):
            found = self.connection.execute(statement("component_members")).fetchall()
        members = {Key(space, key) for space, key in found}
        with self._table("members", _keys(members)):
            self.connection.execute(statement("delete_links"))
            remaining = self.connection.execute(statement("remaining_alias_pairs")).fetchall()
        self._link(components(self._joining(remaining)))

    def _joining(self, aliases: Iterable[tuple[str, str, str]]) -> list[tuple[Key, Key]]:
        """The pairs of (people_space, person_key, alias_key) that join somebody: names that mean nobody do not."""
        return [
            (Key(space, one), Key(space, other))
            for space, one, other in aliases
            if not is_ignored(one, self.ignored_identities) and not is_ignored(other, self.ignored_identities)
        ]

    def _enter(self, load_id: str, run_id: str | None, now: datetime) -> None:
        rows = [entry.row(load_id, run_id, now) for entry in self.entries]
        if not rows:
            return
        self.results |= {row["file_id"]: result_of(row) for row in rows}
        with self._table("entries", pa.Table.from_pylist(rows, schema=_LEDGER)):
            self.connection.execute(statement("enter_file"))

    # --- handing over Arrow ------------------------------------------------------------------------------------------

    def _fetch(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.connection.sql(sql, params=parameters).to_arrow_table().to_pylist()
        return rows

    @contextmanager
    def _table(self, name: str, table: pa.Table) -> Iterator[None]:
        self.connection.register(name, table)
        try:
            yield
        finally:
            self.connection.unregister(name)

    def _staged(self, name: str, paths: Sequence[Path]) -> None:
        """Staged rows under a name. The engine reads the files itself, a piece at a time."""
        files = ", ".join(f"'{quoted}'" for quoted in (str(path).replace("'", "''") for path in paths))
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM read_parquet([{files}])")


def _in_groups(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """Staged files in their order, some at a time."""
    group: list[Path] = []
    size = 0
    for path in paths:
        group.append(path)
        size += path.stat().st_size
        if size >= _BYTES_AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _keys(keys: set[Key]) -> pa.Table:
    ordered = sorted(keys)
    return pa.table(
        {
            "people_space": pa.array([key.people_space for key in ordered], pa.string()),
            "identity_key": pa.array([key.key for key in ordered], pa.string()),
        }
    )


_TEXT, _NUMBER, _TIME = pa.string(), pa.int64(), pa.timestamp("us", "UTC")
_LEDGER = pa.schema(
    [
        ("file_id", _TEXT), ("file_no", _NUMBER), ("source", _TEXT), ("bucket", _TEXT), ("key", _TEXT), ("etag", _TEXT),
        ("version_id", _TEXT), ("last_modified", _TIME), ("sha256", _TEXT), ("size_bytes", _NUMBER), ("format", _TEXT),
        ("people_space", _TEXT), ("state", _TEXT), *((name, _NUMBER) for name in COUNTED), ("warnings", _TEXT),
        ("load_id", _TEXT), ("run_id", _TEXT), ("loaded_at", _TIME), ("attempts", _NUMBER),
        ("next_try_at", _TIME), ("duplicate_of", _TEXT), ("error", _TEXT), ("position", _TEXT),
    ]
)  # fmt: skip
