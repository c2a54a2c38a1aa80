"""What is said of an error that nobody foresaw: one sentence, and the trace in a log file that the sentence names.

Logs are in `$XDG_STATE_HOME/landfall` (`~/.local/state/landfall`), or in the temporary folder where nothing can be
written there. Only their owner reads them; a few are kept, each of a bounded size. Nothing here ever fails.
"""

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ingest import __version__
from ingest.errors import IngestError
from ingest.text import visible

LOGS_KEPT = 20
LOG_CHARACTERS = 200_000  # of a trace: its beginning and its end
_BEGINS = "landfall-error-"
_MESSAGE_CHARACTERS = 300


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it: a signal that comes in the middle of an import looks like a failed import."""
    led: BaseException | None = error
    seen = set[int]()
    while led is not None and id(led) not in seen:
        seen.add(id(led))
        yield led
        led = led.__cause__ or led.__context__


def said(error: BaseException) -> str:
    """The sentence of an error: its own if it is one of ours, else what it is and where its trace was written."""
    if isinstance(error, IngestError):
        return str(error)
    log = _written(error)
    where = f"The trace is in {log}: report it with that" if log else "No log of it could be written: report it"
    return f"{_what(error)} {where}, if it comes again."


def _what(error: BaseException) -> str:
    try:
        if isinstance(error, MemoryError):
            return "There is not enough memory for this."
        if isinstance(error, RecursionError):
            return "Something is nested too deeply for this."
        if isinstance(error, OSError) and error.strerror:
            named = f"{visible(str(error.filename))}: " if error.filename is not None else ""
            return f"The system refused something: {named}{error.strerror}."
        message = visible(" ".join(str(error).split()))
    except Exception:  # noqa: BLE001 - an error that cannot even say what it is
        message = ""
    if len(message) > _MESSAGE_CHARACTERS:
        message = message[:_MESSAGE_CHARACTERS] + "…"
    return f"Something went wrong: {type(error).__name__}{f': {message}' * bool(message)}".rstrip(".") + "."


def _written(error: BaseException) -> Path | None:
    """The file that holds the trace."""
    try:
        text = _report(error)
        for folder in _folders():
            with suppress(OSError):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                # A name that nobody can foresee, opened as a new file: the temporary folder is everybody's.
                begins = f"{_BEGINS}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-"
                number, name = tempfile.mkstemp(prefix=begins, suffix=".log", dir=folder)
                try:
                    with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                        file.write(text)
                except OSError:  # the disk is full
                    Path(name).unlink()
                    raise
                _clear(folder)
                return Path(name)
    except Exception:  # noqa: BLE001 - what cannot be written may not hide what is said
        return None
    return None


def _report(error: BaseException) -> str:
    trace = "".join(traceback.format_exception(error))
    if len(trace) > LOG_CHARACTERS:
        half = LOG_CHARACTERS // 2
        trace = f"{trace[:half]}\n… {len(trace) - 2 * half:,} characters are left out …\n{trace[-half:]}"
    # Of the command only its name: what stands behind it may be data.
    command = next((word for word in sys.argv[1:] if word.isalpha()), "")
    about = f"Landfall {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return f"{datetime.now(UTC).isoformat(timespec='seconds')} ingest {command}\n{about}\n\n{trace}"


def _folders() -> Iterator[Path]:
    with suppress(RuntimeError):  # there is no home
        home = Path.home()
        if (state := Path(os.environ.get("XDG_STATE_HOME", ""))).is_absolute():
            yield state / "landfall"
        elif home.is_dir():
            yield home / ".local/state/landfall"
    yield Path(tempfile.gettempdir())


def _clear(folder: Path) -> None:
    """Remove the oldest of our logs; those of other users stay."""
    ours = sorted(path for path in folder.glob(f"{_BEGINS}*.log") if path.lstat().st_uid == os.geteuid())
    for path in ours[:-LOGS_KEPT]:
        with suppress(OSError):
            path.unlink()
