"""What an error of Postgres means: is it the server's doing, that of its settings, or that of what is written?

Its SQLSTATE says which; where there was no answer there is none.
"""

import re

from adbc_driver_manager import Error

from ingest.errors import ConfigError, IngestError, TransientError
from ingest.plans.changes import NotWrittenError

# Classes: connection, transaction rolled back, resources, not in the right state (a lock, say), intervention, system.
_OF_THE_WORLD = ("08", "40", "53", "55", "57", "58", "XX")
_DISK_FULL = "53100"
_NO_RIGHT = "42501"
_OF_THE_DRIVER = re.compile(r"^\w+: \[libpq\] Failed to [a-z ]+(?: '.*')?: ", re.DOTALL)  # with our own statement
_BUSY = "too many connections", "remaining connection slots"
_WRONG_NAMES = (
    "authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry", "is not permitted",
    "could not translate host name", "invalid", "certificate", "SSL",
)  # fmt: skip


def is_of_the_world(error: Error) -> bool:
    """Whether the server, its memory or its disk failed, or did not answer; rather than that it refused a statement."""
    return error.sqlstate is None or error.sqlstate.startswith(_OF_THE_WORLD)


def first_line(error: BaseException) -> str:
    """What the server says, without where and in which statement; ends in a full stop."""
    text = str(error)
    found = re.search(r"(?:ERROR|FATAL|PANIC): +(.*)", text) or re.search(r"failed: (.*)", text)
    told = found[1] if found else _OF_THE_DRIVER.sub("", text).partition("\n")[0]
    return told.strip().rstrip(".") + "."


def not_connected(name: str, error: Error) -> IngestError:
    """What is said where no session could be had."""
    reason = first_line(error)
    if any(words in str(error) for words in _WRONG_NAMES):
        return ConfigError(f"{name} cannot be the warehouse: {reason}")
    if any(words in str(error) for words in _BUSY):
        return TransientError(f"{name} takes no more sessions now: {reason} Run again once others are done.")
    return TransientError(f"{name} does not answer: {reason} Is the server up, and can it be reached from here?")


def could_not_read(name: str, error: BaseException) -> IngestError:
    """What is said of an error that ended a reading session; an answer that streams has none but Arrow's own."""
    if getattr(error, "sqlstate", None) == _NO_RIGHT:
        return ConfigError(
            f"{name} may not be read by this role: {first_line(error)} Ask who loads for a GRANT: docs/postgres.md says"
            " what a role that reads may run."
        )
    if getattr(error, "sqlstate", None) == _DISK_FULL:
        return TransientError(
            f"{name} could not be read: the server's disk is full. Free some space there, then run again."
        )
    if "memory" in str(error):
        return IngestError(
            f"{name} could not be read: {first_line(error)} A row of the answer is too large: ask for less."
        )
    return TransientError(f"{name} could not be read: {first_line(error)} Run again.")


def could_not_write(name: str, error: Error) -> IngestError:
    """What is said of an error that ended a writing session."""
    reason, is_full = first_line(error), error.sqlstate == _DISK_FULL
    if error.sqlstate == _NO_RIGHT:
        return ConfigError(f"{name} may not be written by this role: {reason}")
    if error.sqlstate == "55P03":
        return TransientError(f"{name} has been busy for long: other loads hold it. Run again, or raise lock_timeout.")
    if error.sqlstate is None:  # the commit may have been done: whoever looks again finds it
        sentence = f"{name} did not answer to the end: {reason} Run again: what was loaded stays loaded once."
    elif is_full:
        sentence = f"{name} could not be written: the server's disk is full. Free some space there, then run again."
    else:
        sentence = f"{name} could not be written: {reason} Nothing was loaded; run again."
    return NotWrittenError(
        sentence,
        reason=reason,
        is_disk=is_full,
        is_for_all=is_full or error.sqlstate is None,
        is_of_the_world=is_of_the_world(error),
    )
