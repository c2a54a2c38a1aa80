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
@json_option
def demo(exit_when_done: bool, as_json: bool) -> int:
    """Show the whole job on this machine.

    A local S3, Airflow, sample files, the warehouse. Needs the extras [airflow,demo].
    """
    from ingest.demo import run

    return run(exit_when_done, as_json=as_json)
