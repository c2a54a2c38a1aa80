"""What the pages use of Airflow beside its public interface: the one module that may (ruff's `banned-api` sees to it).

Public are `airflow.sdk`, `airflow.plugins_manager`, the hooks of providers and the REST API. What is used here may move
with any release, so each function says what it touches and what the public way would be. That is the REST API, nearly
always. It answers a browser, or a program that has a token; a page is made within the web server, which need not reach
itself by any address, and what a page looks up is not always for the person who asks.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from airflow.utils.types import DagRunTriggeredByType
from sqlalchemy import desc, select
from sqlalchemy.orm import object_session

_FINISHED: Final = ("success", "failed")
_TASKS: Final = 100  # of a run that are shown

# --- who asks, and what that person may ------------------------------------------------------------------------------

# A dependency of FastAPI: the user of a request's cookie or token, or 401. Airflow's docs of plugins show this one for
# want of a public one, so it is the least likely to move.
logged_in: Final = get_user


def may(user: Any, action: Literal["read", "run"], dag_id: str) -> bool:
    """Airflow's own answer, from its auth manager and the team of the DAG.

    The public way, `GET /auth/…` of the auth manager in use, differs with each manager; `GET /api/v2/dags/{dag_id}`
    answers for reading only.
    """
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    method, entity = ("GET", None) if action == "read" else ("POST", DagAccessEntity.RUN)
    return bool(get_auth_manager().is_authorized_dag(method=method, access_entity=entity, details=details, user=user))


# --- runs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One instance of a task."""

    task_id: str
    map_index: int  # -1 where it is not mapped
    name: str  # what a mapped one is called, else what its task is
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


class RunRefused(Exception):
    """The sentence says why a run was not started."""


class DagUnknown(RunRefused):
    """Airflow has not read the DAG."""


def start_run(dag_id: str, run_id: str, conf: dict[str, Any], *, by: str, logged: Mapping[str, Any]) -> None:
    """Start a run in the name of a person who may; `logged` of `conf` goes to Airflow's audit log. Raises RunRefused.

    The public way, `POST /api/v2/dags/{dag_id}/dagRuns`, is for a browser to send. Here the server decides first where
    a file is put and what the run is told of it, which no browser may.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import DagNotFound, ParamValidationError

    try:
        trigger_dag(dag_id, triggered_by=DagRunTriggeredByType.UI, triggering_user_name=by, run_id=run_id, conf=conf)
    except DagNotFound as error:
        raise DagUnknown(str(error)) from error
    except (ValueError, ParamValidationError) as error:
        raise RunRefused(str(error)) from error
    with create_session() as session:
        session.add(Log(event="trigger_dag_run", dag_id=dag_id, run_id=run_id, owner=by, extra=str(dict(logged))))


def find_run(dag_id: str, run_id: str) -> Run | None:
    """A run and its first tasks. Public: `GET /api/v2/dags/{dag_id}/dagRuns/{run_id}`, and its `taskInstances`."""
    with create_session() as session:
        run = session.scalar(select(DagRun).filter_by(dag_id=dag_id, run_id=run_id))
        if run is None:
            return None
        begun = (TaskInstance.start_date.is_(None), TaskInstance.start_date, TaskInstance.task_id)
        found = select(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id).order_by(*begun).limit(_TASKS)
        tasks = tuple(
            Task(one.task_id, one.map_index, one.rendered_map_index or one.task_display_name, one.state)
            for one in session.scalars(found)
        )
        model = session.get(DagModel, dag_id)
        return Run(
            dag_id, run_id, str(run.state), dict(run.conf or {}), run.triggering_user_name,
            run.queued_at or run.run_after, run.end_date, tasks, bool(model and model.is_paused),
        )  # fmt: skip


def confs(dag_id: str, run_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """What runs of a DAG were given, by run_id. Public: `GET /api/v2/dags/{dag_id}/dagRuns/{run_id}`, one by one."""
    query = select(DagRun.run_id, DagRun.conf).where(DagRun.dag_id == dag_id, DagRun.run_id.in_(run_ids))
    with create_session() as session:
        return {run_id: dict(conf or {}) for run_id, conf in session.execute(query)}


def dags_of_runs(run_ids: Collection[str], dag_ids: Collection[str]) -> list[tuple[str, str]]:
    """(run_id, dag_id) of those of these runs that are of these DAGs. Public: `POST /api/v2/dags/~/dagRuns/list`."""
    with create_session() as session:
        query = select(DagRun.run_id, DagRun.dag_id).where(DagRun.run_id.in_(run_ids), DagRun.dag_id.in_(dag_ids))
        return [(run_id, dag_id) for run_id, dag_id in session.execute(query)] if run_ids else []


def paused(dag_ids: Collection[str]) -> set[str]:
    """Those of these DAGs that are paused. Public: `GET /api/v2/dags?paused=true`."""
    with create_session() as session:
        query = select(DagModel.dag_id).where(DagModel.dag_id.in_(dag_ids), DagModel.is_paused.is_(True))
        return set(session.scalars(query))


# --- what tasks returned ---------------------------------------------------------------------------------------------
# Public: `GET …/taskInstances/{task_id}/xcomEntries/{key}`, a request for each mapped task; a page needs all of a run.


def told(dag_id: str, run_id: str, key: str, task_id: str | None = None, map_index: int | None = None) -> list[Any]:
    """The values of one key (`return_value`: what a task returned) of the tasks of a run, in order."""
    where = {"dag_id": dag_id, "run_id": run_id, "key": key, "task_id": task_id, "map_index": map_index}
    query = select(XComModel).filter_by(**{name: value for name, value in where.items() if value is not None})
    with create_session() as session:
        found = session.scalars(query.order_by(XComModel.task_id, XComModel.map_index))
        return [XComModel.deserialize_value(one) for one in found]


def note(dag_run: DagRun, write: Callable[[list[Any]], str], key: str, task_id: str) -> None:
    """Write the note of a run that has ended from what a task of it returned, unless somebody wrote one.

    The scheduler holds the run: what is written in another session than its own would wait for it for ever.
    Public: `PATCH …/dagRuns/{run_id}`, for who has a token.
    """
    if (session := object_session(dag_run)) is None:  # `dag.test()`
        with create_session() as session:
            return note(session.get_one(DagRun, dag_run.id), write, key, task_id)
    query = select(XComModel).filter_by(dag_id=dag_run.dag_id, run_id=dag_run.run_id, key=key, task_id=task_id)
    sentence = write([XComModel.deserialize_value(one) for one in session.scalars(query)])
    if sentence and not dag_run.note:
        dag_run.note = sentence
    return None


def last_told(dag_id: str, task_id: str, key: str) -> tuple[Any, datetime] | None:
    """The newest value of a key in all runs of a DAG, and when it was told."""
    query = select(XComModel).filter_by(dag_id=dag_id, task_id=task_id, key=key)
    with create_session() as session:
        found = session.scalars(query.order_by(desc(XComModel.timestamp)).limit(1)).first()
        return None if found is None else (XComModel.deserialize_value(found), found.timestamp)
