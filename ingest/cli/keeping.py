"""Commands on the whole warehouse: `reconcile`, `snapshot`, `rematch`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ingest.cli.base import GIVEN, cli, json_option, nothing_there, opened_pipeline, user
from ingest.cli.output import write_json, write_table
from ingest.core.address import is_s3
from ingest.errors import IngestError
from ingest.text import count, visible

if TYPE_CHECKING:
    from ingest.reconcile import Difference


@cli.command()
@click.option(
    "--repair",
    is_flag=True,
    help="Fix what is safe to fix: flags, leftover rows, archive steps that are due, files that only the archive has.",
)
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
        raise IngestError(
            f"A snapshot is a file on this machine, and {file} is in a bucket. Upload the file from here, or write"
            " tables there: `ingest export --to s3://bucket/prefix/`."
        )
    with opened_pipeline() as pipeline:
        if not pipeline.warehouse.is_there:
            raise nothing_there(pipeline, "copy")
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
    with opened_pipeline() as pipeline:
        if not pipeline.warehouse.is_there:
            raise nothing_there(pipeline, "match")
        if not yes and sys.stdin.isatty():
            click.confirm("Rows of files whose names match otherwise are written again. Go on?", abort=True, err=True)
        files = pipeline.warehouse.rematch()
    if as_json:
        write_json({"files": files})
    else:
        click.echo(f"{count(files, 'file')} matched again")


def _show(title: str, found: "Sequence[Difference]", *, always: bool = False) -> None:
    if found or always:
        rows = [(one.source, one.what, one.key, one.explanation) for one in found]
        write_table(count(len(rows), title), ("source", "what", "key", "explanation"), rows)
