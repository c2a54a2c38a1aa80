"""One DuckDB file: sessions and schema.

Several processes share the file (loader tasks, command line, UI), but DuckDB lets a writer have it alone. So every
session is short, and takes a lock on a side file first: shared to read, exclusive to write. The lock of a killed
process is freed by the kernel; DuckDB itself undoes what it had not committed.
"""

import errno
import fcntl
import os
import re
import stat
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import duckdb

from ingest.disk import FOLDER_PREFIX, no_more_open_than, opened, private_folder
from ingest.errors import ConfigError, TransientError
from ingest.settings import Source
from ingest.warehouse.engines.duckdb.applying import DuckDBSession
from ingest.warehouse.engines.duckdb.errors import first_line, is_of_the_file
from ingest.warehouse.engines.duckdb.statements import definitions

# Files of this storage version are read and written by every supported DuckDB (1.5 and 2).
STORAGE_VERSION = "v1.2.0"
MUCH_MEMORY_MB = 4096  # rather more than not at all
# With these bytes DuckDB's log begins: the field of its first entry's type, which is that of a version.
_LOG_BEGINS = b"\x64\x00\x62\x65\x00"
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EISDIR})


def connect() -> duckdb.DuckDBPyConnection:
    """An engine without a database yet. It fetches nothing: what it has not got it does without."""
    return duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )


