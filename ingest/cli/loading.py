"""Commands that load: `load`, `poll`."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

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
from ingest.cli.output import places, progress, say, write_json, write_table
from ingest.core.states import KEEPS_LINES
from ingest.text import count
from ingest.unforeseen import said

if TYPE_CHECKING:
    from ingest.core.source import SourceFile
    from ingest.ports import FileResult, Intent

_NUMBERS = {  # of a file, as a table shows them: those that are 0 everywhere are left out
    "lines": "lines", "records": "records", "sets": "sets", "aliases": "aliases", "failed": "failed",
    "duplicates": "dupl.",
}  # fmt: skip


@cli.command()
@click.argument("paths", nargs=-1, required=True, type=GIVEN, metavar="PATH…")
@format_option
@source_option
@click.option("--force", is_flag=True, help="Put files that were dealt with anew in the place of their former rows.")
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

    PATH: a file, a folder, s3://bucket/key, or s3://bucket/prefix/ for all below it.
    """
    from ingest.core.address import split_address
    from ingest.ports import Note
    from ingest.tidy import tidy_loaded

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
            is_named = [file.key for file in files] == [split_address(path)[1]]  # and not all that lies below
            found["force" if force else "again" if is_named else "new"] += files
        results: list[FileResult] = []
        untidy: list[str] = []
        note = Note(user(), is_named=True)
        with progress("loading", sum(file.size_bytes for files in found.values() for file in files)) as moved:
            try:
                for intent, files in found.items():
                    for pack in pipeline.pack(files):
                        if dry_run:
                            results += pipeline.would_load(pack, intent=intent, progress=moved)
                        else:
                            loaded = pipeline.load(pack, intent=intent, note=note, progress=moved)
                            results += loaded
                            untidy += tidy_loaded(pipeline, loaded, note)
            except Exception as error:  # noqa: BLE001 - what was loaded before is told nevertheless
                errors.append(said(error))
    place_of = {file_id: place for place, file_id in enumerate(order)}
    results.sort(key=lambda result: place_of.get(result.file_id, 0))  # another load may have named it otherwise
    for sentence in untidy:
        say(sentence)
    code = tell_files(results, as_json, "would be loaded" if dry_run else "loaded", errors, fail_on)
    # Somebody named it, so it is missed; an object that vanished under a poll left nothing to load.
    return 2 if any(result.state == "gone" for result in results) else code


@cli.command()
@click.argument("sources", nargs=-1, type=GIVEN, metavar="[SOURCE…]")
@fail_on_option
@json_option
def poll(sources: tuple[str, ...], fail_on: str, as_json: bool) -> int:
    """Find what is pending and load it: what the DAG does.

    In the landing of each SOURCE, or of all.
    """
    from ingest.archive import look_at_poll
    from ingest.ports import Note
    from ingest.tidy import tidy, tidy_loaded

    results: list[FileResult] = []
    unreachable: list[str] = []
    untidy: list[str] = []
    note = Note(user())
    with opened_pipeline() as pipeline:
        if not pipeline.settings.sources:
            raise no_sources(pipeline.settings)
        for name in sources or tuple(pipeline.settings.sources):
            pipeline.source(name)
        for name in sources or tuple(pipeline.settings.sources):
            try:
                if passed := pipeline.begin_poll(name):
                    say(f"{name}: {count(passed, 'file')} there before the first poll, entered as ignored")
                if lost := look_at_poll(pipeline, name):
                    unreachable.append(f"{name}: {lost}")
                found = pipeline.discover(name, note)
                if found.gone:
                    say(f"{name}: {count(len(found.gone), 'file')} waited, but gone by now: {', '.join(found.gone)}")
                for notice in found.notices:
                    say(f"{name}: {notice}")
                unreachable += (f"{name}: {problem}" for problem in found.problems)
                if found.ignored:
                    say(
                        f"{name}: {count(found.ignored, 'object')} that no rule takes: {', '.join(found.ignored_names)}"
                    )
                with progress(name, sum(file.size_bytes for file in found.pending)) as moved:
                    for pack in pipeline.pack(found.pending):
                        loaded = pipeline.load(pack, note=note, progress=moved)
                        results += loaded
                        untidy += tidy_loaded(pipeline, loaded, note)
                untidy += tidy(pipeline, name, note)  # what former polls have left
            except Exception as error:  # noqa: BLE001 - one source that is out of order does not hold up the others
                unreachable.append(f"{name}: {said(error)}")
    for sentence in dict.fromkeys(untidy):
        say(sentence)
    return tell_files(results, as_json, "loaded", unreachable, fail_on)


def tell_files(
    results: "list[FileResult]", as_json: bool, done: str, errors: Sequence[str], fail_on: str = "failed"
) -> int:
    """Say what became of the files, and what could not be loaded at all; the exit code."""
    from ingest.report import file_summary

    summaries = [file_summary(result) for result in results]
    if as_json:
        write_json({"files": summaries} | ({"errors": errors} if errors else {}))
    elif not results and not errors:
        click.echo("Nothing new.")
    elif results:
        folder, names = places(summaries)
        states = [f"{'already ' * one['already']}{one['state']}" for one in summaries]
        told = Counter(done if state == "loaded" else state for state in states)
        numbers = [n for n in _NUMBERS if n in ("lines", "failed") or any(one[n] for one in summaries)]
        rows = [
            (one["file_id"][:SHORT_ID], state, *(one[n] for n in numbers), name)
            for one, state, name in zip(summaries, states, names, strict=True)
        ]
        title = f"{count(len(results), 'file')}{f' in {folder}' * bool(folder)}: "
        title += ", ".join(f"{number:,} {state}" for state, number in told.items())
        write_table(title, ("file_id", "state", *(_NUMBERS[n] for n in numbers), "file"), rows)
    for result in results:
        if result.error:
            say(f"{result.key}: {result.error}")
        if result.copies:
            ids = " ".join(one[:SHORT_ID] for one in result.copies)
            say(f"{result.key}: copies of what it replaced stay unloaded until they are forced: {ids}")
    failed = [result for result in results if result.counts.failed > result.fixed and not result.already]
    # A copy keeps no lines: they are those of the file that is loaded. Of a held file none are kept.
    listed = dict.fromkeys(
        one.duplicate_of or one.file_id for one in failed if one.duplicate_of or one.state in KEEPS_LINES
    )
    if listed and not as_json and done == "loaded":
        say(f"The failed lines: ingest failures {next(iter(listed))[:SHORT_ID]}{' …' * (len(listed) > 1)}")
    for sentence in dict.fromkeys(errors):
        say(f"ingest: {sentence}")
    if errors or any(result.state == "retrying" for result in results):
        return 2
    rejected = any(result.state in ("rejected", "held") for result in results)
    return exit_code(fail_on, failed=bool(failed), rejected=rejected)
