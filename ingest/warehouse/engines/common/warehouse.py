"""What every engine with tables answers in the same way: its statements have the same names, and one order."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ingest.core.address import is_file_id, meant, split_address
from ingest.core.lifecycle import LONGEST_DELAY
from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.plans.changes import Reader
from ingest.ports import ArchivedCopy, FailuresWanted, OpenFailures
from ingest.warehouse.engines.common.applying import TablesReader
from ingest.warehouse.engines.common.reconcile import disagreements
from ingest.warehouse.engines.common.session import Session
from ingest.warehouse.warehouse import Warehouse

_LISTED_AT_ONCE = 25_000
_UNTIDIED_AT_ONCE = 5_000
_MET = pa.schema(
    [
        ("place", pa.int64()), ("bucket", pa.string()), ("key", pa.string()), ("etag", pa.string()),
        ("version_id", pa.string()), ("size_bytes", pa.int64()), ("last_modified", pa.timestamp("us", "UTC")),
    ]
)  # fmt: skip


class TablesWarehouse(Warehouse):
    """The part of `ingest.ports.Warehouse` that asks named statements. What is told of each method stands there."""

    __slots__ = ()

    @abstractmethod
    def session(self) -> AbstractContextManager[Session]:
        """A session that sees what is committed now."""

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        with self.session() as session:
            yield TablesReader(session)

    def unseen(self, listed: Iterable[SourceFile], now: datetime) -> list[SourceFile]:
        listing = iter(listed)
        new: list[SourceFile] = []
        while files := list(islice(listing, _LISTED_AT_ONCE)):  # so that a million objects are never held
            with self.session() as session:
                found = _unseen(session, files, now)
                places = [place for place, is_known in found if not is_known]
                known = recognised(session, {place: files[place] for place in places})
                again = {place for place, _ in _unseen(session, list(known.values()), now)}
            settled = {place for number, place in enumerate(known) if number not in again}
            new += [known.get(place, files[place]) for place, _ in found if place not in settled]
        return new

    def recognise(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        with self.session() as session:
            sql = "SELECT file_id FROM ledger WHERE file_id = ANY($ids)"
            has_row = {file_id for (file_id,) in session.rows(sql, ids=[file.file_id for file in files])}
            met = {place: file for place, file in enumerate(files) if file.file_id not in has_row}
            known = recognised(session, met)
        return [known.get(place, file) for place, file in enumerate(files)]

    def unknown_copies(self, copies: Iterable[ArchivedCopy]) -> Iterator[ArchivedCopy]:
        listing = iter(copies)
        while some := list(islice(listing, _LISTED_AT_ONCE)):
            begin = [datetime.combine(one.day, datetime.min.time(), UTC) for one in some]
            table = pa.table(
                {
                    "place": range(len(some)),
                    "source": [one.file.source for one in some],
                    "bucket": [one.file.bucket for one in some],
                    "archived_to": [one.copy.key for one in some],
                    "key": [one.file.key for one in some],
                    "plain_key": [one.plain_key for one in some],
                    "etag": [one.file.etag for one in some],
                    "size_bytes": [one.file.size_bytes for one in some],
                    "archived_at": [one.copy.last_modified for one in some],
                    "day_from": begin,
                    "day_until": [day + timedelta(days=1) for day in begin],
                }
            )
            with self.session() as session, session.table("copies", table):
                places = session.named("unknown_copies")
            yield from (some[place] for (place,) in places)

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
        parameters = {
            "source": source, "bucket": bucket, "prefix": prefix, "step": step, "before": before,
            "file_ids": None if file_ids is None else list(file_ids), "limit": _UNTIDIED_AT_ONCE,
        }  # fmt: skip
        with self.session() as session:
            return session.fetch(session.statement("untidied"), **parameters)

    def archives(self) -> list[tuple[str, str, str]]:
        with self.session() as session:
            return [(source, bucket, folder) for source, bucket, folder in session.named("archives")]

    @contextmanager
    def ledger(self, landings: Path, archives: Path, since: datetime) -> Iterator[Iterator[dict[str, Any]]]:
        with self.session() as session:
            session.listing("landings", landings)
            session.listing("archives", archives)
            with session.streamed("ledger", since=since) as rows:
                yield rows

    @contextmanager
    def failed_lines(self, file_id: str) -> Iterator[Iterator[dict[str, Any]]]:
        with self.session() as session, session.streamed("failed_lines_of_file", file_id=file_id) as rows:
            yield rows

    @contextmanager
    def open_failures(self, wanted: FailuresWanted) -> Iterator[OpenFailures]:
        where = {"source": wanted.source, "since": wanted.since, "code": wanted.code}
        with self.session() as session:
            groups = session.fetch(session.statement("open_failures_by_code"), **where)
            with session.open_lines(wanted) if wanted.code else nullcontext(iter(())) as lines:
                yield OpenFailures(groups, lines)

    def disagreements(self) -> list[dict[str, Any]]:
        with self.session() as session:
            return disagreements(session)

    def history(self, file_id: str | None = None, run_id: str | None = None) -> list[dict[str, Any]]:
        with self.session() as session:
            sql = 'SELECT * FROM history WHERE file_id = $file_id OR run_id = $run_id ORDER BY "at"'
            return session.fetch(sql, file_id=file_id, run_id=run_id)

    def files(self, where: Mapping[str, object], limit: int | None = None) -> list[dict[str, Any]]:
        conditions = [
            f"{_column(name)} = ANY(${name})" if isinstance(value, list) else f"{_column(name)} = ${name}"
            for name, value in where.items()
        ] or ["TRUE"]
        limited = "" if limit is None else f"LIMIT {int(limit)}"
        sql = f"SELECT * FROM ledger WHERE {' AND '.join(conditions)} ORDER BY file_no DESC {limited}"
        with self.session() as session:
            return session.fetch(sql, **where)

    def find_file(self, reference: str) -> dict[str, Any]:
        if not reference:  # a variable that was not set: each id begins with it
            raise IngestError("A FILE_ID is empty. Give one, the beginning of one, or an s3:// URI.")
        if not is_file_id(reference):
            bucket, key = split_address(reference)
            found = self.files({"bucket": bucket, "key": key}, limit=1)
        else:
            with self.session() as session:
                sql = "SELECT * FROM ledger WHERE starts_with(file_id, $prefix) ORDER BY file_id LIMIT 2"
                found = session.fetch(sql, prefix=reference)
        if not found:
            raise IngestError(
                f"No file {reference} is in the ledger. `ingest files` lists those that are.{meant(reference)}"
            )
        if len(found) > 1:
            raise IngestError(
                f"More than one file begins with {reference}. Give more of its id: `ingest files --json`."
            )
        return found[0]


def _unseen(session: Session, files: Sequence[SourceFile], now: datetime) -> list[tuple[int, bool]]:
    """The places of files that are to be dealt with, and whether the ledger has a row of them."""
    if not files:
        return []
    listed = {
        "place": range(len(files)),
        "file_id": [file.file_id for file in files],
        "version_id": pa.array([file.version_id for file in files], pa.string()),
    }
    with session.table("listed", pa.table(listed)):
        found = session.named("unseen", now=now, latest=now + LONGEST_DELAY)
    return [(place, is_known) for place, is_known in found]


def recognised(session: Session, met: Mapping[int, SourceFile]) -> dict[int, SourceFile]:
    """Those of these files that have a row under another id, with that id; by their places, in order."""
    if not met:
        return {}
    columns = ("bucket", "key", "etag", "version_id", "size_bytes", "last_modified")
    rows = [{"place": place} | {name: getattr(file, name) for name in columns} for place, file in met.items()]
    with session.table("met", pa.Table.from_pylist(rows, _MET)):
        found = dict(session.named("recognise"))
    return {place: replace(file, known_as=found[place]) for place, file in met.items() if place in found}


def _column(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(name)
    return name
