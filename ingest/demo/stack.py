"""An S3 server and Airflow's three parts on loopback, as the demo and the end-to-end test run them.

Parts are started one by one, not by `airflow standalone`: it is ready in half the time and ends cleanly.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from ingest.demo import lake
from ingest.demo.postgres import PostgresServer
from ingest.demo.processes import Processes, free_ports
from ingest.demo.samples import BUCKET, PREFIX, SOURCE

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

USER: Final = "admin"
PASSWORD: Final = "admin"  # noqa: S105 - a login for loopback, told to everyone
VIEWER: Final = "viewer"  # may look at everything and run nothing; the password is the name
_REGION: Final = "us-east-1"
_SECONDS_BETWEEN_POLLS: Final = 10
_PATIENCE_SECONDS: Final = 300

_INGEST_TOML = f"""\
[[source]]
name = "{SOURCE}"
bucket = "{BUCKET}"
prefix = "{PREFIX}"
format = "kissmetrics"
schedule = {_SECONDS_BETWEEN_POLLS} # seconds, so that you need not wait; "@hourly" is the default

[uploads]
bucket = "{BUCKET}"
"""
_DAGS = """\
from ingest.airflow import build_dags

globals().update(build_dags())
"""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What runs, and how to reach it."""

    folder: Path
    url: str  # of Airflow's UI
    s3_url: str
    environment: dict[str, str]  # of every part, and for whoever wants the same settings

    def s3(self) -> "S3Client":
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.s3_url,
            region_name=_REGION,
            aws_access_key_id="demo",
            aws_secret_access_key="demo",  # noqa: S106 - moto takes any
        )

    def get(self, path: str) -> Any:
        return _ask(f"{self.url}{path}", token=self.token)

    @cached_property
    def token(self) -> str:
        """What Airflow gives for the login."""
        return str(_ask(f"{self.url}/auth/token", {"username": USER, "password": PASSWORD})["access_token"])


@contextmanager
def running_stack(
    folder: Path, say: Callable[[str], None], warehouse: str = "duckdb"
) -> Iterator[tuple[Stack, Processes]]:
    """Start everything; end everything, whatever happens.

    `warehouse`: duckdb is a file, postgres a server of its own, iceberg a lake in the S3 server.
    """
    s3_port, ui_port, log_port, postgres_port = free_ports(4)
    s3_url, url = f"http://127.0.0.1:{s3_port}", f"http://127.0.0.1:{ui_port}"
    environment = environment_of(folder, s3_url, url, ui_port, log_port)
    server = PostgresServer(folder / "postgres", postgres_port) if warehouse == "postgres" else None
    if server:
        environment["INGEST_WAREHOUSE"] = server.url
    if warehouse == "iceberg":
        described = lake.environment(folder, s3_url, _REGION)
        environment |= described
        os.environ.update(described)  # of the catalog pyiceberg knows from there alone, in this process as well
    stack = Stack(folder=folder, url=url, s3_url=s3_url, environment=environment)
    (folder / "ingest.toml").write_text(_INGEST_TOML)
    (folder / "dags").mkdir()
    (folder / "tmp").mkdir()
    (folder / "dags" / "landfall.py").write_text(_DAGS)
    (folder / "passwords.json").write_text(json.dumps({USER: PASSWORD, VIEWER: VIEWER}))

    with Processes(folder / "logs") as processes:
        python = sys.executable
        if server:
            server.start(processes, environment)
            wait_for(partial(server.answers, processes, environment), "Postgres", processes)
            server.make_database(processes, environment)
            say(f"a Postgres server for the warehouse: {server.url}")
        processes.start("s3", [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(s3_port)], environment)
        say(f"an S3 server at {s3_url}; making Airflow's database")
        processes.run("airflow-db", [python, "-m", "airflow", "db", "migrate"], environment)
        say("starting Airflow: API server, scheduler, DAG processor")
        for part in ("api-server", "scheduler", "dag-processor"):
            processes.start(part, [python, "-m", "airflow", part], environment)
        wait_for(lambda: answers(f"{s3_url}/moto-api/"), "the S3 server", processes)
        if warehouse == "iceberg":
            lake.make_bucket(stack.s3())
            say(f"a lake for the warehouse: {lake.URL}")
        wait_for(lambda: answers(f"{url}/api/v2/version"), "Airflow's API", processes)
        say(f"Airflow is at {url}, login {USER}, password {PASSWORD}")
        yield stack, processes


def wait_for(condition: Callable[[], bool], what: str, processes: Processes) -> None:
    """Ask again and again. Raises TimeoutError, or ProcessDied if one of the processes is gone."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        processes.check()
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come about within {_PATIENCE_SECONDS} seconds")
        time.sleep(1)


def environment_of(folder: Path, s3_url: str, url: str, ui_port: int, log_port: int) -> dict[str, str]:
    """Variables of every part: nothing of this machine's own settings, all of it in the folder."""
    theirs = ("AIRFLOW", "AWS_", "INGEST_", "PG")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    connection = {
        "conn_type": "aws",
        "login": "demo",
        "password": "demo",
        "extra": {"endpoint_url": s3_url, "region_name": _REGION},
    }
    return mine | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{mine.get('PATH', os.defpath)}",
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(connection),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ui_port),
        "AIRFLOW__API__SECRET_KEY": token_hex(32),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": token_hex(32),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin,{VIEWER}:viewer",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_port),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AWS_EC2_METADATA_DISABLED": "true",
        "INGEST_CONFIG": str(folder / "ingest.toml"),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder / "tmp"),  # a task that is killed at work cannot clear its own folder
    }


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def _ask(url: str, body: object = None, token: str = "") -> Any:
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})  # noqa: S310 - loopback
    if body is not None:
        request.data = json.dumps(body).encode()
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)
