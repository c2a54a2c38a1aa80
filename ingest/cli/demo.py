"""The command `demo`."""

import click

from ingest.cli.base import cli, json_option


@cli.command()
@click.option(
    "--exit",
    "exit_when_done",
    is_flag=True,
    help="End when all is loaded; the exit code says whether everything is there.",
)
@click.option(
    "--warehouse",
    type=click.Choice(["duckdb", "postgres"]),
    default="duckdb",
    show_default=True,
    help="A DuckDB file, or a Postgres server that is gone with the demo.",
)
@json_option
def demo(exit_when_done: bool, warehouse: str, as_json: bool) -> int:
    """Show the whole job on this machine.

    A local S3, Airflow, sample files, the warehouse. Needs the extras [airflow,demo]; with `--warehouse postgres`,
    the extra [postgres] and the programs of a Postgres server, too.
    """
    from ingest.demo import run

    return run(exit_when_done, on_postgres=warehouse == "postgres", as_json=as_json)
