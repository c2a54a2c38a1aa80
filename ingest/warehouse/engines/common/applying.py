"""A plan on an engine with tables: what it reads, and how what it changes is applied, within one transaction.

What of a load is policy is in `ingest.plans`; which of its facts are new is the engine's; here is that what was
inserted is what was judged.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

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
from ingest.warehouse.engines.common.session import Session

_ROWS_AT_ONCE = 10_000  # of the ledger

_TEXT, _NUMBER, _TIME = pa.string(), pa.int64(), pa.timestamp("us", "UTC")
_TIMES, _NUMBERS = ("last_modified", "loaded_at", "next_try_at", "deleted_at"), ("size_bytes", "read_bytes", "attempts")
_LEDGER = pa.schema(
    [
        (name, _TIME if name in _TIMES else _NUMBER if name in ("file_no", *_NUMBERS, *COUNTED) else _TEXT)
        for name in LEDGER_COLUMNS
    ]
)
_HISTORY = pa.schema(
    [("file_id", _TEXT), ("action", _TEXT), ("at", _TIME), ("by", _TEXT), ("reason", _TEXT), ("run_id", _TEXT)]
)
_PLACES = pa.schema([("line", _NUMBER), ("item", _TEXT)])
_MARKED = pa.schema(
    [("file_no", _NUMBER), ("line", _NUMBER), ("item", _TEXT), ("redriven_at", _TIME), ("redriven_by", _TEXT)]
)


@dataclass(frozen=True, slots=True)
class TablesReader:
    """Implements `ingest.plans.changes.Reader`."""

    session: Session

    def ledger(self, column: str, values: Iterable[str], states: Sequence[State] = STATES) -> list[LedgerRow]:
        sql = (
            f"SELECT {', '.join(LEDGER_COLUMNS)} FROM ledger WHERE {column} IN (SELECT value FROM asked)"
            " AND state = ANY($states) ORDER BY file_no"
        )
        asked = pa.array(values, _TEXT)
        if not len(asked):
            return []
        with self.session.table("asked", pa.table({"value": asked})):
            return [LedgerRow(**row) for row in self.session.fetch(sql, states=list(states))]

    def open_lines(self, file_no: int, among: Collection[Place] | None = None) -> int:
        sql = "SELECT count(*) FROM failed_line_rows WHERE file_no = $file_no AND redriven_by IS NULL"
        if among is None:
            return int(self.session.rows(sql, file_no=file_no)[0][0])
        columns = {"line": [line for line, _ in among], "item": [item for _, item in among]}
        with self.session.table("asked", pa.table(columns, _PLACES)):
            only = f"{sql} AND (line, item) IN (SELECT line, item FROM asked)"
            return int(self.session.rows(only, file_no=file_no)[0][0])

    def mended_lines(self, file_nos: Collection[int]) -> list[MendedLine]:
        sql = (
            "SELECT line, item, raw_sha256, redriven_at, redriven_by FROM failed_line_rows"
            " WHERE file_no = ANY($file_nos) AND redriven_by IS NOT NULL ORDER BY file_no"
        )
        return [MendedLine(**row) for row in self.session.fetch(sql, file_nos=list(file_nos))]

    def notices(self, file_ids: Sequence[str], reason: str) -> list[tuple[str, Done]]:
        sql = (
            "SELECT file_id, action FROM history WHERE file_id = ANY($file_ids) AND reason = $reason"
            " AND action IN ('notified', 'not_notified') ORDER BY \"at\""
        )
        found = self.session.rows(sql, file_ids=list(file_ids), reason=reason)
        return [(file_id, action) for file_id, action in found]

    def was_polled(self, source: str) -> bool:
        return bool(self.session.rows("SELECT 1 FROM polled_sources WHERE source = $source", source=source))


@dataclass(slots=True)
class Applying(ABC):
    """The statements of one transaction, in the order of `Changes`."""

    session: Session
    changes: Changes
    entries: list[Entry] = field(default_factory=list)  # numbered
    duplicates: Counter[str] = field(default_factory=Counter)  # by file_id
    inserted: Counter[tuple[int, str]] = field(default_factory=Counter)  # rows by (staged_no, kind or "failed")

    @abstractmethod
    def insert_failed(self, entered: pa.Table) -> None:
        """Insert staged failed lines; `entered` says of which files, and under which number (staged_no, file_no)."""

    @abstractmethod
    def insert_commands(self, taken: Sequence[Entry]) -> None:
        """Insert staged commands of these files, which are in order; each knows whether it is the first of its fact."""

    def run(self) -> Applied:
        """All of it. Raises RowsLostError."""
        self.number()
        self.bring_failed()
        self.mark_mended()
        self.session.take_away(self.changes.leaving)
        self.bring_commands()
        return self.settle()

    @property
    def kept(self) -> list[Entry]:
        """Files whose failed lines are kept."""
        return [entry for entry in self.entries if entry.row.state in KEEPS_LINES]

    @property
    def taken(self) -> list[Entry]:
        """Files whose commands are."""
        return [entry for entry in self.entries if entry.row.state == "loaded"]

    def number(self, numbers: Sequence[int] | None = None) -> None:
        """Number what is to be entered; with these numbers, if rows came in under them already."""
        if numbers is None:
            numbers = self._numbers(len(self.changes.entries))
        self.entries = [
            replace(entry, row=replace(entry.row, file_no=number))
            for entry, number in zip(self.changes.entries, numbers, strict=True)
        ]

    def _numbers(self, many: int) -> list[int]:
        sql = "SELECT nextval('file_numbers') FROM generate_series(1, $many)"
        return [number for (number,) in self.session.rows(sql, many=many)] if many else []

    # --- what comes in -----------------------------------------------------------------------------------------------

    def bring_failed(self) -> None:
        kept = self.kept
        if self.changes.staging and self.changes.staging.failed and any(entry.failed for entry in kept):
            entered = {
                "staged_no": pa.array([entry.staged.staged_no for entry in kept], pa.int32()),
                "file_no": pa.array([entry.lines_of or entry.row.file_no for entry in kept], _NUMBER),
            }
            self.insert_failed(pa.table(entered))

    def bring_commands(self) -> None:
        taken = self.taken
        if taken and self.changes.staging and self.changes.staging.commands:
            self.insert_commands(sorted(taken, key=lambda entry: entry.row.position))

    def count(self, counted: Iterable[tuple[int, str, int]], inserted: int) -> None:
        """Count what was inserted. The engine reads the staged files twice, so it is compared."""
        counted = list(counted)
        if inserted != sum(rows for _, _, rows in counted):
            raise RowsLostError(entry.staged.staged_no for entry in self.entries)
        for staged_no, kind, rows in counted:
            self.inserted[staged_no, kind] += rows

    def count_duplicates(self, counted: Iterable[tuple[int, int]]) -> None:
        """Count facts that were there already, by staged_no."""
        file_ids = {entry.staged.staged_no: entry.row.file_id for entry in self.entries}
        for staged_no, duplicates in counted:
            self.duplicates[file_ids[staged_no]] += duplicates

    def mark_mended(self) -> None:
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
            with self.session.table("marks", pa.table(columns, schema=_MARKED)):
                self.session.run("mark_mended")
        if self.changes.reopened:
            self.session.run("reopen", redrives=list(self.changes.reopened))

    # --- the ledger and what is told ---------------------------------------------------------------------------------

    def settle(self) -> Applied:
        """What was inserted of each file is what was judged of it, else nothing is committed; the ledger, persons."""
        lost = set()
        for entry in self.kept:
            counts = entry.staged.counts
            judged = {"failed": entry.failed}
            if entry.row.state == "loaded":
                judged |= {"record": counts.records, "set": counts.sets, "alias": counts.aliases}
            number = entry.staged.staged_no
            if any(self.inserted[number, kind] != rows for kind, rows in judged.items()):
                lost.add(number)
        if lost:
            raise RowsLostError(lost)
        self._enter()
        taken = self.taken
        for space, match in {(entry.row.people_space, entry.row.match) for entry in taken}:
            self.session.run("enter_people_space", people_space=space, match=match)
        if any(entry.staged.counts.aliases for entry in taken):
            self.session.join_persons([entry.row.file_no for entry in taken])
        return Applied(self.duplicates)

    def _enter(self) -> None:
        changes = self.changes
        entered = [replace(entry.row, duplicates=self.duplicates[entry.row.file_id]) for entry in self.entries]
        self._put([*changes.ledger.values(), *entered])
        for begin in range(0, len(changes.ignored), _ROWS_AT_ONCE):
            rows = changes.ignored_rows(begin, begin + _ROWS_AT_ONCE)
            self._put([replace(row, file_no=no) for row, no in zip(rows, self._numbers(len(rows)), strict=True)])
        if changes.polled:
            self.session.run("enter_polled", source=changes.polled, now=changes.now)
        if changes.history:
            with self.session.table("told", pa.Table.from_pylist(changes.history_lines(), _HISTORY)):
                self.session.run("tell")

    def _put(self, rows: Sequence[LedgerRow]) -> None:
        if not rows:
            return
        columns = [pa.array([getattr(row, of.name) for row in rows], of.type) for of in _LEDGER]
        with self.session.table("entries", pa.table(columns, schema=_LEDGER)):
            self.session.run("enter_file")
