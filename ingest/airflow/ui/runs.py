"""Runs of Airflow that belong to a file: started from here, followed until their end, and linked to."""

import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fastapi import HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from ingest.airflow.names import ACTION_DAG, ONE_OFF_DAG, dag_of
from ingest.airflow.runtime import PROBLEM
from ingest.airflow.ui import internals
from ingest.airflow.ui.access import Visitor
from ingest.airflow.ui.internals import Run


def start(request: Request, visitor: Visitor, dag_id: str, conf: dict[str, Any]) -> Response:
    """Start a run in the name of who asks, and lead to its page. Airflow's audit log has it, as if started there.

    Raises:
        HTTPException: 403 without the permission; 409 where Airflow does not know the DAG (yet); 400 for values that
            its form would not take.
    """
    visitor.demand_run(dag_id)
    run_id = f"landfall__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}__{secrets.token_hex(4)}"
    logged = {name: value for name, value in conf.items() if name != "lines"}
    try:
        internals.start_run(dag_id, run_id, conf, by=visitor.name, logged=logged)
    except internals.DagUnknown as error:
        raise HTTPException(409, f"Airflow has not read the DAG {dag_id} yet: try again in a minute.") from error
    except internals.RunRefused as error:
        raise HTTPException(400, str(error)) from error
    return RedirectResponse(f"{request.scope.get('root_path', '')}/run/{dag_id}/{quote(run_id, safe='')}", 303)


def find(dag_id: str, run_id: str) -> Run:
    """Raises HTTPException 404."""
    run = internals.find_run(dag_id, run_id)
    if run is None:
        raise HTTPException(404, "There is no such run.")
    return run


def returned(dag_id: str, run_id: str, task_id: str, map_index: int | None = None) -> list[Any]:
    """What the instances of a task returned, in order; one of them where `map_index` says which."""
    return internals.told(dag_id, run_id, "return_value", task_id, map_index)


def problems(dag_id: str, run_id: str) -> list[str]:
    """The sentences of what ended tasks of a run, where they had one."""
    return [str(problem) for problem in internals.told(dag_id, run_id, PROBLEM)]


def last_landing(dag_id: str) -> dict[str, Any] | None:
    """What the last poll of a source found in its landing (see `ingest.airflow.dags`), with its time as `at`."""
    found = internals.last_told(dag_id, "discover", "landing")
    return None if found is None else {**found[0], "at": found[1]}


def sent_fixes(run_ids: Iterable[str]) -> dict[str, str]:
    """Where the fixed lines are that these runs of `ingest_action` were given from a page, by run_id."""
    found = internals.confs(ACTION_DAG, set(run_ids))
    return {run_id: str(conf["lines_at"]) for run_id, conf in found.items() if conf.get("lines_at")}


def dags_of(run_ids: Iterable[str | None], source: str) -> dict[str, str]:
    """The DAG of each of these runs, by run_id: that of the source where runs of two DAGs have one name."""
    likely = (dag_of(source), ONE_OFF_DAG, ACTION_DAG)
    found = internals.dags_of_runs({run_id for run_id in run_ids if run_id}, likely)
    return dict(sorted(found, key=lambda one: -likely.index(one[1])))


def address(dag_id: str, run_id: str, task_id: str | None = None, map_index: int = -1) -> str:
    """Airflow's own page of a run or task, below where Airflow begins."""
    task = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}{task}{mapped}"
