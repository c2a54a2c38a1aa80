"""Do the landing, the archive, the ledger and the tables agree? Every difference is named and explained.

In:      listings, one pass over the ledger, and what the warehouse finds when it counts its own rows.
Out:     differences, which somebody should look at; and information, which is good to know and nobody has to fix.
Decides: what is which, and the sentence for each. Nothing is written unless repair is asked for, and then only what the
         ledger itself can show: rows that should have left, flags, links of persons, archive steps that are still due;
         and files that only the archive has are loaded again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ingest.archiving import archive, is_proven
from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.discovery import Selection, takes
from ingest.errors import IngestError, ObjectGone
from ingest.pipeline import Pipeline
from ingest.ports import Audit
from ingest.settings import Source
from ingest.staging import staging_folder
from ingest.unarchiving import archives, bring_back, copies_of
from ingest.unforeseen import said

STUCK_AFTER: Final = timedelta(hours=2)
TIDY_AFTER: Final = timedelta(days=1)
_NAMED_AT_MOST = 5  # of objects that are told together
_ASKED_AT_MOST = 1_000  # archived objects that no listing showed, each looked for by itself
_NOTED_AT_ONCE = 10_000
_IN_LANDING = pa.schema(
    [
        ("bucket", pa.string()), ("key", pa.string()), ("etag", pa.string()), ("version_id", pa.string()),
        ("size_bytes", pa.int64()), ("last_modified", pa.timestamp("us", "UTC")),
    ]
)  # fmt: skip
_IN_ARCHIVE = pa.schema([("bucket", pa.string()), ("key", pa.string()), ("size_bytes", pa.int64())])

# What the warehouse may find when it counts its own rows, with the numbers or states that differ.
_TABLES: Final[Mapping[str, str]] = {
    "records": "The ledger says {expected} records, the table has {found}. Load the file with --force.",
    "sets": "The ledger says {expected} sets, the table has {found}. Load the file with --force.",
    "aliases": "The ledger says {expected} aliases, the table has {found}. Load the file with --force.",
    "failed_lines": "The ledger says {expected} failed lines, the table has {found}. Load the file with --force.",
    "leftover_rows": "{found} of its rows are still there, though it is not loaded. `ingest reconcile --repair`.",
    "rows_without_file": "{found} rows belong to no file of the ledger, and no view shows them. Somebody changed the"
    " ledger by hand: restore a backup, or delete the rows.",
    "redriven_by": "{found} of its failed lines count as fixed by a file that is not loaded. `ingest reconcile"
    " --repair` opens them again.",
    "first_rows": "{found} facts have no first row, several, or the wrong one, so `events` miscounts them. `ingest"
    " reconcile --repair`.",
    "person_links": "{found} identities are not joined as the aliases say. `ingest reconcile --repair`.",
    "duplicate_of": "Its bytes are nowhere loaded any more: the file whose copy it is ({expected}) is {found}. Load it"
    " with --force if it is wanted.",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as it should be, or that is good to know."""

    source: str  # empty: of no source alone
    what: str
    key: str  # an object, or empty
    explanation: str
    file_id: str | None = None

    @property
    def sentence(self) -> str:
        return f"{' '.join(filter(None, (self.source, self.key))) or 'warehouse'}: {self.what}. {self.explanation}"


@dataclass(slots=True)
class Reconciliation:
    compared: dict[str, int] = field(default_factory=dict)  # source → objects that a rule takes
    ignored: dict[str, int] = field(default_factory=dict)  # source → objects that no rule takes
    differences: list[Difference] = field(default_factory=list)
    information: list[Difference] = field(default_factory=list)
    repaired: list[Difference] = field(default_factory=list)


def reconcile(pipeline: Pipeline, *, repair: Audit | None = None) -> Reconciliation:
    """Compare everything; with the `repair` of somebody, fix what is safe and say what that was.

    Raises:
        TransientError: the warehouse did not answer. A store that does not is a difference.
    """
    done = [Difference("", "upkeep", "", sentence) for sentence in pipeline.warehouse.upkeep()]
    found = _Comparison(pipeline).run()
    found.information += done
    if repair is None or not found.differences:
        return found
    pipeline.warehouse.repair(repair)
    if any(one.what == "archive_unknown" for one in found.differences):
        bring_back(pipeline, repair)
    for source in pipeline.settings.sources.values():
        if source.after_load != "keep":
            archive(pipeline, source.name, repair)
    after = _Comparison(pipeline).run()
    after.information += done
    left = {(one.what, one.source, one.key, one.file_id) for one in after.differences}
    after.repaired = [one for one in found.differences if (one.what, one.source, one.key, one.file_id) not in left]
    return after


