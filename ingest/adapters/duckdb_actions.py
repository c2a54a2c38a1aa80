"""What is done to files that were dealt with: each action one transaction, with its lines in `history`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from ingest.adapters.duckdb import MUCH_MEMORY_MB, recognised, statement
from ingest.adapters.duckdb_errors import could_not_write
from ingest.adapters.duckdb_rows import Rows
from ingest.core.lifecycle import WAITS, refusal
from ingest.core.source import SourceFile
from ingest.errors import TransientError
from ingest.ports import ActionResult, Mark, Note

if TYPE_CHECKING:
    from ingest.adapters.duckdb import DuckDBWarehouse

_PER_ENTERING = 10_000  # files at once
_GONE = "Its object was deleted, or another version stands under its key now: nothing of it was loaded."
_TEXT = pa.string()
_MARKS = pa.schema(
    [("file_id", _TEXT), ("archived_to", _TEXT), ("deleted_at", pa.timestamp("us", "UTC")), ("reason", _TEXT)]
)


@contextmanager
def _session(warehouse: "DuckDBWarehouse", memory_mb: int | None = None) -> Iterator[tuple[Rows, datetime]]:
    try:
        with warehouse.writing(memory_mb) as connection:
            yield Rows(connection, warehouse.ignored_identities), datetime.now(UTC)
    except duckdb.Error as error:
        raise could_not_write(warehouse, error) from error


def undo(warehouse: "DuckDBWarehouse", file_ids: Sequence[str], note: Note) -> list[ActionResult]:
    """See `ingest.ports.Warehouse.undo`."""
    try:
        return _undo(warehouse, file_ids, note)
    except TransientError as error:
        if not isinstance(error.__cause__, duckdb.OutOfMemoryException):
            raise
        # Of rows from all over the tables the engine holds what changes until the commit.
        return _undo(warehouse, file_ids, note, MUCH_MEMORY_MB)


def _undo(
    warehouse: "DuckDBWarehouse", file_ids: Sequence[str], note: Note, memory_mb: int | None = None
) -> list[ActionResult]:
    """First who leaves, file by file, then all of them at once."""
    results = []
    leaving: dict[str, int] = {}  # file_id → file_no, in order
    with _session(warehouse, memory_mb) as (rows, now):
        chosen = _ledger_rows(rows, file_ids)
        originals = _ledger_rows(rows, [row["redrive_of"] for row in chosen.values() if row["redrive_of"]])
        of_rejected = {file_id for file_id, row in originals.items() if row["state"] == "rejected"}
        redrives = defaultdict(list)
        for redrive in rows.redrives_of([*chosen, *originals]):
            redrives[redrive["redrive_of"]].append(redrive)
        copies = _copies(rows, list(chosen))
        for file_id, row in chosen.items():
            state = "undone" if file_id in leaving else row["state"]  # it may have gone along with another
            if why := refusal("undo", state):
                results.append(_refused(row | {"state": state}, why))
                continue
            along = [one for one in redrives[file_id] if one["file_id"] not in leaving]
            if row["redrive_of"]:
                first, *later = [one for one in redrives[row["redrive_of"]] if one["file_id"] not in leaving] or [row]
                if row["redrive_of"] in of_rejected and first["file_id"] == file_id:
                    along = later  # they lean on it: it holds all the rest of the rejected file
            leaving |= {one["file_id"]: one["file_no"] for one in (row, *along)}
            went_along = tuple(one["file_id"] for one in along)
            results.append(_done(row, "undone", redrives=went_along, duplicates=tuple(copies[file_id])))
        rows.reopen(leaving)  # also where the same lines came again in another version
        rows.take_away(leaving.values())
        rows.set_state(leaving, "undone")
        rows.remember("undo", leaving, note, now)
    return results


def _copies(rows: Rows, file_ids: Sequence[str]) -> Mapping[str, list[str]]:
    """The duplicates of these files."""
    sql = (
        "SELECT file_id, duplicate_of FROM ledger"
        " WHERE duplicate_of IN (SELECT unnest($ids)) AND state = 'duplicate' ORDER BY file_no"
    )
    copies = defaultdict(list)
    for copy in rows.fetch(sql, {"ids": file_ids}):
        copies[copy["duplicate_of"]].append(copy["file_id"])
    return copies


def ignore(
    warehouse: "DuckDBWarehouse", file_ids: Sequence[str], new: Sequence[SourceFile], note: Note
) -> list[ActionResult]:
    """See `ingest.ports.Warehouse.ignore`."""
    with _session(warehouse) as (rows, now):
        known = _ledger_rows(rows, [*file_ids, *(file.file_id for file in new)])
        results = []
        for row in known.values():
            if why := refusal("ignore", row["state"]):
                results.append(_refused(row, why))
            else:
                results.append(_done(row, "ignored"))
        taken = [result.file_id for result in results if result.error is None]
        rows.set_state(taken, "ignored")
        unknown = [file for file in new if file.file_id not in known]
        _enter_ignored(rows, unknown, now)
        results += [ActionResult(f.file_id, f.bucket, f.key, "pending", "ignored") for f in unknown]
        rows.remember("ignore", [*taken, *(file.file_id for file in unknown)], note, now)
    return results


def first_poll(warehouse: "DuckDBWarehouse", source: str, there: Iterable[SourceFile], now: datetime) -> int:
    """See `ingest.ports.Warehouse.first_poll`."""
    sql = "SELECT 1 FROM polled_sources WHERE source = $source"
    with warehouse.reading() as connection:
        if connection.execute(sql, {"source": source}).fetchall():
            return 0
    files = list(there)
    with _session(warehouse) as (rows, _):
        if rows.fetch(sql, {"source": source}):  # somebody was quicker
            return 0
        rows.connection.execute("INSERT INTO polled_sources VALUES ($source, $now)", {"source": source, "now": now})
        known = _ledger_rows(rows, [file.file_id for file in files])
        met = {place: file for place, file in enumerate(files) if file.file_id not in known}
        otherwise = recognised(rows.connection, met)
        unknown = [file for place, file in met.items() if place not in otherwise]
        _enter_ignored(rows, unknown, now)
        note = Note("ingest", 'It was there at the first poll, and existing_files is "skip".')
        rows.remember("ignore", [file.file_id for file in unknown], note, now)
    return len(unknown)


def retry(warehouse: "DuckDBWarehouse", file_ids: Sequence[str], note: Note) -> list[ActionResult]:
    """See `ingest.ports.Warehouse.retry`."""
    results = []
    with _session(warehouse) as (rows, now):
        for row in _ledger_rows(rows, file_ids).values():
            if why := refusal("retry", row["state"]):
                results.append(_refused(row, why))
                continue
            sql = "UPDATE ledger SET next_try_at = $now WHERE file_id = $file_id"
            rows.connection.execute(sql, {"now": now, "file_id": row["file_id"]})
            rows.remember("retry", [row["file_id"]], note, now)
            results.append(_done(row, "retrying"))
    return results


def close_gone(warehouse: "DuckDBWarehouse", file_ids: Sequence[str], note: Note) -> None:
    """See `ingest.ports.Warehouse.close_gone`."""
    with _session(warehouse) as (rows, now):
        found = _ledger_rows(rows, file_ids)
        waiting = [file_id for file_id, row in found.items() if row["state"] in WAITS]
        sql = (
            "UPDATE ledger SET error = $error, loaded_at = $now, next_try_at = NULL WHERE list_contains($ids, file_id)"
        )
        rows.connection.execute(sql, {"error": _GONE, "now": now, "ids": waiting})
        rows.set_state(waiting, "replaced")
        rows.remember("gone", waiting, replace(note, reason=_GONE), now)


def mark(warehouse: "DuckDBWarehouse", marks: Sequence[Mark], note: Note) -> None:
    """See `ingest.ports.Warehouse.mark`."""
    told = pa.Table.from_pylist([asdict(mark) for mark in marks], _MARKS)
    with _session(warehouse) as (rows, now), rows.table("marks", told):
        parameters = {"now": now, "by": note.by, "reason": note.reason or None, "run_id": note.run_id}
        rows.connection.execute(statement("remember_marks"), parameters)
        rows.connection.execute(statement("mark"))


def notify_once(warehouse: "DuckDBWarehouse", file_ids: Sequence[str], note: Note) -> list[str]:
    """See `ingest.ports.Warehouse.notify_once`."""
    with _session(warehouse) as (rows, now):
        parameters = {"file_ids": list(file_ids), "reason": note.reason}
        told = {row["file_id"] for row in rows.fetch(statement("told_before"), parameters)}
        new = [file_id for file_id in dict.fromkeys(file_ids) if file_id not in told]
        rows.remember("notified", new, note, now)
    return new


def not_notified(warehouse: "DuckDBWarehouse", file_ids: Sequence[str], note: Note) -> None:
    """See `ingest.ports.Warehouse.not_notified`."""
    with _session(warehouse) as (rows, now):
        rows.remember("not_notified", file_ids, note, now)


def _ledger_rows(rows: Rows, file_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The ledger rows of these files, in the order given."""
    asked = pa.table({"file_id": pa.array(file_ids, pa.string())})
    with rows.table("asked", asked):
        found = {row["file_id"]: row for row in rows.fetch("SELECT * FROM ledger SEMI JOIN asked USING (file_id)", {})}
    return {file_id: found[file_id] for file_id in dict.fromkeys(file_ids) if file_id in found}


def _enter_ignored(rows: Rows, files: Sequence[SourceFile], now: datetime) -> None:
    columns = ("file_id", "source", "bucket", "key", "etag", "version_id", "last_modified", "size_bytes", "format")
    for some in range(0, len(files), _PER_ENTERING):
        entries = [
            {name: getattr(file, name) for name in (*columns, "position")}
            | {"people_space": file.format, "state": "ignored", "loaded_at": now}
            for file in files[some : some + _PER_ENTERING]
        ]
        with rows.table("ignored", pa.Table.from_pylist(entries)):
            rows.connection.execute(statement("enter_ignored"))


def _done(row: Mapping[str, Any], state: Any, **more: Any) -> ActionResult:
    return ActionResult(row["file_id"], row["bucket"], row["key"], row["state"], state, **more)


def _refused(row: Mapping[str, Any], why: str) -> ActionResult:
    return ActionResult(row["file_id"], row["bucket"], row["key"], row["state"], row["state"], error=why)
