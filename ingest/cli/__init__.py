"""The command `ingest`: takes arguments, calls the pipeline, says what came of it.

Exit codes: 0 all well, 1 some lines failed (or a file was rejected or held), 2 something could not be done.
Imports stay inside the commands, so that `ingest check your.json` starts quickly.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ingest import __version__
from ingest.cli.output import count, progress, say, shortened, value, write_json, write_table
from ingest.errors import IngestError

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.ports import FileResult

Command = Callable[..., Any]
_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_format = click.option("--format", "format", help="The format of the file; default: the source's, else kissmetrics.")
_source = click.option("--source", "source", help="Judge by the rules of this source of ingest.toml.")


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
    """Judge PATH (a file, s3://bucket/key or -) and load nothing. Needs no warehouse."""
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
        _show_check(report)
    return 1 if report["failed"] else 0


def _show_check(report: dict[str, Any]) -> None:
    from ingest.report import by_code

    accepted = ", ".join(count(report[name], name[:-1]).replace("aliase", "alias") for name in ("records", "sets"))
    aliases = f"{report['aliases']:,} alias{'' if report['aliases'] == 1 else 'es'}"
    click.echo(
        f"{report['file']}: {count(report['lines'], 'line')}: {accepted}, {aliases}; "
        f"{report['failed']:,} failed, {report['blank']:,} blank."
    )
    if report["first_time"]:
        click.echo(f"{count(report['persons'], 'person')}, {report['first_time']} to {report['last_time']}.")
    if report["rejected"]:
        click.echo(f"A load would reject the file: {report['rejected']}")
    if report["events"]:
        write_table("Events", ("event", "records"), list(report["events"].items())[:20])
    if report["warnings"]:
        write_table("Accepted with a warning", ("code", "lines"), report["warnings"].items())
    if report["failures"]:
        rows = [
            (code, lines, f"{meaning.problem} {meaning.remedy}")
            for code, lines, meaning in by_code(report["format"], report["failures"])
        ]
        write_table("Failed lines", ("code", "lines", "what to do"), rows)
        shown = report["failures"][:20]
        samples = [
            (f"{line['line']}{line['item']}", shortened(failure["message"], 160), shortened(line["raw"], 80))
            for line in shown
            for failure in line["failures"]
        ]
        title = "Each of them" if len(shown) == len(report["failures"]) else f"The first {len(shown)}"
        write_table(title, ("line", "what is wrong", "as sent"), samples)


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
    """Load files now: paths, s3://bucket/key, or s3://bucket/prefix/ for all below it."""
    with _pipeline() as pipeline:
        files = [file for path in paths for file in pipeline.locate(path, source, format)]
        results: list[FileResult] = []
        with progress("loading", sum(file.size_bytes for file in files)) as moved:
            for pack in pipeline.pack(files):
                if dry_run:
                    results += pipeline.would_load(pack, force=force, progress=moved)
                else:
                    results += pipeline.load(pack, force=force, progress=moved)
    return _tell(results, as_json, "would be loaded" if dry_run else "loaded")


@cli.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE…]")
@_json
def poll(sources: tuple[str, ...], as_json: bool) -> int:
    """Find what is pending in the landing of each SOURCE (default: all) and load it: what the DAG does."""
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
                    say(f"{name}: {count(found.ignored, 'object')} that no rule takes: {', '.join(found.ignored_names)}")
                with progress(name, sum(file.size_bytes for file in found.pending)) as moved:
                    for pack in pipeline.pack(found.pending):
                        results += pipeline.load(pack, progress=moved)
            except IngestError as error:  # one source that is out of order does not hold up the others
                unreachable.append(f"{name}: {error}")
    code = _tell(results, as_json, "loaded")
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
        columns = ("state", "key", "lines", "records", "sets", "aliases", "failed", "duplicates", "file_id")
        rows = [
            ("already " * summary["already"] + summary["state"], *(summary[name] for name in columns[1:-1]),
             summary["file_id"][:12])
            for summary in summaries
        ]  # fmt: skip
        new = sum(result.state == "loaded" and not result.already for result in results)
        write_table(f"{new} of {count(len(results), 'file')} {done}", columns, rows)
    for result in results:
        if result.error:
            say(f"{result.key}: {result.error}")
    if any(result.state in ("retrying", "gone") for result in results):
        return 2
    failed = (result.counts.failed and not result.already for result in results)
    return int(any(result.state in ("rejected", "held") for result in results) or any(failed))


