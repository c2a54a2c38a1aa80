"""What Airflow knows our DAGs and pages by. Published: permissions, bookmarks and scripts hold these names."""

from collections.abc import Collection
from typing import Final

from ingest.core.source import ONE_OFF

_OF_FILES: Final = "ingest_"
ACTION: Final = "action"
ACTION_DAG: Final = _OF_FILES + ACTION
ONE_OFF_DAG: Final = _OF_FILES + ONE_OFF
RECONCILE_DAG: Final = f"{_OF_FILES}reconcile"
CONFIG_ERRORS_DAG: Final = "landfall_config_errors"  # no source's DAG can have this name
TAG: Final = "landfall"  # of each of our DAGs
MOUNTED: Final = "/landfall"  # where our pages begin, below Airflow's own address
ROUTE: Final = "landfall"  # Airflow frames them under /plugin/landfall/…
_OF_NO_SOURCE: Final = frozenset({ACTION_DAG, ONE_OFF_DAG, RECONCILE_DAG, CONFIG_ERRORS_DAG})


def dag_of(source: str) -> str:
    """The DAG that loads a source."""
    return _OF_FILES + source


def source_of(dag_id: str) -> str | None:
    """The one source that a DAG's runs are about; None where they may be about files of any, or about none."""
    return None if dag_id in _OF_NO_SOURCE else dag_id.removeprefix(_OF_FILES)


def has_files(dag_id: str) -> bool:
    """Whether a DAG has the name of one whose runs load files or act on them."""
    return dag_id.startswith(_OF_FILES) and dag_id != RECONCILE_DAG


def is_ours(dag_id: str, sources: Collection[str]) -> bool:
    """Whether a DAG is Landfall's, which knows these sources. Airflow 3.3 shows our tabs on every DAG."""
    return dag_id in _OF_NO_SOURCE or dag_id in map(dag_of, sources)
