"""One statement of somebody else's: it reads, has no file and no network, and ends when it has had enough."""

import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Event, Thread, current_thread, main_thread
from typing import Protocol

import duckdb

from ingest.errors import IngestError
from ingest.ports import QueryLimits, QueryResult
from ingest.warehouse.engines.duckdb.errors import is_of_the_file


class Reading(Protocol):
    """Begins a session: see `DuckDBFile.reading`."""

    def __call__(self, *, prepared: bool = True) -> AbstractContextManager[duckdb.DuckDBPyConnection]: ...


@contextmanager
def query(reading: Reading, sql: str, limits: QueryLimits | None = None) -> Iterator[QueryResult]:
    """See `ingest.ports.Warehouse.query`."""
    with _refused():
        if not _only_reads(sql):
            raise IngestError("Only one statement that reads (SELECT, WITH, PIVOT, DESCRIBE, EXPLAIN) can be run here.")
    with reading() as connection, _limited(connection, limits), _refused():
        # A statement may name no file, not even the warehouse, which the engine would open in any case. Tried
        # in a session of its own: where no file can be opened, none can be spilled to, either.
        _enclose(connection, "SET disabled_filesystems = 'LocalFileSystem'")
        connection.sql(sql)
    with reading(prepared=False) as connection, _limited(connection, limits), _refused():
        _enclose(connection)
        relation = connection.sql(sql)
        if len(set(relation.columns)) < len(relation.columns):
            relation = relation.project("*")  # which makes names unique: a, a_1
        json_columns = {
            name for name, type in zip(relation.columns, relation.types, strict=True) if str(type) == "JSON"
        }
        yield QueryResult(frozenset(json_columns), relation.to_arrow_reader(1000))


@contextmanager
def _refused() -> Iterator[None]:
    """What the engine says to a statement of somebody else's."""
    try:
        yield
    except (duckdb.Error, OSError) as error:  # the latter from the reader of the answer
        if error.errno if isinstance(error, OSError) else is_of_the_file(error):
            raise  # no fault of the statement: a full disk of whoever uses the answer, say
        raise IngestError(f"The warehouse refused the statement: {error}") from error


@contextmanager
def _limited(connection: duckdb.DuckDBPyConnection, limits: QueryLimits | None) -> Iterator[None]:
    """Raises IngestError, in place of what the engine says, once a statement asks for more than it may."""
    if limits is None:
        yield
        return
    connection.execute(f"SET memory_limit = '{limits.memory_bytes}B'")
    done, late = Event(), Event()
    heard, bell = socket.socketpair()

    def stop_in_time() -> None:
        heard.settimeout(limits.seconds)
        try:
            heard.recv(1)  # a signal, or that it is done
        except TimeoutError:
            late.set()
        while not done.wait(0.05):  # one that comes while the engine rests is lost
            with suppress(duckdb.Error):
                connection.interrupt()

    clock = Thread(target=stop_in_time, name="landfall-query", daemon=True)
    clock.start()
    try:
        with _signals_ring(bell):
            yield
    except (IngestError, duckdb.Error, OSError, MemoryError) as error:
        if late.is_set():
            raise IngestError(
                f"The statement was stopped after {limits.seconds:g} s. Ask for less, or raise max_query_time."
            ) from error
        cause = error.__cause__ or error
        # The reader of an answer has no classes of its own, only the engine's words.
        in_words = isinstance(cause, OSError) and str(cause).startswith("Out of Memory Error")
        if isinstance(cause, (duckdb.OutOfMemoryException, MemoryError)) or in_words:
            raise IngestError(
                f"The statement needs more than {limits.memory_bytes:,} bytes of memory. Ask for less, or raise"
                " max_query_bytes."
            ) from error
        raise
    finally:
        with suppress(duckdb.Error):
            connection.interrupt()  # closing it waits for what is left of a statement
        done.set()
        bell.send(b"\0")
        clock.join()
        heard.close()
        bell.close()


@contextmanager
def _signals_ring(bell: socket.socket) -> Iterator[None]:
    """A signal writes to `bell`: its handler in Python has to wait until the engine gives the main thread back."""
    if current_thread() is not main_thread():
        yield
        return
    bell.setblocking(False)
    before = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)


def _enclose(connection: duckdb.DuckDBPyConnection, *more: str) -> None:
    """No file, no network, and no way back."""
    for setting in ("SET enable_external_access = false", *more, "SET lock_configuration = true"):
        connection.execute(setting)


def _only_reads(sql: str) -> bool:
    """Whether it is one statement, which reads. DuckDB puts types before a PIVOT, which are gone with the session."""
    statements = duckdb.extract_statements(sql)
    if not statements or statements[-1].type not in {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}:
        return False
    return all(one.type == duckdb.StatementType.CREATE and not one.query for one in statements[:-1])
