"""What the steps ask of the world. Adapters answer; the steps know nothing else of S3 or of a warehouse."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from ingest.core.commands import Failure
from ingest.core.identity import Match
from ingest.core.source import SourceFile

State = Literal[
    "loaded", "rejected", "held", "duplicate", "undone", "replaced", "ignored",  # final for a poll
    "retrying", "gone",  # `gone` is never in the ledger: the object vanished between listing and reading
]  # fmt: skip
FINAL_STATES: tuple[State, ...] = ("loaded", "rejected", "held", "duplicate", "undone", "replaced", "ignored")


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


@dataclass(slots=True)
class StagedFile:
    """One file, judged, its rows waiting in the staging folder under `staged_no`; or why it could not be."""

    file: SourceFile
    staged_no: int  # its number within the staging folder
    counts: Counts
    sha256: str = ""
    people_space: str = "kissmetrics"
    match: Match = "kissmetrics"
    all_timed: bool = True  # no item took the time of its arrival
    skip_same_bytes: bool = True  # a copy of loaded bytes is entered as duplicate
    error: str = ""  # set: nothing of it may be loaded
    outcome: State = "loaded"  # what the rules ask for: loaded, rejected, retrying, gone


@dataclass(frozen=True, slots=True)
class Staging:
    """A folder of judged files. `commands` and `failed` are Parquet files (see ingest.staging for the columns)."""

    folder: Path
    files: Sequence[StagedFile]
    commands: Sequence[Path]
    failed: Sequence[Path]


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


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer of `Warehouse.query`, streamed. `json_columns` hold JSON text."""

    json_columns: frozenset[str]
    reader: pa.RecordBatchReader


class ObjectStore(Protocol):
    """Where source files live: S3, or the local disk (bucket `file`)."""

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        """Every current object under a prefix, in the store's order, folder markers included.

        Raises:
            ConfigError: the bucket does not exist, or may not be listed.
            TransientError: the store did not answer.
        """

    def describe(self, bucket: str, key: str) -> SourceFile:
        """The current version of one object. Raises ObjectGone if there is none."""

    def read(self, file: SourceFile) -> Iterator[bytes]:
        """The bytes of exactly this version, in pieces of a few hundred KB.

        Raises:
            ObjectGone: deleted, or overwritten in a bucket that keeps no versions.
            TransientError: the store did not answer, refused, or the object is archived.
        """

    def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:
        """Copy exactly this version within its bucket, to the first name that is free or holds these bytes already.

        `sha256` is of the stored bytes. The copy was verified when its name is returned.

        Raises:
            ObjectGone: deleted, or overwritten in a bucket that keeps no versions.
            ConfigError: the name is too long, or each is taken.
            TransientError: the store did not answer, refused, or the copy holds other bytes.
        """

    def remove(self, file: SourceFile, own_prefix: str) -> bool:
        """Take the object out of the landing if it still is this version; False: another stands there, and stays.

        What the store can do is tried once, with a small object of our own below `own_prefix`.

        Raises:
            ConfigError: the store could delete another version than this one, so nothing is deleted.
            TransientError: the store did not answer, or refused.
        """

    def write(self, bucket: str, key: str, content: Path) -> None:
        """Put the bytes of a file there, unless they are there already.

        Raises:
            ConfigError: the key is too long.
            TransientError: the store did not answer, or refused.
        """


class Warehouse(Protocol):
    """The tables of SPEC 4 on one engine. Each method is one short session; none leaves a lock behind."""

    @property
    def name(self) -> str:
        """The URL, password hidden."""

    def unseen(self, listed: Iterable[SourceFile], now: datetime) -> list[SourceFile]:
        """Those of a listing that the ledger has not dealt with, nor has put off until after `now`."""

    def known(self, file_ids: Sequence[str]) -> dict[str, FileResult]:
        """The ledger rows of these files that are in a final state, by file_id."""

    def load(self, staging: Staging, load_id: str, run_id: str | None, *, force: bool = False) -> list[FileResult]:
        """Make the staged files visible in one transaction: rows and ledger together, or nothing.

        A file that is in the ledger already is left as it is (`already`). One that cannot be written is entered as
        retrying and does not hold up the others. Files whose state is `gone` are passed over.

        Raises:
            TransientError: the warehouse did not answer, or another program holds it. Nothing was written.
        """

    def files(self, where: Mapping[str, object], limit: int | None = None) -> list[dict[str, Any]]:
        """Ledger rows, newest first; `where` holds columns and values, ANDed."""

    def find_file(self, reference: str) -> dict[str, Any]:
        """The ledger row of a file_id, a unique prefix of one, or an s3:// URI (its newest row).

        Raises:
            IngestError: none, or several.
        """

    def failed_lines(self, file_id: str) -> AbstractContextManager[Iterator[dict[str, Any]]]:
        """The failed lines of one file in order, streamed."""

    def query(self, sql: str) -> AbstractContextManager[QueryResult]:
        """Run one read-only statement. Raises IngestError for a wrong one."""
