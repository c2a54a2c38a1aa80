"""One file: what it is, what became of it, which of its lines failed and why, and what its lines became."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query, Request, Response

from ingest import actions
from ingest.airflow.names import ACTION_DAG, dag_of
from ingest.airflow.ui import runs
from ingest.airflow.ui.access import Visitor, VisitorDep
from ingest.airflow.ui.pages.acting import called
from ingest.airflow.ui.pages.failures import LINES, Failed, Group, explained, failed_lines, groups_of, visible_pointer
from ingest.airflow.ui.pages.fixing import came_of, sent_fixes
from ingest.airflow.ui.runtime import open_runtime
from ingest.airflow.ui.view import page
from ingest.core.lifecycle import ACTIONS, KEEPS_LINES
from ingest.errors import IngestError
from ingest.ports import FailureGroup
from ingest.preview import Preview, preview
from ingest.report import Elsewhere, no_open_lines
from ingest.text import count

router = APIRouter()


@router.get("/files/{file_id}")
def file(
    request: Request, visitor: VisitorDep, file_id: str, code: str = "", pointer: str | None = None,
    open: bool = False, at: Annotated[int, Query(ge=0, le=1_000_000)] = 0, done: str = "",
) -> Response:  # fmt: skip
    """With `code`, `open` or `at` failed lines one by one, else some of each group; `done`: the run that led here."""
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        row = visitor.seen_file(published.file(file_id))
        shows_raw = visitor.reads(pipeline.settings, row)
        pointer = visible_pointer(pointer, shows_raw=shows_raw)
        history, formats = published.history(file_id), {file_id: row["format"]}
        counted = published.failure_groups([file_id]) if row["failed"] else []
        groups, listed, more = list[Group](), list[Failed](), False
        if code or open or at:
            found = published.failed_lines(
                [file_id], code=code or None, pointer=pointer, open_only=open, offset=LINES * max(0, at - 1),
                limit=LINES + 1,
            )  # fmt: skip
            listed, more = failed_lines(found[:LINES], formats, history, shows_raw=shows_raw), len(found) > LINES
        else:
            groups = groups_of(published, counted, formats, history, shows_raw=shows_raw)
        related = [one for one in published.related(file_id) if visitor.sees(one["source"])]
        as_of = published.as_of
        may_act = visitor.runs(row["source"]) and visitor.may_run(ACTION_DAG)
        may_mend = shows_raw and may_act and row["to_fix"] > 0
        undone = sent_fixes(related, "undone") if shows_raw and may_act else None
    warnings = dict(sorted(json.loads(row["warnings"] or "{}").items(), key=lambda one: -one[1]))  # most first
    redrives = [one for one in related if one["relation"] == "redrive" and one["state"] == "loaded"]
    refused = {action: actions.would(action, [row], [], redrives)[0].error for action in ACTIONS}
    allowed = [action for action in ACTIONS if may_act and not refused[action]]
    wanted: dict[str, object] = {"code": code, "open": int(open)} if code or open or at else {}
    if wanted and pointer is not None:
        wanted["pointer"] = pointer
    return page(
        request, "file.html", row=row, shows_raw=shows_raw, dag_id=dag_of(row["source"]), history=history,
        groups=groups, listed=listed, more=more, at=max(1, at), wanted=wanted, per_page=LINES,
        total=_total(counted, row, code, pointer, open), related=related, as_of=as_of,
        actions=allowed, elsewhere=_elsewhere(row, related),
        acts_on_source=may_act, may_mend=may_mend, undone=undone, called=called,
        done=_done(visitor, file_id, done) if done else "",
        warnings=explained(warnings, row["format"]),
        runs=_runs([row["run_id"], *(one["run_id"] for one in history)], row["source"]),
    )  # fmt: skip


@router.get("/files/{file_id}/lines")
def lines(
    request: Request, visitor: VisitorDep, file_id: str, first: Annotated[int, Query(alias="from", ge=1, le=10**12)] = 1
) -> Response:
    """What the lines of a file become, from a given one on. What goes wrong while reading them is told on the page."""
    with open_runtime() as pipeline:
        with pipeline.warehouse.published() as published:
            row = visitor.seen_file(published.file(file_id))
            as_of = published.as_of
        visitor.demand_lines(pipeline.settings, row)
        found, problem = Preview(), ""
        try:
            found = preview(pipeline, row, first, LINES)
        except IngestError as error:
            problem = str(error)
    return page(request, "lines.html", row=row, found=found, first=first, problem=problem, as_of=as_of, step=LINES)


_DID: Final = {
    "force": "The file is loaded again.", "release": "The file is released.", "retry": "The file was tried again.",
}  # fmt: skip


def _done(visitor: Visitor, file_id: str, run_id: str) -> str:
    """What a run did to a file; nothing of one that is not known, or may not be seen."""
    try:
        run = runs.find(ACTION_DAG, run_id) if visitor.may_read(ACTION_DAG) else None
    except HTTPException:
        return ""
    results = runs.returned(ACTION_DAG, run_id, "act") if run else []
    result = next((one for part in results for one in part or () if one["file_id"] == file_id), None)
    if run is None or result is None:
        return ""
    sent = run.conf.get("sent")
    told = [_DID.get(str(run.conf.get("action")), ""), f"{count(sent, 'line')} sent." if isinstance(sent, int) else ""]
    return " ".join(filter(None, [*told, *came_of(result), result["error"]]))


def _elsewhere(row: Mapping[str, Any], related: Sequence[Mapping[str, Any]]) -> Elsewhere | None:
    """Where the failed lines of a file are that has some, or fixes some, and holds none; of those that may be seen."""
    if row["open_failures"] or not (row["redrive_of"] or (row["failed"] and row["state"] not in KEEPS_LINES)):
        return None
    found = no_open_lines(row)
    return found if found.file_id in {one["file_id"] for one in related} else Elsewhere(found.why)


def _total(
    groups: Sequence[FailureGroup], row: Mapping[str, Any], code: str, pointer: str | None, open_only: bool
) -> int | None:
    """How many lines the list has on all pages; None where nobody counted them: a place that is a rare one."""
    if not code:
        return int(row["open_failures"] if open_only else row["failed"])
    for group in groups:
        found: Any = group if pointer is None else next((one for one in group.places if one.pointer == pointer), None)
        if group.code == code and found:
            return int(found.open if open_only else found.lines)
    return None


def _runs(run_ids: Sequence[str | None], source: str) -> dict[str, str]:
    """Airflow's page of each of these runs that Airflow still knows, by run_id."""
    return {run_id: runs.address(dag_id, run_id) for run_id, dag_id in runs.dags_of(run_ids, source).items()}
