"""Runs of Airflow that belong to a file: started from here, followed until their end, and linked to."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType
from fastapi import HTTPException
from sqlalchemy import desc, select

from ingest.airflow.world import PROBLEM
from ingest.ui.access import Visitor, dag_of

ACTION_DAG: Final = "ingest_action"
ONE_OFF_DAG: Final = "ingest_one_off"
_FINISHED: Final = ("success", "failed")


@dataclass(frozen=True, slots=True)
class Task:
    """One instance of a task."""

    task_id: str
    map_index: int  # -1 where it is not mapped
    name: str  # what a mapped one is called, else its task_id
    state: str | None  # Airflow's


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its page shows it."""

    dag_id: str
    run_id: str
    state: str  # Airflow's: queued, running, success, failed
    conf: dict[str, Any]
    by: str | None
    queued_at: datetime | None
    ended_at: datetime | None
    tasks: tuple[Task, ...]  # in the order in which they began
    paused: bool

    @property
    def finished(self) -> bool:
        return self.state in _FINISHED


def start(visitor: Visitor, dag_id: Literal["ingest_action", "ingest_one_off"], conf: dict[str, Any]) -> str:
    """Start a run in the name of who asks; its id. Airflow's audit log has it, as if started there.

    Raises:
        HTTPException: 403 without the permission; 409 where Airflow does not know the DAG (yet); 400 for values that
            its form would not take.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import DagNotFound, ParamValidationError

    visitor.demand_run(dag_id)
    run_id = f"landfall__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}__{secrets.token_hex(4)}"
    try:
        trigger_dag(
            dag_id, triggered_by=DagRunTriggeredByType.UI, triggering_user_name=visitor.name, run_id=run_id, conf=conf
        )
    except DagNotFound as error:
        raise HTTPException(409, f"Airflow has not read the DAG {dag_id} yet: try again in a minute.") from error
    except (ValueError, ParamValidationError) as error:
        raise HTTPException(400, str(error)) from error
    with create_session() as session:
        told = {name: value for name, value in conf.items() if name != "lines"}
        session.add(Log(event="trigger_dag_run", dag_id=dag_id, run_id=run_id, owner=visitor.name, extra=str(told)))
    return run_id


def find(dag_id: str, run_id: str) -> Run:
    """Raises HTTPException 404."""
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if run is None:
            raise HTTPException(404, "There is no such run.")
        instances = session.scalars(
            select(TaskInstance)
            .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
            .order_by(TaskInstance.start_date.is_(None), TaskInstance.start_date, TaskInstance.task_id)
            .limit(100)
        ).all()
        model = session.get(DagModel, dag_id)
        return Run(
            dag_id, run_id, str(run.state), dict(run.conf or {}), run.triggering_user_name,
            run.queued_at or run.run_after, run.end_date,
            tuple(
                Task(one.task_id, one.map_index, one.rendered_map_index or one.task_id, one.state) for one in instances
            ),
            bool(model and model.is_paused),
        )  # fmt: skip


def returned(dag_id: str, run_id: str, task_id: str, map_index: int | None = None) -> list[Any]:
    """What the instances of a task returned, in order; one of them where `map_index` says which."""
    return _told(dag_id, run_id, "return_value", XComModel.task_id == task_id,
                 *(() if map_index is None else (XComModel.map_index == map_index,)))  # fmt: skip


def problems(dag_id: str, run_id: str) -> list[str]:
    """The sentences of what ended tasks of a run, where they had one."""
    return [str(problem) for problem in _told(dag_id, run_id, PROBLEM)]


def _told(dag_id: str, run_id: str, key: str, *conditions: Any) -> list[Any]:
    with create_session() as session:
        query = select(XComModel).where(
            XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == key, *conditions
        )
        found = session.scalars(query.order_by(XComModel.task_id, XComModel.map_index))
        return [XComModel.deserialize_value(one) for one in found]


def last_landing(dag_id: str) -> dict[str, Any] | None:
    """What the last poll of a source found in its landing (see `ingest.airflow.dags`), with its time as `at`."""
    with create_session() as session:
        found = session.scalars(
            select(XComModel)
            .where(XComModel.dag_id == dag_id, XComModel.task_id == "discover", XComModel.key == "landing")
            .order_by(desc(XComModel.timestamp))
            .limit(1)
        ).first()
        return None if found is None else {**XComModel.deserialize_value(found), "at": found.timestamp}


def paused(dag_ids: list[str]) -> set[str]:
    """Those of these DAGs that are paused."""
    with create_session() as session:
        query = select(DagModel.dag_id).where(DagModel.dag_id.in_(dag_ids), DagModel.is_paused.is_(True))
        return set(session.scalars(query))


def sent_fixes(run_ids: Iterable[str]) -> dict[str, str]:
    """Where the fixed lines are that these runs of `ingest_action` were given from a page, by run_id."""
    with create_session() as session:
        query = select(DagRun.run_id, DagRun.conf).where(DagRun.dag_id == ACTION_DAG, DagRun.run_id.in_(set(run_ids)))
        found = {run_id: (conf or {}).get("lines_at") for run_id, conf in session.execute(query)}
    return {run_id: str(address) for run_id, address in found.items() if address}


def dags_of(run_ids: Iterable[str | None], source: str) -> dict[str, str]:
    """The DAG of each of these runs that dealt with a file of a source, by run_id; the ledger knows run_ids only.

    Scheduled runs of two DAGs may have one name: that of the source is the one that is meant.
    """
    likely = (dag_of(source), ONE_OFF_DAG, ACTION_DAG)
    wanted = {run_id for run_id in run_ids if run_id}
    with create_session() as session:
        query = select(DagRun.run_id, DagRun.dag_id).where(DagRun.run_id.in_(wanted), DagRun.dag_id.in_(likely))
        found = [(run_id, dag_id) for run_id, dag_id in session.execute(query)] if wanted else []
    return dict(sorted(found, key=lambda one: -likely.index(one[1])))


def address(dag_id: str, run_id: str, task_id: str | None = None, map_index: int = -1) -> str:
    """Airflow's own page of a run or task, below where Airflow begins."""
    task = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}{task}{mapped}"
