"""Commands that ask the warehouse: `files`, `failures`, `sql`."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_DATA, getrlimit, setrlimit
from threading import Timer
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.base import GIVEN, SHORT_ID, cli, given_bytes, json_option, opened_pipeline, say_versions, show_failures
from ingest.cli.output import (
    csv_rows,
    ended,
    json_rows,
    places,
    say,
    shown_line,
    write_bytes,
    write_json,
    write_table,
    write_waiting,
)
from ingest.core.lifecycle import KEEPS_LINES, STATES
from ingest.core.source import ONE_OFF
from ingest.errors import ConfigError, IngestError
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.ports import QueryLimits, QueryResult
    from ingest.report import Elsewhere

_GRACE_SECONDS = 10.0  # for a statement that was asked to stop
_BYTES_AT_ONCE = 4 << 20
_SHOWN_ROWS = 1_000
_FAILURES_SHOWN = 50
_SHOWN_CHARACTERS = 4 << 20


@cli.command()
@click.option("--source", type=GIVEN, help="Only files of this source.")
@click.option("--state", type=click.Choice(STATES), help="Only files in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many, the newest first.")
@json_option
def files(source: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List the files of the ledger, the newest first."""
    from ingest.report import plain

    where = {name: given for name, given in (("source", source), ("state", state)) if given}
    with opened_pipeline() as pipeline:
        rows = pipeline.warehouse.files(where, limit)
        _refuse_unknown(pipeline, source)
    if as_json:
        write_json({"files": [plain(row, {"warnings"}) for row in rows]})
        return
    folder, names = places(rows)
    several = len({row["source"] for row in rows}) > 1
    columns = ("state", *(["source"] if several else []), "lines", "failed")
    title = f"{count(len(rows), 'file')}{f' in {folder}' * bool(folder)}"
    times = [row["loaded_at"] and f"{row['loaded_at']:%Y-%m-%d %H:%M}" for row in rows]
    cells = [
        (row["file_id"][:SHORT_ID], *(row[column] for column in columns), at, name)
        for row, at, name in zip(rows, times, names, strict=True)
    ]
    write_table(title, ("file_id", *columns, "loaded_at", "file"), cells)
    for row, name in zip(rows, names, strict=True):
        if row["error"] or row["duplicate_of"]:
            click.echo(visible(f"{name}: {row['error'] or 'the same bytes as ' + row['duplicate_of'][:SHORT_ID]}"))


def _refuse_unknown(pipeline: "Pipeline", source: str | None) -> None:
    if source in (None, ONE_OFF, *pipeline.settings.sources) or pipeline.warehouse.files({"source": source}, 1):
        return
    raise ConfigError(f"There is no source {source} in ingest.toml, and no file of it in the ledger.")


