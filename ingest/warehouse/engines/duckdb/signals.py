"""What a signal asks for while DuckDB works is done, whatever the engine says to it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import duckdb


@contextmanager
def signals_raise(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Raises what the handler of a signal has raised: the engine says "Query interrupted" instead, and 2.0 no more.

    Before that, 2.0 waits for what its threads are at, which end only where the connection is told to as well.
    """
    if current_thread() is not main_thread():  # it gets no signals
        yield
        return
    raised: list[BaseException] = []
    before = {one: handler for one in signal.valid_signals() if callable(handler := signal.getsignal(one))}
    ours = {one: _remembering(handler, raised, connection) for one, handler in before.items()}
    for one, handler in ours.items():
        signal.signal(one, handler)
    try:
        yield
    except RuntimeError:
        if raised:
            raise raised[-1] from None
        raise
    finally:
        for one, handler in before.items():
            if signal.getsignal(one) is ours[one]:  # else a handler has set another
                signal.signal(one, handler)


def _remembering(
    handler: Callable[[int, FrameType | None], Any],
    raised: list[BaseException],
    connection: duckdb.DuckDBPyConnection,
) -> Callable[..., None]:
    def handle(number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException as stop:
            raised.append(stop)
            with suppress(duckdb.Error):  # it is closed
                connection.interrupt()
            raise

    return handle
