"""Commands on files of the ledger: `redrive`, `undo`, `release`, `ignore`."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.base import (
    GIVEN,
    SHORT_ID,
    cli,
    exit_code,
    fail_on_option,
    given_bytes,
    json_option,
    opened_pipeline,
    say_versions,
    show_failures,
    user,
)
from ingest.cli.output import MOST_ROWS, say, say_some, write_json, write_table
from ingest.errors import IngestError
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.core.lifecycle import Action
    from ingest.core.source import SourceFile
    from ingest.ports import ActionResult

reason_option = click.option("--reason", default="", help="Why; kept in the history of the file.")


@cli.command()
@click.argument("file_id", type=GIVEN)
@click.argument("fixed", required=False, type=GIVEN)
@reason_option
@fail_on_option
@json_option
def redrive(file_id: str, fixed: str | None, reason: str, fail_on: str, as_json: bool) -> int:
    """Send failed lines again, once they are fixed.

    FILE_ID: an id, the beginning of one, or an s3:// URI.

    FIXED: a file (or -) of fixed lines, as `ingest failures FILE_ID --lines` writes them; lines that are left out stay
    open. Without it the kept lines are judged again under today's rules.
    """
    from ingest.ports import Audit
    from ingest.redrive import redrive as send_again
    from ingest.report import failed_line, file_summary

    text = None if fixed is None else given_bytes(fixed)
    with opened_pipeline() as pipeline:
        say_versions(pipeline, file_id)
        outcome = send_again(pipeline, file_id, text, Audit(user(), reason))
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
            told = f"loaded as {outcome.result.file_id[:SHORT_ID]}"
            by_others = f"the same {accepted} were {told} in the meantime"
            ours = f"{count(outcome.fixed, 'line')} fixed, {accepted} {told}"
            parts.append(by_others if outcome.result.already else ours)
        if outcome.already and not (outcome.result and outcome.result.already):
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
    @cli.command(action, help=f"{does}\n\nFILE_ID: an id, the beginning of one, or an s3:// URI.")
    @click.argument("file_ids", nargs=-1, type=GIVEN, metavar="[FILE_ID…]")
    @click.option("--source", type=GIVEN, help="All files of this source (with --since: only those).")
    @click.option("--since", type=GIVEN, help="Loaded, or tried, since then: 2026-11-01, or 7d.")
    @click.option("--dry-run", is_flag=True, help="Say which files it would take, and do nothing.")
    @click.option("--yes", is_flag=True, help="Do not ask. Without it, a terminal asks before a whole source is taken.")
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
        from ingest.ports import Audit

        with opened_pipeline() as pipeline:
            for reference in file_ids:
                say_versions(pipeline, reference)
            rows, new = actions.chosen(pipeline, file_ids, action, source, since)
            redrives = []  # those of these files that are loaded: they go along, or stand in the way
            if rows and (dry_run or action == "undo"):
                of = [row["file_id"] for row in rows]
                redrives = pipeline.warehouse.files({"redrive_of": of, "state": "loaded"})
            takes = _takes(action, rows, new, redrives)
            if dry_run:
                results = actions.would(action, rows, new, redrives)
            else:
                if source and rows and not yes and sys.stdin.isatty():
                    _ask(action, source, since, takes)
                results = actions.act(pipeline, action, rows, new, Audit(user(), reason))
                # Another may have been quicker with some.
                changed = {one.file_id for one in results if one.state != one.before}
                takes = _takes(action, [row for row in rows if row["file_id"] in changed], new, redrives)
                takes["files"] = len(changed)
        if as_json:
            would_be = ({"would_be": _would_be(action, one)} if dry_run else {} for one in results)
            files = [asdict(result) | more for result, more in zip(results, would_be, strict=True)]
            write_json({"files": files, "takes": takes})
        else:
            _show_results(action, results, takes, dry_run=dry_run)
        say_some([f"{result.key}: {sentence}" for result in results for sentence in _sentences(result)])
        return 2 if any(actions.failed(action, result) for result in results) else 0

    return command


def _show_results(action: "Action", results: "Sequence[ActionResult]", takes: dict[str, int], *, dry_run: bool) -> None:
    """What became of files, or would; nothing of those that the action is not for."""
    title = f"{action} {'would take' if dry_run else 'took'} {_in_words(takes)}"
    changes = [(one.before, _would_be(action, one) if dry_run else one.state) for one in results]
    states = ("is now", "would be") if dry_run else ("was", "is now")
    if len(results) > MOST_ROWS:
        write_table(title, (*states, "files"), [(*change, n) for change, n in Counter(changes).most_common()])
        return
    cells = [(one.file_id[:SHORT_ID], *change, one.key) for one, change in zip(results, changes, strict=True)]
    write_table(title, ("file_id", *states, "file"), cells)


def _would_be(action: "Action", result: "ActionResult") -> str:
    """The state that a file would be in, as `actions.would` has it."""
    return result.before if result.error else {"undo": "undone", "ignore": "ignored"}.get(action, "loaded or rejected")


def _sentences(result: "ActionResult") -> Iterator[str]:
    yield from filter(None, (result.error, result.warning))
    if result.redrives:
        yield f"its {count(len(result.redrives), 'redrive')} {'is' if len(result.redrives) == 1 else 'are'} undone, too"
    if result.duplicates:
        ids = " ".join(one[:SHORT_ID] for one in result.duplicates)
        yield f"its copies stay unloaded until they are forced: {ids}"


def _takes(
    action: "Action",
    rows: Sequence[Mapping[str, Any]],
    new: "Sequence[SourceFile]",
    loaded: Sequence[Mapping[str, Any]],
) -> dict[str, int]:
    """How much an action takes: files that it is for; if it takes their rows away, these and those that go along."""
    from ingest.core.lifecycle import TAKES

    taken = [row for row in rows if row["state"] in TAKES[action]]
    if action != "undo":
        return {"files": len(taken) + len(new)}
    ids = {row["file_id"] for row in taken}
    redrives = [row for row in loaded if row["redrive_of"] in ids]
    all_rows = {row["file_id"]: row for row in (*taken, *redrives)}.values()
    loaded_rows = (row["records"] + row["sets"] + row["aliases"] for row in all_rows if row["state"] == "loaded")
    failed = sum(row["failed"] for row in all_rows)
    return {"files": len(taken), "rows": sum(loaded_rows), "failed_lines": failed, "redrives": len(redrives)}


def _in_words(takes: dict[str, int]) -> str:
    return ", ".join(count(number, name.replace("_", " ").removesuffix("s")) for name, number in takes.items())


def _ask(action: "Action", source: str, since: str | None, takes: dict[str, int]) -> None:
    """Raises IngestError where the answer is no."""
    of = f"all of the source {source}{f' since {since}' * bool(since)}"
    if not click.confirm(visible(f"{action} would take {_in_words(takes)}: {of}. Go on?"), err=True):
        raise IngestError("You said no, so nothing was done.")


undo = _action("undo", "Take files out of the warehouse again, with their redrives.")
release = _action("release", "Load files that are held, next to the version that is loaded.")
ignore = _action("ignore", "Leave files unloaded for good: no poll tries them again.")
