"""The command `ingest`: takes arguments, calls the pipeline, says what came of it.

Exit codes: 0 all well, 1 some lines failed (or a file was rejected or held), 2 something could not be done.
Imports stay inside the commands, so that `ingest check your.json` starts quickly.
"""

import signal
import sys

import click

from ingest.cli import asking, demo, judging, keeping, loading, mending, moving, serving
from ingest.cli.base import cli
from ingest.cli.output import say
from ingest.errors import IngestError

# Each module adds its commands.
__all__ = ["asking", "cli", "demo", "judging", "keeping", "loading", "main", "mending", "moving", "serving"]


def main() -> None:
    """Entry point: every failure of ours is one sentence on stderr and exit code 2."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `ingest files | head` ends quietly
    try:
        sys.exit(cli.main(standalone_mode=False))
    except IngestError as error:
        say(f"ingest: {error}")
    except click.ClickException as error:
        error.show()
    except (click.Abort, KeyboardInterrupt):
        say("ingest: stopped. Nothing was loaded by halves; run again to go on.")
        sys.exit(130)
    sys.exit(2)
