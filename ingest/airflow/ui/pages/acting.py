"""Undo, force, release, ignore, retry: what would happen to a file, or to many of a source, asked before it is done.

Nothing is done here: a form starts `ingest_action`, whose page waits for its end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, Form, HTTPException, Request, Response

from ingest.actions import when, would
from ingest.airflow.names import ACTION_DAG, dag_of
from ingest.airflow.ui import runs, shown
from ingest.airflow.ui.access import Visitor, VisitorDep
from ingest.airflow.ui.pages.files import day_of
from ingest.airflow.ui.pages.fixing import sent_fixes
from ingest.airflow.ui.runtime import open_runtime
from ingest.airflow.ui.view import page
from ingest.core.lifecycle import ACTIONS, KEEPS_LINES, TAKES, Action
from ingest.core.source import ONE_OFF
from ingest.ports import FilesWanted, ReadModel
from ingest.text import count

router = APIRouter()

_REASON: Final = 1_000  # characters
_AT_ONCE: Final = 5_000  # rows of the ledger
_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Effect:
    """A thing that will happen, and the files that it is about."""

    sentence: str
    files: tuple[_Row, ...] = ()


@router.get("/files/{file_id}/act/{action}")
def ask(request: Request, visitor: VisitorDep, file_id: str, action: Action) -> Response:
    """What will happen, and the button that starts it; 409 where the state of the file does not take the action."""
    return _ask(request, visitor, file_id, action)


@router.post("/files/{file_id}/act/{action}")
def act(
    request: Request, visitor: VisitorDep, file_id: str, action: Action,
    reason: Annotated[str, Form(max_length=_REASON)] = "", fixes: Annotated[bool, Form()] = False,
) -> Response:  # fmt: skip
    """Start the run, and lead to the page that waits for it. With `fixes` it sends fixed lines again, too."""
    asked = _ask(request, visitor, file_id, action)
    if asked.status_code != 200:
        return asked
    conf: dict[str, Any] = {"action": action, "files": [file_id], "reason": _one_line(reason)}
    if fixes and action == "force":
        with open_runtime() as pipeline, pipeline.warehouse.published() as published:
            visitor.demand_lines(pipeline.settings, visitor.seen_file(published.file(file_id)))
            undone = sent_fixes(published.related(file_id), "undone")
        conf |= {"lines_at": undone.lines_at} if undone.redrives else {}
    return runs.start(request, visitor, ACTION_DAG, conf)


def _one_line(reason: str) -> str:
    return "".join(letter for letter in " ".join(reason.split()) if letter.isprintable())


def _ask(request: Request, visitor: Visitor, file_id: str, action: Action) -> Response:
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        row = visitor.seen_file(published.file(file_id))
        visitor.demand_run(ACTION_DAG)
        visitor.demand_run(dag_of(row["source"]))
        related = [other for other in published.related(file_id) if visitor.sees(other["source"])]
        offers = action == "force" and visitor.reads(pipeline.settings, row)
        undone = sent_fixes(related, "undone") if offers else None
        (result,) = would(action, [row], [], _of(related, "redrive", "loaded"))
        return page(
            request, "act.html", status=409 if result.error else 200, row=row, action=action, objection=result.error,
            effects=effects(action, row, related), reason_at_most=_REASON, as_of=published.as_of, undone=undone,
            called=called(action, row["state"]),
        )  # fmt: skip


def called(action: Action, state: str) -> str:
    """How pages call an action on a file in this state."""
    return "Bring back" if action == "force" and state in ("undone", "ignored") else action.capitalize()


def effects(action: Action, row: _Row, related: Sequence[_Row]) -> list[Effect]:
    """What the action will do to this file and to those that have to do with it."""
    told = {"undo": _undo, "force": _force, "release": _release, "ignore": _ignore, "retry": _retry}
    return list(told[action](row, related))


def _undo(row: _Row, related: Sequence[_Row]) -> Iterator[Effect]:
    if row["state"] == "loaded":
        commands = f"{count(row['records'], 'record')}, {count(row['sets'], 'set')} and {_aliases(row['aliases'])}"
        yield Effect(f"Its {commands} leave the warehouse in one step. What another file says as well stays.")
    if row["redrive_of"]:
        yield Effect("The lines that it fixed are open again.", _of(related, "original"))
        if _of(related, "original", "rejected"):
            yield Effect("If it was the first redrive of that rejected file, later ones are undone with it.")
    if row["failed"]:
        yield Effect(f"Its {count(row['failed'], 'failed line')} cannot be seen until the file is back.")
    if redrives := _of(related, "redrive", "loaded"):
        goes = f"goes what was loaded of {count(sum(one['lines'] for one in redrives), 'fixed line')}"
        yield Effect(f"With it {goes}: {_counts(redrives)}. {_again(redrives)}", redrives)
    if copies := _of(related, "duplicate", "duplicate"):
        yield Effect("Files with the same bytes stay unloaded until they are forced.", copies)
    yield Effect("No poll loads it again. You can bring it back on its page.")


def _again(redrives: Sequence[_Row]) -> str:
    """What becomes of fixed lines once their file is back."""
    kept = sent_fixes(redrives, "loaded").redrives
    if not kept:
        return "They were not sent from a page, so they are not kept for the day when the file is brought back."
    all_kept = len(kept) == len(redrives)
    some = "" if all_kept else f" {count(len(kept), 'redrive')} of {len(redrives):,}: those sent from pages."
    return f"They are kept: when you bring the file back, you can send them again in the same step.{some}"


def _force(row: _Row, related: Sequence[_Row]) -> Iterator[Effect]:
    yield Effect("Its object is read and judged again by today's rules, and loaded even if too many of its lines fail.")
    if row["state"] == "rejected":
        yield Effect(f"It was rejected: {shown.plain(row['error'] or 'too many lines failed.')}")
    if row["state"] == "loaded":
        yield Effect(f"What it says now takes the place of {_counts([row])} in one step.")
        if redrives := _of(related, "redrive", "loaded"):
            yield Effect("Lines that were fixed stay fixed.", redrives)
    if originals := _of(related, "duplicate_of", "loaded"):
        yield Effect("The same bytes are loaded as another file: each fact still counts once.", originals)
    if newer := _of(related, "replaced_by"):
        yield Effect("What replaced it stays.", newer)
    if row["state"] in ("undone", "ignored", "retrying", "held"):
        yield Effect(f"It is {row['state']}: nothing of it is in the warehouse now.")
    if row["archived_to"] or row["deleted_at"]:
        where = f": it is at {shown.plain(row['archived_to'])}" if row["archived_to"] else ""
        yield Effect(f"Its object is no longer where it came in{where}. If it cannot be read, nothing changes.")


def _release(_: _Row, related: Sequence[_Row]) -> Iterator[Effect]:
    yield Effect("It is loaded now, within the limits of its source.")
    if versions := _of(related, "version", "loaded"):
        yield Effect("What is loaded of the same key stays beside it.", versions)


def _ignore(row: _Row, _: Sequence[_Row]) -> Iterator[Effect]:
    yield Effect("No poll takes it any more. Force loads it all the same.")
    if row["failed"] and row["state"] in KEEPS_LINES:
        yield Effect("Its failed lines can still be looked at.")


def _retry(row: _Row, _: Sequence[_Row]) -> Iterator[Effect]:
    due = f" instead of {shown.age(row['next_try_at'])}" if row["next_try_at"] else ""
    tries = "once" if row["attempts"] == 1 else f"{row['attempts']:,} times"
    yield Effect(f"It is tried now{due}. So far it was tried {tries}.")
    if row["error"]:
        yield Effect(f"What went wrong the last time: {shown.plain(row['error'])}")


def _of(related: Sequence[_Row], relation: str, state: str | None = None) -> tuple[_Row, ...]:
    return tuple(one for one in related if one["relation"] == relation and state in (None, one["state"]))


def _counts(rows: Sequence[_Row]) -> str:
    records, sets, aliases = (sum(row[name] for row in rows) for name in ("records", "sets", "aliases"))
    parts = (records and count(records, "record"), sets and count(sets, "set"), aliases and _aliases(aliases))
    return ", ".join(filter(None, parts)) or "0 records"


def _aliases(number: int) -> str:
    return f"{number:,} alias{'es' * (number != 1)}"


# --- many files of a source ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Takes:
    """How much an action on many files takes."""

    files: int
    rows: int  # records, sets and aliases that leave the warehouse
    failed_lines: int
    redrives: int


@router.get("/act")
def ask_many(request: Request, visitor: VisitorDep, source: str = "", action: str = "", since: str = "") -> Response:
    """What an action would take of a source. Nothing is chosen beforehand."""
    return _ask_many(request, visitor, source, action, since)


@router.post("/act")
def act_many(
    request: Request, visitor: VisitorDep, source: Annotated[str, Form()], action: Annotated[Action, Form()],
    since: Annotated[str, Form()] = "", reason: Annotated[str, Form(max_length=_REASON)] = "",
) -> Response:  # fmt: skip
    """Start the run, if a reason is given, and lead to the page that waits for it."""
    told = _one_line(reason)
    asked = _ask_many(request, visitor, source, action, since, "" if told else "Say why: nothing was done.")
    if not told or asked.status_code != 200:
        return asked
    conf = {"action": action, "source": source, "since": _day(since) or None, "reason": told}
    return runs.start(request, visitor, ACTION_DAG, conf)


def _ask_many(request: Request, visitor: Visitor, source: str, action: str, since: str, notice: str = "") -> Response:
    visitor.demand_run(ACTION_DAG)
    with open_runtime() as pipeline:
        sources = [name for name in (*sorted(pipeline.settings.sources), ONE_OFF) if visitor.runs(name)]
        if source and source not in sources:
            raise HTTPException(404, "There is no such source.")
        with pipeline.warehouse.published() as published:
            chosen = next((known for known in ACTIONS if known == action), None)
            takes = _takes(published, source, chosen, _day(since)) if source and chosen else None
            return page(
                request, "act_many.html", status=400 if notice else 200, sources=sources, actions=ACTIONS, takes=takes,
                source=source, action=chosen or "", since=_day(since), notice=notice, reason_at_most=_REASON,
                states=TAKES[chosen] if chosen else (), as_of=published.as_of,
            )  # fmt: skip


def _day(text: str) -> str:
    """A day as runs are told of it, if one is named. Raises HTTPException 400 for what is none: all would be taken."""
    if text.strip() and not day_of(text):
        raise HTTPException(400, f"Since is a day such as 2026-11-01, not {text}. Nothing was done.")
    return text and str(day_of(text))


def _takes(published: ReadModel, source: str, action: Action, since: str) -> Takes:
    """As `actions.chosen` would choose the files, from the copy that pages read."""
    begin = when(since) if since else None
    taken, redrives = dict[str, _Row](), list[_Row]()
    wanted = FilesWanted(sources=(source,), states=tuple({*TAKES[action], "loaded"}), per_page=_AT_ONCE)
    while rows := published.files(wanted).rows:
        for row in rows:
            if row["redrive_of"]:
                redrives += [row] * (row["state"] == "loaded")
            elif row["state"] in TAKES[action]:
                at = row["loaded_at"] or row["next_try_at"]
                if begin is None or at is None or at >= begin:
                    taken[row["file_id"]] = row
        wanted = replace(wanted, page=wanted.page + 1)
    along = [row for row in redrives if row["redrive_of"] in taken]
    loaded = [row for row in (*taken.values(), *along) if row["state"] == "loaded"]
    rows = sum(row["records"] + row["sets"] + row["aliases"] for row in loaded)
    return Takes(len(taken), rows, sum(row["failed"] for row in taken.values()), len(along))
