"""What many tests need: a real S3 server (moto) on loopback with a fresh bucket in it, and an empty warehouse."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from ingest import judging
from ingest.adapters.s3 import S3Store
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse
from ingest.warehouse.engines.postgres.warehouse import PostgresWarehouse
from tests import iceberg, postgres

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_numbers = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Airflow takes half a minute to set up: one worker does, for all that ask for it."""
    for item in items:
        if "airflow_db" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("airflow"))


@dataclass(frozen=True)
class S3:
    """A bucket of a test's own. The environment leads boto3's defaults there as well."""

    endpoint: str
    client: "S3Client"
    bucket: str
    store: S3Store

    def put(self, key: str, body: bytes = b"{}\n", **more: str) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body, **more)  # type: ignore[arg-type]

    def keep_versions(self, status: str = "Enabled") -> None:
        self.client.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": status})  # type: ignore[typeddict-item]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    with postgres.server() as server:
        yield server


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test may read the developer's AWS account or ingest settings, nor leave logs of errors in that home."""
    import os

    for name in os.environ:
        if name.startswith(("AWS_", "INGEST_")):
            monkeypatch.delenv(name)
    if core := os.environ.get("LANDFALL_CORE"):  # see `make test-cores`
        monkeypatch.setenv("INGEST_NATIVE", {"never": "false", "always": "true"}[core])
        monkeypatch.setattr(judging, "_NATIVE_FROM_BYTES", {"never": 1 << 62, "always": 0}[core])
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture
def s3(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3", config=Config(retries={"mode": "standard"}))
    bucket = f"test-{next(_numbers)}"
    client.create_bucket(Bucket=bucket)
    return S3(moto_endpoint, client, bucket, S3Store(client))


@pytest.fixture(scope="session")
def empty_warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warehouse with its tables, to be copied: making them takes longer than most tests."""
    from tests.test_exactly_once import warehouse_at

    path = tmp_path_factory.mktemp("empty") / "warehouse.duckdb"
    with warehouse_at(path).writing():
        pass
    return path


@pytest.fixture(params=["duckdb", "postgres", "iceberg"])
def new_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, empty_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], DuckDBWarehouse | PostgresWarehouse | IcebergWarehouse]:
    """Makes warehouses with their tables, empty. A new engine adds itself."""
    from tests.test_exactly_once import warehouse_at

    if request.param == "postgres":
        server: postgres.Server = request.getfixturevalue("postgres_server")
        return lambda: postgres.warehouse(server.new())
    if request.param == "iceberg":
        return lambda: iceberg.warehouse(iceberg.describe(monkeypatch, tmp_path), tmp_path / "mirrors")
    return lambda: warehouse_at(Path(shutil.copy(empty_warehouse, tmp_path / f"warehouse-{next(_numbers)}.duckdb")))