@cli.command()
@click.option("--source", help="Only files of this source.")
@click.option("--state", help="Only files in this state: loaded, rejected, retrying, duplicate, …")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@_json
def files(source: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List the ledger: the source files that were dealt with, the newest first."""
    from ingest.report import plain

    where = {name: given for name, given in (("source", source), ("state", state)) if given}
    with _pipeline() as pipeline:
        rows = pipeline.warehouse.files(where, limit)
    if as_json:
        write_json({"files": [plain(row, {"warnings"}) for row in rows]})
        return
    columns = ("state", "source", "key", "lines", "failed", "duplicates", "loaded_at", "file_id")
    write_table(
        count(len(rows), "file"), columns, ([*(value(row, c) for c in columns[:-1]), row["file_id"][:12]] for row in rows)
    )


@cli.command()
@click.argument("file_id")
@click.option("--lines", is_flag=True, help="Only LINE[/ITEM]<TAB>text of each, ready to edit and redrive.")
@_json
def failures(file_id: str, lines: bool, as_json: bool) -> None:
    """Show the failed lines of FILE_ID: an id, the beginning of one, or an s3:// URI."""
    from ingest.report import by_code, failed_line

    with _pipeline() as pipeline:
        file = pipeline.warehouse.find_file(file_id)
        with pipeline.warehouse.failed_lines(file["file_id"]) as found:
            if lines:
                for row in found:
                    sys.stdout.buffer.write(b"%d%b\t%b\n" % (row["line"], row["item"].encode(), row["raw"]))
                return
            failed = [failed_line(row) for row in found]
    if as_json:
        write_json({name: file[name] for name in ("file_id", "bucket", "key", "state", "failed")} | {"failures": failed})
        return
    title = f"{file['key']} ({file['state']}): {count(file['failed'], 'failed line')} of {file['lines']:,}"
    rows = [(code, n, meaning.problem, meaning.remedy) for code, n, meaning in by_code(file["format"], failed)]
    write_table(title, ("code", "lines", "problem", "remedy"), rows)
    samples = [
        (f"{line['line']}{line['item']}", shortened(failure["message"], 160), shortened(line["raw"], 80))
        for line in failed[:20]
        for failure in line["failures"]
    ]
    write_table(f"The first {min(20, len(failed))}", ("line", "what is wrong", "as sent"), samples)


@cli.command()
@click.argument("name", required=False)
@_json
def sources(name: str | None, as_json: bool) -> int:
    """Try each source: can it be reached, what matches, what is pending, how do first lines do."""
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
        columns = ("name", "reachable", "matching", "pending", "ignored", "schedule", "error")
        write_table(count(len(found), "source"), columns, ([entry.get(c) for c in columns] for entry in found))
        for entry in found:
            for judged in entry.get("judged", ()):
                click.echo(f"{entry['name']}: {judged['key']}: {judged['lines']} lines, {judged['failed']} would fail.")
    return 0 if all(entry["reachable"] for entry in found) else 2


@cli.command()
@click.argument("statement")
@_json
def sql(statement: str, as_json: bool) -> None:
    """Run one SELECT over ledger, commands, failed_lines, events, people, …"""
    from ingest.report import plain

    with _pipeline() as pipeline, pipeline.warehouse.query(statement) as answer:
        names = answer.reader.schema.names
        rows = [plain(row, answer.json_columns) for batch in answer.reader for row in batch.to_pylist()]
    if as_json:
        write_json(rows)
    else:
        import orjson

        cells = ([c if isinstance(c, (str, int)) else orjson.dumps(c).decode() for c in row.values()] for row in rows)
        write_table(count(len(rows), "row"), names, cells)


@cli.command()
@_json
def reconcile(as_json: bool) -> int:
    """Compare the landing of every source with the ledger; exit code 1 if something is not as it should be."""
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
    """Watch the whole job: a local S3, Airflow, sample files, the warehouse. Needs the extra [airflow]."""
    from ingest.demo import run

    return run(exit_when_done)
