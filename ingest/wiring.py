"""The one place that chooses adapters: settings in, a pipeline out."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ingest.adapters.stores import Stores
from ingest.errors import ConfigError
from ingest.pipeline import Pipeline
from ingest.ports import ObjectStore, Warehouse
from ingest.settings import Settings, Source, warehouse_url

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class ClientFor(Protocol):
    """Makes the S3 client of a source; None stands for loads that name no source."""

    def __call__(self, source: Source | None, /) -> "S3Client": ...


@contextmanager
def open_pipeline(settings: Settings, client_for: ClientFor | None = None) -> Iterator[Pipeline]:
    """A pipeline for these settings; without `client_for`, S3 is reached with boto3's own and those of the source."""
    warehouse: Any = _Unneeded(settings)  # it becomes one
    yield Pipeline(settings, stores_of(settings, client_for), warehouse)


def stores_of(
    settings: Settings, client_for: ClientFor | None = None, *, somebody_waits: bool = False
) -> Callable[[str], ObjectStore]:
    """The stores of sources, by name; any other name stands for loads that name none.

    `somebody_waits`: for an answer, so that a store which does not answer is given up soon.
    """

    @cache
    def client_of(profile: str | None, endpoint_url: str | None, _pays: bool) -> "S3Client":
        # Who pays says so in every request of a client: neighbours get another.
        from ingest.adapters.s3 import make_client

        return make_client(
            profile, endpoint_url, read_timeout_seconds=settings.read_timeout_seconds, somebody_waits=somebody_waits
        )

    def open_s3(source: Source | None) -> ObjectStore:
        from ingest.adapters.s3 import S3Store

        profile, endpoint_url, pays = (
            (source.profile, source.endpoint_url, source.requester_pays) if source else (None, None, False)
        )
        made = client_for(source) if client_for else client_of(profile, endpoint_url, pays)
        return S3Store(made, requester_pays=pays)

    @cache
    def store_of(name: str) -> ObjectStore:
        return Stores(lambda: open_s3(settings.sources.get(name)))

    return store_of


class _Unneeded:
    """The warehouse of the settings, opened when it is first used: `ingest check` does not even import DuckDB."""

    def __init__(self, settings: Settings) -> None:
        self._opened = cache(partial(_open, settings))

    def __getattr__(self, name: str) -> object:
        return getattr(self._opened(), name)


def warehouse_at(url: str, settings: Settings) -> Warehouse:
    """Another warehouse than that of the settings, named as `INGEST_WAREHOUSE` is. Raises ConfigError."""
    folder = settings.config_path.parent if settings.config_path else Path.cwd()
    return _open(replace(settings, warehouse_url=warehouse_url(url, folder, "--to")))


def usual_mirrors() -> Path:
    """Where this user's mirrors of lakes are, as the XDG Base Directory Specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "landfall"


def _open(settings: Settings) -> Warehouse:
    scheme, _, rest = settings.warehouse_url.partition("://")
    told: dict[str, Any] = {
        "lock_timeout_seconds": settings.lock_timeout_seconds,
        "ignored_identities": settings.ignored_identities,
        "sources": settings.sources,
    }
    if scheme == "postgresql":
        try:
            from ingest.warehouse.engines.postgres.warehouse import PostgresWarehouse
        except ImportError as error:
            raise ConfigError(
                "INGEST_WAREHOUSE: postgresql:// needs the extra `postgres`: install landfall-ingest[postgres]."
            ) from error

        return PostgresWarehouse(settings.warehouse_url, **told)
    if scheme == "iceberg":
        try:
            from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse
        except ImportError as error:
            raise ConfigError(
                "INGEST_WAREHOUSE: iceberg:// needs the extra `iceberg`: install landfall-ingest[iceberg]."
            ) from error

        return IcebergWarehouse.at(settings.warehouse_url, settings.mirror_folder or usual_mirrors(), **told)
    from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

    return DuckDBWarehouse(Path(rest[1:]).resolve(), **told)  # resolved, so that a warehouse has one name, and one lock
