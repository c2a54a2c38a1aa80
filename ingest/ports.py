"""What the steps ask of the world. Adapters answer; the steps know nothing else of S3 or of a warehouse."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from ingest.core.commands import Failure
from ingest.core.lifecycle import Intent, State
from ingest.core.matching import Match
from ingest.core.source import SourceFile


@dataclass(frozen=True, slots=True)
class Audit:
    """Who asks for something, why, and in which run: what `history` tells."""

    by: str
    reason: str = ""
    run_id: str | None = None
    is_named: bool = False  # somebody named these files: then also their first load is told


# The numbers of a file, in the order in which they are told; names of `Counts` and columns of `ledger` alike.
COUNTED = ("lines", "blank", "items", "records", "sets", "aliases", "failed", "repaired", "duplicates")


@dataclass(slots=True)
class Counts:
    """What a file holds, as the ledger tells it."""

    lines: int = 0
    blank: int = 0
    items: int = 0
    records: int = 0
    sets: int = 0
    aliases: int = 0
    failed: int = 0
    repaired: int = 0
    duplicates: int = 0
    warnings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailedLine:
    """One refused item, as `failed_lines` keeps it. Offsets and lengths are bytes of the decompressed file."""

    line: int
    item: str
    byte_offset: int
    byte_length: int  # without the line end; true even where `raw` is cut
    raw: bytes
    raw_sha256: str
    mendable: bool
    failures: tuple[Failure, ...]
    context: bytes | None = None  # what of its document a mended item is judged with


@dataclass(frozen=True, slots=True)
class Redrive:
    """What a redrive mends: (line, item) of failed lines that are still open, of the file called `of`.

    Failed lines that are staged with it are new ones of that file: they were right when it was rejected.
    """

    of: str
    lines: Sequence[tuple[int, str]]
    failed: int = 0  # how many are staged with it
    whole_of: int | None = None  # set: it holds all of a rejected file, of which so many lines are open and none loaded


@dataclass(frozen=True, slots=True)
class StagedFile:
    """One file, judged, its rows waiting in the staging folder under `staged_no`; or why it could not be."""

    file: SourceFile
    staged_no: int  # its number within the staging folder
    counts: Counts
    sha256: str = ""
    read_bytes: int | None = None  # of the object, as the store gave it: more than its size where that unpacks
    people_space: str = "kissmetrics"
    match: Match = "kissmetrics"
    all_timed: bool = True  # no item took the time of its arrival
    skip_same_bytes: bool = True  # a copy of loaded bytes is entered as duplicate
    changed_file: Literal["new_version", "replace", "hold"] = "new_version"
    redrive: Redrive | None = None
    error: str = ""  # set: nothing of it may be loaded
    outcome: State = "loaded"  # what the rules ask for: loaded, rejected, retrying, gone


@dataclass(frozen=True, slots=True)
class StagedRows:
    """A Parquet file of staged rows as it was written: it waits where other programs clean up."""

    path: Path
    stamp: tuple[int, int, int]
    staged_nos: frozenset[int]  # of the files whose rows it holds

    @classmethod
    def written(cls, path: Path, staged_nos: frozenset[int]) -> "StagedRows":
        """Raises OSError: it is not there."""
        stat = path.stat()
        return cls(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns), staged_nos)

    def is_as_written(self) -> bool:
        try:
            return self == StagedRows.written(self.path, self.staged_nos)
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Staging:
    """A folder of judged files. `commands` and `failed` are Parquet files (see ingest.judging for the columns)."""

    folder: Path
    files: Sequence[StagedFile]
    commands: Sequence[Path]
    failed: Sequence[Path]
    written: Sequence[StagedRows] = ()  # how each of them was written

    def checked(self, lost: frozenset[int] = frozenset()) -> "Staging":
        """The same where all rows are as they were written.

        Else a file that has others, or whose `staged_no` is in `lost`, is put off and says why.
        """
        damaged = [one for one in self.written if not one.is_as_written()]
        lost = lost.union(*(one.staged_nos for one in damaged))
        if not lost:
            return self
        reason = (
            f"Rows that were judged from it vanished or changed in the staging folder {self.folder.parent} before they"
            " were loaded. If another program cleans up there, set staging in ingest.toml to a folder of its own."
        )
        gone = {one.path for one in damaged}
        return replace(
            self,
            files=[
                replace(file, outcome="retrying", error=reason, counts=Counts())
                if file.staged_no in lost and file.outcome in ("loaded", "rejected")
                else file
                for file in self.files
            ],
            commands=[path for path in self.commands if path not in gone],
            failed=[path for path in self.failed if path not in gone],
            written=[one for one in self.written if one.path not in gone],
        )


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: the numbers of its ledger row. `already` when an earlier load had dealt with it."""

    file_id: str
    bucket: str
    key: str
    state: State
    counts: Counts
    source: str
    load_id: str | None = None
    error: str | None = None
    duplicate_of: str | None = None
    already: bool = False
    fixed: int = 0  # of its failed lines: those that a redrive of an earlier version, or of its former rows, mends
    replaces: tuple[str, ...] = ()  # file_ids whose rows it took the place of
    copies: tuple[str, ...] = ()  # file_ids of copies of those, which stay unloaded


