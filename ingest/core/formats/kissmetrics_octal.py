r"""Octal escapes: Kissmetrics exports write bytes beyond ASCII so (`\302\243`), which is not JSON.

A line that does not parse is tried once more with these read as UTF-8, else as windows-1252. What they stand for lies
beyond ASCII, so it can neither end a string nor make sense outside of one.
"""

import re
from collections.abc import Callable
from typing import Final

from ingest.core.jsontext import Undecodable, decode

# A backslash with what it escapes; group 1 is a run of octal escapes. Read from left to right, so that an escaped
# backslash takes no part in what follows it.
_ESCAPE: Final = re.compile(rb"((?:\\[23][0-7]{2})+)|\\.", re.DOTALL)


def read_repaired(line: bytes, read: Callable[[bytes], object]) -> tuple[object, bool]:
    """What `read` makes of a line, and whether it was repaired for that. Raises Undecodable, repaired or not."""
    try:
        return read(line), False
    except Undecodable as error:
        if error.code != "not_json" or (repaired := _repaired(line)) == line:
            raise
        return read(repaired), True


def is_object(line: bytes) -> bool:
    """Whether a line holds an object, repaired or not."""
    try:
        return isinstance(read_repaired(line, decode)[0], dict)
    except Undecodable:
        return False


def _repaired(line: bytes) -> bytes:
    """A line with its octal escapes read as text; as it is if a byte has no meaning."""
    try:
        return _ESCAPE.sub(_read, line)
    except UnicodeDecodeError:
        return line


def _read(escape: re.Match[bytes]) -> bytes:
    if not escape[1]:
        return escape[0]
    run = bytes(int(octal, 8) for octal in escape[1].split(b"\\")[1:])
    try:
        return run.decode().encode()
    except UnicodeDecodeError:
        return run.decode("windows-1252").encode()
