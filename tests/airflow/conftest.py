"""Airflow for tests: its database in a temporary folder, the shipped DAG file, a bucket and warehouse for each test."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from tests.conftest import S3

T = TypeVar("T")
_HOME = tempfile.mkdtemp(prefix="landfall-airflow-")
os.environ |= {  # before Airflow is imported for the first time
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parents[2] / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_HOME}/airflow.db",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}


@pytest.fixture(scope="session")
def airflow_db() -> Iterator[None]:
    from airflow.utils import db

    db.initdb()
    yield
    shutil.rmtree(_HOME, ignore_errors=True)


@dataclass(frozen=True)
class Ran:
    """What came of a run."""

    run_id: str
    state: str
    tasks: dict[str, str]  # task id, with [index] where it is mapped → state
    names: list[str]  # of the mapped loads
    returned: dict[str, Any]  # XCom of tasks that are not mapped


@dataclass(frozen=True)
class Job:
    """A world of a test's own: a bucket, an ingest.toml, a warehouse."""

    folder: Path
    s3: "S3"

    def configure(self, **source: object) -> None:
        """One source named `website` under landing/, with these settings besides."""
        settings = {"name": "website", "bucket": self.s3.bucket, "prefix": "landing/", "schedule": None} | source
        self.write("[[source]]\n" + _toml(settings))

    def write(self, text: str) -> None:
        (self.folder / "ingest.toml").write_text(text)

    def put(self, name: str, *lines: dict[str, object] | str) -> None:
        """Drop a file of these lines under landing/."""
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        self.s3.put(f"landing/{name}", "".join(f"{text}\n" for text in texts).encode())

    def dags(self) -> dict[str, Any]:
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
        assert bag.import_errors == {}
        return dict(bag.dags)

    def run(self, dag_id: str = "ingest_website", **conf: object) -> Ran:
        """Run a DAG to its end, in this process."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session

        run = self.dags()[dag_id].test(run_conf=conf or None)
        instances = run.get_task_instances()
        names = [ti.rendered_map_index for ti in instances if ti.task_id in ("load", "check") and ti.map_index >= 0]
        tasks = {ti.task_id if ti.map_index < 0 else f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in instances}
        with create_session() as session:
            query = XComModel.get_many(run_id=run.run_id, dag_ids=dag_id, key="return_value")
            returned = {
                found.task_id: XComModel.deserialize_value(found)
                for found in session.scalars(query)
                if found.map_index < 0
            }
        return Ran(run.run_id, str(run.state), tasks, names, returned)

    def ledger(self) -> list[dict[str, Any]]:
        return self.ask(lambda pipeline: pipeline.warehouse.files({}))

    def states(self) -> dict[str, str]:
        return {row["key"].removeprefix("landing/"): row["state"] for row in self.ledger()}

    def count(self, table: str) -> int:
        def counted(pipeline: "Pipeline") -> int:
            with pipeline.warehouse.query(f"SELECT count(*) AS n FROM {table}") as result:
                return int(result.reader.read_all()["n"][0].as_py())

        return self.ask(counted)

    def ask(self, question: Callable[["Pipeline"], T]) -> T:
        from ingest.settings import load_settings
        from ingest.wiring import open_pipeline

        with open_pipeline(load_settings(os.environ, sound_only=True)) as pipeline:
            return question(pipeline)

    def events(self) -> list[dict[str, Any]]:
        """The `extra` of every asset event so far, of this test's bucket."""
        from airflow.models.asset import AssetEvent
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            found = session.execute(select(AssetEvent)).scalars().all()
            return [
                event.extra | {"asset": event.asset.name} for event in found if self.s3.bucket in event.extra["file"]
            ]


@pytest.fixture
def job(airflow_db: None, s3: "S3", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    connection = {
        "conn_type": "aws",
        "login": "test",
        "password": "test",
        "extra": {"region_name": "us-east-1", "endpoint_url": s3.endpoint},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("INGEST_CONFIG", str(tmp_path / "ingest.toml"))
    monkeypatch.setenv("INGEST_PROCESSES", "1")
    made = Job(tmp_path, s3)
    made.configure()
    return made


def _toml(settings: dict[str, object]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items() if value is not None)
