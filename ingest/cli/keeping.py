"""Commands on the whole warehouse: `reconcile`, `snapshot`, `rematch`, `copy`, `export`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingest.cli.base import GIVEN, cli, json_option, nothing_there, opened_pipeline, user
from ingest.cli.output import say, table_progress, write_json, write_table
from ingest.core.address import is_s3, split_address
from ingest.core.source import ONE_OFF
from ingest.discovery import owner_of
from ingest.errors import IngestError
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.reconcile import Difference


@cli.command()
@click.option(
    "--repair", is_flag=True,
    help="Fix what is safe to fix: flags, leftover rows, archive steps that are due, files that only the archive has.",
)  # fmt: skip
@json_option
def reconcile(repair: bool, as_json: bool) -> int:
    """Compare bucket, archive, ledger and tables with each other.

    Names each difference and says what to do. Exit code 1 if there is one, 2 if a source could not be compared for an
    unforeseen reason; notes alone do not count.
    """
    from dataclasses import asdict

    from ingest.ports import Audit
    from ingest.reconcile import reconcile as compare

    with opened_pipeline() as pipeline:
        if not (pipeline.settings.sources or pipeline.warehouse.is_there):
            raise nothing_there(pipeline, "compare")
        outcome = compare(pipeline, repair=Audit(user(), "ingest reconcile --repair") if repair else None)
    if as_json:
        write_json(asdict(outcome))
    else:
        _show("repaired difference", outcome.repaired)
        _show("difference", outcome.differences, always=True)
        _show("note", outcome.information)
    if any(one.what == "unforeseen" for one in outcome.differences):
        return 2
    return 1 if outcome.differences else 0


@cli.command()
@click.argument("file", type=GIVEN)
@json_option
def snapshot(file: str, as_json: bool) -> None:
    """Put a consistent copy of the warehouse in FILE.

    As a backup, or for other programs to read. It is put there at once, so FILE is always whole. An older snapshot is
    replaced; programs that have it open keep the old one. Loads into a DuckDB warehouse wait meanwhile.
    """
    if is_s3(file):
        instead = "Upload the file from here, or write tables there: `ingest export --to s3://bucket/prefix/`."
        raise IngestError(f"A snapshot is a file on this machine, and {file} is in a bucket. {instead}")
    with opened_pipeline(needed_to="copy") as pipeline:
        size, files = pipeline.warehouse.save(Path(file))
    if as_json:
        write_json({"to": file, "size_bytes": size, "files": files})
    else:
        click.echo(visible(f"{file}: {count(files, 'file')} in its ledger, {count(size, 'byte')}"))


@cli.command()
@click.option("--yes", is_flag=True, help="Do not ask. Without it, a terminal asks first.")
@json_option
def rematch(yes: bool, as_json: bool) -> None:
    """Match the names of all rows as today's settings say.

    For a warehouse on a server, after `people_space` or `match` of a source, or `ignored_identities`, were changed for
    every loader: until then loads are refused, since names would mean other persons on one host than on another. A
    DuckDB file follows its settings by itself.
    """
    with opened_pipeline(needed_to="match") as pipeline:
        if not yes and sys.stdin.isatty():
            click.confirm("Rows of files whose names match otherwise are written again. Go on?", abort=True, err=True)
        files = pipeline.warehouse.rematch()
    if as_json:
        write_json({"files": files})
    else:
        click.echo(f"{count(files, 'file')} matched again")


@cli.command()
@click.option(
    "--to", "url", required=True, type=GIVEN,
    help="The other warehouse, named as INGEST_WAREHOUSE is. It must be empty.",
)  # fmt: skip
@json_option
def copy(url: str, as_json: bool) -> None:
    """Copy the warehouse to another, empty one.

    To move to another engine. The ledger is copied, too, so a poll of the copy loads nothing again. Loads into a DuckDB
    warehouse wait until it is done.
    """
    from ingest.transfer import copy
    from ingest.wiring import warehouse_at

    with opened_pipeline(needed_to="copy") as pipeline, table_progress() as progress:
        target = warehouse_at(url, pipeline.settings)
        rows = copy(pipeline.warehouse, target, progress, say)
    _tell(target.name, rows, as_json)


@cli.command()
@click.option("--to", required=True, type=GIVEN, help="A folder of its own, made if missing; or s3://bucket/prefix/.")
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
    with opened_pipeline(needed_to="export") as pipeline:
        if not is_s3(to):
            with table_progress() as progress:
                rows = export(pipeline.warehouse, Path(to), progress, notice=say, tables=tables)
        else:
            bucket, prefix = _place(pipeline, to)
            store = pipeline.store_of(ONE_OFF)
            with staging_folder(pipeline.settings.staging_folder) as aside, table_progress() as progress:
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


def _show(title: str, found: "Sequence[Difference]", *, always: bool = False) -> None:
    if found or always:
        rows = [(one.source, one.what, one.key, one.explanation) for one in found]
        write_table(count(len(rows), title), ("source", "what", "key", "explanation"), rows)
