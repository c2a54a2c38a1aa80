"""One load into DuckDB: staged files become rows and ledger entries in one transaction, or nothing does.

The order within: what is in the ledger already is passed over; copies of loaded bytes become `duplicate`; of the rest
the rows are inserted, each knowing whether its fact is new; the ledger rows follow; persons that an alias joined are
joined. What was inserted is held against what was judged. Nothing is seen before the commit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import orjson
import pyarrow as pa

from ingest.adapters.duckdb import MUCH_MEMORY_MB, is_left, recognised, result_of, statement
from ingest.adapters.duckdb_errors import could_not_write, first_line, is_of_the_world
from ingest.adapters.duckdb_rows import Rows
from ingest.core.lifecycle import FINAL_STATES, KEEPS_LINES, LOADED_AS, Intent, State, next_try
from ingest.core.source import SourceFile
from ingest.errors import StaleRedrive, TransientError
from ingest.ports import (
    COUNTED,
    FileResult,
    Note,
    Redrive,
    StagedFile,
    Staging,
    not_entered,
)

if TYPE_CHECKING:
    from ingest.adapters.duckdb import DuckDBWarehouse

_BYTES_AT_ONCE = 160 << 20  # of staged rows: what the engine compares at once must fit its memory


@dataclass(slots=True)
class _Entry:
    """A staged file on its way into the ledger."""

    staged: StagedFile
    file_no: int
    state: State
    attempts: int
    match: str
    original_no: int | None = None  # of a redrive: the file that it mends
    duplicate_of: str | None = None
    duplicates: int = 0
    replaces: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    # Lines that redrives mended, of its former rows and of other versions of its key.
    mended: list[dict[str, Any]] = field(default_factory=list)
    inherited: list[dict[str, Any]] = field(default_factory=list)  # redrives of loaded files whose place it takes
    fixed: int = 0  # failed lines of its own that those redrives mend

    @property
    def failed(self) -> int:
        """Failed lines that are staged with it; those of a redrive are its original's."""
        redrive = self.staged.redrive
        return redrive.failed if redrive else self.staged.counts.failed

    def row(self, load_id: str, run_id: str | None, now: datetime) -> dict[str, Any]:
        file, counts = self.staged.file, self.staged.counts
        retrying = self.state == "retrying"
        return {
            "file_id": file.file_id, "file_no": self.file_no, "source": file.source, "bucket": file.bucket,
            "key": file.key, "etag": file.etag, "version_id": file.version_id, "last_modified": file.last_modified,
            "sha256": self.staged.sha256 or None, "size_bytes": file.size_bytes, "format": file.format,
            "read_bytes": self.staged.read_bytes, "people_space": self.staged.people_space, "match": self.match,
            "state": self.state, "duplicates": self.duplicates,
            **{name: getattr(counts, name) for name in COUNTED if name != "duplicates"},
            "warnings": orjson.dumps(counts.warnings).decode(), "load_id": load_id, "run_id": run_id,
            "loaded_at": None if retrying else now, "attempts": self.attempts,
            "next_try_at": next_try(self.attempts, now) if retrying else None, "duplicate_of": self.duplicate_of,
            "redrive_of": self.staged.redrive.of if self.staged.redrive else None,
            "error": self.staged.error or None, "position": file.position, "replaced_by": None,
        }  # fmt: skip


