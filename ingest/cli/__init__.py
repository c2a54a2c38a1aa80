"""The command `ingest`: takes arguments, calls the pipeline, says what came of it.

Exit codes: 0 all well, 1 some lines failed (or a file was rejected or held), 2 something could not be done.
Imports stay inside the commands, so that `ingest check your.json` starts quickly.
"""

import signal
import sys
from typing import Any, NoReturn

import click

from ingest.cli import asking, demo, judging, keeping, loading, mending, moving, serving
from ingest.cli.base import cli
from ingest.cli.output import say, write_json
from ingest.errors import ConfigError, IngestError

# Each module adds its commands.
__all__ = ["asking", "cli", "demo", "judging", "keeping", "loading", "main", "mending", "moving", "serving"]

_STOPPED = "stopped. Nothing was loaded by halves; run again to go on."


class _Terminated(BaseException):
    """We were told to stop, by SIGTERM."""


def main() -> None:
    """Entry point: every failure of ours is one sentence on stderr and exit code 2; with --json also on stdout."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `ingest files | head` ends quietly
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(cli.main(standalone_mode=False))
    except IngestError as error:
        say(f"ingest: {error}")
        _end(2, *(error.problems if isinstance(error, ConfigError) else [str(error)]))
    except click.ClickException as error:
        error.show()
        _end(2, error.format_message())
    except (click.Abort, KeyboardInterrupt):
        say(f"ingest: {_STOPPED}")
        _end(130, _STOPPED)
    except _Terminated:
        say(f"ingest: {_STOPPED}")
        _end(143, _STOPPED)


def _terminate(*_: object) -> None:
    raise _Terminated


def _end(code: int, *problems: str) -> NoReturn:
    if "--json" in sys.argv:
        told: dict[str, Any] = {"error": "\n".join(problems)}
        write_json(told | ({"errors": problems} if len(problems) > 1 else {}))
    sys.exit(code)
