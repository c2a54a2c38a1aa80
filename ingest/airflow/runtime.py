"""Where a task meets the world: settings, credentials and the warehouse, as Airflow's connections name them.

Credentials are Airflow's own: `aws_conn_id` of a source, and `landfall_warehouse`, which may hold the warehouse's URL.
Imports of boto3 and of the warehouse stand inside: the scheduler reads the DAGs without them.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ingest.errors import ConfigError
from ingest.settings import Settings, Source, load_settings, spans_hosts

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from ingest.pipeline import Pipeline
    from ingest.ports import Audit
    from ingest.wiring import ClientFor

WAREHOUSE_CONNECTION = "landfall_warehouse"
DEFAULT_AWS_CONNECTION = "aws_default"
_SECRETS = frozenset({"password", "sslpassword"})
PROBLEM = "problem"  # the XCom with the sentence of what ended a task, for the page of the run


def home(environment: Mapping[str, str]) -> Path:
    """The folder that Airflow calls its home."""
    return Path(os.path.expandvars(environment.get("AIRFLOW_HOME") or "~/airflow")).expanduser()


def note_of(context: Mapping[str, Any], reason: str = "", *, is_named: bool = False) -> "Audit":
    """Who asked for the run of a task, for the history of files: `airflow` where a schedule did."""
    from ingest.ports import Audit

    by = getattr(context["dag_run"], "triggering_user_name", None) or "airflow"
    return Audit(by, reason, context["run_id"], is_named)


@contextmanager
def open_runtime() -> Iterator["Pipeline"]:
    """The pipeline of this task. A wrong setting fails the task for good; whatever else is wrong is tried again."""
    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowFailException

    from ingest.wiring import open_pipeline

    try:
        settings = task_settings(os.environ)
        with open_pipeline(settings, client_for=clients(settings)) as pipeline:
            yield pipeline
    except ConfigError as error:
        get_current_context()["ti"].xcom_push(PROBLEM, str(error))
        raise AirflowFailException(str(error)) from error


def task_settings(environment: Mapping[str, str]) -> Settings:
    """The settings, with the warehouse of the connection if there is one.

    Raises:
        ConfigError: the connection and INGEST_WAREHOUSE name different warehouses; or tasks run on several hosts, and
            the warehouse is on one.
    """
    from airflow.sdk.configuration import conf

    settings = load_settings(environment, sound_only=True)
    connected = settings.warehouse_url
    if url := connected_warehouse():
        connected = load_settings({**environment, "INGEST_WAREHOUSE": url}, sound_only=True).warehouse_url
        if "INGEST_WAREHOUSE" in environment and _place(connected) != _place(settings.warehouse_url):
            raise ConfigError(
                f"INGEST_WAREHOUSE and Airflow's connection {WAREHOUSE_CONNECTION} name different warehouses. "
                "Loading into two would count nothing twice but split the ledger: remove one of them."
            )
    if reason := spans_hosts(connected, conf.get("core", "executor")):
        raise ConfigError(reason)
    return replace(settings, warehouse_url=connected)


def _place(url: str) -> str:
    """A warehouse's URL without what may differ where the warehouse is the same: a password."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    pairs = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] not in _SECRETS]
    place = parts._replace(netloc=f"{unquote(user.partition(':')[0])}{at}{host}", path=unquote(parts.path))
    return place._replace(query=urlencode(sorted(pairs))).geturl()


def connected_warehouse() -> str | None:
    """The URL that the connection `landfall_warehouse` gives: its extra `url`, else its own fields."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = Connection.get(WAREHOUSE_CONNECTION)
    except AirflowNotFoundException:
        return None
    extra: dict[str, Any] = connection.extra_dejson
    if url := extra.get("url"):
        return str(url)
    scheme, rest = connection.get_uri().split("://", 1)
    if scheme == "duckdb":
        rest = unquote(rest)  # Airflow escapes the slashes of a path
    return f"{'postgresql' if scheme == 'postgres' else scheme}://{rest}"


def clients(settings: Settings) -> "ClientFor":
    """What makes a client with the credentials of a source's connection; of `aws_default` where there is no source."""

    def client(source: Source | None) -> "S3Client":
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore.config import Config

        from ingest.adapters.s3_client import plain_checksums

        connection = source.aws_conn_id if source else DEFAULT_AWS_CONNECTION
        plain = Config(read_timeout=settings.read_timeout_seconds).merge(plain_checksums() or Config())
        own = S3Hook(aws_conn_id=connection).conn_config.botocore_config  # `config_kwargs` of the connection
        made: S3Client = S3Hook(aws_conn_id=connection, config=plain.merge(own) if own else plain).get_conn()
        return made

    return client
