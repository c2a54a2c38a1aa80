"""Settings: `ingest.toml` and the environment, read once at the edge and handed down whole.

Nothing below reads the environment. Every wrong setting is told at the start, all together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ingest.core.identity import IGNORED_IDENTITIES, Match


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One `[[source]]` of ingest.toml: where files are dropped and how they are judged."""

    name: str
    bucket: str
    prefix: str = ""
    pattern: str | None = None  # a base name or a glob below `prefix`; None: *.json and *.json.gz
    format: str = "kissmetrics"
    schedule: str | int | None = "@hourly"  # Airflow's, or seconds
    changed_file: Literal["new_version", "replace", "hold"] = "new_version"
    existing_files: Literal["load", "skip"] = "load"
    same_bytes: Literal["skip", "load"] = "skip"
    max_failed_share: float | None = None
    max_failed_lines: int | None = None
    strict: bool = False
    nested: Literal["fail", "flatten"] = "fail"
    people_space: str | None = None  # None: the format's name
    match: Match | None = None  # None: the format's own
    after_load: Literal["keep", "archive", "delete"] = "keep"
    archive_prefix: str = "completed_imports/"
    expect_every: str | None = None
    notify: tuple[str, ...] = ()
    report_prefix: str = ""
    aws_conn_id: str = "aws_default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a person may decide."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    config_path: Path | None = None
    warehouse_url: str = field(repr=False)  # may carry a password
    lock_timeout_seconds: float = 60.0
    max_line_bytes: int = 1_048_576
    max_document_bytes: int = 67_108_864
    time_from: int = 1_230_768_000
    future_seconds: int = 86_400
    processes: int = 0  # judging processes; 0: one for each core
    staging_folder: Path | None = None  # None: the system's temporary folder
    ignored_identities: frozenset[str] = IGNORED_IDENTITIES
    allowed_buckets: tuple[str, ...] = ()
    uploads_bucket: str | None = None
    uploads_prefix: str = "uploads/"
    problems: tuple[str, ...] = ()  # wrong settings of single sources, when the sound ones were asked for
