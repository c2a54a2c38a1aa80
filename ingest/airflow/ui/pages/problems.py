"""Failures: what is left to fix in all files of all sources that may be seen, by the rule that is broken.

Counts, codes and names of files, as on the list of files; no raw lines and no values.
"""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from ingest.airflow.names import ACTION_DAG, dag_of, is_ours
from ingest.airflow.ui.access import VisitorDep
from ingest.airflow.ui.chart import to_fix
from ingest.airflow.ui.pages.failures import meanings
from ingest.airflow.ui.pages.files import day_of
from ingest.airflow.ui.runtime import known_sources, open_runtime
from ingest.airflow.ui.view import page
from ingest.core.lifecycle import KEEPS_LINES
from ingest.core.schema import Meaning
from ingest.ports import FilesWanted, Problem

router = APIRouter()

_FILES: Final = 5  # that are named with a problem
_ALL_DAYS: Final = 1_000_000
_DRAWN: Final = 30  # of them


@router.get("/failures")
def failures(
    request: Request, visitor: VisitorDep, source: str = "", since: str = "", until: str = "", dag_id: str = ""
) -> Response:
    """Problems, most lines first. With `dag_id`, as the tab of a DAG has it: of the source that this DAG loads."""
    with open_runtime() as pipeline:
        known = known_sources(pipeline)
        if dag_id and not is_ours(dag_id, known):
            return page(request, "problems.html", stranger=True)
        seen = visitor.seen(known)
        source = next((name for name in seen if dag_of(name) == dag_id), source)
        wanted = FilesWanted(
            sources=tuple(name for name in seen if source in ("", name)), states=KEEPS_LINES, since=day_of(since),
            until=day_of(until), with_failures=True,
        )  # fmt: skip
        with pipeline.warehouse.published() as published:
            problems = [(one, _meaning(one)) for one in published.problems(wanted, _FILES)]
            days = published.days(wanted, last=_ALL_DAYS)
            as_of = published.as_of
    chosen: dict[str, Any] = {"source": source, "since": wanted.since or "", "until": wanted.until or ""}
    drawn = sorted({day.day for day in days})[-_DRAWN:]
    acts = visitor.may_run(ACTION_DAG)
    return page(
        request, "problems.html", stranger=False, problems=problems, seen=seen, chosen=chosen,
        chart=to_fix([day for day in days if day.day in drawn]), lines=sum(day.open for day in days),
        files=sum(day.files for day in days), filtered=any(chosen.values()), as_of=as_of,
        fixable={name for name in wanted.sources if acts and visitor.runs(name)},
    )  # fmt: skip


def _meaning(problem: Problem) -> Meaning:
    known = (meanings(format).get(problem.code) for format in problem.formats)
    return next(filter(None, known), Meaning("", ""))
