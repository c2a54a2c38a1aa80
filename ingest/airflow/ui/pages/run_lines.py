"""The failed lines of just one run or task: the tab on Airflow's own pages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query, Request, Response

from ingest.airflow.names import dag_of, is_ours, source_of
from ingest.airflow.ui import runs
from ingest.airflow.ui.access import VisitorDep
from ingest.airflow.ui.internals import Run
from ingest.airflow.ui.pages.failures import LINES, Failed, Group, failed_lines, groups_of, visible_pointer
from ingest.airflow.ui.pages.run import NO_RUN
from ingest.airflow.ui.runtime import known_sources, open_runtime
from ingest.airflow.ui.view import page
from ingest.ports import FilesWanted

router = APIRouter()

_FILES: Final = 1_000  # whose failed lines are counted
_SHOWN: Final = 200  # that are listed


@router.get("/run")
def failed(
    request: Request, visitor: VisitorDep, dag_id: str = "", run_id: str = "", task_id: str = "", map_index: str = "",
    code: str = "", pointer: str | None = None, at: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:  # fmt: skip
    """By rule, with the first lines of each; with `code` or `at` line by line.

    What Airflow has no value for comes as `{TASK_ID}`.
    """
    dag_id, run_id, task_id, map_index = (_filled(text) for text in (dag_id, run_id, task_id, map_index))
    if not dag_id or not run_id:
        raise HTTPException(400, "The address of this page names no run.")
    if not visitor.may_read(dag_id):
        raise HTTPException(404, NO_RUN)
    groups, listed, more = list[Group](), list[Failed](), False
    with open_runtime() as pipeline:
        known = known_sources(pipeline)
        if not is_ours(dag_id, known):
            return page(request, "run_lines.html", stranger=True)
        run = runs.find(dag_id, run_id)
        source = source_of(run.dag_id)
        seen = visitor.seen(known if source is None else {source} & known)
        wanted = FilesWanted(sources=seen, run_id=None if task_id else run_id, sort="failed", per_page=_FILES)
        if task_id:
            wanted = _of_task(wanted, run, task_id, map_index)
        with pipeline.warehouse.published() as published:
            found = published.files(wanted) if seen else None
            rows = [row for row in found.rows if row["failed"] or row["open_failures"]] if found else []
            formats = {row["file_id"]: row["format"] for row in rows}
            shows_raw = all(visitor.reads(pipeline.settings, row) for row in rows)
            if rows and (code or at):
                pointer = visible_pointer(pointer, shows_raw=shows_raw)
                lines = published.failed_lines(
                    list(formats), code=code or None, pointer=pointer, offset=LINES * max(0, at - 1), limit=LINES + 1
                )
                listed, more = failed_lines(lines[:LINES], formats, [], shows_raw=shows_raw), len(lines) > LINES
            elif rows:
                counted = published.failure_groups(list(formats))
                groups = groups_of(published, counted, formats, [], shows_raw=shows_raw)
            as_of = published.as_of
    return page(
        request, "run_lines.html", stranger=False, run=run, task_id=task_id, rows=rows[:_SHOWN], files=len(rows),
        total=found.total if found else 0, groups=groups, listed=listed, more=more, at=max(1, at), code=code,
        pointer=pointer, keys={row["file_id"]: row["key"] for row in rows},
        chosen={"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index},
        lines=sum(row["failed"] for row in rows), open=sum(row["to_fix"] for row in rows),
        cut=len(rows) == _FILES, as_of=as_of,
    )  # fmt: skip


@router.get("/to-fix")
def to_fix(visitor: VisitorDep, dag_id: str) -> dict[str, int]:
    """How many failed lines are open of the source that a DAG loads: for the button on Airflow's page of the DAG."""
    with open_runtime() as pipeline:
        sources = [name for name in known_sources(pipeline) if dag_of(name) == dag_id and visitor.sees(name)]
        with pipeline.warehouse.published() as published:
            return {"open": sum(one.open for one in published.glances(sources))}


def _filled(text: str) -> str:
    return "" if text.startswith("{") and text.endswith("}") else text


def _of_task(wanted: FilesWanted, run: Run, task_id: str, map_index: str) -> FilesWanted:
    """Those files that a task returned."""
    number = int(map_index) if map_index.removeprefix("-").isdecimal() and len(map_index) < 8 else None
    told: Sequence[Any] = runs.returned(run.dag_id, run.run_id, task_id, number)
    ids = [
        str(one[name])
        for part in told if isinstance(part, list)
        for one in part if isinstance(one, Mapping)
        for name in ("file_id", "redrive") if one.get(name)
    ]  # fmt: skip
    return replace(wanted, file_ids=tuple(ids))
