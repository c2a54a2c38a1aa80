"""Commands that take the whole warehouse elsewhere: `copy`, `export`."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingest.cli.base import GIVEN, cli, json_option, nothing_there, opened_pipeline
from ingest.cli.output import say, write_json, write_table
from ingest.core.address import is_s3, split_address
from ingest.core.source import ONE_OFF
from ingest.discovery import owner_of
from ingest.errors import IngestError
from ingest.text import count

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline


@cli.command()
@click.option(
    "--to",
    "url",
    required=True,
    type=GIVEN,
    help="The other warehouse, named as INGEST_WAREHOUSE is. It must be empty.",
)
@json_option
def copy(url: str, as_json: bool) -> None:
    """Copy the warehouse to another, empty one.

    To move to another engine. The ledger is copied, too, so a poll of the copy loads nothing again. Loads into a DuckDB
    warehouse wait until it is done.
    """
    from ingest.transfer import copy
    from ingest.wiring import warehouse_at

    with opened_pipeline() as pipeline, _progress() as progress:
        if not pipeline.warehouse.is_there:
            raise nothing_there(pipeline, "copy")
        target = warehouse_at(url, pipeline.settings)
        rows = copy(pipeline.warehouse, target, progress, say)
    _tell(target.name, rows, as_json)


@cli.command()
@click.option(
    "--to",
    "to",
    required=True,
    type=GIVEN,
    help="A folder of its own, made if missing; or s3://bucket/prefix/.",
)
@click.option("--table", "tables", multiple=True, type=GIVEN, help="Only this table or view; may be given again.")
@json_option
def export(to: str, tables: tuple[str, ...], as_json: bool) -> None:
    """Write tables and views as Parquet files, one each.

    A former export in the folder is replaced when the new one is complete; in a bucket the object export.manifest says
    whether it is. Loads into a DuckDB warehouse wait while the files are written.
    """
    from ingest.staging import staging_folder
    from ingest.transfer import chosen, export, export_to_store

    chosen(tables)
    with opened_pipeline() as pipeline:
        if not pipeline.warehouse.is_there:
            raise nothing_there(pipeline, "export")
        if not is_s3(to):
            with _progress() as progress:
                rows = export(pipeline.warehouse, Path(to), progress, notice=say, tables=tables)
        else:
            bucket, prefix = _place(pipeline, to)
            store = pipeline.store_of(ONE_OFF)
            with staging_folder(pipeline.settings.staging_folder) as aside, _progress() as progress:
                rows = export_to_store(pipeline.warehouse, store, bucket, prefix, aside, progress, tables)
    _tell(to if is_s3(to) else str(Path(to)), rows, as_json)


def _place(pipeline: "Pipeline", address: str) -> tuple[str, str]:
    """The bucket and the prefix. Raises IngestError where objects would be in the way."""
    bucket, prefix = split_address(address)
    if prefix and not prefix.endswith("/"):
        raise IngestError(f"{address} names one object. Write {address}/ (with a slash) for what is put below it.")
    if source := owner_of(pipeline.settings, bucket, f"{prefix}events.parquet"):
        raise IngestError(f"{address} lies in the landing of the source {source}. Name a prefix that is no source's.")
    return bucket, prefix


def _tell(to: str, rows: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        write_json({"to": to, "tables": rows})
    else:
        write_table(f"{to}: {count(sum(rows.values()), 'row')}", ("table", "rows"), list(rows.items()))


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """What was done of each table, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _name, _rows: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,} rows"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, rows: int) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name, total=None)
            shown.update(tasks[name], advance=rows)

        yield advance
