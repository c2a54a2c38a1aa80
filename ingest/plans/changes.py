"""What a plan reads of a warehouse, and what it gives back: rows as they are, and all that is to change at once.

A plan is pure: it reads through a `Reader`, has no clock and changes nothing that it was given. So it can be run again,
when somebody else was quicker. An engine applies the `Changes` in one transaction.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Literal, Protocol, TypeVar

from ingest.core.lifecycle import FINAL_STATES, STATES, Done, Intent, State, is_settled, may_return
from ingest.core.source import SourceFile
from ingest.errors import TransientError
from ingest.ports import COUNTED, Audit, Counts, FileResult, StagedFile, Staging

Answer = TypeVar("Answer")
Place = tuple[int, str]  # line, item

# --- what is read ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """A row of `ledger`: a field for each of its columns."""

    file_id: str
    file_no: int = 0  # of a new one: the engine numbers it
    source: str
    bucket: str
    key: str
    etag: str
    version_id: str | None
    last_modified: datetime
    sha256: str | None = None
    size_bytes: int
    format: str
    people_space: str
    state: State
    lines: int = 0
    blank: int = 0
    items: int = 0
    records: int = 0
    sets: int = 0
    aliases: int = 0
    failed: int = 0
    repaired: int = 0
    duplicates: int = 0  # of a new one: the engine counts them
    warnings: str | None = None  # JSON: {code: count}
    load_id: str | None = None
    run_id: str | None = None
    loaded_at: datetime | None = None
    attempts: int = 0
    next_try_at: datetime | None = None
    duplicate_of: str | None = None
    replaced_by: str | None = None
    redrive_of: str | None = None
    archived_to: str | None = None
    deleted_at: datetime | None = None
    error: str | None = None
    position: str
    match: str | None = None
    read_bytes: int | None = None

    @property
    def file(self) -> SourceFile:
        """What it is of, under the id that it has here."""
        return SourceFile(
            bucket=self.bucket, key=self.key, etag=self.etag, last_modified=self.last_modified,
            size_bytes=self.size_bytes, version_id=self.version_id, source=self.source, format=self.format,
            known_as=self.file_id,
        )  # fmt: skip

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES

    def is_settled(self, seen: SourceFile, intent: Intent = "new") -> bool:
        """Whether a load with this intent leaves it, as its object is seen now."""
        version_id = self.version_id and seen.version_id  # versions may have been switched off since
        return is_settled(self.state, intent, may_return=may_return(version_id, self.replaced_by))

    def result(self, *, already: bool = False) -> FileResult:
        """As the outcome of its file."""
        return FileResult(
            file_id=self.file_id, bucket=self.bucket, key=self.key, state=self.state,
            counts=Counts(**{name: getattr(self, name) for name in COUNTED}), source=self.source,
            load_id=self.load_id, error=self.error, duplicate_of=self.duplicate_of, already=already,
        )  # fmt: skip


LEDGER_COLUMNS = tuple(column.name for column in fields(LedgerRow))


@dataclass(frozen=True, slots=True)
class MendedLine:
    """A failed line that a redrive has mended."""

    line: int
    item: str
    raw_sha256: str
    redriven_at: datetime
    redriven_by: str

    @property
    def place(self) -> Place:
        return self.line, self.item


class Reader(Protocol):
    """What plans read, all from one moment."""

    def ledger(
        self,
        column: Literal["file_id", "key", "sha256", "redrive_of", "duplicate_of"],
        values: Iterable[str],
        states: Sequence[State] = STATES,
    ) -> list[LedgerRow]:
        """Rows with one of these values in this column, in one of these states, in the order of their `file_no`."""

    def open_lines(self, file_no: int, among: Collection[Place] | None = None) -> int:
        """How many failed lines of a file are open; of these places, if they are given."""

    def mended_lines(self, file_nos: Collection[int]) -> list[MendedLine]:
        """The failed lines of files that redrives have mended, in the order of `file_no`."""

    def notices(self, file_ids: Sequence[str], reason: str) -> list[tuple[str, Done]]:
        """(file_id, `notified` or `not_notified`) of `history` with this reason, in the order of time."""

    def was_polled(self, source: str) -> bool:
        """Whether the first poll of a source is over."""


# --- what is changed -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that this load enters: its row, and which of its staged rows come with it.

    `loaded`: its commands and its failed lines; `rejected`: only these; else neither.
    """

    row: LedgerRow
    staged: StagedFile
    lines_of: int | None = None  # of a redrive: the file_no whose failed lines the staged ones are; None: its own
    kept: tuple[MendedLine, ...] = ()  # its failed lines that are mended already

    @property
    def failed(self) -> int:
        """Failed lines that are staged with it; those of a redrive are its original's."""
        redrive = self.staged.redrive
        return redrive.failed if redrive else self.staged.counts.failed


@dataclass(frozen=True, slots=True)
class Mending:
    """Open failed lines of a file that a redrive mends."""

    file_no: int
    places: Sequence[Place]
    by: str  # file_id of the redrive


@dataclass(frozen=True, slots=True)
class Told:
    """Lines of `history`."""

    action: Done
    file_ids: Sequence[str]
    reason: str | None = None  # None: that of the note


