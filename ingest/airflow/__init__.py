"""The job as Airflow runs it. A file in the DAGs folder needs two lines:

    from ingest.airflow import build_dags
    globals().update(build_dags())

Needs the extra: `pip install 'landfall-ingest[airflow]'`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingest.airflow.dags import build_dags

__all__ = ["build_dags"]


def __getattr__(name: str) -> Any:
    """Import the DAGs once they are asked for: every process of Airflow loads the plugin that stands beside them."""
    if name != "build_dags":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ingest.airflow.dags import build_dags

    return build_dags
