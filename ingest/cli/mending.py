"""Commands on files of the ledger: `redrive`, `undo`, `release`, `ignore`."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ingest.cli.output import MOST_ROWS, say, say_some, write_json, write_table
from ingest.errors import IngestError
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.core.source import SourceFile
    from ingest.core.states import Action
    from ingest.pipeline import Pipeline
    from ingest.ports import ActionResult

reason_option = click.option("--reason", default="", help="Why; kept in the history of the file.")


@cli.command()
@click.argument("file_id", type=GIVEN)
@click.argument("fixed", required=False, type=GIVEN)
@reason_option
@fail_on_option
@json_option
def redrive(file_id: str, fixed: str | None, reason: str, fail_on: str, as_json: bool) -> int:
    """Load failed lines that are right now.

    FIXED: a file (or -) of fixed lines, as `ingest failures FILE_ID --lines` writes them; lines that are left out stay
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
        parts = []
        if outcome.result:
            accepted = count(outcome.result.counts.lines - outcome.result.counts.blank, "line")
            parts.append(f"{outcome.fixed:,} fixed, {accepted} loaded as {outcome.result.file_id[:SHORT_ID]}")
        if outcome.already:
            parts.append(
                f"{count(outcome.already, 'line')} fixed before, so what was sent for that is not loaded (to change it,"
                " undo its redrive first)"
            )
        if outcome.still_wrong:
            parts.append(f"{count(outcome.still_wrong, 'line')} still wrong")
        parts.append(f"{count(outcome.open, 'line')} still open" if outcome.open else "no failed line is open")
        click.echo(visible(f"{original['key']}: {'; '.join(parts)}"))
        show_failures(original["format"], refused)
    if outcome.error:
        say(f"{original['key']}: {outcome.error}")
    rejected = bool(outcome.error) and original["state"] == "rejected" and not outcome.result
    return exit_code(fail_on, failed=bool(outcome.still_wrong or outcome.error), rejected=rejected)


def _action(action: "Action", does: str) -> Callable[..., Any]:
    @cli.command(action, help=does)
    @click.argument("file_ids", nargs=-1, type=GIVEN, metavar="[FILE_ID…]")
    @click.option("--source", type=GIVEN, help="All files of this source (with --since: only those).")
    @click.option("--since", type=GIVEN, help="Loaded, or tried, since then: 2026-11-01, or 7d.")
    @click.option("--dry-run", is_flag=True, help="Say which files it would be, and do nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask. A terminal is asked before it takes a whole source.")
    @reason_option
    @json_option
    def command(
        file_ids: tuple[str, ...],
        source: str | None,
        since: str | None,
        dry_run: bool,
        yes: bool,
        reason: str,
        as_json: bool,
    ) -> int:
        from ingest import actions
        from ingest.ports import Note

        with opened_pipeline() as pipeline:
            rows, new = actions.chosen(pipeline, file_ids, action, source, since)
            if dry_run:
                takes = _takes(pipeline, action, rows, new)
                results = actions.would(action, rows, new)
            else:
                if source and rows and not yes and sys.stdin.isatty():
                    _ask(action, source, since, _takes(pipeline, action, rows, new))
                results = actions.act(pipeline, action, rows, new, Note(user(), reason))
        if as_json:
            write_json({"files": [asdict(result) for result in results]} | ({"takes": takes} if dry_run else {}))
        else:
            many = f"{_told(takes)} would be taken by" if dry_run else f"{count(len(results), 'file')} after"
            title = f"{many} {action}"
            if len(results) > MOST_ROWS:
                changes = Counter((one.before, one.state) for one in results)
                write_table(title, ("was", "is", "files"), [(*change, n) for change, n in changes.most_common()])
            elif dry_run:
                cells = [(one.file_id[:SHORT_ID], one.before, one.key) for one in results]
                write_table(title, ("file_id", "is", "file"), cells)
            else:
                rows_shown = [(r.file_id[:SHORT_ID], r.before, r.state, r.key) for r in results]
                write_table(title, ("file_id", "was", "is", "file"), rows_shown)
        say_some([f"{result.key}: {sentence}" for result in results for sentence in _sentences(result)])
        return 2 if any(actions.failed(action, result) for result in results) else 0

    return command


def _sentences(result: "ActionResult") -> Iterator[str]:
    """What a person should know of a file."""
    yield from filter(None, (result.error, result.warning))
    if result.redrives:
        yield f"its {count(len(result.redrives), 'redrive')} went along"
    if result.duplicates:
        ids = " ".join(one[:SHORT_ID] for one in result.duplicates)
        yield f"its copies stay unloaded until they are forced: {ids}"


def _takes(
    pipeline: "Pipeline", action: "Action", rows: Sequence[Mapping[str, Any]], new: "Sequence[SourceFile]"
) -> dict[str, int]:
    """How much an action would take: files that it is for; if it takes their rows away, these and the redrives too."""
    from ingest.actions import TAKES

    taken = [row for row in rows if row["state"] in TAKES[action]]
    if action != "undo":
        return {"files": len(taken) + len(new)}
    redrives = pipeline.warehouse.files({"redrive_of": [row["file_id"] for row in taken], "state": "loaded"})
    all_rows = {row["file_id"]: row for row in (*taken, *redrives)}.values()
    visible_rows = (
        row[name] for row in all_rows if row["state"] == "loaded" for name in ("records", "sets", "aliases")
    )
    return {
        "files": len(taken), "rows": sum(visible_rows), "failed_lines": sum(row["failed"] for row in all_rows),
        "redrives": len(redrives),
    }  # fmt: skip


def _told(takes: dict[str, int]) -> str:
    return ", ".join(count(number, name.replace("_", " ").removesuffix("s")) for name, number in takes.items())


def _ask(action: "Action", source: str, since: str | None, takes: dict[str, int]) -> None:
    """Raises IngestError where the answer is no."""
    of = f"of the source {source}{f' since {since}' if since else ', all of it'}"
    if not click.confirm(visible(f"{action} takes {_told(takes)} {of}. Go on?"), err=True):
        raise IngestError("You said no, so nothing was done.")


undo = _action("undo", "Take the rows of files away again, and of their redrives.")
release = _action("release", "Load files that are held, beside what is there.")
ignore = _action("ignore", "Leave files unloaded for good: no poll tries them again.")