@dataclass(slots=True)
class _Many:
    kept: int
    number: int = 0
    first: list[Any] = field(default_factory=list)

    def add(self, one: object) -> None:
        self.number += 1
        if len(self.first) < self.kept:
            self.first.append(one)


_Noted = Callable[[Iterable[SourceFile]], Iterator[SourceFile]]


@contextmanager
def _noting(path: Path, schema: pa.Schema) -> Iterator[_Noted]:
    """The same listings, written to a Parquet file as they pass: one may be longer than fits into memory."""
    rows: list[dict[str, Any]] = []

    def noted(listed: Iterable[SourceFile]) -> Iterator[SourceFile]:
        for file in listed:
            rows.append({name: getattr(file, name) for name in schema.names})
            if len(rows) >= _NOTED_AT_ONCE:
                write()
            yield file

    def write() -> None:
        writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
        rows.clear()

    with pq.ParquetWriter(path, schema) as writer:
        yield noted
        write()


@dataclass(slots=True)
class _Comparison:
    pipeline: Pipeline
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcome: Reconciliation = field(default_factory=Reconciliation)
    pending: dict[str, list[SourceFile]] = field(default_factory=dict)  # by source, of those that could be listed
    newest: dict[str, tuple[datetime, str, str]] = field(default_factory=dict)  # source → arrival, key, file_id
    retrying: set[str] = field(default_factory=set)
    unlisted: dict[tuple[str, str], _Many] = field(default_factory=lambda: defaultdict(lambda: _Many(_ASKED_AT_MOST)))
    unknown: dict[str, _Many] = field(default_factory=lambda: defaultdict(lambda: _Many(_ASKED_AT_MOST)))  # by source
    grouped: dict[tuple[str, str], _Many] = field(default_factory=lambda: defaultdict(lambda: _Many(_NAMED_AT_MOST)))

    def run(self) -> Reconciliation:
        with staging_folder(self.pipeline.settings.staging_folder) as folder:
            # Listings first: what is loaded or tidied meanwhile then cannot look as if it were lost.
            landings, archives = folder / "landings", folder / "archives"
            with _noting(landings, _IN_LANDING) as noted:
                for source in self.pipeline.settings.sources.values():
                    try:
                        self._list(source, noted)
                    except Exception as error:  # noqa: BLE001 - the others are compared all the same
                        self._failed(source.name, error)
            with _noting(archives, _IN_ARCHIVE) as noted:
                self._list_archives(noted)
            with self.pipeline.warehouse.ledger(landings, archives, self.now) as rows:
                for row in rows:
                    self._judge(row)
        self._waiting()
        self._overdue()
        for (name, bucket), unlisted in self.unlisted.items():
            try:
                self._archive(name, bucket, unlisted)
            except Exception as error:  # noqa: BLE001 - as above
                self._failed(name, error)
        self._unknown()
        self._tables()
        self._groups()
        return self.outcome

    # --- the landing -------------------------------------------------------------------------------------------------

    def _list(self, source: Source, noted: _Noted) -> None:
        selection = Selection(source, self.pipeline.settings.own_prefixes(source.bucket))

        def newest(taken: Iterable[SourceFile]) -> Iterator[SourceFile]:
            for file in taken:
                self._came(source.name, file.last_modified, file.key, file.file_id)
                yield file

        listed = self.pipeline.store_of(source.name).list(source.bucket, source.prefix)
        self.pending[source.name] = self.pipeline.warehouse.unseen(newest(selection.sift(noted(listed))), self.now)
        self.outcome.compared[source.name], self.outcome.ignored[source.name] = selection.taken, selection.ignored
        if selection.ignored:
            such = _several(selection.ignored, selection.ignored_names)
            why = f"{such} is taken by no rule. See `pattern` in ingest.toml, if it should be."
            self._informs(source.name, "no_rule", "", why)

    def _came(self, source: str, at: datetime, key: str, file_id: str) -> None:
        self.newest[source] = max(self.newest.get(source, (at, key, file_id)), (at, key, file_id))

    def _waiting(self) -> None:
        for name, pending in self.pending.items():
            for file in pending:
                if self.now - file.last_modified > STUCK_AFTER and file.file_id not in self.retrying:
                    why = f"Waiting since {_at(file.last_modified)}. Is the DAG of its source paused?"
                    self._differs(name, "pending", file.key, why, file.file_id)

    def _overdue(self) -> None:
        for name in self.pending:
            every = self.pipeline.settings.sources[name].expect_every
            if every is None:
                continue
            expected = f"one is expected every {_lasting(every)}"
            if name not in self.newest:
                self._differs(name, "overdue", "", f"No file has come yet; {expected}. Are bucket and prefix right?")
                continue
            at, key, file_id = self.newest[name]
            if self.now - at > every:
                why = f"No file has come since {_at(at)}; {expected}. Does its producer still send?"
                self._differs(name, "overdue", key, why, file_id)

    # --- the ledger --------------------------------------------------------------------------------------------------

    def _judge(self, row: dict[str, Any]) -> None:
        name, state = row["source"], row["state"]
        if row["archived_to"] and not row["in_archive"]:
            self.unlisted[name, row["bucket"]].add(row)
        if row["redrive_of"]:  # it never was an object
            return
        at = row["last_modified"]
        if row["bucket"] == LOCAL_BUCKET and row["loaded_at"]:  # a file that was moved there keeps its old time
            at = max(at, row["loaded_at"])
        self._came(name, at, row["key"], row["file_id"])

        gone = self._gone(row)
        lost = " Its object is no longer in the landing." if gone else ""
        if state == "retrying":
            self.retrying.add(row["file_id"])
            why = f"{row['attempts']} attempts, the next from {_at(row['next_try_at'])}: {row['error']}"
            self._differs(name, state, row["key"], why, row["file_id"])
        elif state == "held":
            why = f"Waits for a person: `ingest release`, or `ingest ignore`.{lost}"
            self._differs(name, state, row["key"], why, row["file_id"])
        elif state == "rejected" and (row["open_failures"] or not row["failed"]):
            why = (
                f"{row['error']} Fix its lines (`ingest redrive`), or load it with --force; or send it again,"
                f" corrected, and `ingest ignore` this one.{lost}"
            )
            self._differs(name, state, row["key"], why, row["file_id"])
        elif state in ("loaded", "duplicate"):
            self._tidied(row, gone=gone)

    def _gone(self, row: Mapping[str, Any]) -> bool | None:
        """Whether the object is not in the landing; None: nobody knows, or it is not of a landing."""
        source = self.pipeline.settings.sources.get(row["source"])
        is_listed = source and source.name in self.pending
        if not source or not is_listed or row["bucket"] != source.bucket or not row["key"].startswith(source.prefix):
            return None
        if row["in_landing"]:
            return False
        return True if (row["loaded_at"] or self.now) < self.now else None  # else it came after the listing

    def _tidied(self, row: Mapping[str, Any], *, gone: bool | None) -> None:
        name, key = row["source"], row["key"]
        if gone is None:
            return
        if gone:
            if not row["archived_to"] and not row["deleted_at"]:
                self.grouped[name, "object_gone"].add(key)
            return
        if row["deleted_at"]:
            self.grouped[name, "came_again"].add(key)
            return
        source = self.pipeline.settings.sources[name]
        if source.after_load == "keep" or (source.after_load == "delete" and row["open_failures"]):
            return
        own = self.pipeline.settings.own_prefixes(source.bucket)
        if not is_proven(row):
            self.grouped[name, "unproven"].add(key)
        elif self.now - row["loaded_at"] > TIDY_AFTER and takes(source, key, own):
            done = "archived" if source.after_load == "archive" else "deleted"
            done = "taken out of the landing, since it is archived" if row["archived_to"] else done
            why = f"Loaded on {_at(row['loaded_at'])}, and still to be {done}: the log of its DAG says what failed."
            self._differs(name, "not_tidied", key, f"{why} `ingest reconcile --repair` tries again.", row["file_id"])

    def _groups(self) -> None:
        sentences = {
            "object_gone": "is no longer in the landing, deleted or overwritten by others. Its rows are safe.",
            "unproven": "stays in the landing: the store unpacked it on the way, so that all of it came is not proven.",
            "came_again": "came again after it was archived or deleted: the same bytes, loaded already.",
        }
        for (source, what), keys in self.grouped.items():
            self._informs(source, what, "", f"{_several(keys.number, keys.first)} {sentences[what]}")

    # --- the archive -------------------------------------------------------------------------------------------------

    def _list_archives(self, noted: _Noted) -> None:
        """Whole archives, and days of those that were; a listing shows a thousand objects for the price of one."""
        done: list[tuple[str, str]] = []
        for one in archives(self.pipeline):
            bucket, prefix, sources = one
            try:
                copies = copies_of(self.pipeline, noted(one.listed(self.pipeline)), sources)
                for copy in self.pipeline.warehouse.unknown_copies(copies):
                    self.unknown[copy.file.source].add(copy)
                done.append((bucket, prefix))
            except Exception as error:  # noqa: BLE001 - the others are listed all the same
                if bucket != LOCAL_BUCKET or Path(prefix).exists():  # else nothing was archived yet
                    why = f"Nobody knows whether it holds files that the ledger does not know: {said(error)}"
                    self._informs(sources[0].name, "archive_unlisted", prefix, why)
        for source, bucket, folder in self.pipeline.warehouse.archives():
            if any(bucket == of and folder.startswith(prefix) for of, prefix in done):
                continue
            with suppress(Exception):  # then each is asked for by itself, which says what is wrong
                for _ in noted(self.pipeline.store_of(source).list(bucket, folder)):
                    pass

    def _unknown(self) -> None:
        for source, copies in self.unknown.items():
            for one in copies.first:
                why = (
                    f"{one.copy.key} is archived, and not in the ledger. Was the warehouse put back from an older"
                    " backup? `ingest reconcile --repair` loads it again."
                )
                self._differs(source, "archive_unknown", one.file.key, why, one.file.file_id)
            if (more := copies.number - len(copies.first)) > 0:
                why = f"{more:,} more archived files are not in the ledger. `ingest reconcile --repair` loads them"
                self._differs(source, "archive_unknown", "", f"{why} again.")

    def _archive(self, source: str, bucket: str, unlisted: _Many) -> None:
        store = self.pipeline.store_of(source)
        for row in unlisted.first:
            archived_to = row["archived_to"]
            try:
                size = store.describe(bucket, archived_to).size_bytes
            except ObjectGone:
                why = f"{archived_to} is gone, which was the only copy of its object. Its rows are safe."
                self._differs(source, "archive_missing", row["key"], why, row["file_id"])
            except IngestError as error:
                self._differs(source, "unreachable", archived_to, str(error))
                return
            else:
                if size != row["size_bytes"]:
                    why = f"{archived_to} has {size:,} bytes, the loaded object had {row['size_bytes']:,}."
                    self._differs(source, "archive_differs", row["key"], why, row["file_id"])
        if (more := unlisted.number - len(unlisted.first)) > 0:
            why = f"Of {more:,} more archived objects nobody knows whether they are there."
            self._differs(source, "archive_missing", "", why)

    # --- the tables --------------------------------------------------------------------------------------------------

    def _tables(self) -> None:
        for found in self.pipeline.warehouse.disagreements():
            told = self._informs if found["what"] == "duplicate_of" else self._differs
            explanation = _TABLES[found["what"]].format(**found)
            told(found["source"] or "", found["what"], found["key"] or "", explanation, found["file_id"])

    def _differs(self, source: str, what: str, key: str, explanation: str, file_id: str | None = None) -> None:
        self.outcome.differences.append(Difference(source, what, key, explanation, file_id))

    def _failed(self, source: str, error: Exception) -> None:
        self._differs(source, "unreachable" if isinstance(error, IngestError) else "unforeseen", "", said(error))

    def _informs(self, source: str, what: str, key: str, explanation: str, file_id: str | None = None) -> None:
        self.outcome.information.append(Difference(source, what, key, explanation, file_id))


def _at(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _lasting(every: timedelta) -> str:
    """`24 h`, `90 min`, `1 s`: in the largest unit that leaves no fraction."""
    seconds = every.total_seconds()
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds % length == 0:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,g} s"


def _several(number: int, names: list[str]) -> str:
    """`a.json`, or how many and the first of them."""
    shown = ", ".join(names[:_NAMED_AT_MOST])
    return shown if number == 1 else f"Each of {number:,} objects ({shown}{', …' * (number > _NAMED_AT_MOST)})"