def as_judged(staged: StagedFile) -> FileResult:
    """A judged file as the outcome that it would have."""
    file, error = staged.file, staged.error or None
    return FileResult(file.file_id, file.bucket, file.key, staged.outcome, staged.counts, file.source, error=error)


def not_entered(staged: StagedFile, error: str) -> FileResult:
    """The result of a file of which the ledger says nothing new, since the world did not answer: it is tried again."""
    return as_judged(replace(staged, outcome="retrying", error=error))


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What an action did to one file; or why it did nothing, and then `state` is what it was."""

    file_id: str
    bucket: str
    key: str
    before: str  # a state, or `pending`
    state: State
    error: str | None = None
    redrives: tuple[str, ...] = ()  # file_ids that went along
    duplicates: tuple[str, ...] = ()  # file_ids of its copies, which stay unloaded
    warning: str | None = None  # what a person should know of it


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the object of a file went: into the archive, or out of the landing (or there is none any more)."""

    file_id: str
    archived_to: str | None = None
    deleted_at: datetime | None = None
    reason: str | None = None  # for `history`; None: that of the note


@dataclass(frozen=True, slots=True)
class ArchivedCopy:
    """An object in an archive, and the source file that it is a copy of, as far as its name and the listing tell."""

    copy: SourceFile
    day: date  # UTC, of the load
    file: SourceFile  # without a version id; `last_modified` is that of the copy
    plain_key: str  # its key, if what looks like a hash in it tells it apart from another copy


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer of `Warehouse.query`, streamed. `json_columns` hold JSON text."""

    json_columns: frozenset[str]
    reader: pa.RecordBatchReader


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """What one statement of somebody else's may take."""

    memory_bytes: int  # of the engine, which then goes to the disk, where the statement lets it
    seconds: float  # until its last row was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesWanted:
    """Which files a page shows: those that all of this holds for."""

    sources: tuple[str, ...]  # those the person may see: of others nothing is ever told
    states: tuple[State, ...] = ()  # empty: all
    since: date | None = None  # UTC days of `dealt_at`, both inclusive
    until: date | None = None
    text: str = ""  # a part of the key, in any case, or the beginning of a file_id
    run_id: str | None = None
    file_ids: tuple[str, ...] | None = None
    sha256: str | None = None
    with_failures: bool = False  # only files with failed lines to fix
    code: str | None = None  # only files with failed lines to fix that break this rule
    folded: bool = False  # a redrive finds its file, and is told with it: in `redrives` of that row, the newest first
    sort: Literal["dealt_at", "key", "source", "state", "lines", "failed", "failed_share", "size_bytes", "attempts"] = (
        "dealt_at"
    )
    descending: bool = True
    page: int = 1
    per_page: int = 50


@dataclass(frozen=True, slots=True)
class FilesPage:
    """A page of ledger rows, and how many files there are on all pages.

    Beside the columns of the ledger a row has `open_failures`; `to_fix`, the same but for files of which no line can be
    fixed any more (ignored, say); and `dealt_at`: `loaded_at`, which is when a file was
    entered in its state; where it has none (retrying) the last attempt; else when the object came.
    """

    total: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Day:
    """What was loaded of a source on a UTC day."""

    day: date
    source: str
    files: int
    lines: int  # accepted ones
    failed: int  # also those of rejected files
    open: int = 0  # of the failed ones, those that are left to fix


