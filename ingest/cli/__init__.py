"""The command `ingest`: takes arguments, calls the pipeline, says what came of it.

Exit codes: 0 all well, 1 some lines failed (or a file was rejected or held), 2 something could not be done.
Imports stay inside the commands, so that `ingest check your.json` starts quickly.
"""

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ingest import __version__
from ingest.cli.output import (
    count,
    places,
    progress,
    say,
    total,
    value,
    visible,
    write_failed_lines,
    write_json,
    write_table,
)
from ingest.core.source import LOCAL_BUCKET
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.ports import FileResult

Command = Callable[..., Any]
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_format = click.option("--format", "format", help="The format of the file; default: the source's, else kissmetrics.")
_source = click.option("--source", "source", help="Judge by the rules of this source of ingest.toml.")

_ID = 8  # of a file's id: a beginning that is unique will do wherever one is asked for
_NUMBERS = {  # of a file, as a table shows them: those that are 0 everywhere are left out
    "lines": "lines", "records": "records", "sets": "sets", "aliases": "aliases", "failed": "failed",
    "duplicates": "dupl.",
}  # fmt: skip


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="ingest")
def cli() -> None:
    """Load files of events from S3 into a warehouse, each exactly once."""


def main() -> None:
    """Entry point: every failure of ours is one sentence on stderr and exit code 2."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `ingest files | head` ends quietly
    try:
        sys.exit(cli.main(standalone_mode=False))
    except IngestError as error:
        say(f"ingest: {error}")
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        say("ingest: stopped. Nothing was loaded by halves; run again to go on.")
        sys.exit(130)
    sys.exit(2)


@contextmanager
def _pipeline(*, warehouse: bool = True) -> Iterator["Pipeline"]:
    from ingest.settings import load_settings
    from ingest.wiring import open_pipeline

    with open_pipeline(load_settings(os.environ)) as pipeline:
        if warehouse:
            say(f"Warehouse: {pipeline.warehouse.name}")
        yield pipeline


@cli.command()
@click.argument("path")
@_format
@_source
@_json
def check(path: str, format: str | None, source: str | None, as_json: bool) -> int:
    """Judge a file and load nothing.

    PATH: a file, s3://bucket/key, or - for standard input. Needs no warehouse.
    """
    from ingest.report import check_report

    with _pipeline(warehouse=False) as pipeline:
        files = pipeline.locate(path, source, format)
        if len(files) > 1:
            raise IngestError(f"{path} holds {count(len(files), 'file')}. Check them one at a time.")
        with (
            progress("judging", files[0].size_bytes) as moved,
            pipeline.judged(files, progress=moved) as staging,
        ):
            if staging.files[0].outcome in ("retrying", "gone"):
                raise IngestError(staging.files[0].error)
            report = check_report(staging)
    if as_json:
        write_json(report)
    else:
        _show_check(path, report)
    return 1 if report["failed"] else 0


def _show_check(path: str, report: dict[str, Any]) -> None:
    counted = total({name: report[name] for name in ("records", "sets", "aliases", "failed", "blank")}, ("failed",))
    click.echo(f"{visible(path)}: {count(report['lines'], 'line')}: {counted}")
    if report["first_time"]:
        click.echo(f"{count(report['persons'], 'person')}, {report['first_time']} to {report['last_time']}")
    if report["rejected"]:
        click.echo(f"A load would reject the file: {report['rejected']}")
    click.echo()
    if report["events"]:
        more = len(report["events"]) - 20
        title = f"Events, without {more:,} that are less frequent" if more > 0 else "Events"
        write_table(title, ("event", "records"), list(report["events"].items())[:20])
    _show_codes(report["format"], "Accepted with a warning", report["warnings"].items())
    _show_failures(report["format"], report["failures"])


def _show_codes(format: str, title: str, counted: Iterable[tuple[str, int]]) -> None:
    """What each code means and what to do, once, however many lines have it."""
    from ingest.core.schema import Meaning, codes

    known = codes(format)
    rows = [(code, lines, " ".join(known.get(code, Meaning("", "")))) for code, lines in counted]
    if rows:
        write_table(title, ("code", "lines", "what it means and what to do"), rows)


def _show_failures(format: str, failed: Sequence[dict[str, Any]]) -> None:
    from ingest.core.schema import codes
    from ingest.report import by_code

    if failed:
        write_failed_lines(failed, codes(format))
        _show_codes(format, "Failed lines", [(code, lines) for code, lines, _ in by_code(format, failed)])


@cli.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH…")
@_format
@_source
@click.option("--force", is_flag=True, help="Put files that were dealt with anew in the place of their former rows.")
@click.option("--dry-run", is_flag=True, help="Say what would be loaded, and load nothing.")
@_json
def load(
    paths: tuple[str, ...], format: str | None, source: str | None, force: bool, dry_run: bool, as_json: bool
) -> int:
    """Load files now, each once.

    PATH: a file, a folder, s3://bucket/key, or s3://bucket/prefix/ for all below it.
    """
    with _pipeline() as pipeline:
        files = [file for path in paths for file in pipeline.locate(path, source, format)]
        results: list[FileResult] = []
        with progress("loading", sum(file.size_bytes for file in files)) as moved:
            for pack in pipeline.pack(files):
                if dry_run:
                    results += pipeline.would_load(pack, force=force, progress=moved)
                else:
                    results += pipeline.load(pack, force=force, progress=moved)
    code = _tell(results, as_json, "would be loaded" if dry_run else "loaded")
    # Somebody named it, so it is missed; an object that vanished under a poll left nothing to load.
    return 2 if any(result.state == "gone" for result in results) else code


@cli.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE…]")
@_json
def poll(sources: tuple[str, ...], as_json: bool) -> int:
    """Find what is pending and load it: what the DAG does.

    In the landing of each SOURCE, or of all.
    """
    results: list[FileResult] = []
    unreachable: list[str] = []
    with _pipeline() as pipeline:
        if not pipeline.settings.sources:
            raise IngestError("There is no [[source]] in ingest.toml. Add one, or load files with `ingest load`.")
        for name in sources or tuple(pipeline.settings.sources):
            pipeline.source(name)
        for name in sources or tuple(pipeline.settings.sources):
            try:
                found = pipeline.discover(name)
                if found.ignored:
                    say(
                        f"{name}: {count(found.ignored, 'object')} that no rule takes: {', '.join(found.ignored_names)}"
                    )
                with progress(name, sum(file.size_bytes for file in found.pending)) as moved:
                    for pack in pipeline.pack(found.pending):
                        results += pipeline.load(pack, progress=moved)
            except IngestError as error:  # one source that is out of order does not hold up the others
                unreachable.append(f"{name}: {error}")
    code = _tell(results, as_json, "loaded") if results or as_json or not unreachable else 2
    for sentence in unreachable:
        say(f"ingest: {sentence}")
    return 2 if unreachable else code


def _tell(results: "list[FileResult]", as_json: bool, done: str) -> int:
    """Say what became of the files; the exit code."""
    from ingest.report import file_summary

    summaries = [file_summary(result) for result in results]
    if as_json:
        write_json({"files": summaries})
    elif not results:
        click.echo("Nothing new.")
    else:
        folder, names = places(summaries)
        states = [f"{'already ' * one['already']}{one['state']}" for one in summaries]
        told = Counter(done if state == "loaded" else state for state in states)
        numbers = [n for n in _NUMBERS if n in ("lines", "failed") or any(one[n] for one in summaries)]
        rows = [
            (one["file_id"][:_ID], state, *(one[n] for n in numbers), name)
            for one, state, name in zip(summaries, states, names, strict=True)
        ]
        title = f"{count(len(results), 'file')}{f' in {folder}' * bool(folder)}: "
        title += ", ".join(f"{number:,} {state}" for state, number in told.items())
        write_table(title, ("file_id", "state", *(_NUMBERS[n] for n in numbers), "file"), rows)
    for result in results:
        if result.error:
            say(f"{result.key}: {result.error}")
    failed = [result for result in results if result.counts.failed and not result.already]
    if failed and not as_json and done == "loaded":
        say(f"The failed lines: ingest failures {failed[0].file_id[:_ID]}{' …' * (len(failed) > 1)}")
    if any(result.state == "retrying" for result in results):
        return 2
    return int(any(result.state in ("rejected", "held") for result in results) or bool(failed))


@cli.command()
@click.option("--source", help="Only files of this source.")
@click.option("--state", help="Only files in this state: loaded, rejected, retrying, duplicate, …")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@_json
def files(source: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List the files that were dealt with, the newest first."""
    from ingest.report import plain

    where = {name: given for name, given in (("source", source), ("state", state)) if given}
    with _pipeline() as pipeline:
        rows = pipeline.warehouse.files(where, limit)
    if as_json:
        write_json({"files": [plain(row, {"warnings"}) for row in rows]})
        return
    folder, names = places(rows)
    columns = [
        "state",
        *(["source"] if len({row["source"] for row in rows}) > 1 else []),
        "lines",
        "failed",
        "loaded_at",
    ]
    title = f"{count(len(rows), 'file')}{f' in {folder}' * bool(folder)}"
    cells = [
        (row["file_id"][:_ID], *(value(row, name) for name in columns), name)
        for row, name in zip(rows, names, strict=True)
    ]
    write_table(title, ("file_id", *columns, "file"), cells)
    for row, name in zip(rows, names, strict=True):
        if row["error"] or row["duplicate_of"]:
            click.echo(visible(f"{name}: {row['error'] or 'the same bytes as ' + row['duplicate_of'][:_ID]}"))


