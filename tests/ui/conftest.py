"""Airflow's own web application with our pages in it, in this process, and who asks: nobody, viewer, user, admin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from tests.airflow.conftest import Job, airflow_db, job  # noqa: F401 - fixtures
from tests.ui.rights import Rights

ROOT = "/landfall"


@dataclass(frozen=True)
class Site:
    """The pages over the world of one test."""

    job: Job
    of: Callable[[str], TestClient]  # by who asks

    def load(self, name: str, *lines: dict[str, object] | str) -> str:
        """Drop a file under landing/ and load it, without Airflow; its file_id."""
        self.job.put(name, *lines)
        uri = f"s3://{self.job.s3.bucket}/landing/{name}"
        (loaded,) = self.job.ask(lambda pipeline: pipeline.load(pipeline.locate(uri, "website")))
        return loaded.file_id

    def know_dags(self, *, anew: bool = False) -> None:
        """Make Airflow read the DAGs. Once is enough for all tests whose settings name the same sources."""
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session

        with create_session() as session:
            if session.get(DagModel, "ingest_action") and not anew:
                return
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db

        DagBundlesManager().sync_bundles_to_db()
        for bundle in DagBundlesManager().get_all_dag_bundles():
            bundle.initialize()
            bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
            sync_bag_to_db(bag, bundle.name, bundle.version)

    def carry_out(self, started: Response) -> str:
        """Do the run that an answer leads to; the address of its page."""
        assert started.status_code == 303, started.text
        page = str(started.headers["location"])
        dag_id, run_id = map(unquote, page.split("/")[-2:])
        self.do(dag_id, run_id)
        return page

    def do(self, dag_id: str, run_id: str) -> None:
        """Do a run, as the scheduler would."""
        from airflow.models.dagrun import DagRun
        from sqlalchemy import select, update

        where = (DagRun.dag_id == dag_id, DagRun.run_id == run_id)

        def the_queued_one(*, dag: Any, session: Any, **_: Any) -> DagRun:
            session.execute(update(DagRun).where(*where).values(state="running"))
            run: DagRun = session.scalars(select(DagRun).where(*where)).one()
            run.dag = dag
            return run

        with (
            patch("airflow.models.dagrun.get_or_create_dagrun", the_queued_one),
            # What it knows of the DAGs is new enough.
            patch("airflow.dag_processing.bundles.manager.DagBundlesManager.get_all_dag_bundles", list[Any]),
        ):
            self.job.dags()[dag_id].test()


def runs_of(dag_id: str) -> list[str]:
    """The ids of all its runs."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return list(session.scalars(select(DagRun.run_id).where(DagRun.dag_id == dag_id)))


@pytest.fixture(scope="session")
def web(airflow_db: None) -> FastAPI:  # noqa: F811
    """Made once: it asks settings and warehouse anew for each page."""
    from airflow.api_fastapi.app import create_app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__CORE__AUTH_MANAGER", f"{Rights.__module__}.{Rights.__name__}")
        made: FastAPI = create_app()
    return made


@pytest.fixture(scope="session")
def of(web: FastAPI) -> Callable[[str], TestClient]:
    """The browser of one of them, or of who only `runs` the DAGs that are named; its cookie is Airflow's."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    def client(who: str) -> TestClient:
        made = TestClient(web, headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=False)
        if who != "nobody":
            user = SimpleAuthManagerUser(username=f"the {who}", role=who)
            if who.startswith("runs "):
                user = SimpleAuthManagerUser(username=who, role="viewer")
            made.cookies.set("_token", get_auth_manager().generate_jwt(user))
        return made

    return client


# Pages show the same of a warehouse on a server: for tests that say so.
on_both_engines = pytest.mark.parametrize("site", ["duckdb", "postgres"], indirect=True)


@pytest.fixture
def site(
    request: pytest.FixtureRequest,
    job: Job,  # noqa: F811
    of: Callable[[str], TestClient],
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    if getattr(request, "param", "duckdb") == "postgres":
        monkeypatch.setenv("INGEST_WAREHOUSE", request.getfixturevalue("postgres_server").new())
    # On a busy machine a copy takes long, and pages would show the last one until the next is made in the background.
    monkeypatch.setattr("ingest.warehouse.engines.duckdb.published._QUICK_SECONDS", 3600.0)
    return Site(job, of)


@pytest.fixture
def nobody(of: Callable[[str], TestClient]) -> TestClient:
    return of("nobody")


@pytest.fixture
def viewer(of: Callable[[str], TestClient]) -> TestClient:
    return of("viewer")


@pytest.fixture
def admin(of: Callable[[str], TestClient]) -> TestClient:
    return of("admin")