@dataclass(slots=True)
class Changes:
    """All that changes, in one transaction. In this order:

    Failed lines of `entries` come in, `mended` and kept ones are marked, those of `reopened` redrives are open again;
    rows of `leaving` files go; then come the commands of entries, which are first where no other is (a file that is put
    anew is no duplicate of itself); then `ledger`, `history`, and last the persons whom aliases join.
    """

    note: Audit
    now: datetime
    staging: Staging | None = None
    entries: list[Entry] = field(default_factory=list)  # numbered in this order
    mended: list[Mending] = field(default_factory=list)
    reopened: set[str] = field(default_factory=set)  # file_ids of redrives
    leaving: list[int] = field(default_factory=list)  # file_nos
    ledger: dict[str, LedgerRow] = field(default_factory=dict)  # rows that are there, as they are to be, by file_id
    ignored: Sequence[SourceFile] = ()  # files that are entered without being loaded; there may be a million
    polled: str | None = None  # the source whose first poll this is
    history: list[Told] = field(default_factory=list)

    def tell(self, action: Done, file_ids: Iterable[str], reason: str | None = None) -> None:
        if ids := list(file_ids):
            self.history.append(Told(action, ids, reason))

    def ignored_rows(self, begin: int, end: int) -> list[LedgerRow]:
        """Some of `ignored` as rows."""
        names = (
            "file_id", "source", "bucket", "key", "etag", "version_id", "last_modified", "size_bytes", "format",
            "position",
        )  # fmt: skip
        return [
            LedgerRow(
                **{name: getattr(file, name) for name in names},
                people_space=file.format,
                state="ignored",
                loaded_at=self.now,
            )
            for file in self.ignored[begin:end]
        ]

    def history_lines(self) -> list[dict[str, object]]:
        """`history` line by line, as the table has it."""
        note = self.note
        return [
            {
                "file_id": file_id, "action": told.action, "at": self.now, "by": note.by,
                "reason": (note.reason if told.reason is None else told.reason) or None, "run_id": note.run_id,
            }
            for told in self.history for file_id in told.file_ids
        ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Applied:
    """What only the engine could tell of what it applied."""

    duplicates: Mapping[str, int] = field(default_factory=dict)  # of entries: facts that were there already, by file_id


Plan = Callable[[Reader], tuple[Changes, Answer]]


class NotWrittenError(TransientError):
    """The warehouse could not be written; nothing was."""

    def __init__(self, sentence: str, *, reason: str, is_disk: bool, is_for_all: bool, is_of_the_world: bool) -> None:
        super().__init__(sentence)
        self.reason = reason  # what the engine says of it
        self.is_disk = is_disk  # for want of a disk that takes it
        self.is_for_all = is_for_all  # even for the smallest file
        self.is_of_the_world = is_of_the_world  # the engine, its memory or its disk failed; else it refused something


class RowsLostError(Exception):
    """The staged rows of these files are not those that were judged. Nothing was written."""

    def __init__(self, staged_nos: Iterable[int]) -> None:
        super().__init__(staged_nos)
        self.staged_nos = frozenset(staged_nos)


# --- the ledger while a plan is made ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Draft:
    """The ledger as it will be: what the plan has changed, it reads as changed."""

    reader: Reader
    changes: Changes

    def rows(
        self,
        column: Literal["file_id", "redrive_of", "duplicate_of"],
        values: Iterable[str],
        states: Sequence[State] = STATES,
    ) -> list[LedgerRow]:
        """See `Reader.ledger`."""
        values = set(values)
        if not values:
            return []
        found = {row.file_id: row for row in self.reader.ledger(column, values, states)} | self.changes.ledger
        fit = [row for row in found.values() if getattr(row, column) in values and row.state in states]
        return sorted(fit, key=lambda row: row.file_no)

    def by_id(self, file_ids: Sequence[str]) -> dict[str, LedgerRow]:
        """The rows of files, in the order given."""
        found = {row.file_id: row for row in self.rows("file_id", file_ids)}
        return {file_id: found[file_id] for file_id in dict.fromkeys(file_ids) if file_id in found}

    def redrives_of(self, file_ids: Iterable[str]) -> list[LedgerRow]:
        """What mended lines of these files brought and is loaded."""
        return self.rows("redrive_of", file_ids, ("loaded",))

    def mended_lines(self, file_nos: Collection[int]) -> list[MendedLine]:
        """Without those that are open again."""
        found = self.reader.mended_lines(file_nos) if file_nos else []
        return [line for line in found if line.redriven_by not in self.changes.reopened]

    def put(self, rows: Iterable[LedgerRow]) -> None:
        self.changes.ledger |= {row.file_id: row for row in rows}

    def take_away(
        self, rows: Iterable[LedgerRow], state: Literal["undone", "replaced"], by: str | None = None
    ) -> tuple[str, ...]:
        """The rows of files leave, and what they mended is open again, wherever it stands; their file_ids."""
        now = [self.changes.ledger.get(row.file_id, row) for row in rows]
        gone = [replace(row, state=state, replaced_by=by) for row in now]
        ids = tuple(row.file_id for row in gone)
        self.changes.leaving += [row.file_no for row in gone]
        self.changes.reopened.update(row.file_id for row in gone if row.redrive_of)
        self.put(gone)
        self.changes.tell("undo" if state == "undone" else "replace", ids)
        return ids


def same_file(rows: Iterable[LedgerRow], file: SourceFile) -> LedgerRow | None:
    """Of rows in the order of their `file_no` the newest that is of this file, under whatever id."""
    same = [row for row in rows if row.redrive_of is None and row.file.is_same(file)]
    return same[-1] if same else None