def load(
    warehouse: "DuckDBWarehouse",
    staging: Staging,
    load_id: str,
    run_id: str | None,
    *,
    intent: Intent = "new",
    note: Note | None = None,
) -> list[FileResult]:
    """See `ingest.ports.Warehouse.load`."""
    files = [file for file in staging.files if file.outcome != "gone"]
    if not files:
        return []
    for file in files:
        if file.redrive and file.outcome == "retrying":
            raise TransientError(f"{file.error} The lines stay open.")
    note = note or Note(by="ingest", run_id=run_id)
    again = partial(load, warehouse, load_id=load_id, run_id=run_id, intent=intent, note=note)

    def attempt(memory_mb: int | None = None) -> list[FileResult]:
        with warehouse.writing(memory_mb) as connection:
            rows = Rows(connection, warehouse.ignored_identities)
            return _Load(connection, rows, staging, intent, note, load_id, run_id).run(files)

    try:
        try:
            return attempt()
        except (duckdb.OutOfMemoryException, duckdb.TransactionException):
            # Thousands of lines of hundreds of KB: rather more memory than not at all. Where such lines are in the
            # table already, it is the commit that holds them.
            return attempt(MUCH_MEMORY_MB)
    except _RowsLostError as lost:
        return again(staging.checked(lost.staged_nos))
    except duckdb.Error as error:
        if (checked := staging.checked()) is not staging:
            return again(checked)
        # What is wrong with the disk is wrong for all; but one file may be too large for it, or have something that the
        # engine refuses, which judging should have caught. Find out which.
        unwritten = could_not_write(warehouse, error)
        if unwritten.is_for_all or (files[0].outcome == "retrying" and len(files) == 1):
            raise unwritten from error
        if len(files) > 1:
            return _apart(staging, files, again)
        if files[0].redrive and not is_of_the_world(error):
            raise TransientError(f"{warehouse.name} refused the fixed lines: {first_line(error)}") from error
        if unwritten.is_disk or files[0].redrive:  # nothing is entered: the next poll finds it as new as it was
            raise unwritten from error
        refused = replace(files[0], outcome="retrying", error=f"The warehouse refused its rows: {first_line(error)}")
        return again(replace(staging, files=[refused]))


