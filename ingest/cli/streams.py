"""Standard output and error of the command.

Decides: a standard output whose reader has gone ends the command, quietly; one that cannot be written is said; neither
         is taken for a failure of anything else, such as a socket. What cannot be said on standard error is not said,
         and stops nothing.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class OutputFailed(BaseException):
    """Standard output cannot be written. Like Ctrl-C no error of what is being done, so nothing that goes on after
    errors goes on after this. `error` is the system's."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Output(io.FileIO):
    """What could not be written once is not tried again, such as by the end of the interpreter."""

    _failed = False

    def write(self, data: Any, /) -> int:
        if self._failed:
            return len(data)
        try:
            return super().write(data)
        except OSError as error:
            self._failed = True
            raise OutputFailed(error) from error


class _Errors(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


@contextmanager
def standard_streams() -> Iterator[None]:
    """`sys.stdout` and `sys.stderr` as above, for as long as the command runs."""
    _fill_closed()
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        _text(_Output(1, "wb", closefd=False), former[0]),
        _text(_Errors(2, "wb", closefd=False), former[1]),
    )
    try:
        yield
    finally:
        with suppress(OutputFailed):
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = former


def _fill_closed() -> None:
    """Else the next file that is opened gets the number of a closed stream, and what is printed goes into it.

    Output gets one that cannot be written, which is said when it is.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # it gets the lowest number that is free


def _text(raw: io.FileIO, former: TextIO | None) -> TextIO:
    encoding = former.encoding if former else "utf-8"
    # Names of files may hold bytes that are no text in any encoding.
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=raw.isatty() or raw.fileno() == 2
    )