@dataclass(frozen=True, slots=True)
class FailurePlace:
    """Where in them failed items break a rule."""

    pointer: str
    message: str  # of the first of them
    lines: int
    open: int


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failed items that break one rule: how many lines, how many of them are open, and the most frequent places."""

    code: str
    lines: int
    open: int
    first_line: int  # of the first file
    places: tuple[FailurePlace, ...]  # most lines first; a line may break a rule at several
    more_places: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresWanted:
    """Which open failed lines are asked for, over all files: those that all of this holds for."""

    source: str | None = None
    since: datetime | None = None  # when their file was entered in the ledger, or later
    code: str | None = None
    limit: int = 50  # lines of `code`


@dataclass(frozen=True, slots=True)
class OpenFailures:
    """Open failed lines over all files, from one moment."""

    # code, open (lines), files; of the newest of these file_id, bucket, key, format. Most lines first.
    by_code: list[dict[str, Any]]
    # If a code is asked for: rows of `failed_lines` with source, bucket, key and format; newest file first, streamed.
    lines: Iterator[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Problem:
    """Open failed items of many files that break one rule."""

    code: str
    open: int
    files: int
    sources: list[str]
    formats: list[str]
    first_seen: datetime  # `dealt_at` of their files
    last_seen: datetime
    most: list[dict[str, Any]]  # the files with most of them: file_id, key, source, open


@dataclass(frozen=True, slots=True)
class Glance:
    """A source in short."""

    source: str
    open: int  # failed lines to fix
    files: int  # that have such lines
    last_file_at: datetime | None  # when its newest file came
    hours: Sequence[int] = ()  # since 1970, in which files came: the last of them, the newest first


# A table of a warehouse as it goes to another engine: its name and rows. UUIDs and enumerations are text, JSON is its
# text as stored, times are in microseconds, UTC.
Table = tuple[str, pa.RecordBatchReader]


class ObjectStore(Protocol):
    """Where source files live: S3, or the local disk (bucket `file`).

    Raises TransientError wherever the store did not answer, or refused.
    """

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        """Every current object under a prefix, in the store's order, folder markers included.

        Raises:
            ConfigError: the bucket does not exist, or may not be listed.
            ListingDoubted: at the end: what it does not show may be there all the same.
        """

    def describe(self, bucket: str, key: str) -> SourceFile:
        """The current version of one object. Raises ObjectGone if there is none."""

    def read(self, file: SourceFile) -> Iterator[bytes]:
        """The bytes of exactly this version, in pieces of a few hundred KB: as many as were listed.

        A store that unpacks on the way gives more. Whatever is raised at the end, pieces given out before are worth
        nothing.

        Raises:
            ObjectGone: deleted, or overwritten in a bucket that keeps no versions; and the listing says so, too.
            TransientError: also where it gave other bytes than it lists, or was too slow.
        """

    def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:
        """Copy exactly this version within its bucket, to the first name that is free or holds these bytes already.

        `sha256` is of the stored bytes. The copy was verified when its name is returned.

        Raises:
            ObjectGone: deleted, or overwritten in a bucket that keeps no versions.
            ConfigError: the name is too long, or each is taken.
            TransientError: also where the copy holds other bytes.
        """

    def remove(self, file: SourceFile, own_prefix: str) -> bool:
        """Take the object out of the landing if it still is this version; False: another stands there, and stays.

        What the store can do is tried once, with a small object of our own below `own_prefix`. Raises ConfigError where
        it could delete another version than this one: then nothing is deleted.
        """

    def write(self, bucket: str, key: str, content: Path) -> None:
        """Put the bytes of a file there, unless they are there already. Raises ConfigError if the key is too long."""

    def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:
        """Put what arrives piece by piece there, whole or not at all: whatever `pieces` raises leaves nothing behind.

        Holds a few pieces of some MB at most, however much arrives. Raises ConfigError if the key is too long.
        """


class ReadModel(Protocol):
    """What pages show, all from one moment.

    `files`, `days` and `states` tell nothing of a source that is not asked for. What is asked for by file_id is told
    whatever its source: whether a person may see it is for the page to ask first.
    """

    @property
    def as_of(self) -> datetime:
        """When the warehouse was as told here, in UTC."""

    def files(self, wanted: FilesWanted) -> FilesPage:
        """One page of files. Of equal ones the newest is first, so that all pages together hold each file once."""

    def days(self, wanted: FilesWanted, last: int = 30) -> list[Day]:
        """Per UTC day of `dealt_at` and source, for the same filter: the `last` days that have any, oldest first."""

    def sources(self) -> set[str]:
        """Every source of which the ledger knows a file: what may be shown of them is for the caller to ask."""

    def states(self, sources: Sequence[str]) -> list[tuple[str, str, int]]:
        """(source, state, files), in order. A redrive counts as its file, as in `files` where they are `folded`."""

    def glances(self, sources: Sequence[str]) -> list[Glance]:
        """Of each of these sources that has files, in order."""

    def problems(self, wanted: FilesWanted, files: int = 5) -> list[Problem]:
        """Open failed items of these files by code, most first; with each code at most so many of its files."""

    def file(self, file_id: str) -> dict[str, Any] | None:
        """The row of exactly this file_id, as `files` gives it."""

    def related(self, file_id: str) -> list[dict[str, Any]]:
        """Rows of other files, as `files` gives them, with `relation`: what they are to this one, newest first.

        redrive · original · duplicate · duplicate_of · replaces · replaced_by · version (of the same key). A file that
        is several of them is told once, as the first. At most 200, each `relation` before the next.
        """

    def history(self, file_id: str) -> list[dict[str, Any]]:
        """What was done to a file, in order."""

    def failure_groups(self, file_ids: Sequence[str], places: int = 20) -> list[FailureGroup]:
        """Failed items by code, most first; exact. One that breaks three rules is in three groups.

        Places are those of items with their texts (or of the first 20,000), and of each item the first ones of a code.
        """

    def failed_lines(
        self,
        file_ids: Sequence[str],
        *,
        code: str | None = None,
        pointer: str | None = None,
        open_only: bool = False,
        first_line: int = 1,
        offset: int = 0,
        limit: int = 20,
    ) -> list[dict[str, Any]]:
        """Rows of `failed_lines` from a line on, `raw` whole, in order of file, line, item.

        Of a file with much text in failed lines only the first ones have it: in the others `raw`, `raw_sha256`,
        `failures` and `context` are None. A `pointer` finds lines with their texts only.
        """

    def open_lines(self, file_id: str) -> Iterator[dict[str, Any]]:
        """Rows of `failed_lines` that are open, can be mended and have texts, in order of line, item, streamed."""

    def open_among(self, file_id: str, places: Collection[tuple[int, str]]) -> dict[tuple[int, str], bool]:
        """Those of these (line, item) that are open, and whether their texts are here."""


class Warehouse(Protocol):
    """The tables of SPEC 4 on one engine. Each method is one short session; none leaves a lock behind."""

    @property
    def name(self) -> str:
        """The URL, password hidden."""

    @property
    def is_there(self) -> bool:
        """Whether anything made it yet. If not, whoever reads finds its tables empty, and only what writes makes it."""

    def unseen(self, listed: Iterable[SourceFile], now: datetime) -> list[SourceFile]:
        """Those of a listing that the ledger has not dealt with, nor has put off until after `now`; recognised."""

    def recognise(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """The same files, each with the id that it has in the ledger: see `SourceFile.is_same`."""

    def first_poll(self, source: str, there: Iterable[SourceFile], now: datetime) -> int:
        """Enter what is there at the first poll of a source as ignored; how many. Later polls do nothing."""

    def was_polled(self, source: str) -> bool:
        """Whether `first_poll` was there already."""

    def known(self, files: Iterable[SourceFile], intent: Intent = "new") -> dict[str, FileResult]:
        """The ledger rows of those of these files that a load with this intent leaves as they are, by file_id."""

    def load(
        self, staging: Staging, load_id: str, run_id: str | None, *, intent: Intent = "new", note: Audit | None = None
    ) -> list[FileResult]:
        """Make the staged files visible in one transaction: rows and ledger together, or nothing.

        A file that is in the ledger already is left as it is (`already`), unless `intent` asks for it. One that cannot
        be written is entered as retrying and does not hold up the others. Files whose state is `gone` are passed over.

        Raises:
            TransientError: the warehouse did not answer, or another program holds it. Nothing was written.
            StaleRedrive: a line that a redrive mends is not open any more, or its file is not what it was. Nothing was
                written.
        """

    def undo(self, file_ids: Sequence[str], note: Audit) -> list[ActionResult]:
        """Take the rows of loaded and rejected files away, and of their redrives, in one transaction."""

    def ignore(self, file_ids: Sequence[str], new: Sequence[SourceFile], note: Audit) -> list[ActionResult]:
        """Deal with files by not loading them: rows of the ledger, and objects that it does not know yet."""

    def retry(self, file_ids: Sequence[str], note: Audit) -> list[ActionResult]:
        """Let files that are put off be taken by the next poll."""

    def close_gone(self, file_ids: Sequence[str], note: Audit) -> None:
        """Make retrying and held files `replaced`: their objects are gone. Where one comes back, it is new again."""

    def mark(self, marks: Sequence[Mark], note: Audit) -> None:
        """Write down where objects went, in one transaction. What the ledger knows already stays as it is."""

    def untidied(
        self,
        source: str,
        bucket: str,
        prefix: str,
        *,
        step: Literal["archive", "copy", "delete"],
        file_ids: Sequence[str] | None = None,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        """Some ledger rows of loaded files and copies whose objects are still in the landing, with `open_failures`.

        Newest first; the next ones with the last `file_no` as `before`, until there are none. `file_ids`: only these.
        To `delete`: those without an open failed line, or with a mended one. To `copy`: those not archived yet.
        """

    def archives(self) -> list[tuple[str, str, str]]:
        """Where archived objects should be: source, bucket, and the folder of a day."""

    def unknown_copies(self, copies: Iterable[ArchivedCopy]) -> Iterator[ArchivedCopy]:
        """Those that no row of the ledger tells of, in order; some are compared at a time, as they are asked for."""

    def ledger(
        self, landings: Path, archives: Path, since: datetime
    ) -> AbstractContextManager[Iterator[dict[str, Any]]]:
        """Of every ledger row what it says of its object, streamed, with `open_failures`, `in_landing`, `in_archive`.

        The two are Parquet files of what was listed from `since` on: what `SourceFile.is_same` compares; and `bucket`,
        `key`, `size_bytes`. What was archived since then counts as `in_archive`.
        """

    def disagreements(self) -> list[dict[str, Any]]:
        """Where the tables do not say what the ledger says: file_id, source, key, what, expected, found.

        `what` is one of the words that `ingest.reconcile` explains; the first three are None where it is of no file.
        """

    def repair(self, note: Audit) -> None:
        """Put right, in one transaction, what of `disagreements` the tables themselves can tell."""

    def upkeep(self) -> list[str]:
        """Keep it quick, where that takes more than the engine does by itself; what was done, in sentences."""

    def rematch(self) -> int:
        """Match the names of all rows as the settings of now say, for all loaders; how many files that changed.

        Where a warehouse has one host it does so by itself, when it is next opened.
        """

    def notify_once(self, file_ids: Sequence[str], note: Audit) -> list[str]:
        """Write down that `note.reason` is told of these files; those of which it was not told before."""

    def not_notified(self, file_ids: Sequence[str], note: Audit) -> None:
        """Take that back: the notice could not be sent."""

    def history(self, file_id: str | None = None, run_id: str | None = None) -> list[dict[str, Any]]:
        """What was done to a file, or in a run, in order."""

    def files(self, where: Mapping[str, object], limit: int | None = None) -> list[dict[str, Any]]:
        """Ledger rows, newest first; `where` holds columns and values, ANDed; of a list any value will do."""

    def find_file(self, reference: str) -> dict[str, Any]:
        """The ledger row of a file_id, a unique prefix of one, or an s3:// URI (its newest). Raises IngestError."""

    def failed_lines(self, file_id: str) -> AbstractContextManager[Iterator[dict[str, Any]]]:
        """The failed lines of one file in order, streamed, each with its `context`."""

    def open_failures(self, wanted: FailuresWanted) -> AbstractContextManager[OpenFailures]:
        """Open failed lines over all files, by code; of one code also the lines."""

    def published(self) -> AbstractContextManager[ReadModel]:
        """What pages show; on an engine that lets only one in, a copy that may be some seconds old.

        Raises TransientError where there is no copy yet, and loads hold the warehouse.
        """

    def query(self, sql: str, limits: QueryLimits | None = None) -> AbstractContextManager[QueryResult]:
        """Run one read-only statement. Raises IngestError for a wrong one, or one that asks for more than it may."""

    @property
    def mode(self) -> int:
        """The rights that files which are made of it may have at most, as `os.chmod` takes them."""

    def snapshot(self) -> AbstractContextManager["Warehouse"]:
        """The warehouse as it is now: whatever is loaded meanwhile, it answers `query` and `tables` from one moment."""

    def save(self, file: Path) -> tuple[int, int]:
        """Put a copy of what is committed now in `file`, all of it or nothing; its bytes, and the files of its ledger.

        Replaces an older copy of this warehouse, and nothing else.

        Raises:
            ConfigError: there is no warehouse, or something else in the place.
            TransientError: it could not be read or written. The place is as it was.
        """

    def tables(self) -> AbstractContextManager[Iterator[Table]]:
        """All that is stored, from one moment. A table is read to its end before the next one is asked for."""

    def fill(self, tables: Iterable[Table]) -> None:
        """Take what `tables` of another warehouse gives: all of it in one transaction, or nothing; batch by batch.

        Raises:
            NotEmpty: this warehouse holds rows. It was left as it is.
            IngestError: it is another program's, or refused what it was given. It was left as it is.
            TransientError: it did not answer. Nothing was written.
        """
