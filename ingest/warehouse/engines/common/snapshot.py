"""A consistent copy of a warehouse of any engine in one DuckDB file, as a backup or for other programs to read."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from ingest.errors import ConfigError, TransientError
from ingest.ports import Table
from ingest.settings import Source
from ingest.warehouse.engines.common.session import Session
from ingest.warehouse.engines.duckdb.session import connect, flocked, log_of, quoted
from ingest.warehouse.engines.duckdb.snapshot import clear, put_in_place, take_up_log
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

_KEPT = "SELECT bucket, key, last_modified FROM former.ledger"  # for good, whatever ids are made of
_NOT_KNOWN_HERE = """
    SELECT count(*) FROM kept AS k WHERE NOT EXISTS (
        SELECT 1 FROM ledger AS l WHERE l.key = k.key AND l.bucket = k.bucket AND l.last_modified = k.last_modified)"""


class Saved(Protocol):
    """What it is made of."""

    @property
    def name(self) -> str: ...
    @property
    def is_there(self) -> bool: ...
    @property
    def mode(self) -> int: ...
    @property
    def lock_timeout_seconds(self) -> float: ...
    @property
    def ignored_identities(self) -> frozenset[str]: ...
    @property
    def sources(self) -> Mapping[str, Source]: ...
    def session(self) -> AbstractContextManager[Session]: ...
    def tables(self) -> AbstractContextManager[Iterator[Table]]: ...


def save(warehouse: Saved, file: Path) -> tuple[int, int]:
    """See `ingest.ports.Warehouse.save`."""
    file = file.resolve()
    if not file.parent.is_dir():
        raise ConfigError(f"The folder {file.parent} does not exist. Make it first.")
    if not warehouse.is_there:
        raise ConfigError(f"There is no warehouse at {warehouse.name} yet.")
    folder = file.with_name(file.name + ".unfinished")  # nobody else may look into it
    beside = os.open(file.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not flocked(beside, fcntl.LOCK_EX, warehouse.lock_timeout_seconds):
            raise TransientError(f"Another snapshot is being made in {file.parent}. Wait for it.")
        _refuse(warehouse, file)
        clear(folder)
        folder.mkdir(mode=0o700)
        copy = DuckDBWarehouse(
            folder / "copy", ignored_identities=warehouse.ignored_identities, sources=warehouse.sources
        )
        with warehouse.tables() as there:
            copy.fill(there)
        files = take_up_log(copy.path)
        mode = (
            file.stat().st_mode & 0o777 if file.is_file() else warehouse.mode
        )  # a former one was made for its readers
        return put_in_place(copy.path, file, mode), files
    except (duckdb.Error, OSError) as error:
        raise TransientError(f"{file} could not be written, and is as it was before: {error}") from error
    finally:
        clear(folder)
        os.close(beside)


def _refuse(warehouse: Saved, file: Path) -> None:
    """Whatever would be lost if it were replaced."""
    if not os.path.lexists(file):
        return
    if not file.is_file():
        raise ConfigError(f"{file} is no snapshot. Name another file.")
    if log_of(file).exists():
        raise ConfigError(f"{file} is in use as a warehouse: {log_of(file).name} is beside it. Name another file.")
    if not file.stat().st_size:  # a name that was taken beforehand
        return
    try:
        with connect() as connection:
            connection.execute(f"SET TimeZone = 'UTC'; ATTACH {quoted(file)} AS former (TYPE duckdb, READ_ONLY)")
            kept: pa.Table = connection.sql(_KEPT).to_arrow_table()
    except duckdb.Error as error:
        raise ConfigError(f"{file} is no snapshot that can be read. Name another file, or remove it.") from error
    with warehouse.session() as session, session.table("kept", kept):
        ((more,),) = session.rows(_NOT_KNOWN_HERE)
    if more:
        raise ConfigError(
            f"{file} is no older snapshot of this warehouse: {more:,} of the files in its ledger are not known"
            " here. Name another file, or remove it."
        )
