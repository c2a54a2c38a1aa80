"""A plan on DuckDB: what it reads, and how what it changes is applied, within one transaction.

What of a load is policy is in `ingest.warehouse`; here is which of its facts are new, and that what was inserted
is what was judged.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa

from ingest.core.lifecycle import KEEPS_LINES, STATES, Done, State
from ingest.plans.changes import (
    LEDGER_COLUMNS,
    Applied,
    Changes,
    Entry,
    LedgerRow,
    MendedLine,
    Place,
    RowsLostError,
)
from ingest.ports import COUNTED
from ingest.warehouse.engines.duckdb.rows import Rows
from ingest.warehouse.engines.duckdb.statements import statement

_BYTES_AT_ONCE = 160 << 20  # of staged rows: what the engine compares at once must fit its memory
_ROWS_AT_ONCE = 10_000  # of the ledger

_TEXT, _NUMBER, _TIME = pa.string(), pa.int64(), pa.timestamp("us", "UTC")
_TIMES, _NUMBERS = ("last_modified", "loaded_at", "next_try_at", "deleted_at"), ("size_bytes", "read_bytes", "attempts")
_LEDGER = pa.schema(
    [
        (name, _TIME if name in _TIMES else _NUMBER if name in ("file_no", *_NUMBERS, *COUNTED) else _TEXT)
        for name in LEDGER_COLUMNS
    ]
)
_FILE_IDS = pa.schema([("file_id", _TEXT)])
_HISTORY = pa.schema(
    [("file_id", _TEXT), ("action", _TEXT), ("at", _TIME), ("by", _TEXT), ("reason", _TEXT), ("run_id", _TEXT)]
)
_PLACES = pa.schema([("line", _NUMBER), ("item", _TEXT)])
_MARKED = pa.schema(
    [("file_no", _NUMBER), ("line", _NUMBER), ("item", _TEXT), ("redriven_at", _TIME), ("redriven_by", _TEXT)]
)


@dataclass(frozen=True, slots=True)
class DuckDBReader:
    """Implements `ingest.plans.changes.Reader`."""

    rows: Rows

    def ledger(self, column: str, values: Iterable[str], states: Sequence[State] = STATES) -> list[LedgerRow]:
        sql = (
            f"SELECT {', '.join(LEDGER_COLUMNS)} FROM ledger WHERE {column} IN (SELECT file_id FROM asked)"
            " AND list_contains($states, state) ORDER BY file_no"
        )
        asked = pa.table([pa.array(values, _TEXT)], _FILE_IDS)
        with self.rows.table("asked", asked):
            return [LedgerRow(**row) for row in self.rows.fetch(sql, {"states": list(states)})]

    def open_lines(self, file_no: int, among: Collection[Place] | None = None) -> int:
        sql = "SELECT count(*) AS rows FROM failed_line_rows WHERE file_no = $file_no AND redriven_by IS NULL"
        if among is None:
            return int(self.rows.fetch(sql, {"file_no": file_no})[0]["rows"])
        with self.rows.table("asked", _places(among)):
            only = f"{sql} AND (line, item) IN (SELECT (line, item) FROM asked)"
            return int(self.rows.fetch(only, {"file_no": file_no})[0]["rows"])

    def mended_lines(self, file_nos: Collection[int]) -> list[MendedLine]:
        sql = (
            "SELECT line, item, raw_sha256, redriven_at, redriven_by FROM failed_line_rows"
            " WHERE file_no IN (SELECT unnest($file_nos)) AND redriven_by IS NOT NULL ORDER BY file_no"
        )
        return [MendedLine(**row) for row in self.rows.fetch(sql, {"file_nos": list(file_nos)})]

    def notices(self, file_ids: Sequence[str], reason: str) -> list[tuple[str, Done]]:
        sql = (
            "SELECT file_id, action FROM history WHERE list_contains($file_ids, file_id) AND reason = $reason"
            " AND action IN ('notified', 'not_notified') ORDER BY \"at\""
        )
        found = self.rows.fetch(sql, {"file_ids": list(file_ids), "reason": reason})
        return [(row["file_id"], row["action"]) for row in found]

    def was_polled(self, source: str) -> bool:
        sql = "SELECT 1 AS there FROM polled_sources WHERE source = $source"
        return bool(self.rows.fetch(sql, {"source": source}))


def apply(rows: Rows, changes: Changes) -> Applied:
    """Apply what a plan changes. Raises RowsLostError."""
    return _Applying(rows, changes).run()


@dataclass(slots=True)
class _Applying:
    """The statements, in the order of `Changes`."""

    rows: Rows
    changes: Changes
    entries: list[Entry] = field(default_factory=list)  # numbered
    duplicates: Counter[str] = field(default_factory=Counter)  # by file_id
    inserted: Counter[tuple[int, str]] = field(default_factory=Counter)  # rows by (staged_no, kind or "failed")

    def run(self) -> Applied:
        changes = self.changes
        numbers = self._numbers(len(changes.entries))
        self.entries = [
            replace(entry, row=replace(entry.row, file_no=number))
            for entry, number in zip(changes.entries, numbers, strict=True)
        ]
        kept = [entry for entry in self.entries if entry.row.state in KEEPS_LINES]
        taken = [entry for entry in kept if entry.row.state == "loaded"]
        if any(entry.failed for entry in kept):
            self._insert_failed(kept)
        self._mark_mended()
        self.rows.take_away(changes.leaving)
        if changes.staging and changes.staging.commands and taken:
            self._insert_commands(taken)
        self._prove(kept)
        self._enter()
        if any(entry.staged.counts.aliases for entry in taken):
            self.rows.join_persons(min(entry.row.file_no for entry in taken))
        return Applied(self.duplicates)

    def _numbers(self, many: int) -> list[int]:
        if not many:
            return []
        found = self.rows.connection.execute("SELECT nextval('file_numbers') FROM range($many)", {"many": many})
        return [number for (number,) in found.fetchall()]

    # --- failed lines ------------------------------------------------------------------------------------------------

    def _insert_failed(self, kept: Sequence[Entry]) -> None:
        entered = {
            "staged_no": [entry.staged.staged_no for entry in kept],
            "file_no": [entry.lines_of or entry.row.file_no for entry in kept],
        }
        if not self.changes.staging or not self.changes.staging.failed:
            return
        self._staged("staged_failed", self.changes.staging.failed)
        with self.rows.table("entered", pa.table(entered)):
            self._insert("insert_failed", "count_staged_failed")

    def _mark_mended(self) -> None:
        """Which failed lines are mended, and which are open again."""
        now = self.changes.now
        marks = [
            (one.file_no, line, item, now, one.by) for one in self.changes.mended for line, item in one.places
        ] + [
            (entry.row.file_no, line.line, line.item, line.redriven_at, line.redriven_by)
            for entry in self.entries for line in entry.kept
        ]  # fmt: skip
        if marks:
            columns = [pa.array(column, of.type) for column, of in zip(zip(*marks, strict=True), _MARKED, strict=True)]
            with self.rows.table("marks", pa.table(columns, schema=_MARKED)):
                self.rows.connection.execute(statement("mark_mended"))
        if self.changes.reopened:
            self.rows.connection.execute(
                "UPDATE failed_line_rows SET redriven_at = NULL, redriven_by = NULL"
                " WHERE redriven_by IN (SELECT unnest($redrives))",
                {"redrives": list(self.changes.reopened)},
            )

    # --- commands ----------------------------------------------------------------------------------------------------

    def _insert_commands(self, taken: Sequence[Entry]) -> None:
        in_order = sorted(taken, key=lambda entry: entry.row.position)
        table = {
            "place": range(1, 2 * len(in_order), 2),
            "staged_no": [entry.staged.staged_no for entry in in_order],
            "file_no": [entry.row.file_no for entry in in_order],
            "position": [entry.row.position for entry in in_order],
        }
        connection = self.rows.connection
        file_ids = {entry.staged.staged_no: entry.row.file_id for entry in taken}
        assert self.changes.staging
        with self.rows.table("taken", pa.table(table)):
            for some in _in_groups(self.changes.staging.commands):
                self._staged("staged_rows", some)
                for step in ("staged_commands", "staged_facts", "repeated_facts"):
                    connection.execute(statement(step))
                for staged_no, duplicates in connection.execute(statement("count_duplicates")).fetchall():
                    self.duplicates[file_ids[staged_no]] += duplicates
                connection.execute(statement("yield_first"))
                self._insert("insert_commands", "count_staged_commands")
        for space, match in {(entry.row.people_space, entry.row.match) for entry in taken}:
            connection.execute(statement("enter_people_space"), {"people_space": space, "match": match})

    def _insert(self, name: str, count_name: str) -> None:
        """Insert staged rows and count them. The engine reads the staged files twice, so it is compared."""
        counted = self.rows.connection.execute(statement(count_name)).fetchall()
        ((inserted,),) = self.rows.connection.execute(statement(name)).fetchall()
        if inserted != sum(rows for _, _, rows in counted):
            raise RowsLostError(entry.staged.staged_no for entry in self.entries)
        for staged_no, kind, rows in counted:
            self.inserted[staged_no, kind] += rows

    def _prove(self, kept: Sequence[Entry]) -> None:
        """What was inserted of each file is what was judged of it; else nothing is committed."""
        lost = set()
        for entry in kept:
            counts = entry.staged.counts
            judged = {"failed": entry.failed}
            if entry.row.state == "loaded":
                judged |= {"record": counts.records, "set": counts.sets, "alias": counts.aliases}
            number = entry.staged.staged_no
            if any(self.inserted[number, kind] != rows for kind, rows in judged.items()):
                lost.add(number)
        if lost:
            raise RowsLostError(lost)

    def _staged(self, name: str, paths: Sequence[Path]) -> None:
        """Staged rows under a name. The engine reads the files itself, a piece at a time."""
        files = ", ".join(f"'{quoted}'" for quoted in (str(path).replace("'", "''") for path in paths))
        self.rows.connection.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM read_parquet([{files}])")

    # --- the ledger and what is told ---------------------------------------------------------------------------------

    def _enter(self) -> None:
        changes, connection = self.changes, self.rows.connection
        entered = [replace(entry.row, duplicates=self.duplicates[entry.row.file_id]) for entry in self.entries]
        self._put([*changes.ledger.values(), *entered])
        for begin in range(0, len(changes.ignored), _ROWS_AT_ONCE):
            rows = changes.ignored_rows(begin, begin + _ROWS_AT_ONCE)
            self._put([replace(row, file_no=no) for row, no in zip(rows, self._numbers(len(rows)), strict=True)])
        if changes.polled:
            parameters = {"source": changes.polled, "now": changes.now}
            connection.execute("INSERT INTO polled_sources VALUES ($source, $now)", parameters)
        if changes.history:
            with self.rows.table("told", pa.Table.from_pylist(changes.history_lines(), _HISTORY)):
                connection.execute("INSERT INTO history BY NAME SELECT * FROM told")

    def _put(self, rows: Sequence[LedgerRow]) -> None:
        if not rows:
            return
        columns = [pa.array([getattr(row, of.name) for row in rows], of.type) for of in _LEDGER]
        with self.rows.table("entries", pa.table(columns, schema=_LEDGER)):
            self.rows.connection.execute(statement("enter_file"))


def _places(places: Collection[Place]) -> pa.Table:
    columns = {"line": [line for line, _ in places], "item": [item for _, item in places]}
    return pa.table(columns, _PLACES)


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
