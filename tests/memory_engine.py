"""The smallest engine: dictionaries. What loads and actions mean is tried on it without a database.

It runs each plan twice and holds the two against each other; and again, if somebody else commits in the meantime. Facts
are told apart by their `command_id`, persons are found again at each look.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pyarrow import parquet

from ingest.core.components import Key, components
from ingest.core.lifecycle import KEEPS_LINES, STATES, Done, State, is_due
from ingest.core.matching import IGNORED_IDENTITIES, is_ignored
from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.plans.changes import (
    LEDGER_COLUMNS,
    Answer,
    Applied,
    Changes,
    Entry,
    LedgerRow,
    MendedLine,
    Place,
    Plan,
    RowsLostError,
    same_file,
)
from ingest.warehouse.warehouse import Warehouse

Dicts = list[dict[str, Any]]
_NAMED = ("person", "event", "alias")


@dataclass
class Tables:
    """What is committed. Nothing in it is ever changed: a transaction puts others in its place."""

    ledger: Mapping[str, LedgerRow] = field(default_factory=dict)  # by file_id
    commands: Mapping[int, Dicts] = field(default_factory=dict)  # by file_no
    failed: Mapping[int, Mapping[Place, dict[str, Any]]] = field(default_factory=dict)
    history: Dicts = field(default_factory=list)
    polled: Mapping[str, datetime] = field(default_factory=dict)
    last_no: int = 0


@dataclass
class MemoryReader:
    """Implements `ingest.plans.changes.Reader`."""

    tables: Tables
    step: Any

    def ledger(self, column: str, values: Iterable[str], states: Sequence[State] = STATES) -> list[LedgerRow]:
        self.step(f"ledger {column}")
        asked = set(values)
        found = [row for row in self.tables.ledger.values() if getattr(row, column) in asked and row.state in states]
        return sorted(found, key=lambda row: row.file_no)

    def open_lines(self, file_no: int, among: Collection[Place] | None = None) -> int:
        self.step("open_lines")
        lines = self.tables.failed.get(file_no, {})
        return sum(lines[place]["redriven_by"] is None for place in (lines if among is None else lines.keys() & among))

    def mended_lines(self, file_nos: Collection[int]) -> list[MendedLine]:
        self.step("mended_lines")
        names = ("line", "item", "raw_sha256", "redriven_at", "redriven_by")
        return [
            MendedLine(**{name: row[name] for name in names})
            for file_no in sorted(set(file_nos)) for row in self.tables.failed.get(file_no, {}).values()
            if row["redriven_by"]
        ]  # fmt: skip

    def notices(self, file_ids: Sequence[str], reason: str) -> list[tuple[str, Done]]:
        self.step("notices")
        return [
            (line["file_id"], line["action"]) for line in self.tables.history
            if line["file_id"] in file_ids and line["reason"] == reason and line["action"].endswith("notified")
        ]  # fmt: skip

    def was_polled(self, source: str) -> bool:
        self.step("was_polled")
        return source in self.tables.polled


class MemoryWarehouse(Warehouse):
    """As much of `ingest.ports.Warehouse` as loads, actions and redrives ask for."""

    is_there = True

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = tables or Tables()
        self.steps: list[str] = []
        self.fail_at, self.error = 0, BaseException()

    @property
    def name(self) -> str:
        return "memory:"

    def step(self, name: str) -> None:
        """Something that may fail."""
        self.steps.append(name)
        if len(self.steps) == self.fail_at:
            raise self.error

    def transact(self, plan: Plan[Answer]) -> tuple[Answer, Applied]:
        before = None
        while before is not self.tables:
            before = self.tables
            reader = MemoryReader(before, self.step)
            (lost, answered), (changes, answer) = plan(reader), plan(reader)
            assert _told(lost, answered) == _told(changes, answer), "planned twice, it is another plan"
            tables, applied = _applied(before, changes, self.step)
            self.step("before the commit")
        self.tables = tables
        self.step("after the commit")
        return answer, applied

    @contextmanager
    def reader(self) -> Iterator[MemoryReader]:
        yield MemoryReader(self.tables, self.step)

    # --- what else is asked ------------------------------------------------------------------------------------------

    def recognise(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        rows = sorted(self.tables.ledger.values(), key=lambda row: row.file_no)
        same = {file: None if file.file_id in self.tables.ledger else same_file(rows, file) for file in files}
        return [replace(file, known_as=row.file_id) if (row := same[file]) else file for file in files]

    def unseen(self, listed: Iterable[SourceFile], now: datetime) -> list[SourceFile]:
        return [file for file in self.recognise([*listed]) if self._is_pending(file, now)]

    def _is_pending(self, file: SourceFile, now: datetime) -> bool:
        row = self.tables.ledger.get(file.file_id)
        if row is None or row.state == "retrying":
            return row is None or is_due(row.next_try_at or now, now)
        return not row.is_settled(file)

    def files(self, where: Mapping[str, object], limit: int | None = None) -> Dicts:
        found = sorted(self.tables.ledger.values(), key=lambda row: -row.file_no)
        fit = [
            _as_dict(row) for row in found
            if all(
                getattr(row, name) in value if isinstance(value, list) else getattr(row, name) == value
                for name, value in where.items()
            )
        ]  # fmt: skip
        return fit[:limit]

    def find_file(self, reference: str) -> dict[str, Any]:
        found = [row for row in self.tables.ledger.values() if reference in (row.file_id, row.file.uri)]
        if not found:
            raise IngestError(f"No file {reference} is in the ledger.")
        return _as_dict(max(found, key=lambda row: row.file_no))

    @contextmanager
    def failed_lines(self, file_id: str) -> Iterator[Iterator[dict[str, Any]]]:
        yield iter(sorted(self._failed(self.tables.ledger[file_id]), key=lambda row: (row["line"], row["item"])))

    def _failed(self, row: LedgerRow) -> Dicts:
        return [line | {"file_id": row.file_id} for line in self.tables.failed.get(row.file_no, {}).values()]

    def rows(self, table: str) -> Dicts:
        """What is seen of a table or view."""
        files = sorted(self.tables.ledger.values(), key=lambda row: row.position)
        match table:
            case "ledger":
                return [_as_dict(row) for row in files]
            case "history":
                return self.tables.history
            case "failed_lines":
                return [line for row in files for line in self._failed(row)]
            case "commands":
                return [
                    _in_full(line, row)
                    for row in files
                    for line in sorted(
                        self.tables.commands.get(row.file_no, ()), key=lambda one: (one["line"], one["item_no"])
                    )
                ]
        commands = self.rows("commands")
        person_of = self._persons(commands)
        if table == "events":
            first: dict[object, dict[str, Any]] = {}
            for row in commands:
                first.setdefault(row["command_id"], row)
            return [
                row | {"person_id": person_of[row["people_space"], row["person_key"]]}
                for row in first.values() if row["kind"] == "record"
            ]  # fmt: skip
        named = [(row["people_space"], row["person"], row["person_key"]) for row in commands]
        named += [(row["people_space"], row["alias"], row["alias_key"]) for row in commands if row["kind"] == "alias"]
        return [
            {"people_space": space, "identity": name, "identity_key": key, "person_id": person_of[space, key]}
            for space, name, key in named
        ]

    def _persons(self, commands: Dicts) -> dict[tuple[str, str], str]:
        pairs = [
            (Key(row["people_space"], row["person_key"]), Key(row["people_space"], row["alias_key"]))
            for row in commands if row["kind"] == "alias"
        ]  # fmt: skip
        alone = {Key(row["people_space"], row["person_key"]) for row in commands} | {
            key for pair in pairs for key in pair
        }
        joined = components(pair for pair in pairs if not any(is_ignored(key.key, IGNORED_IDENTITIES) for key in pair))
        return {(key.people_space, key.key): joined.get(key, key).key for key in alone}


def _as_dict(row: LedgerRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in LEDGER_COLUMNS}


def _in_full(line: dict[str, Any], file: LedgerRow) -> dict[str, Any]:
    """A staged command with what most rows would repeat."""
    keys = {f"{name}_key": line[name] if line[f"{name}_key"] is None else line[f"{name}_key"] for name in _NAMED}
    return line | keys | {"file_id": file.file_id, "people_space": line["people_space"] or file.people_space}


def _told(changes: Changes, answer: object) -> object:
    """All of a plan that does not tell the time."""
    states = {file_id: (row.state, row.redrive_of, row.failed) for file_id, row in changes.ledger.items()}
    entries = [(entry.row.file_id, entry.row.state, entry.kept, entry.lines_of) for entry in changes.entries]
    rest = (changes.mended, changes.reopened, changes.leaving, changes.ignored, changes.polled, changes.history)
    return answer, states, entries, rest


def _applied(before: Tables, changes: Changes, step: Any) -> tuple[Tables, Applied]:
    """In the order of `Changes`."""
    rows = [replace(entry.row, file_no=before.last_no + n) for n, entry in enumerate(changes.entries, 1)]
    entries = list(zip(rows, changes.entries, strict=True))
    commands = dict(before.commands)
    failed = _failed(before, changes, entries, step)
    step("rows that leave")
    for file_no in changes.leaving:
        commands.pop(file_no, None)
        failed.pop(file_no, None)
    step("commands")
    duplicates: dict[str, int] = {}
    facts = {command["command_id"] for of in commands.values() for command in of}
    for row, entry in sorted(entries, key=lambda one: one[0].position):
        if row.state == "loaded":
            ours = _staged(changes, entry, "commands")
            counts = entry.staged.counts
            _prove(entry, "commands", len(ours), counts.records + counts.sets + counts.aliases)
            commands[row.file_no] = ours
            duplicates[row.file_id] = 0
            for command in sorted(ours, key=lambda one: (one["line"], one["item_no"])):
                duplicates[row.file_id] += command["command_id"] in facts
                facts.add(command["command_id"])
    step("ledger")
    ignored = changes.ignored_rows(0, len(changes.ignored))
    ignored = [replace(row, file_no=before.last_no + len(rows) + n) for n, row in enumerate(ignored, 1)]
    entered = [replace(row, duplicates=duplicates.get(row.file_id, 0)) for row in rows]
    assert changes.ledger.keys().isdisjoint(row.file_id for row in entered), "a row is entered and changed"
    ledger = {**before.ledger, **changes.ledger, **{row.file_id: row for row in (*entered, *ignored)}}
    assert len({row.file_no for row in ledger.values()}) == len(ledger)
    assert {*commands} | {*failed} <= {row.file_no for row in ledger.values()}, "rows of no file"
    polled = {**before.polled, **({changes.polled: changes.now} if changes.polled else {})}
    history = [*before.history, *changes.history_lines()]
    last_no = before.last_no + len(rows) + len(ignored)
    return Tables(ledger, commands, failed, history, polled, last_no), Applied(duplicates)


def _failed(
    before: Tables, changes: Changes, entries: list[tuple[LedgerRow, Entry]], step: Any
) -> dict[int, dict[Place, dict[str, Any]]]:
    """The failed lines before any leaves."""
    failed = {file_no: {place: dict(line) for place, line in of.items()} for file_no, of in before.failed.items()}

    def mark(file_no: int, place: Place, by: str, at: datetime) -> None:
        failed[file_no][place] |= {"redriven_by": by, "redriven_at": at}

    step("failed lines")
    for row, entry in entries:
        if row.state in KEEPS_LINES:
            lines = _staged(changes, entry, "failed")
            _prove(entry, "failed", len(lines), entry.failed)
            failed.setdefault(entry.lines_of or row.file_no, {}).update(
                {(line["line"], line["item"]): line | {"redriven_by": None, "redriven_at": None} for line in lines}
            )
    step("fixed lines")
    for mending in changes.mended:
        for place in mending.places:
            mark(mending.file_no, place, mending.by, changes.now)
    for row, entry in entries:
        for kept in entry.kept:
            mark(row.file_no, kept.place, kept.redriven_by, kept.redriven_at)
    for file_no, of in failed.items():
        for place, line in of.items():
            if line["redriven_by"] in changes.reopened:
                failed[file_no][place] = line | {"redriven_by": None, "redriven_at": None}
    return failed


def _staged(changes: Changes, entry: Entry, kind: str) -> Dicts:
    """The staged rows of an entry."""
    assert changes.staging
    paths = changes.staging.commands if kind == "commands" else changes.staging.failed
    return [row for path in paths for row in rows_of(path, entry.staged.staged_no)]


def rows_of(path: Path, staged_no: int) -> Dicts:
    with parquet.ParquetFile(path) as file:  # threads would take longer to start
        return [row for row in file.read(use_threads=False).to_pylist() if row["staged_no"] == staged_no]


def _prove(entry: Entry, what: str, found: int, judged: int) -> None:
    if found != judged:
        raise RowsLostError([entry.staged.staged_no])