@cli.command()
@click.argument("file_id", type=GIVEN, required=False)
@click.option(
    "--lines", is_flag=True, help="Only LINE[/ITEM]<TAB>text of each that is open, ready to edit and redrive."
)
@click.option("--source", type=GIVEN, help="Over all files of this source.")
@click.option("--code", type=GIVEN, help="Over all files: the lines with this code, the newest file first.")
@click.option("--since", type=GIVEN, help="Over files that were loaded since then: 2026-11-01, or 7d.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many codes, or lines of one code.  [default: 50]")
@json_option
def failures(
    file_id: str | None,
    lines: bool,
    source: str | None,
    code: str | None,
    since: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the failed lines of a file, and what to do. Without FILE_ID: the open ones of all files, by code.

    FILE_ID: an id, the beginning of one, or an s3:// URI.
    """
    if file_id is None:
        if lines:
            raise click.UsageError("--lines needs a FILE_ID: its numbers are those of one file.")
        _across(source, code, since, limit or _FAILURES_SHOWN, as_json)
    elif source or code or since or limit:
        raise click.UsageError("--source, --code, --since and --limit are for all files; FILE_ID names one: not both.")
    else:
        _of_file(file_id, lines, as_json)


def _across(source: str | None, code: str | None, since: str | None, limit: int, as_json: bool) -> None:
    """Open failed lines of all files: by code, or those of one code."""
    from ingest.actions import when
    from ingest.core.formats import FORMATS
    from ingest.core.schema import Meaning, codes
    from ingest.ports import FailuresWanted
    from ingest.report import failed_line

    if code and not any(code in codes(format) for format in FORMATS):
        raise IngestError(f"There is no code {code!r}. `ingest failures` shows those of open lines.")
    wanted = FailuresWanted(source=source, code=code, since=when(since) if since else None, limit=limit)
    with opened_pipeline() as pipeline:
        _refuse_unknown(pipeline, source)
        with pipeline.warehouse.open_failures(wanted) as found:
            groups = [
                group | codes(group["format"]).get(group["code"], Meaning("", ""))._asdict() for group in found.by_code
            ]
            open_lines = (row | {"line": failed_line(row)} for row in found.lines)
            if as_json:
                whose = ("file_id", "source", "bucket", "key")
                rows = ({name: row[name] for name in whose} | row["line"] for row in open_lines)
                waiting = json_rows(rows, {"codes": groups[:limit], "more_codes": len(groups[limit:])}, "failures")
            else:
                written = list(_shown_by_file(open_lines))
    if as_json:
        write_waiting(waiting)
        return
    for text in written:
        click.echo(text)
    if not groups:
        click.echo("No such failed line is open." if source or code or since else "No failed line is open.")
        return
    folder, names = places(groups[:limit])
    cells = [
        (group["code"], group["open"], group["files"], group["file_id"][:SHORT_ID], name)
        for group, name in zip(groups, names, strict=False)
    ]
    title = f"{count(len(groups), 'code')} of open lines{f', files in {folder}' * bool(folder)}"
    write_table(title, ("code", "lines", "files", "newest", "file"), cells)
    meanings = [(group["code"], f"{group['problem']} {group['remedy']}") for group in groups[:limit]]
    write_table("What to do", ("code", "what it means and what to do"), meanings)
    if code and (left := groups[0]["open"] - limit) > 0:
        say(f"{count(left, 'more line')} with this code: --limit shows more.")
    elif not code and len(groups) > limit:
        say(f"{count(len(groups) - limit, 'more code')}: --limit shows more.")
    if not code:
        say(f"The lines of a code: ingest failures --code {groups[0]['code']}")


def _shown_by_file(rows: "Iterable[dict[str, Any]]") -> Iterator[str]:
    from ingest.core.schema import codes

    file_id = ""
    for row in rows:
        if row["file_id"] != file_id:
            file_id = row["file_id"]
            yield visible(f"{file_id[:SHORT_ID]}  {row['key']}")
        yield from shown_line(row["line"], codes(row["format"]))


def _of_file(file_id: str, lines: bool, as_json: bool) -> None:
    from ingest.report import failed_line, line_to_mend, no_open_lines

    if lines and as_json:
        of_each = "--lines writes lines to edit, --json a document with all that is known of them"
        raise click.UsageError(f"{of_each}: not both.")
    with opened_pipeline() as pipeline:
        say_versions(pipeline, file_id)
        file = pipeline.warehouse.find_file(file_id)
        with pipeline.warehouse.failed_lines(file["file_id"]) as found:
            if lines:
                cut: list[str] = []  # codes of those that were not kept whole
                is_empty = True
                for row in found:
                    if row["redriven_by"]:
                        continue
                    is_empty = False
                    if row["mendable"]:
                        write_bytes(line_to_mend(row))
                    else:
                        cut += row["codes"]
                if too_long := [code for code in cut if code in ("line_too_long", "document_too_large")]:
                    say(f"{count(len(too_long), 'more failed line')}, too long to keep whole: fix the file itself.")
                elif cut:
                    why = f"The file was refused as a whole ({', '.join(cut)})"
                    say(f"{why}: fix the file itself, there are no single lines to fix.")
                if is_empty:
                    say(_empty(no_open_lines(file)))
                return
            failed = [failed_line(row) for row in found]
    left = [line for line in failed if not line["redriven_by"]]
    elsewhere = None if left else no_open_lines(file)
    if as_json:
        write_json(
            {name: file[name] for name in ("file_id", "bucket", "key", "state", "failed")}
            | {"open": len(left), "failures": failed}
            | {"note": elsewhere and elsewhere.why, "see_file": elsewhere and elsewhere.file_id}
        )
        return
    mended = sum(bool(line["redriven_by"]) for line in failed)
    heading = f"{visible(file['key'])} ({file['state']}): {file['failed']:,} of {count(file['lines'], 'line')} failed"
    click.echo(heading + (f", {mended:,} fixed since" if mended else ""))
    if file["error"]:
        click.echo(visible(file["error"]))
    if elsewhere:
        click.echo(_empty(elsewhere))
    click.echo()
    show_failures(file["format"], left)
    if file["state"] in KEEPS_LINES and any(line["mendable"] for line in left):
        named = file["file_id"][:SHORT_ID]
        say(f"To fix them: ingest failures {named} --lines > fix.txt, edit it, ingest redrive {named} fix.txt")


def _empty(elsewhere: "Elsewhere") -> str:
    see = f" See: ingest failures {elsewhere.file_id[:SHORT_ID]}" if elsewhere.file_id else ""
    return elsewhere.why + see


# A statement may begin with a comment, which looks like an option.
@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("statement", required=False)
@click.option("-f", "--file", "file", type=GIVEN, help="The statement is in this file; -: standard input.")
@click.option("--csv", "as_csv", is_flag=True, help="All rows as CSV (RFC 4180).")
@json_option
def sql(statement: str | None, file: str | None, as_csv: bool, as_json: bool) -> None:
    """Ask the warehouse: one SELECT.

    STATEMENT: the text of it; - for standard input. Over the views events, people, identities, accounts and
    kissmetrics_events, and the tables ledger, commands, failed_lines and history.

    In CSV NULL is nothing and an empty text is "". Times are as in JSON, bytes base64, lists and structures JSON.
    """
    from ingest.ports import QueryLimits

    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two ways to write one answer: not both.")
    if (statement is None) == (file is None):
        raise click.UsageError("Give one statement: as an argument, - for standard input, or -f FILE.")
    if statement is None or statement == "-":
        statement = _read_statement(file or "-")
    with opened_pipeline() as pipeline:
        settings = pipeline.settings
        limits = QueryLimits(settings.max_query_bytes, settings.max_query_seconds)
        with _held_to(limits), pipeline.warehouse.query(statement, limits) as answer:
            names = answer.reader.schema.names
            if as_json:
                waiting = json_rows(_rows(answer))
            elif as_csv:
                waiting = csv_rows(names, _rows(answer))
            else:
                rows, more = _first(_rows(answer))
    if as_json or as_csv:
        write_waiting(waiting)  # whoever is slow to read it holds up no load
        return
    title = count(len(rows) + more, "row")
    first = f"{title}, of which these are the first (--json and --csv have all)"
    write_table(first if more else title, names, rows, folded=False)


def _read_statement(file: str) -> str:
    try:
        return given_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        name = "Standard input" if file == "-" else file
        raise IngestError(f"{name} is not UTF-8 (byte {error.start}). Write the statement in UTF-8.") from error


@contextmanager
def _held_to(limits: "QueryLimits") -> Iterator[None]:
    """The limits of a statement where the engine does not know them: in the middle of making one huge value."""
    soft, hard = getrlimit(RLIMIT_DATA)
    ours = re.search(r"VmData:\s*(\d+) kB", Path("/proc/self/status").read_text())
    most = (int(ours[1]) << 10 if ours else 0) + 2 * limits.memory_bytes
    setrlimit(RLIMIT_DATA, (most if hard == RLIM_INFINITY else min(most, hard), hard))
    watch = Timer(limits.seconds + _GRACE_SECONDS, _end)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        setrlimit(RLIMIT_DATA, (soft, hard))


def _end() -> None:
    """The process, since what it is at cannot be stopped. Nothing of the answer was written."""
    sentence = "The statement could not be stopped, so this process ends. Ask for less, or raise max_query_time."
    say(f"ingest: {sentence}")
    os._exit(ended(2, sentence))


def _rows(answer: "QueryResult") -> Iterator[dict[str, Any]]:
    """Some at a time: a thousand rows may hold a thousand large texts."""
    from ingest.report import answered

    for batch in answer.reader:
        step = max(1, batch.num_rows * _BYTES_AT_ONCE // max(batch.nbytes, _BYTES_AT_ONCE))
        for start in range(0, batch.num_rows, step):
            yield from answered(batch.slice(start, step), answer.json_columns)


def _first(rows: Iterator[dict[str, Any]]) -> tuple[list[list[str | int]], int]:
    """The cells of the first rows, as many as people read; and how many rows are left out."""
    import orjson

    shown: list[list[str | int]] = []
    room, more = _SHOWN_CHARACTERS, 0
    for row in rows:
        if more or room < 0 or len(shown) == _SHOWN_ROWS:
            more += 1
            continue
        shown.append([c if isinstance(c, (str, int)) else orjson.dumps(c).decode() for c in row.values()])
        room -= sum(len(str(cell)) for cell in shown[-1])
    return shown, more
