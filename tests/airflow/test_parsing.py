"""Reading the DAG file is what Airflow does most often: it must be cheap, and in a task only what the task needs."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.conftest import Job

ROOT = Path(__file__).parents[2]


def test_no_heavy_library_is_imported(job: Job) -> None:
    heavy = ("boto3", "duckdb", "pyarrow")
    script = (
        "import sys; import ingest.airflow as a; a.build_dags(); print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_task_reads_only_its_own_dag(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.airflow import build_dags

    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "ingest_website")
    assert set(build_dags()) == {"ingest_website"}


def test_an_executor_of_many_hosts_is_told_where_wrong_settings_are(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.airflow.runtime import task_settings
    from ingest.errors import ConfigError

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,CeleryExecutor")
    said = "CeleryExecutor runs tasks on several hosts"
    monkeypatch.setenv("INGEST_WAREHOUSE", f"duckdb:///{job.folder}/w.duckdb")
    assert any(said in (dag.doc_md or "") for dag in job.dags().values())
    with pytest.raises(ConfigError, match=said):
        task_settings(os.environ)
    monkeypatch.setenv("INGEST_WAREHOUSE", "postgresql://u@h/d")
    assert not any(said in (dag.doc_md or "") for dag in job.dags().values())
    assert task_settings(os.environ).warehouse_url == "postgresql://u@h/d"


SERVER = {"conn_type": "postgres", "host": "db", "port": 5433, "login": "land fall", "password": "p@/:x",
          "schema": "events", "extra": {"sslmode": "require"}}  # fmt: skip


@pytest.mark.parametrize(
    ("named", "agrees"),
    [
        (None, True),
        ("postgresql://land%20fall@db:5433/events?sslmode=require", True),
        ("postgresql://land%20fall:other@db:5433/events?sslmode=require&password=more", True),
        ("postgresql://land%20fall@db:5433/others?sslmode=require", False),
        ("postgresql://somebody@db:5433/events?sslmode=require", False),
        ("duckdb:////here.duckdb", False),
    ],
)
def test_a_connection_to_a_server_is_the_warehouse_whatever_its_password(
    job: Job, monkeypatch: pytest.MonkeyPatch, named: str | None, agrees: bool
) -> None:
    from ingest.airflow.runtime import task_settings
    from ingest.errors import ConfigError

    monkeypatch.setenv("AIRFLOW_CONN_LANDFALL_WAREHOUSE", json.dumps(SERVER))
    monkeypatch.delenv("INGEST_WAREHOUSE", raising=False)
    if named:
        monkeypatch.setenv("INGEST_WAREHOUSE", named)
    if agrees:
        url = "postgresql://land%20fall:p%40%2F%3Ax@db:5433/events?sslmode=require"
        assert task_settings(os.environ).warehouse_url == url
        return
    with pytest.raises(ConfigError, match="name different warehouses") as refused:
        task_settings(os.environ)
    assert not any(secret in str(refused.value) for secret in ("p@/:x", "p%40"))


def test_every_dag_says_what_it_is(job: Job) -> None:
    for dag in job.dags().values():
        assert dag.doc_md
        assert dag.description
        assert "landfall" in dag.tags
        assert dag.catchup is False


def test_every_task_has_a_name_that_people_understand(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_NOTHING", "x")
    for dag in job.dags().values():
        for task in dag.tasks:
            assert re.fullmatch(r"[A-Z][A-Za-z ]+\??", task.task_display_name), task.task_id
            if dag.dag_id == "ingest_website":
                assert f"| {task.task_display_name} (`{task.task_id}`) |" in dag.doc_md


def test_every_task_comes_to_an_end(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """After what a file may take: the load itself ends what is slow before, so that its neighbours are loaded."""
    monkeypatch.setenv("INGEST_MAX_FILE_TIME", "2h")
    monkeypatch.setenv("INGEST_NOTHING", "x")  # so that there is the DAG of wrong settings, too
    tasks = [task for dag in job.dags().values() for task in dag.tasks]
    assert len(tasks) > 15
    assert {task.execution_timeout for task in tasks} == {timedelta(hours=5)}


def test_the_consumer_of_the_docs_is_a_dag(airflow_db: None) -> None:
    page = (ROOT / "docs/airflow.md").read_text()
    (block,) = (text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "after_website" in text)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["after_website"]().dag_id == "after_website"


def test_the_shipped_file_has_the_two_lines_that_the_docs_give() -> None:
    (code,) = re.findall(r"```python\n(from ingest.airflow .*?)```", (ROOT / "docs/airflow.md").read_text(), re.DOTALL)
    shipped = {line.strip() for line in (ROOT / "dags/landfall.py").read_text().splitlines()}
    assert set(code.split("\n")) <= shipped


@pytest.mark.parametrize("names", [["ingest/__init__.py"], ["ingest/__init__.py", "ingest/airflow.py"], ["ingest.py"]])
def test_another_package_of_our_name_is_named(tmp_path: Path, names: list[str]) -> None:
    dags = tmp_path / "dags"
    for name in names:
        (dags / name).parent.mkdir(parents=True, exist_ok=True)
        (dags / name).touch()
    (dags / "landfall.py").write_text((ROOT / "dags/landfall.py").read_text())
    here = os.environ | {"PYTHONPATH": f"{dags}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "landfall"], cwd=tmp_path, env=here, capture_output=True, text=True, check=False
    )
    told = done.stderr.splitlines()[-1]
    assert told.startswith(f"ImportError: {dags / 'ingest'}")
    assert "is not Landfall" in told
    assert "Rename it" in told
    assert "ModuleNotFoundError" not in done.stderr
