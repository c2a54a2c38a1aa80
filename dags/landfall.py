"""Landfall's DAGs, made from ingest.toml. Copy this file into the DAGs folder of an Airflow that has the package."""

try:
    from ingest.airflow import build_dags
except ImportError as error:
    if error.name != "ingest.airflow":
        raise
    import ingest

    raise ImportError(
        f"{ingest.__file__ or next(iter(ingest.__path__))} is not Landfall, but has the name of its package. Rename it,"
        " and what imports it. Or is Landfall not installed here?"
    ) from None

globals().update(build_dags())
