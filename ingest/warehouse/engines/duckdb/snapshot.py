"""A consistent copy of a DuckDB warehouse in one file, as a backup or for other programs to read.

File and log are copied together while nobody writes; the log is then taken up in the copy, and the copy is put in its
place at once, whole and on the disk. Who has a former one open keeps that. What a killed snapshot leaves has another
name, and the next one removes it.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from ingest.disk import flush
from ingest.errors import ConfigError, TransientError
from ingest.warehouse.engines.duckdb.session import DuckDBFile, connect, flocked, holder_of, log_of, quoted, version_of

_COPIED_AT_ONCE = 8 << 20
_MEMORY = "1GB"
# By what a file keeps for good: ids may be made in another way by a later version.
_NOT_KNOWN_HERE = "SELECT count(*) FROM former.ledger ANTI JOIN warehouse.ledger USING (bucket, key, last_modified)"


def save(warehouse: DuckDBFile, file: Path) -> tuple[int, int]:
    """See `ingest.ports.Warehouse.save`."""
    file = file.resolve()
    folder = file.with_name(file.name + ".unfinished")  # nobody else may look into it
    unfinished = folder / "copy"
    try:
        with _alone(warehouse):
            _refuse(warehouse, file)
            try:
                clear(folder)
                folder.mkdir(mode=0o700)
                _copy(warehouse, unfinished)
                files = take_up_log(unfinished)
                size = put_in_place(unfinished, file, warehouse.mode)
            finally:
                clear(folder)
    except (duckdb.Error, OSError) as error:
        raise TransientError(f"{file} could not be written, and is as it was before: {error}") from error
    return size, files


def _refuse(warehouse: DuckDBFile, file: Path) -> None:
    """Whatever would be lost if it were replaced."""
    own = warehouse.path.name
    if not file.parent.is_dir():
        raise ConfigError(f"The folder {file.parent} does not exist. Make it first.")
    if file.parent == warehouse.path.parent and (file.name == own or file.name.startswith(f"{own}.")):
        raise ConfigError(f"{file} is the warehouse itself, or the name of one of its own files. Name another one.")
    with warehouse.reading(prepared=False) as connection:
        if version_of(connection) == (0,):
            raise ConfigError(f"{warehouse.path} holds no tables of Landfall.")
        if not os.path.lexists(file):
            return
        if not file.is_file() or file.samefile(warehouse.path):
            raise ConfigError(f"{file} is no snapshot. Name another file.")
        if not file.stat().st_size:  # a name that was taken beforehand
            return
        if log_of(file).exists():
            raise ConfigError(f"{file} is in use as a warehouse: {log_of(file).name} is beside it. Name another file.")
        try:
            connection.execute(f"ATTACH {quoted(file)} AS former (TYPE duckdb, READ_ONLY)")
            ((more,),) = connection.execute(_NOT_KNOWN_HERE).fetchall()
        except duckdb.Error as error:
            raise ConfigError(f"{file} is no snapshot that can be read. Name another file, or remove it.") from error
        if more:
            raise ConfigError(
                f"{file} is no older snapshot of this warehouse: {more:,} of the files in its ledger are not known"
                " here. Name another file, or remove it."
            )


@contextmanager
def _alone(warehouse: DuckDBFile) -> Iterator[None]:
    """No other snapshot of this warehouse is made. Its folder is locked, since the other place may be on a network."""
    if not warehouse.is_there:
        raise ConfigError(f"There is no warehouse at {warehouse.path} yet.")
    folder = os.open(warehouse.path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not flocked(folder, fcntl.LOCK_EX, warehouse.lock_timeout_seconds):
            raise TransientError(f"Another snapshot of {warehouse.name} is being made. Wait for it.")
        yield
    finally:
        os.close(folder)


def _copy(warehouse: DuckDBFile, to: Path) -> None:
    with warehouse.locked(fcntl.LOCK_SH), warehouse.path.open("rb") as file:
        deadline = time.monotonic() + warehouse.lock_timeout_seconds
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # the engine's own, which other programs know
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"{warehouse.path} is held by another program (process {holder_of(warehouse.path)}). Close it"
                        " there, then run again."
                    ) from error
                time.sleep(0.05)
        with os.fdopen(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
            shutil.copyfileobj(file, copy, _COPIED_AT_ONCE)
        if log_of(warehouse.path).exists():
            shutil.copyfile(log_of(warehouse.path), log_of(to))


def take_up_log(file: Path) -> int:
    """Make one file of the two; how many source files its ledger has."""
    with connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'; SET temp_directory = {quoted(_spilled(file))}")
        connection.execute(f"ATTACH {quoted(file)} AS copy (TYPE duckdb)")
        connection.execute("CHECKPOINT copy")
        ((files,),) = connection.execute("SELECT count(*) FROM copy.ledger").fetchall()
        connection.execute("DETACH copy")
    if log_of(file).exists():
        raise TransientError(f"The log of {file} could not be taken up.")
    return int(files)


def put_in_place(unfinished: Path, file: Path, mode: int) -> int:
    unfinished.chmod(mode)  # nobody reads here who may not read there
    flush(unfinished)
    size = unfinished.stat().st_size
    unfinished.replace(file)
    flush(file.parent)
    return size


def _spilled(file: Path) -> Path:
    return file.with_name(file.name + ".tmp")


def clear(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)