@cli.command()
@click.argument("file_id")
@click.option("--lines", is_flag=True, help="Only LINE[/ITEM]<TAB>text of each, ready to edit and redrive.")
@_json
def failures(file_id: str, lines: bool, as_json: bool) -> None:
    """Show the failed lines of a file, and what to do.

    FILE_ID: an id, the beginning of one, or an s3:// URI.
    """
    from ingest.report import failed_line

    with _pipeline() as pipeline:
        file = pipeline.warehouse.find_file(file_id)
        with pipeline.warehouse.failed_lines(file["file_id"]) as found:
            if lines:
                cut = 0
                for row in found:
                    if row["mendable"]:
                        sys.stdout.buffer.write(b"%d%b\t%b\n" % (row["line"], row["item"].encode(), row["raw"]))
                    cut += not row["mendable"]
                if cut:
                    say(f"{count(cut, 'more failed line')}, too long to keep whole: mend the file itself.")
                return
            failed = [failed_line(row) for row in found]
    if as_json:
        write_json(
            {name: file[name] for name in ("file_id", "bucket", "key", "state", "failed")} | {"failures": failed}
        )
        return
    click.echo(f"{visible(file['key'])} ({file['state']}): {file['failed']:,} of {count(file['lines'], 'line')} failed")
    if file["error"]:
        click.echo(visible(file["error"]))
    click.echo()
    _show_failures(file["format"], failed)


