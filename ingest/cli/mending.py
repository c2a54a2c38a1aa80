"""Commands on files that were dealt with: `redrive`, `undo`, `release`, `ignore`."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.base import (
    GIVEN,
    SHORT_ID,
    cli,
    exit_code,
    fail_on_option,
    json_option,
    opened_pipeline,
    show_failures,
    user,
)
from ingest.cli.output import say, write_json, write_table
from ingest.errors import IngestError
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.core.states import Action

reason_option = click.option("--reason", default="", help="Why; kept in the history of the file.")


@cli.command()
@click.argument("file_id", type=GIVEN)
@click.argument("fixed", required=False, type=GIVEN)
@reason_option
@fail_on_option
@json_option
def redrive(file_id: str, fixed: str | None, reason: str, fail_on: str, as_json: bool) -> int:
    """Load failed lines that are right now.

    FIXED: a file (or -) of mended lines, as `ingest failures FILE_ID --lines` writes them; lines that are left out stay
    open. Without it the kept lines are judged again under today's rules.
    """
    from ingest.ports import Note
    from ingest.redrive import redrive as send_again
    from ingest.report import failed_line, file_summary

    try:
        text = None if fixed is None else sys.stdin.buffer.read() if fixed == "-" else Path(fixed).read_bytes()
    except OSError as error:
        raise IngestError(f"{fixed} cannot be read: {error.strerror}.") from error
    with opened_pipeline() as pipeline:
        outcome = send_again(pipeline, file_id, text, Note(user(), reason))
        original = pipeline.warehouse.find_file(outcome.of)
    refused = [failed_line(row) for row in outcome.refused]
    if as_json:
        files = [file_summary(outcome.result) | {"redrive_of": outcome.of}] if outcome.result else []
        write_json({"files": files, "failures": refused, "fixed": outcome.fixed, "still_wrong": outcome.still_wrong,
                    "mended_before": outcome.already, "open": outcome.open, "error": outcome.error})  # fmt: skip
    else:
        told = []
        if outcome.result:
            accepted = count(outcome.result.counts.lines - outcome.result.counts.blank, "line")
            told.append(f"{outcome.fixed:,} fixed, {accepted} loaded as {outcome.result.file_id[:SHORT_ID]}")
        if outcome.already:
            told.append(
                f"{count(outcome.already, 'line')} fixed before, so what was sent for that is not loaded (to change it,"
                " undo its redrive first)"
            )
        if outcome.still_wrong:
            told.append(f"{count(outcome.still_wrong, 'line')} still wrong")
        if outcome.open:
            told.append(f"{count(outcome.open, 'line')} still open")
        if told or not outcome.error:
            click.echo(visible(f"{original['key']}: {'; '.join(told) or 'no failed line is open'}"))
        show_failures(original["format"], refused)
    if outcome.error:
        say(f"{original['key']}: {outcome.error}")
    rejected = bool(outcome.error) and original["state"] == "rejected" and not outcome.result
    return exit_code(fail_on, failed=bool(outcome.still_wrong or outcome.error), rejected=rejected)


def _action(action: "Action", does: str) -> Callable[..., Any]:
    @cli.command(action, help=does)
    @click.argument("file_ids", nargs=-1, type=GIVEN, metavar="[FILE_ID…]")
    @click.option("--source", type=GIVEN, help="All files of this source (with --since: only those).")
    @click.option("--since", type=GIVEN, help="Dealt with since then: 2026-11-01, or 7d.")
    @click.option("--dry-run", is_flag=True, help="Say which files it would be, and do nothing.")
    @reason_option
    @json_option
    def command(
        file_ids: tuple[str, ...], source: str | None, since: str | None, dry_run: bool, reason: str, as_json: bool
    ) -> int:
        from ingest import actions
        from ingest.ports import Note

        with opened_pipeline() as pipeline:
            rows, new = actions.chosen(pipeline, file_ids, action, source, since)
            if dry_run:
                results = actions.would(action, rows, new)
            else:
                results = actions.act(pipeline, action, rows, new, Note(user(), reason))
        if as_json:
            write_json({"files": [asdict(result) for result in results]})
        else:
            title = f"{count(len(results), 'file')} {'would be taken on by' if dry_run else 'after'} {action}"
            cells = [(r.file_id[:SHORT_ID], r.before, r.state, r.key) for r in results]
            write_table(title, ("file_id", "was", "is", "file"), cells)
        for result in results:
            if result.error:
                say(f"{result.key}: {result.error}")
            if result.warning:
                say(f"{result.key}: {result.warning}")
            if result.redrives:
                say(f"{result.key}: its {count(len(result.redrives), 'redrive')} went along")
            if result.duplicates:
                ids = " ".join(one[:SHORT_ID] for one in result.duplicates)
                say(f"{result.key}: its copies stay unloaded until they are forced: {ids}")
        return 2 if any(actions.failed(action, result) for result in results) else 0

    return command


undo = _action("undo", "Take the rows of files away again, and of their redrives.")
release = _action("release", "Load files that are held, beside what is there.")
ignore = _action("ignore", "Deal with files by not loading them.")
