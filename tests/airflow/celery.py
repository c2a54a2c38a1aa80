"""Airflow with the CeleryExecutor, two workers, and the login of FAB, on one machine as if it were three hosts.

Each host has a home, a temporary folder, a staging folder, DAGs and an ingest.toml of its own, and a name: nothing is
shared but S3, Redis and Postgres.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from ingest.demo.processes import Processes, free_ports
from ingest.demo.stack import PASSWORD, USER, Stack, answers, environment_of, wait_for
from tests.postgres import Server

WORKERS = ("one", "two")
PACK_FILES = 4  # of a task, instead of 500: both workers get several
_DAG = "/api/v2/dags/ingest_website"
_DAGS = f"""\
from datetime import timedelta

from ingest import pipeline
from ingest.airflow import dags

pipeline._PACK_FILES = {PACK_FILES}
dags.COMMON["default_args"]["retry_delay"] = timedelta(seconds=1)
globals().update(dags.build_dags())
"""
_FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
# Airflow notices by its silence that a worker is gone; without these after 5 minutes.
_IMPATIENT = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}


@dataclass(frozen=True)
class Team:
    """What runs."""

    stack: Stack
    processes: Processes

    def run(self) -> dict[str, Any]:
        """The only run of the source's DAG."""
        (run,) = self.stack.get(f"{_DAG}/dagRuns")["dag_runs"]
        return dict(run)

    def loads(self) -> list[dict[str, Any]]:
        """Its loading tasks."""
        return [one for one in self.stack.get(self._tasks())["task_instances"] if one["task_id"] == "load"]

    def tries(self, load: dict[str, Any]) -> list[dict[str, Any]]:
        """Each try of a loading task."""
        return list(self.stack.get(f"{self._tasks()}/load/{load['map_index']}/tries")["task_instances"])

    def _tasks(self) -> str:
        return f"{_DAG}/dagRuns/{quote(self.run()['dag_run_id'], safe='')}/taskInstances"

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        wait_for(condition, what, self.processes)

    def kill_host(self, name: str) -> None:
        """Kill -9 of a worker and of all that it has started: the host is gone."""
        first = self.processes._running.pop(name)
        below = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        first.wait()
        for one in below:
            with suppress(psutil.NoSuchProcess):
                one.kill()


@contextmanager
def running_team(folder: Path, server: Server, warehouse: str, s3_url: str, ingest_toml: str) -> Iterator[Team]:
    """Start everything; end everything. If something fails, the ends of all logs are printed."""
    ui_port, log_port, redis_port = free_ports(3)
    url = f"http://127.0.0.1:{ui_port}"
    environment = environment_of(folder, s3_url, url, ui_port, log_port) | _IMPATIENT | {
        "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis_port}/0",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
        "AIRFLOW__CORE__AUTH_MANAGER": _FAB,
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "this_host.name",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://postgres@127.0.0.1:{server.port}/airflow",
        "INGEST_WAREHOUSE": warehouse,
    }  # fmt: skip
    server.sql("CREATE DATABASE airflow")
    stack = Stack(folder=folder, url=url, s3_url=s3_url, environment=environment)
    airflow = [sys.executable, "-m", "airflow"]
    with Processes(folder / "logs") as processes:
        try:
            redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(redis_port), "--save", ""]
            processes.start("redis", redis, environment)
            main = _host(folder / "main", ingest_toml, environment)
            processes.run("airflow-db", [*airflow, "db", "migrate"], main)
            person = ["--username", USER, "--password", PASSWORD, "--role", "Admin"]
            named = ["--email", "admin@example.com", "--firstname", "Ad", "--lastname", "Min"]
            processes.run("airflow-user", [*airflow, "users", "create", *person, *named], main)
            for part in ("api-server", "scheduler", "dag-processor"):
                processes.start(part, [*airflow, part], main)
            for name in WORKERS:
                own = _host(folder / name, ingest_toml, environment)
                command = ["celery", "worker", "--celery-hostname", f"{name}@%h", "--skip-serve-logs"]
                processes.start(name, [*airflow, *command], own)
            wait_for(lambda: answers(f"{url}/api/v2/version"), "Airflow's API", processes)
            yield Team(stack, processes)
        except BaseException:
            for log in sorted((folder / "logs").iterdir()):
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
                print(f"--- the end of {log}\n{tail}")
            raise


def _host(folder: Path, ingest_toml: str, environment: dict[str, str]) -> dict[str, str]:
    for name in ("airflow", "dags", "staging", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "dags" / "landfall.py").write_text(_DAGS)
    (folder / "ingest.toml").write_text(f"staging = {json.dumps(str(folder / 'staging'))}\n{ingest_toml}")
    (folder / "this_host.py").write_text(f"def name():\n    return {folder.name!r}\n")
    return environment | {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "HOME": str(folder),
        "INGEST_CONFIG": str(folder / "ingest.toml"),
        "PYTHONPATH": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