@cli.command()
@click.argument("name", required=False)
@_json
def sources(name: str | None, as_json: bool) -> int:
    """Try each source: rights, what matches, how a file does."""
    from ingest.report import file_summary

    found: list[dict[str, Any]] = []
    with _pipeline() as pipeline:
        for source in [pipeline.source(name)] if name else pipeline.settings.sources.values():
            entry: dict[str, Any] = {
                "name": source.name, "bucket": source.bucket, "prefix": source.prefix, "format": source.format,
                "schedule": source.schedule, "reachable": False, "error": None,
            }  # fmt: skip
            found.append(entry)
            try:
                discovery = pipeline.discover(source.name)
                entry |= {
                    "reachable": True, "matching": discovery.matching, "pending": len(discovery.pending),
                    "ignored": discovery.ignored, "ignored_names": discovery.ignored_names,
                }  # fmt: skip
                smallest = sorted(discovery.pending, key=lambda file: file.size_bytes)[:1]
                entry["judged"] = [file_summary(result) for result in pipeline.would_load(smallest)]
            except IngestError as error:
                entry["error"] = str(error)
    if as_json:
        write_json({"sources": found})
    else:
        for entry in found:
            _show_source(entry)
    unread = any(judged["state"] == "retrying" for entry in found for judged in entry.get("judged", ()))
    return 0 if all(entry["reachable"] for entry in found) and not unread else 2


