"""What the commands share: the group that they belong to, options, the pipeline, and how files are shown."""

import getpass
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest import __version__
from ingest.cli.output import counted, say, shown_line, write_table
from ingest.core import native
from ingest.core.address import is_file_id, split_address
from ingest.core.source import LOCAL_BUCKET
from ingest.errors import IngestError
from ingest.text import count

if TYPE_CHECKING:
    from ingest.core.source import SourceFile
    from ingest.pipeline import Pipeline
    from ingest.settings import Settings


class _Given(click.types.StringParamType):
    """A text that is not empty: `ingest undo "$FILE"` must not take whatever there is where FILE is not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value).strip():
            self.fail("it is empty. Is a variable not set?", param, ctx)
        try:
            str(value).encode()
        except UnicodeEncodeError:
            self.fail("it is not UTF-8. Rename the file, or write the name in UTF-8.", param, ctx)
        return super().convert(value, param, ctx)


GIVEN = _Given()

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
format_option = click.option(
    "--format", type=GIVEN,
    help="The format of the file; default: the source's, else kissmetrics. auto: guess it from how each file begins.",
)  # fmt: skip
source_option = click.option(
    "--source", type=GIVEN,
    help="Use the rules of this source of ingest.toml. A file that belongs to another source keeps those of that one.",
)  # fmt: skip
fail_on_option = click.option(
    "--fail-on", type=click.Choice(("failed", "rejected", "error")), default="failed", show_default=True,
    help="When to exit with 1. failed: failed lines, rejected or held files; rejected: only such files; error: never."
    " Errors always exit with 2.",
)  # fmt: skip

_VERSIONS_NAMED = 5
_FAILURES_SHOWN = 20
SHORT_ID = 8  # of a file's id: a beginning that is unique will do wherever one is asked for


class Broken(Exception):
    """`error`, one of the system's, kept away from click: it takes some of them for Ctrl-C or for a closed output."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (OSError, EOFError) as error:
            raise Broken(error) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(f"{__version__} ({native.told()})", prog_name="ingest")
def cli() -> None:
    """Load files of events from S3 into a warehouse, each exactly once."""


def given_bytes(file: str) -> bytes:
    """What is in a file, or comes from standard input where it is -."""
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise IngestError(f"{file} cannot be read: {error.strerror}.") from error


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return "unknown"


class _Watched:
    """A store whose listings are counted while somebody watches."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list(self, bucket: str, prefix: str) -> "Iterator[SourceFile]":
        where = prefix if bucket == LOCAL_BUCKET else f"s3://{bucket}/{prefix}"
        return counted(f"listing {where}", self._store.list(bucket, prefix))


@contextmanager
def opened_pipeline(*, warehouse: bool = True, needed_to: str = "") -> Iterator["Pipeline"]:
    """The pipeline that the environment asks for; says on which warehouse it works, unless none is needed.

    `needed_to`: what cannot be done without a warehouse, which then has to be there.
    """
    from ingest.settings import load_settings
    from ingest.wiring import open_pipeline

    with open_pipeline(load_settings(os.environ)) as pipeline:
        if sys.stderr.isatty():
            open_store = pipeline.store_of
            pipeline = replace(pipeline, store_of=lambda name: _Watched(open_store(name)))  # noqa: PLW2901
        if warehouse:
            say(f"Warehouse: {pipeline.warehouse.name}{'' if pipeline.warehouse.is_there else ' (not made yet)'}")
        if needed_to and not pipeline.warehouse.is_there:
            raise nothing_there(pipeline, needed_to)
        yield pipeline


def say_versions(pipeline: "Pipeline", reference: str) -> None:
    """Which of several files of one address is meant by it: it names the newest."""
    if is_file_id(reference):
        return
    bucket, key = split_address(reference)
    rows = pipeline.warehouse.files({"bucket": bucket, "key": key})
    if len(rows) > 1:
        newest, *others = (f"{row['file_id'][:SHORT_ID]} ({row['state']})" for row in rows)
        listed = ", ".join(others[:_VERSIONS_NAMED]) + ", …" * (len(others) > _VERSIONS_NAMED)
        is_newest = f"This is the newest, {newest}; for another one name its FILE_ID: {listed}"
        say(f"The ledger has {len(rows):,} versions of {reference}. {is_newest}")


def exit_code(fail_on: str, *, failed: bool, rejected: bool) -> int:
    """What a command ends with that could do all it was asked for: see `fail_on_option`."""
    return int((failed and fail_on == "failed") or (rejected and fail_on != "error"))


def nothing_there(pipeline: "Pipeline", to_do: str) -> IngestError:
    found = pipeline.settings.config_path
    where = f"ingest.toml is {found}." if found else f"There is no ingest.toml in {Path.cwd()}, either."
    return IngestError(
        f"There is no warehouse at {pipeline.warehouse.name} yet, so there is nothing to {to_do}. {where} INGEST_CONFIG"
        " and INGEST_WAREHOUSE name others."
    )


def no_sources(settings: "Settings") -> IngestError:
    if settings.config_path is None:
        return IngestError(
            f"There is no ingest.toml in {Path.cwd()}. `ingest init` writes one; or name yours in INGEST_CONFIG. Single"
            " files are loaded with `ingest load`."
        )
    return IngestError(
        f"There is no [[source]] in {settings.config_path}. `ingest init --add` adds one; `ingest load` loads files."
    )


def show_codes(format: str, title: str, counted: Iterable[tuple[str, int]]) -> None:
    """What each code means and what to do, once, however many lines have it."""
    from ingest.core.schema import codes

    known = codes(format)
    rows = [(code, lines, " ".join(known.get(code, ()))) for code, lines in counted]
    if rows:
        write_table(title, ("code", "lines", "what it means and what to do"), rows)


def show_failures(format: str, failed: Sequence[dict[str, Any]]) -> None:
    from ingest.core.schema import codes

    if failed:
        for line in failed[:_FAILURES_SHOWN]:
            for text in shown_line(line, codes(format)):
                click.echo(text)
        if (more := len(failed) - _FAILURES_SHOWN) > 0:
            click.echo(f"… and {count(more, 'more line')} (--json has all of them)")
        click.echo()
        show_codes(format, "Failed lines", Counter(code for line in failed for code in line["codes"]).most_common())
