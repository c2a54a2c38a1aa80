"""Lakes of our own for tests: a catalog in a SQLite file or on a server, the table in a folder or a bucket."""

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ingest.core.matching import IGNORED_IDENTITIES
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse

if TYPE_CHECKING:
    from tests.conftest import S3

_numbers = count()


def describe(environment: pytest.MonkeyPatch, folder: Path, uri: str | None = None, s3: "S3 | None" = None) -> str:
    """The URL of a lake that nobody has made yet. Processes of this environment find it."""
    name = f"lake{next(_numbers)}"
    (folder / name).mkdir(parents=True)
    told = {"type": "sql", "uri": uri or f"sqlite:///{folder}/{name}.db", "warehouse": f"file://{folder}/{name}"}
    if s3:
        told |= {"warehouse": f"s3://{s3.bucket}/lake", "s3.endpoint": s3.endpoint, "s3.region": "us-east-1"}
        told |= {"s3.access-key-id": "test", "s3.secret-access-key": "test"}
    for key, value in told.items():
        spelled = key.upper().replace(".", "__").replace("-", "_")
        environment.setenv(f"PYICEBERG_CATALOG__{name.upper()}__{spelled}", value)
    return f"iceberg://{name}/landfall"


def warehouse(url: str, mirrors: Path, **more: Any) -> IcebergWarehouse:
    return IcebergWarehouse.at(url, mirrors, ignored_identities=IGNORED_IDENTITIES, **more)
