"""What an error of DuckDB while it writes means: is it the disk's doing, or that of what is written?

Its classes say which: a full disk is an IOException while rows are inserted, a TransactionException at the commit,
and an OutOfMemoryException where the engine finds no room to spill to.
"""

from pathlib import Path
from typing import Protocol

import duckdb

from ingest.disk import free_space, has_room
from ingest.plans.changes import NotWrittenError

_OF_THE_WORLD = (duckdb.OperationalError, duckdb.InternalError, duckdb.FatalException)
_OF_THE_FILE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)


def is_of_the_world(error: duckdb.Error) -> bool:
    """Whether the engine, its memory or its disk failed, rather than that it refused a statement."""
    return isinstance(error, _OF_THE_WORLD) or is_of_the_file(error)


def is_of_the_file(error: BaseException) -> bool:
    """Whether the file could not be read, or the engine itself failed."""
    return isinstance(error, _OF_THE_FILE) or type(error) is duckdb.Error  # as 2.0 says that a block is damaged


def is_of_disk(error: duckdb.Error) -> bool:
    """Whether it is the disk that failed."""
    return isinstance(error, duckdb.OperationalError) and not isinstance(error, duckdb.OutOfMemoryException)


class _OnDisk(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path: ...


def could_not_write(warehouse: _OnDisk, error: duckdb.Error) -> NotWrittenError:
    """What is said of an error that ended a writing session."""
    folder, reason = warehouse.path.parent, first_line(error)
    is_full = is_of_the_world(error) and not has_room(folder)
    sentence = (
        f"{warehouse.name} could not be written: the disk of {folder} is full ({free_space(folder)} free). Free"
        f" some space there, then run again. ({reason})"
        if is_full
        else f"{warehouse.name} could not be written: {reason} On the disk of {folder} {free_space(folder)} are"
        " free. Nothing was loaded; see that this is enough, then run again."
    )
    return NotWrittenError(
        sentence,
        reason=reason,
        is_disk=is_full or is_of_disk(error),
        is_for_all=is_full,
        is_of_the_world=is_of_the_world(error),
    )


def first_line(error: BaseException) -> str:
    """What an error says, without the advice and the statements that may follow; ends in a full stop."""
    return str(error).strip().partition("\n")[0].rstrip(".") + "."
