"""Commands that load: `load`, `poll`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.base import (
    GIVEN,
    SHORT_ID,
    cli,
    exit_code,
    fail_on_option,
    format_option,
    json_option,
    no_sources,
    opened_pipeline,
    source_option,
    user,
)
from ingest.cli.output import MOST_ROWS, Moved, places, progress, say, say_some, write_json, write_table
from ingest.core.lifecycle import KEEPS_LINES
from ingest.text import count
from ingest.unforeseen import said

if TYPE_CHECKING:
    from ingest.core.lifecycle import Intent
    from ingest.core.source import SourceFile
    from ingest.pipeline import Pipeline
    from ingest.ports import Audit, FileResult

_NUMBERS = {  # of a file, as a table shows them: those that are 0 everywhere are left out
    "lines": "lines", "records": "records", "sets": "sets", "aliases": "aliases", "failed": "failed",
    "duplicates": "dupl.",
}  # fmt: skip
_NAMED = 10  # of more files those that need a look
_WELL = ("loaded", "duplicate", "ignored")


@dataclass(slots=True)
class _Taking:
    """Files that are loaded, or in a dry run only judged, and what came of them so far."""

    pipeline: "Pipeline"
    note: "Audit"
    dry_run: bool
    results: "list[FileResult]" = field(default_factory=list)
    unarchived: list[str] = field(default_factory=list)

    def take(self, files: "Sequence[SourceFile]", moved: Moved, intent: "Intent" = "new") -> None:
        from ingest.archiving import archive_loaded

        for pack in self.pipeline.pack(files):
            if self.dry_run:
                self.results += self.pipeline.would_load(pack, intent=intent, progress=moved)
            else:
                loaded = self.pipeline.load(pack, intent=intent, note=self.note, progress=moved)
                self.results += loaded
                self.unarchived += archive_loaded(self.pipeline, loaded, self.note)
            moved(0, len(pack))


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=GIVEN, metavar="PATH…")
@format_option
@source_option
@click.option("--force", is_flag=True, help="Load files again that the ledger has: the new rows replace the old ones.")
@click.option("--dry-run", is_flag=True, help="Say what would be loaded, and load nothing.")
@fail_on_option
@json_option
def load(
    paths: tuple[str, ...],
    format: str | None,
    source: str | None,
    force: bool,
    dry_run: bool,
    fail_on: str,
    as_json: bool,
) -> int:
    """Load files now, each once.

    PATH: a file, a folder, s3://bucket/key, s3://bucket/prefix/ for all below it, or the FILE_ID of a file of the
    ledger.
    """
    from ingest.core.address import split_address
    from ingest.ports import Audit

    with opened_pipeline() as pipeline:
        found: dict[Intent, list[SourceFile]] = {"force": [], "again": [], "new": []}
        order: list[str] = []
        errors: list[str] = []
        for path in paths:
            try:
                files = pipeline.locate(path, source, format, notice=say, doubt=errors.append)
            except Exception as error:  # noqa: BLE001 - one that cannot be had does not hold up the others
                errors.append(said(error))
                continue
            order += (file.file_id for file in files)
            names = {split_address(path)[1], path}  # a path, or the beginning of an id; and not all that lies below
            is_named = len(files) == 1 and not names.isdisjoint((files[0].key, files[0].file_id[: len(path)]))
            found["force" if force else "again" if is_named else "new"] += files
        taking = _Taking(pipeline, Audit(user(), is_named=True), dry_run)
        sizes = [file.size_bytes for files in found.values() for file in files]
        with progress("judging" if dry_run else "loading", sum(sizes), len(sizes)) as moved:
            try:
                for intent, files in found.items():
                    taking.take(files, moved, intent)
            except Exception as error:  # noqa: BLE001 - what was loaded before is said all the same
                errors.append(said(error))
    place_of = {file_id: place for place, file_id in enumerate(order)}
    results = sorted(taking.results, key=lambda one: place_of.get(one.file_id, 0))  # another load may have named it
    for sentence in taking.unarchived:
        say(sentence)
    code = show_files(results, as_json, errors, fail_on, dry_run=dry_run)
    # Somebody named it, so it is missed; an object that vanished under a poll left nothing to load.
    return 2 if any(result.state == "gone" for result in results) else code


@cli.command()
@click.argument("sources", nargs=-1, type=GIVEN, metavar="[SOURCE…]")
@click.option("--dry-run", is_flag=True, help="Say what a poll would load, and load nothing.")
@fail_on_option
@json_option
def poll(sources: tuple[str, ...], dry_run: bool, fail_on: str, as_json: bool) -> int:
    """Find what is pending and load it: what the DAG does.

    In the landing of each SOURCE, or of all.
    """
    from ingest.ports import Audit

    unreachable: list[str] = []
    note = Audit(user())
    with opened_pipeline() as pipeline:
        taking = _Taking(pipeline, note, dry_run)
        if not pipeline.settings.sources:
            raise no_sources(pipeline.settings)
        names = sources or tuple(pipeline.settings.sources)
        for name in names:
            pipeline.source(name)
        for name in names:
            try:
                told = pipeline.poll(name, note, dry_run=dry_run)
                for notice in told.notices:
                    say(f"{name}: {notice}")
                unreachable += (f"{name}: {problem}" for problem in told.problems)
                taking.unarchived += told.left
                with progress(name, sum(file.size_bytes for file in told.pending), len(told.pending)) as moved:
                    taking.take(told.pending, moved)
            except Exception as error:  # noqa: BLE001 - one source that is out of order does not hold up the others
                unreachable.append(f"{name}: {said(error)}")
    for sentence in dict.fromkeys(taking.unarchived):
        say(sentence)
    return show_files(taking.results, as_json, unreachable, fail_on, dry_run=dry_run)


def show_files(
    results: "list[FileResult]", as_json: bool, errors: Sequence[str], fail_on: str, *, dry_run: bool = False
) -> int:
    """Say what became of the files, or would, and what could not be loaded at all; the exit code."""
    from ingest.report import file_summary

    summaries = [file_summary(result) for result in results]
    outcomes = [_outcome(result, dry_run=dry_run) for result in results]
    if as_json:
        if dry_run:
            summaries = [one | {"outcome": outcome} for one, outcome in zip(summaries, outcomes, strict=True)]
        said_too = {"dry_run": True} if dry_run else {}
        write_json(said_too | {"files": summaries} | ({"errors": errors} if errors else {}))
    elif not results and not errors:
        click.echo("Nothing new.")
    elif results:
        _show_table(summaries, outcomes)
    say_some([f"{result.key}: {result.error}" for result in results if result.error])
    replaced = "copies of what it replaced stay unloaded until they are forced"
    copied = [(result.key, " ".join(one[:SHORT_ID] for one in result.copies)) for result in results if result.copies]
    say_some([f"{key}: {replaced}: {ids}" for key, ids in copied])
    failed = [result for result in results if result.counts.failed > result.fixed and not result.already]
    # A copy keeps no lines: they are those of the file that is loaded. Of a held file none are kept.
    kept = [one for one in failed if one.duplicate_of or one.state in KEEPS_LINES]
    listed = dict.fromkeys(one.duplicate_of or one.file_id for one in kept)
    if listed and not as_json and not dry_run:
        one = f"ingest failures {next(iter(listed))[:SHORT_ID]}"
        say(f"The failed lines: {one}" + "; of all files: ingest failures" * (len(listed) > 1))
    for sentence in dict.fromkeys(errors):
        say(f"ingest: {sentence}")
    if errors or any(result.state == "retrying" for result in results):
        return 2
    rejected = any(result.state in ("rejected", "held") for result in results)
    return exit_code(fail_on, failed=bool(failed), rejected=rejected)


def _outcome(result: "FileResult", *, dry_run: bool) -> str:
    if result.already:
        return f"already {result.state}"
    if not dry_run or result.state == "gone":
        return result.state
    return "could not be read" if result.state == "retrying" else f"would be {result.state}"


def _show_table(summaries: Sequence[dict[str, Any]], outcomes: Sequence[str]) -> None:
    """A row a file; of many files a row an outcome, and the first files that need a look."""
    folder, names = places(summaries)
    numbers = [n for n in _NUMBERS if n in ("lines", "failed") or any(one[n] for one in summaries)]
    told = Counter(outcomes)
    title = f"{count(len(summaries), 'file')}{f' in {folder}' * bool(folder)}: "
    title += ", ".join(f"{number:,} {outcome}" for outcome, number in told.items())
    files = list(zip(summaries, outcomes, names, strict=True))
    if len(files) > MOST_ROWS:
        sums = [
            (outcome, number, *(sum(one[n] for one, its, _ in files if its == outcome) for n in numbers))
            for outcome, number in told.most_common()
        ]
        write_table(title, ("state", "files", *(_NUMBERS[n] for n in numbers)), sums)
        new = (file for file in files if not file[0]["already"])
        bad = [file for file in new if file[0]["failed"] or file[0]["state"] not in _WELL]
        if not bad:
            return
        bad.sort(key=lambda file: file[0]["state"] in _WELL)  # whole files before lines
        title = f"{count(len(bad), 'file')} to look at" + f", the first {_NAMED}" * (len(bad) > _NAMED)
        files = bad[:_NAMED]
    rows = [(one["file_id"][:SHORT_ID], outcome, *(one[n] for n in numbers), name) for one, outcome, name in files]
    write_table(title, ("file_id", "state", *(_NUMBERS[n] for n in numbers), "file"), rows)
