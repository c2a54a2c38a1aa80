"""After a load: reports for the producer, and the landing object into the archive, or away.

In:      ledger rows of loaded files and of copies. Rejected, held and retrying files stay where they are.
Out:     objects, `archived_to` and `deleted_at` in the ledger, and a sentence for whatever could not be done.
Decides: the order. Copy, verify, write that down; then delete on condition, and write that down. Each step finds what a
         former try has done already, so that whatever dies in between, the next poll goes on and nothing is lost.
         Files go through the steps in batches, since writing down costs a transaction however much it tells.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ingest.core.lifecycle import KEEPS_LINES
from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.discovery import takes
from ingest.errors import ConfigError, IngestError, ObjectGone, TransientError
from ingest.ports import Audit, FileResult, Mark, ObjectStore
from ingest.report import file_report, line_to_mend
from ingest.settings import Source
from ingest.staging import staging_folder
from ingest.unforeseen import said

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline

_AT_ONCE = 8  # a file is some small requests, and waiting for their answers
_PER_MARK = 100  # files; what a death in between makes the next poll look at again
_PER_POLL = 5_000  # marks of what former tries have left: about a minute's worth
_ENOUGH_FAILURES = 20  # in a row: the store is away, and each of a million files would wait for it
_EXTENSION = re.compile(r"(\.json)?(\.[^./]*)?\Z", re.IGNORECASE)
_log = logging.getLogger(__name__)


def archive(pipeline: "Pipeline", name: str, note: Audit, results: Sequence[FileResult] | None = None) -> list[str]:
    """Put reports, archive and delete as the source called `name` says; never raises for what the world does.

    Call it after each load with its results; and on each poll without, for what former tries have left (files whose
    failed lines were mended since are deleted then). May run any number of times, also at the same time.

    Returns:
        What could not be done, in sentences, each once; the next poll tries again. They are logged as warnings.
    """
    source = pipeline.settings.sources.get(name)
    if source is None:  # one-off loads: nobody said that their files may go
        return []
    problems: dict[str, None] = {}
    try:
        for problem in _Tidying(pipeline, source, pipeline.store_of(name), note).run(results):
            problems[problem] = None
    except Exception as error:  # noqa: BLE001 - what was loaded is loaded, and told
        problems[said(error)] = None
    for problem in problems:
        _log.warning("not_tidied source=%s: %s", name, problem)
    return list(problems)


def archive_loaded(pipeline: "Pipeline", results: Sequence[FileResult], note: Audit) -> list[str]:
    """`archive` what was just loaded, each file as its own source says."""
    names = dict.fromkeys(result.source for result in results)
    return [
        problem
        for name in names
        for problem in archive(pipeline, name, note, [result for result in results if result.source == name])
    ]


def is_proven(row: Mapping[str, Any]) -> bool:
    """Whether the bytes that were loaded are those that were listed: only then may the object be taken away."""
    return row["read_bytes"] in (None, row["size_bytes"])


class _Outcome(NamedTuple):
    mark: Mark | None = None  # to be written down
    problem: str = ""
    goes_on: bool = True  # to the next step


_Step = Callable[[dict[str, Any]], _Outcome]


@dataclass(slots=True)
class _Tidying:
    pipeline: "Pipeline"
    source: Source
    store: ObjectStore
    note: Audit
    failures: int = 0  # in a row
    refused: int = 0  # in a row: the store will not delete
    marked: int = 0

    def run(self, results: Sequence[FileResult] | None) -> Iterator[str]:
        """What could not be done. Raises TransientError if it could not be written down: then nothing more is done."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for rows in self._due(results):
                for begin in range(0, len(rows), _PER_MARK):
                    batch = rows[begin : begin + _PER_MARK]
                    for step in (self._put, self._take_out):
                        outcomes = list(pool.map(partial(self._try, step), batch))
                        yield from (outcome.problem for outcome in outcomes if outcome.problem)
                        if marks := [outcome.mark for outcome in outcomes if outcome.mark]:
                            self.pipeline.warehouse.mark(marks, self.note)
                            self.marked += len(marks)
                        batch = [row for row, outcome in zip(batch, outcomes, strict=True) if outcome.goes_on]

    def _due(self, results: Sequence[FileResult] | None) -> Iterator[list[dict[str, Any]]]:
        """The ledger rows that something may be done for, some at a time: there may be millions."""
        warehouse, source = self.pipeline.warehouse, self.source
        own = self.pipeline.settings.own_prefixes(source.bucket)
        chosen = None if results is None else [result.file_id for result in results]
        seen = set[str]()
        before: int | None = None
        # What former tries have left may be a whole ledger: new files need not wait until all of that is done.
        while (step := self._step()) and (chosen is not None or self.marked < _PER_POLL):
            place = (source.name, source.bucket, source.prefix)
            rows = warehouse.untidied(*place, step=step, file_ids=chosen, before=before)
            if not rows:
                break
            before = rows[-1]["file_no"]
            seen.update(row["file_id"] for row in rows if chosen is not None)
            # A person may name any file for a source; only what lies in its landing is ours to touch.
            yield [row for row in rows if takes(source, row["key"], own)]
        failed = [one for one in results or () if one.counts.failed and one.state in KEEPS_LINES]
        if source.report_prefix and (left := [one.file_id for one in failed if one.file_id not in seen]):
            below = (row for row in warehouse.files({"file_id": left}) if row["key"].startswith(source.prefix))
            yield [row for row in below if row["bucket"] == source.bucket and takes(source, row["key"], own)]

    def _step(self) -> Literal["archive", "copy", "delete"] | None:
        if self.source.after_load == "keep" or self.failures >= _ENOUGH_FAILURES:
            return None
        if self.refused < _ENOUGH_FAILURES:
            return self.source.after_load
        return "copy" if self.source.after_load == "archive" else None

    def _try(self, step: _Step, row: dict[str, Any]) -> _Outcome:
        if self.failures >= _ENOUGH_FAILURES:
            return _Outcome(goes_on=False)
        try:
            outcome = step(row)
        except IngestError as error:
            self.failures += isinstance(error, TransientError)
            return _Outcome(problem=str(error), goes_on=False)
        except OSError as error:
            problem = f"{row['key']}: its report cannot be made ({error}): see the setting `staging`"
            return _Outcome(problem=problem, goes_on=False)
        self.failures = 0
        return outcome

    def _put(self, row: dict[str, Any]) -> _Outcome:
        """Put the report of a file, and the copy of its object into the archive, where they are wanted."""
        if row["failed"] and row["state"] in KEEPS_LINES and self.source.report_prefix and not row["redrive_of"]:
            self._report(row)
        if "open_failures" not in row:  # it is tidied
            return _Outcome(goes_on=False)
        if not is_proven(row):
            why = "the store unpacked it on the way, so its bytes cannot be compared with what was listed: it stays"
            return _Outcome(problem=f"{SourceFile.of_row(row).uri}: {why}", goes_on=False)
        if self.source.after_load != "archive" or row["archived_to"]:
            return _Outcome(goes_on=self.source.after_load == "archive" or not row["open_failures"])
        file = SourceFile.of_row(row)
        try:
            archived_to = self.store.copy(file, self._archive_names(row), row["sha256"])
        except ObjectGone as error:
            # This version can never be archived any more: trying again on each poll would not bring it back.
            why = "it was deleted or overwritten before it could be archived"
            return _Outcome(Mark(file.file_id, deleted_at=datetime.now(UTC), reason=why), str(error), goes_on=False)
        return _Outcome(Mark(file.file_id, archived_to=archived_to))

    def _take_out(self, row: dict[str, Any]) -> _Outcome:
        """Delete the object of a file, unless another version stands there."""
        if self.refused >= _ENOUGH_FAILURES:
            return _Outcome(goes_on=False)
        file = SourceFile.of_row(row)
        try:
            gone = self.store.remove(file, self.source.within(self.source.archive_prefix))
        except ConfigError:
            self.refused += 1
            raise
        self.refused = 0
        why = None if gone else "another version stands under its key now, and stays"
        return _Outcome(Mark(file.file_id, deleted_at=datetime.now(UTC), reason=why))

    def _archive_names(self, row: dict[str, Any]) -> list[str]:
        """Where the copy may go: under its whole key, else with the first of its hash before the extension."""
        prefix = self.source.within(self.source.archive_prefix)
        name = f"{prefix}{row['loaded_at'].astimezone(UTC):%Y/%m/%d}/{self._whole_key(row)}"
        return [name, _EXTENSION.sub(lambda extension: f".{row['sha256'][:8]}{extension[0]}", name, count=1)]

    def _whole_key(self, row: dict[str, Any]) -> str:
        """The key; of a file on this machine, its path within the source's folder."""
        key: str = row["key"]
        return key.removeprefix(self.source.prefix).lstrip("/") if row["bucket"] == LOCAL_BUCKET else key

    def _report(self, row: dict[str, Any]) -> None:
        """Put the report and the lines to mend, by way of a file: there may be millions of them."""
        warehouse, file_id = self.pipeline.warehouse, row["file_id"]
        name = f"{self.source.within(self.source.report_prefix)}{self._whole_key(row)}.{file_id[:8]}"
        with staging_folder(self.pipeline.settings.staging_folder) as folder:
            report, lines = folder / "report", folder / "lines"
            with report.open("wb") as file, warehouse.failed_lines(file_id) as failed:
                file.writelines(file_report(row, failed))
            with lines.open("wb") as file, warehouse.failed_lines(file_id) as failed:
                open_lines = (line for line in failed if line["mendable"] and line["redriven_by"] is None)
                file.writelines(map(line_to_mend, open_lines))
            self.store.write(row["bucket"], f"{name}.report.json", report)
            self.store.write(row["bucket"], f"{name}.lines.tsv", lines)
