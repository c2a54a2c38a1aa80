"""Commands that take the whole warehouse elsewhere: `copy`, `export`."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from ingest.cli.base import GIVEN, cli, json_option, nothing_there, opened_pipeline
from ingest.cli.output import say, write_json, write_table
from ingest.text import count


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
    """Copy the warehouse to another, empty one: to move to another engine.

    With the ledger, so that a poll of the copy loads nothing again. Loads into an embedded warehouse wait meanwhile.
    """
    from ingest.transfer import copy
    from ingest.wiring import warehouse_at

    with opened_pipeline() as pipeline, _progress() as progress:
        if not pipeline.warehouse.is_there:
            raise nothing_there(pipeline, "copy")
        target = warehouse_at(url, pipeline.settings)
        rows = copy(pipeline.warehouse, target, progress)
    _tell(target.name, rows, as_json)


@cli.command()
@click.option("--to", "folder", required=True, type=GIVEN, help="A folder of its own; made if missing.")
@json_option
def export(folder: str, as_json: bool) -> None:
    """Write tables and views as Parquet files, one each.

    A former export in the folder is replaced when the new one is complete. Loads into an embedded warehouse wait
    meanwhile.
    """
    from ingest.transfer import export

    with opened_pipeline() as pipeline, _progress() as progress:
        if not pipeline.warehouse.is_there:
            raise nothing_there(pipeline, "export")
        rows = export(pipeline.warehouse, Path(folder), progress, notice=say)
    _tell(str(Path(folder)), rows, as_json)


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
