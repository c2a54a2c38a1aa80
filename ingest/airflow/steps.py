"""What the tasks do: plain functions over plain values, since XCom carries keys, counts and states, never lines.

Exactly once is the ledger's promise, so every step may be repeated, cleared or run twice at once.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from typing import TYPE_CHECKING, Any, Final

from ingest.airflow import action, tables
from ingest.airflow.notify import tell_of_differences
from ingest.archiving import archive_loaded
from ingest.core.lifecycle import KEEPS_LINES
from ingest.core.source import SourceFile
from ingest.pipeline import still_waiting
from ingest.ports import Audit, Counts
from ingest.reconcile import reconcile as compare
from ingest.report import Most, check_report
from ingest.text import count, visible
from ingest.uploads import keep_check_report

if TYPE_CHECKING:
    from ingest.airflow.action import Request
    from ingest.pipeline import Pipeline

log = logging.getLogger(__name__)

RUN_AT_MOST: Final = 50_000  # files in one run, so that its manifest fits in XCom; the next run takes the rest
# Events: each costs milliseconds, and Airflow answers a task within 5 seconds or not at all.
ANNOUNCED_AT_ONCE: Final = 100
_MOST_BATCHES: Final = 500  # Airflow maps a task at most 1,024 times, and an undo may be of more files than a run
NOT_LOADED: Final = ("retrying", "rejected")  # what turns a run red
_NUMBERS: Final = ("lines", "records", "sets", "aliases", "failed", "repaired", "duplicates")  # of a file that are told
_TAKEN_AWAY: Final = {"undo": "undone", "replace": "replaced"}  # by what `history` calls it

Pack = dict[str, Any]  # {"name": what the task is called, "files": [SourceFile.to_dict(), …]}
Result = dict[str, Any]  # {"file", "state", "lines", …}: see _counted


def discover(pipeline: "Pipeline", source: str, note: Audit) -> tuple[list[Pack], dict[str, Any]]:
    """The manifest of a run, packed into tasks: what is in the bucket and not in the ledger; and what pages tell of it.

    The second is {"pending", "matching", "ignored": numbers of objects, "ignored_names": the first of those,
    "problems": a sentence for each file, listing, or archive, that keeps the run from being well}.
    """
    poll = pipeline.poll(source, note)
    pending, found = poll.pending, poll.found
    for level, sentences in ((logging.WARNING, poll.problems), (logging.INFO, poll.notices)):
        for sentence in sentences:
            log.log(level, "%s", visible(sentence))
    log.info("discovered source=%s pending=%d ignored=%d", source, len(pending), found.ignored)
    if len(pending) > RUN_AT_MOST:
        log.warning("taking the first %d of %d files; the next run takes the rest", RUN_AT_MOST, len(pending))
    landing = {
        "pending": len(pending), "matching": found.matching, "ignored": found.ignored,
        "ignored_names": found.ignored_names[: tables.NAMED_AT_MOST], "problems": list(poll.problems),
    }  # fmt: skip
    return packed(pipeline, pending[:RUN_AT_MOST]), landing


def packed(pipeline: "Pipeline", files: Sequence[SourceFile]) -> list[Pack]:
    """Files in packs of a sensible size, each named by what it holds."""
    return [
        {"name": tables.pack_name([file.key for file in pack]), "files": [file.to_dict() for file in pack]}
        for pack in pipeline.pack(files)
    ]


def load(pipeline: "Pipeline", pack: Pack, note: Audit, *, force: bool = False) -> list[Result]:
    """Load one pack. A file that cannot be loaded says so in its result; only a world that does not answer raises."""
    files = {file.file_id: file for file in map(SourceFile.from_dict, pack["files"])}
    loaded = pipeline.load(list(files.values()), run_id=note.run_id, intent="force" if force else "new", note=note)
    archive_loaded(pipeline, loaded, note)  # it logs what it could not do, and later runs go on with it
    for one in loaded:
        if one.copies:
            said = "%s: copies of what it replaced stay unloaded until they are forced: %s"
            log.warning(said, one.key, " ".join(one.copies))
    # By place: a file may have another id in the ledger than in the manifest.
    results = [
        _counted(file, found.state, found.counts, found.error) | {"fixed": found.fixed}
        for file, found in zip(files.values(), loaded, strict=True)
    ]
    tables.log_table(log, count(len(results), "file"), results[: tables.NAMED_AT_MOST])
    return results


def check(pipeline: "Pipeline", pack: Pack) -> list[Result]:
    """Judge one pack and load nothing. What was found of an upload is put beside it, for a page to show."""
    results = []
    for file in (SourceFile.from_dict(file) for file in pack["files"]):
        with pipeline.judged([file]) as staging:
            (staged,) = staging.files
            state = "checked" if staged.outcome == "loaded" else staged.outcome
            results.append(_counted(file, state, staged.counts, staged.error))
            report = check_report(staging, Most())
            if staged.outcome in ("loaded", "rejected"):
                # By these a page tells that a load would find the file to be a copy.
                bytes_as = staged.sha256 if staged.skip_same_bytes else None
                keep_check_report(pipeline, file, report | {"sha256": bytes_as}, staging.folder)
        results[-1]["codes"] = report["codes"]
        for line in report["failures"][: tables.NAMED_AT_MOST]:
            log.info("%s line %d%s: %s", visible(file.uri), line["line"], line["item"], ", ".join(line["codes"]))
    tables.log_table(log, f"Checked {count(len(results), 'file')}, loaded none", results[: tables.NAMED_AT_MOST])
    return results


def announcements(pipeline: "Pipeline", run_id: str, source: str | None) -> list[list[dict[str, Any]]]:
    """What is to be told of what this run did: one `extra` a file, in batches, oldest first.

    Read from the warehouse, not from what the tasks returned, nor from the manifest: a task that died after its commit
    returned nothing, and a run that was cleared has a new manifest, without the files that it loaded before.
    `source` tells apart the runs of scheduled DAGs that began in the same moment; None: a run that takes any.
    """
    loaded = pipeline.warehouse.files({"run_id": run_id, "state": "loaded"})
    told = [(row, "redriven" if row["redrive_of"] else "loaded") for row in reversed(loaded)]
    gone = [entry for entry in pipeline.warehouse.history(run_id=run_id) if entry["action"] in _TAKEN_AWAY]
    found = pipeline.warehouse.files({"file_id": [entry["file_id"] for entry in gone]}) if gone else []
    rows = {row["file_id"]: row for row in found}
    for entry in gone:
        row = rows[entry["file_id"]]
        if row["state"] == _TAKEN_AWAY[entry["action"]]:  # and was not loaded again since
            told.append((row, row["state"]))
    extras = [
        {"source": row["source"], "file_id": row["file_id"], "action": action, "file": SourceFile.of_row(row).uri}
        | {name: row[name] for name in _NUMBERS}
        for row, action in told
        if source in (None, row["source"])
    ]
    at_once = max(ANNOUNCED_AT_ONCE, ceil(len(extras) / _MOST_BATCHES))
    return [extras[start : start + at_once] for start in range(0, len(extras), at_once)]


def verdict(
    pipeline: "Pipeline", packs: Sequence[Pack], results: Sequence[Result], problems: Sequence[str] = ()
) -> dict[str, Any]:
    """What became of the files of a run: totals, the failed lines by code, and `not_loaded`, a sentence for each.

    Files whose task died are looked up in the ledger, since it may have committed them before; `lost` are those of
    which it does not tell. Results of files that are not in the manifest are of an earlier try of this run.
    """
    manifest = {file.file_id: file for pack in packs for file in map(SourceFile.from_dict, pack["files"])}
    known = {result["file_id"]: result for result in results if result["file_id"] in manifest}
    lost = {file_id: file for file_id, file in manifest.items() if file_id not in known}
    for file_id, found in pipeline.warehouse.known(lost.values()).items():
        known[file_id] = _counted(lost.pop(file_id), found.state, found.counts, found.error)

    files = list(known.values())
    states = Counter(file["state"] for file in files)
    # Of copies and held files no lines are kept; those of a changed object may all be fixed already.
    with_failures = [
        file for file in files if file["failed"] > file.get("fixed", 0) and file["state"] in (*KEEPS_LINES, "checked")
    ]
    not_loaded = [f"{file['file']}: {file['state']}, {file['error']}" for file in files if file["state"] in NOT_LOADED]
    not_loaded += problems
    if not manifest and not problems:  # a run without files is well only if none waits
        not_loaded += [still_waiting(row) for row in pipeline.warehouse.files({"state": "retrying"})]
    not_loaded += [f"{file.uri}: its task did not end; the task's log says why" for file in lost.values()]

    tables.log_table(log, "Files by state", [{"state": state, "files": number} for state, number in states.items()])
    by_code: list[dict[str, Any]] = []
    failed = sum(file["failed"] for file in with_failures)
    if with_failures:
        by_code = tables.failed_lines_by_code(pipeline, with_failures)
        shown = [
            {name: file[name] for name in ("file", "state", "lines", "failed", "file_id")}
            for file in with_failures[: tables.NAMED_AT_MOST]
        ]
        title = f"{count(failed, 'failed line')} in {count(len(with_failures), 'file')}"
        tables.log_table(log, title, shown, level=logging.WARNING)
        tables.log_table(log, "Why", by_code, level=logging.WARNING)
        log.warning("To fix them: ingest failures FILE_ID --lines")
    for sentence in not_loaded[: tables.NAMED_AT_MOST]:
        log.error("not loaded: %s", visible(sentence))
    return {
        "states": dict(states),
        "failed_lines": failed,
        "failed_by_code": by_code,
        "files_with_failed_lines": [file["file"] for file in with_failures[: tables.NAMED_AT_MOST]],
        "not_loaded": not_loaded,
        "lost": [{"file_id": file_id, "source": file.source, "file": file.uri} for file_id, file in lost.items()],
    }


def reconcile(pipeline: "Pipeline", run_id: str) -> dict[str, Any]:
    """What was compared; `differences` and `information`, a sentence for each."""
    found = compare(pipeline)
    tell_of_differences(pipeline, found.differences, run_id)
    for title, differences in (("difference", found.differences), ("note", found.information)):
        rows = [asdict(difference) for difference in differences[: tables.NAMED_AT_MOST]]
        tables.log_table(log, count(len(differences), title), rows)
    return {
        "compared": found.compared, "ignored": found.ignored,
        "differences": [difference.sentence for difference in found.differences],
        "information": [difference.sentence for difference in found.information],
    }  # fmt: skip


def _counted(file: SourceFile, state: str, counts: Counts, error: str | None) -> Result:
    numbers = {name: getattr(counts, name) for name in _NUMBERS}
    said = {"error": error, "format": file.format, "file_id": file.file_id}
    return {"file": file.uri, "source": file.source, "state": state} | numbers | said


def act(pipeline: "Pipeline", request: "Request", note: Audit) -> list[dict[str, Any]]:
    """Do what the form of `ingest_action` asks for; what became of each file."""
    results = action.act(pipeline, request, note)
    tables.log_table(log, f"{count(len(results), 'file')} after {request.action}", results[: tables.NAMED_AT_MOST])
    return results