def _show_source(entry: dict[str, Any]) -> None:
    is_local = entry["bucket"] == LOCAL_BUCKET
    address = entry["prefix"] if is_local else f"s3://{entry['bucket']}/{entry['prefix']}"
    click.echo(visible(f"{entry['name']}: {address} ({entry['format']}, {entry['schedule']})"))
    if not entry["reachable"]:
        click.echo(visible(f"  list: no. {entry['error']}") + "\n")
        return
    click.echo(f"  list: yes. {count(entry['matching'], 'file')}, of which {entry['pending']:,} pending")
    if entry["ignored"]:
        names = ", ".join(entry["ignored_names"][:3])
        click.echo(visible(f"  no rule takes {count(entry['ignored'], 'object')}, such as {names}"))
    if not entry["judged"]:
        click.echo("  read: not tried, since nothing is pending")
    for judged in entry["judged"]:
        if judged["state"] in ("retrying", "gone"):
            named = "" if judged["key"] in judged["error"] else f"{judged['key']}: "
            click.echo(visible(f"  read: no. {named}{judged['error']}"))
        else:
            would = total({n: judged[n] for n in ("records", "sets", "aliases", "failed", "blank")}, ("failed",))
            click.echo(visible(f"  read: yes. {judged['key']}: {count(judged['lines'], 'line')}: {would}"))
        if judged["state"] == "rejected":
            click.echo(visible(f"  a load would reject it: {judged['error']}"))
    click.echo()


@cli.command()
@click.argument("statement")
@_json
def sql(statement: str, as_json: bool) -> None:
    """Ask the warehouse: one SELECT.

    Over events, people, identities, kissmetrics_events, ledger, failed_lines, commands.
    """
    from ingest.report import plain

    with _pipeline() as pipeline, pipeline.warehouse.query(statement) as answer:
        names = answer.reader.schema.names
        rows = [plain(row, answer.json_columns) for batch in answer.reader for row in batch.to_pylist()]
    if as_json:
        write_json(rows)
    else:
        import orjson

        cells = ([c if isinstance(c, (str, int)) else orjson.dumps(c).decode() for c in row.values()] for row in rows)
        write_table(count(len(rows), "row"), names, cells, folded=False)


@cli.command()
@_json
def reconcile(as_json: bool) -> int:
    """Name what waits or fails for too long.

    Holds the landing of every source against the ledger. Exit code 1 if something is not as it should be.
    """
    from dataclasses import asdict

    from ingest.reconcile import reconcile as compare

    with _pipeline() as pipeline:
        outcome = compare(pipeline)
    if as_json:
        write_json(asdict(outcome))
    else:
        rows = [(d.source, d.what, d.key, d.explanation) for d in outcome.differences]
        write_table(count(len(rows), "difference"), ("source", "what", "key", "explanation"), rows)
    return 1 if outcome.differences else 0


@cli.command()
@click.option("--exit", "exit_when_done", is_flag=True, help="End by itself; the exit code says whether all is there.")
def demo(exit_when_done: bool) -> int:
    """Watch the whole job on this machine.

    A local S3, Airflow, sample files, the warehouse. Needs the extras [airflow,demo].
    """
    from ingest.demo import run

    return run(exit_when_done)