@dataclass(frozen=True, slots=True)
class DuckDBFile:
    """Where the tables are, and how to get at them."""

    path: Path
    lock_timeout_seconds: float = 60.0
    load_memory_mb: int = 160  # what a load may hold in memory before it spills to disk
    ignored_identities: frozenset[str] = frozenset()
    sources: Mapping[str, Source] = field(default_factory=dict)  # what is settled for them holds backwards

    @property
    def name(self) -> str:
        return f"duckdb:///{self.path}"

    @property
    def definitions(self) -> tuple[tuple[str, ...], str]:
        """What makes the tables, step by step, and what makes the views."""
        return definitions()

    # --- sessions ----------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self, *, prepared: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
        """A session that sees the last committed state; with the tables in place, unless not to be `prepared`.

        Where there is no warehouse yet it sees the tables, empty: who only reads makes no file.

        Raises:
            ConfigError: it cannot be read.
            TransientError: others hold the file, it is damaged, or there is no room for what does not fit in memory.
        """
        if not self.is_there:
            with self._open(read_only=True, in_memory=True) as connection:
                yield connection
            return
        with self._sharing() as connection:
            if not prepared or self._is_prepared(connection):
                yield connection
                return
        self._demand_right_to_write("It is not of this version of Landfall: let who loads into it run `ingest files`.")
        with self._alone():
            pass
        with self._sharing() as connection:
            yield connection

    @contextmanager
    def writing(self, memory_mb: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A session of one transaction: committed at the end, undone by any exception.

        Raises:
            ConfigError: this user may only read.
            TransientError: another program holds the file, or the disk is full.
        """
        self._demand_right_to_write("Run this as who loads into it.")
        with self._alone() as connection:
            connection.execute(f"SET memory_limit = '{memory_mb or self.load_memory_mb}MB'")
            connection.execute("SET preserve_insertion_order = false")  # else a large insert is held in memory
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")

    @property
    def is_there(self) -> bool:
        return bool(self._size())

    @property
    def mode(self) -> int:
        try:
            return self.path.stat().st_mode & 0o666
        except OSError:
            return 0o666  # it is not there yet

    @contextmanager
    def locked(self, how: int, of: Path | None = None) -> Iterator[None]:
        """The lock of the side file of the warehouse (or `of` a file beside it), as `flock` takes it.

        Raises TransientError when others keep it for too long.
        """
        side = self._side_file(how, of or self.path)
        if side is None:
            yield
            return
        try:
            try:
                if not flocked(side, how, self.lock_timeout_seconds):
                    raise TransientError(
                        f"{self.name} has been busy for {self.lock_timeout_seconds:g} s: other loads hold it. "
                        "Run again, or raise lock_timeout."
                    )
            except OSError as error:
                raise ConfigError(
                    f"Nothing can be locked in {self.path.parent} ({error.strerror}): keep the warehouse on a local"
                    " disk."
                ) from error
            yield
        finally:
            os.close(side)

    def _side_file(self, how: int, of: Path) -> int | None:
        """The opened file that is locked. None: who may not even make it reads without.

        Then the engine's own lock keeps writers away for as long as the file is read, and they wait.
        """
        side = of.with_name(of.name + ".lock")
        try:
            number = opened(side, os.O_RDWR | os.O_CREAT, self.mode)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise ConfigError(f"{side} cannot be the lock: {error.strerror}. Remove it, then run again.") from error
            if error.errno not in _NO_RIGHT:
                raise TransientError(f"{side} cannot be opened ({error.strerror}).") from error
        else:
            if self.path.exists():  # who may not read it could keep its lock for ever
                with suppress(OSError):  # it is another user's
                    os.fchmod(number, self.mode)
            return number
        try:
            return opened(side)  # a lock needs no more
        except OSError as error:
            if how == fcntl.LOCK_SH and error.errno in _NO_RIGHT and self._size():
                return None
            raise ConfigError(
                f"{side} can neither be opened nor made ({error.strerror}): nothing can be written there."
            ) from error

    @contextmanager
    def _read(self) -> Iterator[None]:
        """What goes wrong with the file while it is read, in a sentence."""
        try:
            yield
        except (duckdb.Error, OSError) as error:
            if error.errno if isinstance(error, OSError) else not is_of_the_file(error):
                raise  # a number has an error of whoever uses what was read; a reader's has none
            raise TransientError(f"{self.path} could not be read: {first_line(error)}") from error

    @contextmanager
    def _open(self, *, read_only: bool, in_memory: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        if not self._size() and not read_only:
            # Whoever made it was stopped before the first byte, and DuckDB would not take it.
            self.path.unlink(missing_ok=True)
        self._refuse_damaged_log()
        connection = connect()
        with ExitStack() as stack:
            if not read_only:
                stack.enter_context(no_more_open_than(self.mode))  # the log, say
            folder = self._spilled(stack)
            stack.callback(connection.close)
            try:
                connection.execute("SET temp_directory = $folder", {"folder": folder})
                if in_memory:
                    connection.execute("ATTACH ':memory:' AS warehouse")
                else:
                    self._attach(connection, read_only)
                connection.execute("USE warehouse")
                if in_memory:
                    steps, views = self.definitions
                    for text in (*steps, views, "BEGIN TRANSACTION READ ONLY"):
                        connection.execute(text)
                connection.execute("SET TimeZone = 'UTC'")
                yield connection
            except RuntimeError as error:
                # Ctrl-C while the engine works: it says "Query interrupted", and what we were asked is behind that.
                if isinstance(error.__cause__, BaseException) and not isinstance(error.__cause__, Exception):
                    raise error.__cause__ from None
                raise

    def _spilled(self, stack: ExitStack) -> str:
        """The folder for what does not fit in memory: beside the warehouse, where that may be written."""
        is_beside = os.access(self.path.parent, os.W_OK)
        at = (self.path.parent, f"{self.path.name}.tmp-") if is_beside else (Path(gettempdir()), FOLDER_PREFIX)
        try:
            return str(stack.enter_context(private_folder(*at)))
        except OSError:
            return ""  # nowhere: all of it has to fit

    def _attach(self, connection: duckdb.DuckDBPyConnection, read_only: bool) -> None:
        """Open the file. A program that does not know our lock (a BI tool, say) is waited for, then named."""
        how = "READ_ONLY" if read_only else f"STORAGE_VERSION '{STORAGE_VERSION}'"
        deadline = time.monotonic() + self.lock_timeout_seconds
        was_free = False
        while True:
            try:
                connection.execute(f"ATTACH {quoted(self.path)} AS warehouse (TYPE duckdb, {how})")
                break
            except duckdb.IOException as error:
                holder = holder_of(self.path)
                if holder is None and not was_free:  # let go just now, perhaps
                    was_free = True
                    continue
                if holder is None:
                    raise self._why_not_opened(error) from error
                if time.monotonic() > deadline:
                    raise TransientError(
                        f"{self.path} is held by another program (process {holder}). Close it there, then run again."
                    ) from error
                time.sleep(0.05)
            except duckdb.Error as error:  # it is encrypted, say
                raise self._why_not_opened(error) from error

    def _size(self) -> int | None:
        """Of the file, in bytes; None if it is not there. Raises ConfigError where no warehouse can be."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            if not self.path.parent.is_dir():
                raise ConfigError(
                    f"The folder of the warehouse, {self.path.parent}, does not exist. Make it first."
                ) from None
            return None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be the warehouse: {error.strerror}.") from error
        if not stat.S_ISREG(found.st_mode):
            what = "a folder" if stat.S_ISDIR(found.st_mode) else "no file"
            raise ConfigError(f"{self.path} is {what}. Name a file in INGEST_WAREHOUSE.")
        if found.st_size and not os.access(self.path, os.R_OK):
            raise ConfigError(f"{self.path} may not be read by this user.")
        return found.st_size

    def _may_write(self) -> bool:
        """To the file, and beside it."""
        return os.access(self.path.parent, os.W_OK) and (not self.path.exists() or os.access(self.path, os.W_OK))

    def _demand_right_to_write(self, remedy: str) -> None:
        size = self._size()
        if self._may_write():
            return
        if not size:
            raise ConfigError(f"There is no warehouse at {self.path} yet, and this user may not make one there.")
        raise ConfigError(f"{self.path} may only be read by this user, or its disk only be read. {remedy}")

    def _refuse_damaged_log(self) -> None:
        """The engine takes a log that does not begin like one for none, and what was committed to it for lost."""
        try:
            with os.fdopen(opened(log_of(self.path)), "rb") as file:
                begins = file.read(len(_LOG_BEGINS))
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"{log_of(self.path)} cannot be read ({error.strerror}).") from error
        if not _LOG_BEGINS.startswith(begins):  # a shorter one was never finished, nor committed to
            raise ConfigError(f"{log_of(self.path)} is damaged: it does not begin as a log. {self._without_log()}")

    def _why_not_opened(self, error: duckdb.Error) -> ConfigError:
        try:
            with self.path.open("rb") as file:
                begins = file.read(16)
        except OSError as unread:
            return ConfigError(f"{self.path} cannot be opened: {unread.strerror}.")
        if begins.startswith(b"SQLite format 3"):
            return ConfigError(f"{self.path} is an SQLite database. Name another file in INGEST_WAREHOUSE.")
        if begins[8:12] != b"DUCK":
            return ConfigError(
                f"{self.path} is no DuckDB file. Name another one in INGEST_WAREHOUSE; if it was a warehouse, put"
                " back a snapshot."
            )
        remedy = "If it is damaged or was cut off, put back a snapshot; the next poll loads what is not in it."
        return ConfigError(
            f"{self.path} cannot be opened: {first_line(error)}"
            f" {self._without_log() if log_of(self.path).exists() else remedy}"
        )

    def _without_log(self) -> str:
        log = log_of(self.path)
        return (
            f"Put back a snapshot without {log.name}. Where only that log of what was committed last is damaged, it is"
            f" enough to move {log} away: what the last command had done is then missing, and the next poll loads those"
            " files again."
        )

    # --- the schema --------------------------------------------------------------------------------------------------

    def _wanted(self) -> tuple[int, str, str, str]:
        """What the tables are to be made by: see `version_of`."""
        steps, views = self.definitions
        naming = [f"{name}\t{source.people_space or ''}\t{source.match or ''}" for name, source in self.sources.items()]
        return len(steps), views, "\n".join(sorted(self.ignored_identities)), "\n".join(sorted(naming))

    def _is_prepared(self, connection: duckdb.DuckDBPyConnection) -> bool:
        """Whether tables and views are those of this version and these settings.

        Who may only read sees persons as they were found last.
        """
        found, wanted = self._found(connection), self._wanted()
        return found == wanted or (found[:2] == wanted[:2] and not self._may_write())

    @contextmanager
    def _sharing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._read(), self.locked(fcntl.LOCK_SH), self._open(read_only=True) as connection:
            yield connection

    @contextmanager
    def _alone(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The file to write to, with tables and views in place: made where they are missing or of an older version."""
        with self.locked(fcntl.LOCK_EX):
            is_unmade = not self._size()
            if not is_unmade and log_of(self.path).exists():  # which opening it to write would put into the file
                with self._open(read_only=True) as connection:
                    self._found(connection)
            try:
                with self._open(read_only=False) as connection:
                    self._prepare(connection)
                    is_unmade = False
                    yield connection
            except Exception:
                if is_unmade:  # what there is of it is no warehouse, and would be taken for a damaged one
                    self.path.unlink(missing_ok=True)
                    log_of(self.path).unlink(missing_ok=True)
                raise

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Settings that say who is one person hold backwards: where they have changed, persons are found again."""
        found, wanted = self._found(connection), self._wanted()
        if found == wanted:
            return
        try:
            self._make(connection, found, wanted)
        except duckdb.Error as error:
            raise TransientError(
                f"{self.path} could not be written (is the disk full?): {first_line(error)}"
            ) from error

    def _make(
        self, connection: duckdb.DuckDBPyConnection, found: tuple[Any, ...], wanted: tuple[int, str, str, str]
    ) -> None:
        steps, views = self.definitions
        done, _, identities, named = (*found, None, None, None)[:4]
        connection.execute("BEGIN")
        for step in steps[done:]:
            connection.execute(step)
        connection.execute(views)
        connection.execute(
            "CREATE OR REPLACE TABLE schema_version AS"
            " SELECT $step::INTEGER AS step, $views AS views, $identities AS ignored_identities, $naming AS naming",
            dict(zip(("step", "views", "identities", "naming"), wanted, strict=True)),
        )
        if done and (identities, named) != wanted[2:]:
            session = DuckDBSession(connection, self.ignored_identities)
            if identities != wanted[2]:
                session.join_persons_anew()
            session.name_anew(self.sources)
        connection.execute("COMMIT")

    def _found(self, connection: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
        """What the tables were last made by. Raises ConfigError if that was no Landfall, or a newer one."""
        steps, views = self.definitions
        found = version_of(connection)
        if found[0] > len(steps):
            raise ConfigError(f"{self.path} was written by a newer version of Landfall. Upgrade this one.")
        if not found[0] and (foreign := _foreign(connection, [*steps, views])):
            raise ConfigError(
                f"{self.path} is a database of another program, with {', '.join(foreign)} in it. Name another file"
                " in INGEST_WAREHOUSE."
            )
        return found


def version_of(connection: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """(step, views, ignored_identities, naming) as they were when the tables were last made; (0,) before."""
    try:
        found = connection.execute("SELECT * FROM warehouse.main.schema_version")
    except (duckdb.CatalogException, duckdb.BinderException):
        return (0,)
    is_ours = {"step", "views"} <= {name for name, *_ in found.description or ()}
    return next(iter(found.fetchall() if is_ours else ()), (0,))


def _foreign(connection: duckdb.DuckDBPyConnection, texts: Sequence[str]) -> list[str]:
    """The tables and views that are there under names which these statements make."""
    sql = """
        SELECT lower(table_name) FROM duckdb_tables() WHERE database_name = 'warehouse' AND schema_name = 'main'
        UNION SELECT lower(view_name) FROM duckdb_views() WHERE database_name = 'warehouse' AND schema_name = 'main'
        """
    made = re.findall(r"^CREATE (?:OR REPLACE )?(?:TABLE|VIEW) (\w+)", "\n".join(texts), re.MULTILINE)
    return sorted({"schema_version", *made} & {name for (name,) in connection.execute(sql).fetchall()})


def holder_of(path: Path) -> int | None:
    """The process that has DuckDB's own lock on the file, asked of the kernel; None if nobody has."""
    layout = "hhqqi4x"  # struct flock: type, whence, start, length, pid
    question = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with path.open("rb") as file:
            kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, question))
    except OSError:
        return None
    return None if kind == fcntl.F_UNLCK else int(pid)


def flocked(opened: int, how: int, seconds: float) -> bool:
    """Whether the opened file could be locked before so many seconds were over. Raises OSError: it has no locks."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(opened, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        else:
            return True


def log_of(path: Path) -> Path:
    """Where DuckDB writes what is committed, until it is in the file itself."""
    return path.with_name(path.name + ".wal")


def quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