def _apart(
    staging: Staging, files: Sequence[StagedFile], again: Callable[[Staging], list[FileResult]]
) -> list[FileResult]:
    """Load one half after the other. Raises TransientError if nothing of both could be written."""
    results: list[FileResult] = []
    unwritten: list[TransientError] = []
    halves = (files[: len(files) // 2], files[len(files) // 2 :])
    for half in halves:
        try:
            results += again(replace(staging, files=half))
        except TransientError as error:
            unwritten.append(error)
            results += [not_entered(file, str(error)) for file in half]
    if len(unwritten) == len(halves):
        raise unwritten[0]
    return results


class _RowsLostError(Exception):
    """The rows of these files are not those that were judged."""

    def __init__(self, staged_nos: Iterable[int]) -> None:
        super().__init__(staged_nos)
        self.staged_nos = frozenset(staged_nos)


@dataclass(slots=True)
class _Load:
    """The statements of one load, in order."""

    connection: duckdb.DuckDBPyConnection
    rows: Rows
    staging: Staging
    intent: Intent
    note: Note
    load_id: str
    run_id: str | None
    entries: list[_Entry] = field(default_factory=list)
    results: dict[str, FileResult] = field(default_factory=dict)
    leaving: list[int] = field(default_factory=list)  # file_nos whose rows go before others come
    inserted: Counter[tuple[int, str]] = field(default_factory=Counter)  # rows by (staged_no, kind or "failed")

    def run(self, files: Sequence[StagedFile]) -> list[FileResult]:
        now = datetime.now(UTC)
        self._claim(files, now)
        self._compare_bytes(now)
        taken = [entry for entry in self.entries if entry.state == "loaded"]
        kept = [entry for entry in self.entries if entry.state in KEEPS_LINES]
        if any(entry.failed for entry in kept):
            self._insert_failed(kept)
        for entry in self.entries:
            if entry.inherited or (entry.mended and entry in kept):
                self._keep_mended(entry, now)
        self.rows.take_away(self.leaving)
        if taken and self.staging.commands:
            self._insert_commands(taken)
        self._prove(kept)
        self._enter(now)
        if any(entry.staged.counts.aliases for entry in taken):
            self.rows.join_persons(min(entry.file_no for entry in taken))
        return [self.results[file.file.file_id] for file in files]

    def _claim(self, files: Sequence[StagedFile], now: datetime) -> None:
        """Which files are this load's to deal with. Nobody else writes now, so what is read here stays true."""
        before = self._before(files)
        for file in files:
            row = before.get(file.file.file_id)
            if row and is_left(row, self.intent):
                self.results[row["file_id"]] = result_of(row, already=True)
                continue
            if row and is_left(row) and file.outcome == "retrying":
                # What is there stays until there is something better.
                self.results[row["file_id"]] = replace(result_of(row), state="retrying", error=file.error)
                continue
            ((number,),) = self.connection.execute("SELECT nextval('file_numbers')").fetchall()
            entry = _Entry(file, number, file.outcome, (row["attempts"] if row else 0) + 1, file.match)
            if row and row["state"] in FINAL_STATES:
                if row["state"] == "rejected":  # the first redrive of a rejected file holds all of it
                    self._take_along(row["file_id"], now)
                else:
                    entry.mended = self.rows.mended_lines([row["file_no"]])
                self.leaving.append(row["file_no"])
            if self.note.is_named or (row and (row["state"] in FINAL_STATES or self.intent != "new")):
                file_id = row["file_id"] if row else file.file.file_id
                self.rows.remember(LOADED_AS[self.intent], [file_id], self.note, now)
            if file.redrive:
                self._mend(entry, file.redrive, now)
            self.entries.append(entry)

    def _before(self, files: Sequence[StagedFile]) -> dict[str, dict[str, Any]]:
        """The ledger rows of these files, by file_id. Who has none may get one, under another id."""
        sql = "SELECT * FROM ledger WHERE file_id IN (SELECT unnest($ids))"
        rows = self.rows.fetch(sql, {"ids": [file.file.file_id for file in files]})
        before = {row["file_id"]: row for row in rows}
        strange = {
            place: file.file
            for place, file in enumerate(files)
            if file.file.file_id not in before and not file.file.mends
        }
        found = recognised(self.connection, strange)
        found |= self._same_again({place: file for place, file in strange.items() if place not in found}, files)
        for place, file in found.items():
            files[place].file = file
        if found:
            rows = self.rows.fetch(sql, {"ids": [file.file_id for file in found.values()]})
            before |= {row["file_id"]: row for row in rows}
        return before

    def _same_again(self, strange: Mapping[int, SourceFile], files: Sequence[StagedFile]) -> dict[int, SourceFile]:
        """Those of these files that are known by their bytes; the ledger knows them by how they look now."""
        columns = ("bucket", "key")
        rows = [
            {"place": place, "sha256": files[place].sha256} | {name: getattr(file, name) for name in columns}
            for place, file in strange.items()
            if files[place].sha256
        ]
        if not rows:
            return {}
        with self.rows.table("strange", pa.Table.from_pylist(rows)):
            ids = dict(self.connection.execute(statement("same_again")).fetchall())
        sql = "UPDATE ledger SET etag = $etag, version_id = $version, last_modified = $at WHERE file_id = $file_id"
        for place, file_id in ids.items():
            file = strange[place]
            looks = {"etag": file.etag, "version": file.version_id, "at": file.last_modified, "file_id": file_id}
            self.connection.execute(sql, looks)
        return {place: replace(strange[place], known_as=file_id) for place, file_id in ids.items()}

    def _take_along(self, file_id: str, now: datetime, only: AbstractSet[str] | None = None) -> None:
        """Undo redrives of a file that is put anew."""
        redrives = [one for one in self.rows.redrives_of([file_id]) if only is None or one["file_id"] in only]
        gone = [redrive["file_id"] for redrive in redrives]
        self.leaving += [redrive["file_no"] for redrive in redrives]
        self.rows.reopen(gone)
        self.rows.set_state(gone, "undone")
        self.rows.remember("undo", gone, self.note, now)

    def _mend(self, entry: _Entry, redrive: Redrive, now: datetime) -> None:
        """Mark the lines that a redrive mends. Raises StaleRedrive if they, or their file, are not as they were."""
        stale = "Somebody fixed, undid or loaded these lines again in the meantime."
        original = self.rows.fetch(statement("redriven_file"), {"file_id": redrive.of})
        if not original or (original[0]["open_lines"] if original[0]["is_unloaded"] else None) != redrive.whole_of:
            raise StaleRedrive(stale)
        entry.original_no = original[0]["file_no"]
        columns = {"line": [line for line, _ in redrive.lines], "item": [item for _, item in redrive.lines]}
        parameters = {"file_no": entry.original_no, "by": entry.staged.file.file_id, "at": now}
        with self.rows.table("mended", pa.table(columns, pa.schema([("line", pa.int64()), ("item", pa.string())]))):
            marked = self.connection.execute(statement("mark_mended"), parameters).fetchall()
        if marked != [(len(redrive.lines),)]:
            raise StaleRedrive(stale)
        if redrive.failed:
            sql = "UPDATE ledger SET failed = failed + $failed WHERE file_no = $file_no"
            self.connection.execute(sql, {"failed": redrive.failed, "file_no": entry.original_no})
        self.rows.remember("redrive", [redrive.of], self.note, now)

    def _compare_bytes(self, now: datetime) -> None:
        """What the policies make of files whose key, or whose bytes, are in the ledger already."""
        new = [entry for entry in self.entries if entry.state in KEEPS_LINES]
        if not new:
            return
        candidates = [
            {
                "file_id": entry.staged.file.file_id, "source": entry.staged.file.source,
                "bucket": entry.staged.file.bucket, "key": entry.staged.file.mends or entry.staged.file.key,
                "sha256": entry.staged.sha256,
            }
            for entry in new
        ]  # fmt: skip
        with self.rows.table("candidates", pa.Table.from_pylist(candidates)):
            found = self.rows.fetch(statement("known_same_bytes"), {})
        gone: set[str] = set()
        for entry in new:  # what is replaced first: copies of that are no copies any more
            redrive = entry.staged.redrive
            versions = [
                row for row in found
                if row["file_id"] == entry.staged.file.file_id and row["same_key"]
                and not (redrive and row["other"] == redrive.of)
            ]  # fmt: skip
            newest = versions[-1] if versions else None
            is_same = newest is not None and newest["same_bytes"]
            if newest and is_same and self.intent != "force" and not redrive and self._is_there(newest):
                # No change, whatever the ETag, and whatever today's limits would make of it.
                entry.state, entry.duplicate_of = "duplicate", newest["duplicate_of"] or newest["other"]
                entry.staged.error = ""
            elif newest and not is_same and entry.staged.changed_file == "hold" and self.intent in ("new", "again"):
                if not redrive:
                    entry.state = "held"
                    entry.staged.error = "The object has changed since it was loaded, and changed_file is hold."
            elif entry.staged.changed_file == "replace" and entry.state == "loaded":
                entry.replaces = self._replace(versions, entry, now)
                entry.copies = self._copies(entry)
                gone.update(entry.replaces)
            if entry.state == "loaded" and not redrive:
                there = [row["file_no"] for row in versions if row["state"] in KEEPS_LINES]
                entry.mended = self.rows.mended_lines(there) + entry.mended
        self._find_copies([entry for entry in new if entry.state == "loaded" and not entry.staged.redrive], found, gone)

    def _is_there(self, row: Mapping[str, Any]) -> bool:
        """Whether what a file says is loaded: by itself, as another one, or by a redrive that holds all of it."""
        return row["state"] in ("loaded", "duplicate") or (
            row["state"] == "rejected" and bool(self.rows.redrives_of([row["other"]]))
        )

    def _find_copies(
        self, entries: Sequence[_Entry], found: Sequence[Mapping[str, Any]], gone: AbstractSet[str]
    ) -> None:
        """Bytes that are loaded under another key are not loaded again, unless that is asked for."""
        in_this_load: dict[tuple[str, str], str] = {}
        for entry in entries:
            file = entry.staged.file
            if self.intent != "force" and file.size_bytes and entry.staged.skip_same_bytes:
                loaded = [
                    row["other"] for row in found
                    if row["file_id"] == file.file_id and not row["same_key"] and row["other"] not in gone
                ]  # fmt: skip
                original = loaded[0] if loaded else in_this_load.get((file.source, entry.staged.sha256))
                if original:
                    entry.state, entry.duplicate_of = "duplicate", original
                    continue
            in_this_load[file.source, entry.staged.sha256] = file.file_id

    def _replace(self, versions: Sequence[Mapping[str, Any]], entry: _Entry, now: datetime) -> tuple[str, ...]:
        """Take away the other versions of a key, and what redrives of them brought: see `_keep_mended`."""
        gone: list[str] = []
        brought: list[dict[str, Any]] = []
        for row in versions:
            redrives = self.rows.redrives_of([row["other"]])
            if row["state"] == "loaded":
                self.leaving.append(row["file_no"])
                gone.append(row["other"])
                entry.inherited += redrives
            else:  # a redrive of a rejected file may hold all of it
                brought += redrives
        self._put_away(gone, entry, now)
        return (*gone, *self._put_away_redrives(brought, entry, now))

    def _put_away(self, gone: Sequence[str], entry: _Entry, now: datetime) -> None:
        if gone:
            self.rows.set_state(gone, "replaced", entry.staged.file.file_id)
            self.rows.remember("replace", gone, self.note, now)

    def _put_away_redrives(
        self, redrives: Sequence[Mapping[str, Any]], entry: _Entry, now: datetime
    ) -> tuple[str, ...]:
        """What they mended is open again, in rejected versions and wherever the same lines came again."""
        gone = tuple(redrive["file_id"] for redrive in redrives)
        self.leaving += [redrive["file_no"] for redrive in redrives]
        self.rows.reopen(gone)
        self._put_away(gone, entry, now)
        return gone

    def _copies(self, entry: _Entry) -> tuple[str, ...]:
        """Files under other keys that were not loaded, since they were copies of what was replaced."""
        if not entry.replaces:
            return ()
        file = entry.staged.file
        parameters = {"originals": list(entry.replaces), "bucket": file.bucket, "key": file.key}
        return tuple(row["file_id"] for row in self.rows.fetch(statement("copies_of"), parameters))

    def _insert_failed(self, kept: Sequence[_Entry]) -> None:
        entered = {
            "staged_no": [entry.staged.staged_no for entry in kept],
            "file_no": [entry.original_no or entry.file_no for entry in kept],
        }
        if not self.staging.failed:
            return
        self._staged("staged_failed", self.staging.failed)
        with self.rows.table("entered", pa.table(entered)):
            self._insert("insert_failed", "count_staged_failed")

    def _insert(self, name: str, count_name: str) -> None:
        """Insert staged rows and count them. The engine reads the staged files twice, so it is compared."""
        counted = self.connection.execute(statement(count_name)).fetchall()
        ((inserted,),) = self.connection.execute(statement(name)).fetchall()
        if inserted != sum(rows for _, _, rows in counted):
            raise _RowsLostError(entry.staged.staged_no for entry in self.entries)
        for staged_no, kind, rows in counted:
            self.inserted[staged_no, kind] += rows

    def _prove(self, kept: Sequence[_Entry]) -> None:
        """What was inserted of each file is what was judged of it; else nothing is committed."""
        lost = set()
        for entry in kept:
            counts = entry.staged.counts
            judged = {"failed": entry.failed}
            if entry.state == "loaded":
                judged |= {"record": counts.records, "set": counts.sets, "alias": counts.aliases}
            number = entry.staged.staged_no
            if any(self.inserted[number, kind] != rows for kind, rows in judged.items()):
                lost.add(number)
        if lost:
            raise _RowsLostError(lost)

    def _keep_mended(self, entry: _Entry, now: datetime) -> None:
        """Lines that fail as they did before stay mended, though their file is put anew, or its object was changed.

        A redrive of this file, or of one whose place it takes, is this file's from now on. One that mended other lines,
        too, goes: those may be accepted now. A redrive of a version that stays is that version's.
        """
        mended = {(line["line"], line["item"], line["raw_sha256"]): line for line in entry.mended}
        still = set[tuple[int, str]]()
        if mended:
            with self.rows.table("mended", pa.Table.from_pylist(list(mended.values()))):
                kept = self.connection.execute(statement("keep_mended"), {"file_no": entry.file_no}).fetchall()
            still = {(line, item) for line, item in kept}
        entry.fixed = len(still)
        stale = {line["redriven_by"] for line in entry.mended if (line["line"], line["item"]) not in still}
        if stale:
            self._take_along(entry.staged.file.file_id, now, stale)
        holds = {line["redriven_by"] for line in entry.mended} - stale
        self.rows.mends_now([one["file_id"] for one in entry.inherited if one["file_id"] in holds], entry.staged.file)
        lost = [one for one in entry.inherited if one["file_id"] not in holds]
        entry.replaces += self._put_away_redrives(lost, entry, now)

    def _insert_commands(self, taken: Sequence[_Entry]) -> None:
        in_order = sorted(taken, key=lambda entry: entry.staged.file.position)
        table = {
            "place": range(1, 2 * len(in_order), 2),
            "staged_no": [entry.staged.staged_no for entry in in_order],
            "file_no": [entry.file_no for entry in in_order],
            "position": [entry.staged.file.position for entry in in_order],
        }
        entries = {entry.staged.staged_no: entry for entry in taken}
        with self.rows.table("taken", pa.table(table)):
            for some in _in_groups(self.staging.commands):
                self._staged("staged_rows", some)
                for step in ("staged_commands", "staged_facts", "repeated_facts"):
                    self.connection.execute(statement(step))
                for staged_no, duplicates in self.connection.execute(statement("count_duplicates")).fetchall():
                    entries[staged_no].duplicates += duplicates
                self.connection.execute(statement("yield_first"))
                self._insert("insert_commands", "count_staged_commands")
        for space, match in {(entry.staged.people_space, entry.match) for entry in taken}:
            self.connection.execute(statement("enter_people_space"), {"people_space": space, "match": match})

    def _enter(self, now: datetime) -> None:
        rows = [entry.row(self.load_id, self.run_id, now) for entry in self.entries]
        if not rows:
            return
        for row, entry in zip(rows, self.entries, strict=True):
            self.results[row["file_id"]] = replace(
                result_of(row), fixed=entry.fixed, replaces=entry.replaces, copies=entry.copies
            )
        with self.rows.table("entries", pa.Table.from_pylist(rows, schema=_LEDGER)):
            self.connection.execute(statement("enter_file"))

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


_TEXT, _NUMBER, _TIME = pa.string(), pa.int64(), pa.timestamp("us", "UTC")
_LEDGER = pa.schema(
    [
        ("file_id", _TEXT), ("file_no", _NUMBER), ("source", _TEXT), ("bucket", _TEXT), ("key", _TEXT), ("etag", _TEXT),
        ("version_id", _TEXT), ("last_modified", _TIME), ("sha256", _TEXT), ("size_bytes", _NUMBER), ("format", _TEXT),
        ("read_bytes", _NUMBER), ("people_space", _TEXT), ("match", _TEXT), ("state", _TEXT),
        *((name, _NUMBER) for name in COUNTED),
        ("warnings", _TEXT), ("load_id", _TEXT), ("run_id", _TEXT), ("loaded_at", _TIME), ("attempts", _NUMBER),
        ("next_try_at", _TIME), ("duplicate_of", _TEXT), ("redrive_of", _TEXT), ("error", _TEXT), ("position", _TEXT),
        ("replaced_by", _TEXT),
    ]
)  # fmt: skip
