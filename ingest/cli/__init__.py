"""The command `ingest`: takes arguments, calls the pipeline, says what came of it.

Exit codes: 0 all well, 1 some lines failed (or a file was rejected or held), 2 something could not be done; as shells
have them, 130 stopped by Ctrl-C, 141 nobody reads the output any more, 143 stopped by SIGTERM.
Imports stay inside the commands, so that `ingest check your.json` starts quickly.
"""

import errno
import logging
import signal
import sys
from io import StringIO

import click

from ingest.cli import asking, fixing, judging, keeping, loading, serving, starting
from ingest.cli.base import Broken, cli
from ingest.cli.output import InertFormatter, ended, say
from ingest.cli.streams import OutputFailed, standard_streams
from ingest.errors import ConfigError, IngestError

# Each module adds its commands.
__all__ = ["asking", "cli", "fixing", "judging", "keeping", "loading", "main", "serving", "starting"]


class _Terminated(BaseException):
    """SIGTERM came."""


def main() -> None:
    """Entry point: every failure is one sentence on stderr and exit code 2; with --json also on stdout."""
    if logging.lastResort:  # it writes warnings, wherever nothing else is told to
        logging.lastResort.setFormatter(InertFormatter())
    with standard_streams():
        try:
            code = _run()
            sys.stdout.flush()
        except OutputFailed as failed:
            code = _unwritten(failed.error)
        except (KeyboardInterrupt, _Terminated):  # once more, while it was said
            code = 130
    sys.exit(code)


def _run() -> int:
    try:
        signal.signal(signal.SIGTERM, _terminate)
        code = cli.main(standalone_mode=False)
    except IngestError as error:
        for line in f"ingest: {error}".split("\n"):
            say(line)
        return ended(2, *(error.problems if isinstance(error, ConfigError) else [str(error)]))
    except click.ClickException as error:
        shown = StringIO()
        error.show(shown)  # it may repeat what was written
        for line in shown.getvalue().rstrip("\n").split("\n"):
            say(line)
        return ended(2, error.format_message())
    except (click.Abort, KeyboardInterrupt, _Terminated) as stop:
        return _stopped(stop)
    except Exception as error:  # noqa: BLE001 - whatever it is, people get a sentence
        from ingest.unforeseen import causes, said

        for one in causes(error):
            if isinstance(one, (KeyboardInterrupt, _Terminated)):
                return _stopped(one)
        sentence = said(error.error if isinstance(error, Broken) else error)
        say(f"ingest: {sentence}")
        return ended(2, sentence)
    return code if isinstance(code, int) else 0


def _stopped(stop: BaseException) -> int:
    sentence = "stopped. Nothing was loaded by halves; run again to go on."
    say(f"ingest: {sentence}")
    return ended(143 if isinstance(stop, _Terminated) else 130, sentence)


def _terminate(*_: object) -> None:
    raise _Terminated


def _unwritten(error: OSError) -> int:
    if error.errno == errno.EPIPE:
        return 141  # as `head` ends others: quietly, and not as if all had been read
    say(f"ingest: the output could not be written: {error.strerror}.")
    return 2
