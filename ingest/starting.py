"""A first source in ingest.toml: its text, and how it does before anything is loaded.

In:      where files are dropped, as a person says it.
Out:     the text, with comments out of the program's own list of settings; what lies there, the format that the first
         file shows, and its first lines, judged. Nothing is loaded and no warehouse is made.
Decides: a file of settings appears whole, or not at all, and never in the place of another one.
"""

import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ingest.core.address import split_address
from ingest.core.formats.guess import guess
from ingest.core.source import SourceFile
from ingest.discovery import Selection
from ingest.disk import flush
from ingest.errors import ConfigError
from ingest.pipeline import Pipeline
from ingest.preview import Preview, preview
from ingest.reading import HEAD_BYTES, decompressed, peek
from ingest.settings import SOURCE_SETTINGS, Settings, Source, load_settings
from ingest.unforeseen import said

LISTED_AT_MOST: Final = 10_000  # objects: enough to see whether it is the right place
LINES: Final = 5  # of the first file
_COLUMNS: Final = 100
# What people change, as it is written down commented out; what has no default of its own with an example.
_OFTEN: Final[Mapping[str, Any]] = {
    "schedule": None, "pattern": "*.jsonl", "changed_file": None, "existing_files": None, "max_failed_share": 0.2,
    "after_load": None, "expect_every": "24h", "report_prefix": "reports/",
    "endpoint_url": "https://minio.example.com:9000", "profile": "landfall",
}  # fmt: skip
_DEFAULTS: Final = {field.name: field.default for field in fields(Source)}
_HEAD: Final = "# Where files are dropped, and what they hold. `ingest doctor` tries it, `ingest poll` loads.\n"
_MORE: Final = "# More settings of this source. To set one, take away the # in front of its name.\n"


@dataclass(slots=True)
class Trial:
    """What lies where a source looks, as far as it could be seen."""

    selection: Selection
    is_listed: bool = False
    is_cut: bool = False  # there is more than was listed
    first: SourceFile | None = None  # the first file that is not empty
    guessed: str | None = None  # the format that it tells
    format: str = ""  # by which it was judged
    lines: Preview | None = None
    error: str | None = None  # what went wrong, in a sentence


def former_content(path: Path, *, add: bool) -> bytes:
    """What is in the file to which a source is to be added; nothing if it is a new one.

    Raises:
        ConfigError: there is a file and nothing is to be added, or it could not be written or read.
    """
    if path.exists() and not add:
        raise _taken(path)
    if not path.parent.is_dir():
        raise ConfigError(f"There is no folder {path.parent}. Make it first, or name another FILE.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"Nothing may be written to {path.parent} by this user. Name another FILE.")
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}). Name another FILE.") from error
    return content if not content or content.endswith(b"\n") else content + b"\n"


def _taken(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is there already, and stays as it is. Edit it, or remove it to begin again; `ingest init --add`"
        " adds another source to it."
    )


def place_of(bucket: str, prefix: str | None) -> tuple[str, str]:
    """(bucket, prefix) of what a person names: a bucket, s3://bucket/prefix, or a folder; and the prefix by itself.

    Raises:
        ConfigError: it is no address, or the prefix is said twice.
    """
    if "/" in bucket and not bucket.startswith("arn:"):
        bucket, below = split_address(bucket)
        if below and prefix:
            raise ConfigError(f"The prefix is given twice: {below} and {prefix}. Give it once.")
        prefix = below or prefix
    return bucket, prefix or ""


def with_slash(prefix: str) -> str:
    """The prefix of a folder: `landing/web` would take what lies below `landing/web2/`, too."""
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def name_for(bucket: str, prefix: str) -> str:
    """What a source may be called: as its folder, else as its bucket."""
    folder = prefix.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^a-z0-9]+", "_", (folder or bucket).lower()).strip("_")


def source_text(values: Mapping[str, Any], *, is_first: bool = True) -> str:
    """One [[source]] with these settings; if it `is_first` of its file, also those that people often change."""
    lines = [_HEAD] if is_first else []
    lines.append("[[source]]")
    for name, value in values.items():
        lines += [*_about(name), f"{name} = {_toml(value)}"]
    if is_first:
        lines += ["", _MORE.rstrip()]
        for name, example in _OFTEN.items():
            if name not in values:
                lines += ["", *_about(name), f"#{name} = {_toml(_DEFAULTS[name] or example)}"]
    return "\n".join(lines) + "\n"


def _about(name: str) -> list[str]:
    setting = SOURCE_SETTINGS[name]
    told = [setting.about]
    if setting.words.startswith('"'):  # the names to choose from
        told.append(f"{setting.words}.")
    if setting.default:
        told.append(f"Default: {setting.default}.")
    return textwrap.wrap(" ".join(told), _COLUMNS, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def settings_of(content: bytes) -> Settings:
    """The settings that such a file would give, whatever the environment says. Raises ConfigError."""
    with TemporaryDirectory(prefix="landfall-init-") as folder:
        path = Path(folder, "ingest.toml")
        path.write_bytes(content)
        return load_settings({"INGEST_CONFIG": str(path)})


def look(pipeline: Pipeline, source: Source) -> Trial:
    """What lies in the landing of a source, and which format its first file that is not empty looks like."""
    trial = Trial(Selection(source, pipeline.settings.own_prefixes(source.bucket)))
    with _kept(trial):
        listing = iter(pipeline.store_of(source.name).list(source.bucket, source.prefix))
        first = None
        for file in trial.selection.sift(islice(listing, LISTED_AT_MOST)):
            first = file if first is None or (file.size_bytes and not first.size_bytes) else first
        trial.is_cut = next(listing, None) is not None
        trial.is_listed = True
        trial.first = first
        if first is not None:
            trial.guessed = guess(peek(decompressed(pipeline.read(first, _row(first))), HEAD_BYTES)[0])
    return trial


def judge(pipeline: Pipeline, trial: Trial, format: str) -> None:
    trial.format = format
    if trial.first is not None and trial.error is None:
        file = replace(trial.first, format=format)
        with _kept(trial):
            trial.lines = preview(pipeline, _row(file), 1, LINES)


@contextmanager
def _kept(trial: Trial) -> Iterator[None]:
    """Whatever goes wrong is a part of the trial: the settings are worth keeping."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - as above
        trial.error = said(error)


def _row(file: SourceFile) -> dict[str, Any]:
    names = ("bucket", "key", "etag", "last_modified", "size_bytes", "version_id", "source", "format", "file_id")
    return {name: getattr(file, name) for name in names} | {"redrive_of": None, "archived_to": None}


def put(path: Path, content: bytes, *, instead: bool) -> None:
    """Put the settings in their place, whole or not at all; `instead` of those that are there, else only if none are.

    Raises:
        ConfigError: it cannot be written there, or somebody else's file is there by now.
    """
    path = path.resolve()
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.write_bytes(content)
        flush(unfinished)
        if instead:
            unfinished.chmod(path.stat().st_mode & 0o777)
            unfinished.replace(path)
        else:
            os.link(unfinished, path)
        flush(path.parent)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise ConfigError(f"{path} could not be written ({error.strerror}). Name another FILE.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
