"""What a person asks for in the form of `ingest_one_off`, turned into files.

Pasted lines become an object (or a local file) before anything else is done with them, so that from there on they are a
source file like any other: same judging, same ledger, failed lines kept and mended in the same way.

Who triggers this DAG need have no right on any source, and a task cannot know of any. So the address decides, not the
form: what belongs to a source is taken by its rules, and pasted lines belong to none.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow.sdk import Param

from ingest.core.formats import FORMATS
from ingest.core.formats.guess import AUTO
from ingest.core.source import ONE_OFF
from ingest.errors import ConfigError, ObjectGone
from ingest.read_access import why_unreadable
from ingest.settings import Settings
from ingest.text import visible

if TYPE_CHECKING:
    from ingest.core.source import SourceFile
    from ingest.pipeline import Pipeline

_log = logging.getLogger(__name__)
_INSTEAD: Final = "Send a file on the page Upload: it knows whether you may run that source."
PASTED_AT_MOST: Final = 262_144  # characters: the form's values are kept in Airflow's own database


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The form, read. `source` is no part of it: what a script says of it is held against the files.

    The format `auto` is told by what a file begins with; of a file that belongs to a source it is the source's own.
    """

    files: tuple[str, ...] = ()
    lines: str = ""
    source: str | None = None
    format: str = AUTO
    action: Literal["load", "check"] = "load"

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Request":
        """Read the form's values. Raises ConfigError, a sentence for each thing that is wrong."""
        files = tuple(uri for line in params["files"] or [] if (uri := line.strip()))
        lines: str = params["lines"] or ""
        problems = [f"{uri} is not an S3 address: write s3://bucket/key or s3://bucket/prefix/" for uri in files
                    if not uri.startswith("s3://")]  # fmt: skip
        if not files and not lines.strip():
            problems.append("Name at least one S3 address, or paste lines.")
        source = params.get("source")  # a script's: the form had such a field once
        if lines.strip() and source not in (None, ONE_OFF):
            problems.append(f"Pasted lines belong to no source, so they cannot be loaded for {source}. {_INSTEAD}")
        if problems:
            raise ConfigError(*problems)
        return cls(
            files=files, lines=lines if lines.strip() else "", source=None if source == ONE_OFF else source,
            format=params["format"], action=params["action"],
        )  # fmt: skip


def collect(
    pipeline: "Pipeline", settings: Settings, request: Request, *, run_id: str, asked_at: datetime, pasted_folder: Path
) -> "list[SourceFile]":
    """The source files that a request names, pasted lines among them, in the order in which they were named.

    Raises:
        ConfigError: a bucket that may not be read from here, an address under which there is nothing, a file of
            another source than the one that was named, or an upload for a source that was only checked.
    """
    from ingest.core.address import split_address
    from ingest.uploads import demand_load, keep_pasted

    asked = map(split_address, request.files)
    if refused := sorted({why for bucket, key in asked if (why := why_unreadable(settings, bucket, key))}):
        raise ConfigError(*refused)
    addresses = list(request.files)
    if request.lines:
        addresses.append(keep_pasted(pipeline, request.lines, run_id, asked_at, pasted_folder))
    files = []
    for address in addresses:
        try:
            found = pipeline.locate(
                address, format=request.format, notice=lambda text: _log.warning("%s", visible(text))
            )
        except ObjectGone as error:  # for a person at a form there is nothing to wait for
            raise ConfigError(str(error)) from error
        if request.source and (other := next((one for one in found if one.source != request.source), None)):
            strange = f"{other.uri} does not belong to the source {request.source}"
            raise ConfigError(f"{strange}, so it cannot be loaded for it here. {_INSTEAD}")
        if request.action == "load":
            for file in found:
                demand_load(pipeline, file)
        files += found
    return list({file.file_id: file for file in files}.values())


def optional(title: str, description: str, type: str = "string", **more: Any) -> Param:
    """A field of a form that may stay empty."""
    return Param(None, type=["null", type], title=title, description=description, **more)


def params() -> dict[str, Param]:
    """The form. Every field explains itself; the ones that most people need come first."""
    return {
        "files": optional(
            "Files in S3", "One address a line: s3://bucket/key for a file, s3://bucket/prefix/ for all below it.",
            "array", items={"type": "string"},
        ),
        "lines": optional(
            "Or paste lines",
            f"As they stand in a file, one JSON object a line; {PASTED_AT_MOST:,} characters at most.",
            format="multiline", maxLength=PASTED_AT_MOST,
        ),
        "action": Param(
            "load", type="string", enum=["load", "check"], title="What to do",
            values_display={"load": "Load into the warehouse", "check": "Only check, load nothing"},
            description="A file that is in the warehouse already is never loaded twice.",
        ),
        "format": Param(
            AUTO, type="string", enum=[AUTO, *FORMATS], title="Format",
            values_display={AUTO: "The source's own; guessed from the file where there is none"},
            description="What the lines are. A file that belongs to a source has the format of that source.",
        ),
        "force": Param(
            False, type="boolean", title="Load again",
            description="Put the file in the place of its former rows, and past its limits if it was rejected.",
        ),
    }  # fmt: skip
