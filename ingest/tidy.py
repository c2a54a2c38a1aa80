"""After a load: reports for the producer, and the landing object into the archive, or away.

In:      ledger rows of loaded files and of copies. Rejected, held and retrying files stay where they are.
Out:     objects, `archived_to` and `deleted_at` in the ledger, and a sentence for whatever could not be done.
Decides: the order. Copy, verify, write that down; then delete on condition, and write that down. Each step finds what a
         former try has done already, so that whatever dies in between, the next poll goes on and nothing is lost.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.discovery import takes
from ingest.errors import IngestError, ObjectGone, TransientError
from ingest.pipeline import Pipeline
from ingest.ports import FileResult, Note, ObjectStore
from ingest.report import file_report, line_to_mend
from ingest.settings import Source
from ingest.staging import staging_folder

_AT_ONCE = 8  # a file is some small requests, and waiting for their answers
_ENOUGH_FAILURES = 20  # in a row: the store is away, and each of a million files would wait for it
_EXTENSION = re.compile(r"(\.json)?(\.[^./]*)?\Z", re.IGNORECASE)
_log = logging.getLogger(__name__)


def tidy(pipeline: Pipeline, name: str, note: Note, results: Sequence[FileResult] | None = None) -> list[str]:
    """Put reports, archive and delete as the source called `name` says; never raises for what the world does.

    Call it after each load with its results; and on each poll without, for what former tries have left (files whose
    failed lines were mended since are deleted then). May run any number of times, also at the same time.

    Returns:
        What could not be done, in sentences, each once; the next poll tries again. They are logged as warnings.
    """
    source = pipeline.settings.sources.get(name)
    if source is None:  # one-off loads: nobody said that their files may go
        return []
    try:
        problems = _Tidying(pipeline, source, pipeline.store_of(name), note).run(results)
    except IngestError as error:
        problems = [str(error)]
    for problem in problems:
        _log.warning("not_tidied source=%s: %s", name, problem)
    return problems


def tidy_loaded(pipeline: Pipeline, results: Sequence[FileResult], note: Note) -> list[str]:
    """`tidy` what was just loaded, each file as its own source says."""
    names = dict.fromkeys(result.source for result in results)
    return [
        problem
        for name in names
        for problem in tidy(pipeline, name, note, [result for result in results if result.source == name])
    ]


@dataclass(slots=True)
class _Tidying:
    pipeline: Pipeline
    source: Source
    store: ObjectStore
    note: Note
    failures: int = field(default=0)  # in a row

    def run(self, results: Sequence[FileResult] | None) -> list[str]:
        """The problems, each once."""
        rows: dict[str, dict[str, Any]] = {}
        if self.source.after_load != "keep":
            chosen = None if results is None else {result.file_id for result in results}
            rows = {
                row["file_id"]: row
                for row in self.pipeline.warehouse.untidied(self.source.name)
                if chosen is None or row["file_id"] in chosen
            }
        if self.source.report_prefix:
            for result in results or ():
                if result.counts.failed and result.state in ("loaded", "rejected") and result.file_id not in rows:
                    rows |= {row["file_id"]: row for row in self.pipeline.warehouse.files({"file_id": result.file_id})}
        own = self.pipeline.settings.own_prefixes(self.source.bucket)
        # A person may name any file for a source; only what lies in its landing is ours to touch.
        ours = [row for row in rows.values() if row["bucket"] == self.source.bucket and self._takes(row["key"], own)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            found = [problem for problem in pool.map(self._one, ours) if problem]
        return list(dict.fromkeys(found))

    def _takes(self, key: str, own: Iterable[str]) -> bool:
        return key.startswith(self.source.prefix) and takes(self.source, key, own)

    def _one(self, row: dict[str, Any]) -> str | None:
        if self.failures >= _ENOUGH_FAILURES:
            return None
        try:
            if row["failed"] and self.source.report_prefix and not row["redrive_of"]:
                self._report(row)
            if "open_failures" in row:  # it is untidied
                self._take_out(row)
        except ObjectGone as error:
            return str(error)
        except TransientError as error:
            self.failures += 1
            return str(error)
        except IngestError as error:
            return str(error)
        except OSError as error:
            return f"{row['key']}: its report cannot be made ({error}): see the setting `staging`"
        self.failures = 0
        return None

    def _take_out(self, row: dict[str, Any]) -> None:
        """Archive one object and delete it, or delete it."""
        file, mark = SourceFile.of_row(row), self.pipeline.warehouse.mark
        if self.source.after_load == "archive" and not row["archived_to"]:
            try:
                archived_to = self.store.copy(file, self._archive_names(row), row["sha256"])
            except ObjectGone:
                # This version can never be archived any more: trying again on each poll would not bring it back.
                why = "it was deleted or overwritten before it could be archived"
                mark(file.file_id, replace(self.note, reason=why), deleted_at=datetime.now(UTC))
                raise
            mark(file.file_id, self.note, archived_to=archived_to)
        elif self.source.after_load == "keep" or (self.source.after_load == "delete" and row["open_failures"]):
            return
        own_prefix = self.source.within(self.source.archive_prefix)
        stays = not self.store.remove(file, own_prefix)
        why = "another version stands under its key now, and stays" if stays else self.note.reason
        mark(file.file_id, replace(self.note, reason=why), deleted_at=datetime.now(UTC))

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
