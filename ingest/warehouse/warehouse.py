"""What may be asked of a warehouse and done to it, written once: an engine is a subclass that reads and applies."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ingest.core.lifecycle import Intent
from ingest.core.source import SourceFile
from ingest.errors import TransientError
from ingest.plans.actions import (
    plan_close_gone,
    plan_first_poll,
    plan_ignore,
    plan_mark,
    plan_not_notified,
    plan_notify_once,
    plan_retry,
    plan_undo,
)
from ingest.plans.changes import Answer, Applied, NotWrittenError, Place, Plan, Reader, RowsLostError
from ingest.plans.load import Order, plan_load
from ingest.ports import ActionResult, Audit, FileResult, Mark, StagedFile, Staging, not_entered


class Warehouse(ABC):
    """The part of `ingest.ports.Warehouse` that is policy. What is told of each method stands there."""

    __slots__ = ()

    # --- what an engine gives ----------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """The URL, password hidden."""

    @abstractmethod
    def transact(self, plan: Plan[Answer]) -> tuple[Answer, Applied]:
        """Read, plan and apply in one transaction; the answer is that of the plan that was committed.

        A plan may be run again, if somebody else was quicker.

        Raises:
            NotWrittenError: the engine failed, or refused something.
            RowsLostError: staged rows are not those that were judged.
            TransientError: others hold the warehouse.
        """

    @abstractmethod
    def reader(self) -> AbstractContextManager[Reader]:
        """What is committed now."""

    def upkeep(self) -> list[str]:
        return []  # most engines do so by themselves

    # --- loads -------------------------------------------------------------------------------------------------------

    def known(self, files: Iterable[SourceFile], intent: Intent = "new") -> dict[str, FileResult]:
        seen = {file.file_id: file for file in files}
        with self.reader() as reader:
            rows = reader.ledger("file_id", seen)
        return {row.file_id: row.result(already=True) for row in rows if row.is_settled(seen[row.file_id], intent)}

    def load(
        self, staging: Staging, load_id: str, run_id: str | None, *, intent: Intent = "new", note: Audit | None = None
    ) -> list[FileResult]:
        staging = replace(staging, files=[file for file in staging.files if file.outcome != "gone"])
        files = staging.files
        if not files:
            return []
        for file in files:
            if file.redrive and file.outcome == "retrying":
                raise TransientError(f"{file.error} The lines stay open.")
        note = note or Audit(by="ingest", run_id=run_id)
        order, failing = Order(load_id, run_id, intent, note), partial(_failing, staging)
        again = partial(self.load, load_id=load_id, run_id=run_id, intent=intent, note=note)
        try:
            results, applied = self.transact(
                lambda reader: plan_load(reader, staging, order, failing, datetime.now(UTC))
            )
        except RowsLostError as lost:
            return again(staging.checked(lost.staged_nos))
        except NotWrittenError as error:
            if (checked := staging.checked()) is not staging:
                return again(checked)
            # What is wrong with the disk is wrong for all; but one file may be too large for it, or have something that
            # the engine refuses, which judging should have caught. Find out which.
            if error.is_for_all or (files[0].outcome == "retrying" and len(files) == 1):
                raise
            if len(files) > 1:
                return _apart(staging, again)
            if files[0].redrive and not error.is_of_the_world:
                raise TransientError(f"{self.name} refused the fixed lines: {error.reason}") from error
            if error.is_disk or files[0].redrive:  # nothing is entered: the next poll finds it as new as it was
                raise
            refused = replace(files[0], outcome="retrying", error=f"The warehouse refused its rows: {error.reason}")
            return again(replace(staging, files=[refused]))
        return [
            replace(one, counts=replace(one.counts, duplicates=applied.duplicates[one.file_id]))
            if one.file_id in applied.duplicates
            else one
            for one in results
        ]

    # --- actions -----------------------------------------------------------------------------------------------------

    def undo(self, file_ids: Sequence[str], note: Audit) -> list[ActionResult]:
        return self.transact(lambda reader: plan_undo(reader, file_ids, note, datetime.now(UTC)))[0]

    def ignore(self, file_ids: Sequence[str], new: Sequence[SourceFile], note: Audit) -> list[ActionResult]:
        return self.transact(lambda reader: plan_ignore(reader, file_ids, new, note, datetime.now(UTC)))[0]

    def retry(self, file_ids: Sequence[str], note: Audit) -> list[ActionResult]:
        return self.transact(lambda reader: plan_retry(reader, file_ids, note, datetime.now(UTC)))[0]

    def close_gone(self, file_ids: Sequence[str], note: Audit) -> None:
        self.transact(lambda reader: plan_close_gone(reader, file_ids, note, datetime.now(UTC)))

    def mark(self, marks: Sequence[Mark], note: Audit) -> None:
        self.transact(lambda reader: plan_mark(reader, marks, note, datetime.now(UTC)))

    def was_polled(self, source: str) -> bool:
        with self.reader() as reader:
            return reader.was_polled(source)

    def first_poll(self, source: str, there: Iterable[SourceFile], now: datetime) -> int:
        if self.was_polled(source):
            return 0
        files = list(there)  # before anything is held: it may be a long listing
        return self.transact(lambda reader: plan_first_poll(reader, source, files, now))[0]

    def notify_once(self, file_ids: Sequence[str], note: Audit) -> list[str]:
        return self.transact(lambda reader: plan_notify_once(reader, file_ids, note, datetime.now(UTC)))[0]

    def not_notified(self, file_ids: Sequence[str], note: Audit) -> None:
        self.transact(lambda reader: plan_not_notified(reader, file_ids, note, datetime.now(UTC)))


def _apart(staging: Staging, again: Callable[[Staging], list[FileResult]]) -> list[FileResult]:
    """Load one half after the other. Raises TransientError if nothing of both could be written."""
    files = staging.files
    results: list[FileResult] = []
    unwritten: list[TransientError] = []
    halves: tuple[Sequence[StagedFile], ...] = (files[: len(files) // 2], files[len(files) // 2 :])
    for half in halves:
        try:
            results += again(replace(staging, files=half))
        except TransientError as error:
            unwritten.append(error)
            results += [not_entered(file, str(error)) for file in half]
    if len(unwritten) == len(halves):
        raise unwritten[0]
    return results


def _failing(staging: Staging, staged_no: int, places: Collection[Place]) -> dict[Place, str]:
    """See `ingest.plans.load.Failing`. Holds the rows of these lines only."""
    found: dict[Place, str] = {}
    lines = pa.array({line for line, _ in places}, pa.int64())
    columns = ["staged_no", "line", "item", "raw_sha256"]
    try:
        for path in staging.failed:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=columns):
                    asked = pc.and_(pc.equal(batch["staged_no"], staged_no), pc.is_in(batch["line"], value_set=lines))
                    for row in batch.filter(asked).to_pylist():
                        found[row["line"], row["item"]] = row["raw_sha256"]
    except (OSError, pa.ArrowException) as error:
        raise RowsLostError([staged_no]) from error
    return found
