"""The job as Airflow runs it. A file in the DAGs folder needs two lines:

    from ingest.airflow import build_dags
    globals().update(build_dags())

Needs the extra: `pip install 'landfall-ingest[airflow]'`.
"""

from ingest.airflow.dags import build_dags

__all__ = ["build_dags"]
