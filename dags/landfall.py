"""Landfall's DAGs, made from ingest.toml. Copy this file into the DAGs folder of an Airflow that has the package."""

from ingest.airflow import build_dags

globals().update(build_dags())
