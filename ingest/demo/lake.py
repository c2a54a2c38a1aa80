"""A lake for the demo: a catalog in a SQLite file, the table in a bucket of the demo's own S3 server."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_BUCKET: Final = "demo-lake"
URL: Final = "iceberg://demo/landfall"


def environment(folder: Path, s3_url: str, region: str) -> dict[str, str]:
    """The catalog in pyiceberg's own variables, and where this host's mirror is."""
    catalog = {
        "TYPE": "sql", "URI": f"sqlite:///{folder}/catalog.db", "WAREHOUSE": f"s3://{_BUCKET}/warehouse",
        "S3__ENDPOINT": s3_url, "S3__REGION": region, "S3__ACCESS_KEY_ID": "demo", "S3__SECRET_ACCESS_KEY": "demo",
    }  # fmt: skip
    told = {f"PYICEBERG_CATALOG__DEMO__{name}": value for name, value in catalog.items()}
    return told | {"INGEST_WAREHOUSE": URL, "INGEST_MIRRORS": str(folder / "mirrors")}


def make_bucket(s3: "S3Client") -> None:
    s3.create_bucket(Bucket=_BUCKET)
