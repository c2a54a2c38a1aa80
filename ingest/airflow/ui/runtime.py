"""Where a page meets the world: settings, stores and the warehouse, as the tasks of our DAGs see them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ingest.airflow.runtime import clients, task_settings
from ingest.core.source import ONE_OFF
from ingest.ports import FilesWanted
from ingest.wiring import open_pipeline

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.settings import Settings

_PATIENCE_SECONDS = 1.0  # for an embedded warehouse that a load holds; what a page cannot do without waits for no load


def settings() -> "Settings":
    """The settings as they are now. Raises ConfigError."""
    return replace(task_settings(os.environ), lock_timeout_seconds=_PATIENCE_SECONDS)


@contextmanager
def open_runtime() -> Iterator["Pipeline"]:
    """The pipeline of one request. Raises ConfigError."""
    found = settings()
    with open_pipeline(found, client_for=clients(found)) as pipeline:
        yield pipeline


def known_sources(pipeline: "Pipeline") -> set[str]:
    """Sources of the settings, and those that only the ledger still knows."""
    with pipeline.warehouse.published() as published:
        told = published.sources()
    return {*pipeline.settings.sources, ONE_OFF, *told}


def loaded_copy(pipeline: "Pipeline", sha256: str, sources: Sequence[str]) -> dict[str, Any] | None:
    """The newest file of these sources with these bytes that is loaded now. Raises TransientError."""
    wanted = FilesWanted(sources=tuple(sources), states=("loaded",), sha256=sha256, per_page=1)
    with pipeline.warehouse.published() as published:
        return next(iter(published.files(wanted).rows), None)
