"""Commands that run until they are stopped: `serve`, the HTTP intake; `demo`."""

import logging
import os
import sys

import click
import orjson

from ingest.cli.base import cli, json_option
from ingest.cli.output import InertFormatter, say, write_json
from ingest.errors import ConfigError


@cli.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen. For other machines put TLS in front."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=8480, show_default=True, help="0: any that is free.")
@click.option(
    "--stop-seconds", type=click.IntRange(1, 3600), default=30, show_default=True,
    help="How long requests in progress may take after a stop; then they get 503.",
)  # fmt: skip
@click.option("--new-key", is_flag=True, help="Make a key, and its hash for ingest.toml; serve nothing.")
@json_option
def serve(host: str, port: int, stop_seconds: int, new_key: bool, as_json: bool) -> int:
    """Take the vendors' own import calls over HTTP.

    What they send is put where files are dropped. Serves every source with intake_keys until it is stopped. With --json
    a line on stdout says when it is ready.
    """
    try:
        from ingest.intake import keys
        from ingest.intake.app import make_app
        from ingest.intake.server import listen, run
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed: pip install 'landfall-ingest[serve]'.") from error
    from ingest.settings import load_settings
    from ingest.wiring import stores_of

    if new_key:
        key = keys.new_key()
        told = {"key": key, "intake_key": keys.hashed(key.encode())}
        if as_json:
            write_json(told)
        else:
            say("For the client; it is shown only now. Below it, what intake_keys in ingest.toml gets:")
            click.echo(f"{told['key']}\n{told['intake_key']}")
        return 0
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(InertFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[log])
    logging.getLogger("botocore").setLevel(logging.WARNING)
    settings = load_settings(os.environ)
    app = make_app(settings, stores_of(settings, somebody_waits=True))
    with listen(host, port) as at:
        address, port = at.getsockname()[:2]
        sources = sorted(source.name for source in settings.sources.values() if source.intake_keys)

        def ready() -> None:
            say(f"Serving {', '.join(sources)} on http://{f'[{address}]' if ':' in address else address}:{port}")
            if as_json:
                click.echo(orjson.dumps({"host": address, "port": port, "sources": sources}))

        run(app, at, ready, stop_seconds)
    return 0


@cli.command()
@click.option(
    "--exit", "exit_when_done", is_flag=True,
    help="End when all is loaded; the exit code says whether everything is there.",
)  # fmt: skip
@click.option(
    "--warehouse", type=click.Choice(["duckdb", "postgres", "iceberg"]), default="duckdb", show_default=True,
    help="A DuckDB file; or a Postgres server or a lake in Iceberg that is gone with the demo.",
)  # fmt: skip
@json_option
def demo(exit_when_done: bool, warehouse: str, as_json: bool) -> int:
    """Show the whole job on this machine.

    A local S3, Airflow, sample files, the warehouse. Needs the extras [airflow,demo]; with `--warehouse postgres`,
    the extra [postgres] and the programs of a Postgres server, too; with `--warehouse iceberg`, the extra [iceberg].
    """
    from ingest.demo import run

    return run(exit_when_done, warehouse=warehouse, as_json=as_json)
