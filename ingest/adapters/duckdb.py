"""The warehouse in one DuckDB file: sessions, schema and reading. Writing a load is `duckdb_load`.

Several processes share the file (loader tasks, command line, UI), but DuckDB lets a writer have it alone. So every
session is short, and takes a lock on a side file first: shared to read, exclusive to write. The lock of a killed
process is freed by the kernel; DuckDB itself undoes what it had not committed.
"""

import errno
import fcntl
import os
import re
import signal
import socket
import stat
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import gettempdir
from threading import Event, Thread, current_thread, main_thread
from typing import Any, Literal

import duckdb
import pyarrow as pa

from ingest.adapters.duckdb_errors import could_not_write, first_line
from ingest.core.address import is_file_id, meant, split_address
from ingest.core.lifecycle import LONGEST_DELAY
from ingest.core.schema import schemas_folder
from ingest.core.source import SourceFile
from ingest.disk import FOLDER_PREFIX, no_more_open_than, opened, private_folder
from ingest.errors import ConfigError, IngestError, TransientError
from ingest.ports import (
    ArchivedCopy,
    FailuresWanted,
    Note,
    OpenFailures,
    Published,
    QueryLimits,
    QueryResult,
    Table,
)
from ingest.settings import Source
from ingest.warehouse.changes import Answer, Applied, Plan, Reader
from ingest.warehouse.warehouse import Warehouse

# Files of this storage version are read and written by every supported DuckDB (1.5 and 2).
STORAGE_VERSION = "v1.2.0"
MUCH_MEMORY_MB = 4096  # rather more than not at all
_LISTED_AT_ONCE = 25_000
_UNTIDIED_AT_ONCE = 5_000
_COMPARED_MB = 256  # of listings that are held beside the ledger; the rest is on disk
_MET = pa.schema(
    [
        ("place", pa.int64()), ("bucket", pa.string()), ("key", pa.string()), ("etag", pa.string()),
        ("version_id", pa.string()), ("size_bytes", pa.int64()), ("last_modified", pa.timestamp("us", "UTC")),
    ]
)  # fmt: skip
# With these bytes DuckDB's log begins: the field of its first entry's type, which is that of a version.
_LOG_BEGINS = b"\x64\x00\x62\x65\x00"
_NO_RIGHT = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EISDIR})
_SQL_FOLDER = Path(__file__).parent / "sql" / "duckdb"


@cache
def statement(name: str) -> str:
    """The text of one statement in sql/duckdb/."""
    return (_SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")


@cache
def definitions() -> tuple[tuple[str, ...], str]:
    """What makes the tables, step by step, and what makes the views."""
    folder = schemas_folder() / "warehouse" / "duckdb"
    steps = tuple(step.read_text(encoding="utf-8") for step in sorted(folder.glob("[0-9]*.sql")))
    return steps, (folder / "views.sql").read_text(encoding="utf-8")


def connect() -> duckdb.DuckDBPyConnection:
    """An engine without a database yet. It fetches nothing: what it has not got it does without."""
    return duckdb.connect(
        ":memory:", config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    )


@dataclass(frozen=True, slots=True)
class DuckDBWarehouse(Warehouse):
    """Implements `ingest.ports.Warehouse`."""

    path: Path
    lock_timeout_seconds: float = 60.0
    load_memory_mb: int = 160  # what a load may hold in memory before it spills to disk
    ignored_identities: frozenset[str] = frozenset()
    sources: Mapping[str, Source] = field(default_factory=dict)  # what is settled for them holds backwards

    @property
    def name(self) -> str:
        return f"duckdb:///{self.path}"

    # --- the protocol ------------------------------------------------------------------------------------------------

    def unseen(self, listed: Iterable[SourceFile], now: datetime) -> list[SourceFile]:
        listing = iter(listed)
        new: list[SourceFile] = []
        while files := list(islice(listing, _LISTED_AT_ONCE)):  # so that a million objects are never held
            with self.reading() as connection:
                found = _unseen(connection, files, now)
                places = [place for place, is_known in found if not is_known]
                known = recognised(connection, {place: files[place] for place in places})
                again = {place for place, _ in _unseen(connection, list(known.values()), now)}
            settled = {place for number, place in enumerate(known) if number not in again}
            new += [known.get(place, files[place]) for place, _ in found if place not in settled]
        return new

    def recognise(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        with self.reading() as connection:
            ids = {"ids": [file.file_id for file in files]}
            rows = _rows(connection, "SELECT file_id FROM ledger WHERE file_id IN (SELECT unnest($ids))", ids)
            has_row = {row["file_id"] for row in rows}
            met = {place: file for place, file in enumerate(files) if file.file_id not in has_row}
            known = recognised(connection, met)
        return [known.get(place, file) for place, file in enumerate(files)]

    def unknown_copies(self, copies: Iterable[ArchivedCopy]) -> Iterator[ArchivedCopy]:
        listing = iter(copies)
        while some := list(islice(listing, _LISTED_AT_ONCE)):
            begin = [datetime.combine(one.day, datetime.min.time(), UTC) for one in some]
            table = pa.table(
                {
                    "place": range(len(some)),
                    "source": [one.file.source for one in some],
                    "bucket": [one.file.bucket for one in some],
                    "archived_to": [one.copy.key for one in some],
                    "key": [one.file.key for one in some],
                    "plain_key": [one.plain_key for one in some],
                    "etag": [one.file.etag for one in some],
                    "size_bytes": [one.file.size_bytes for one in some],
                    "archived_at": [one.copy.last_modified for one in some],
                    "day_from": begin,
                    "day_until": [day + timedelta(days=1) for day in begin],
                }
            )
            with self.reading() as connection:
                connection.register("copies", table)
                places = connection.execute(statement("unknown_copies")).fetchall()
            yield from (some[place] for (place,) in places)

    @contextmanager
    def reader(self) -> Iterator[Reader]:
        from ingest.adapters.duckdb_apply import DuckDBReader
        from ingest.adapters.duckdb_rows import Rows

        with self.reading() as connection:
            yield DuckDBReader(Rows(connection, self.ignored_identities))

    def transact(self, plan: Plan[Answer]) -> tuple[Answer, Applied]:
        try:
            try:
                return self._transact(plan)
            except (duckdb.OutOfMemoryException, duckdb.TransactionException):
                # Thousands of lines of hundreds of KB, or rows from all over the tables that leave: rather more memory
                # than not at all. Where such lines are in the table already, it is the commit that holds them.
                return self._transact(plan, MUCH_MEMORY_MB)
        except duckdb.Error as error:
            raise could_not_write(self, error) from error

    def _transact(self, plan: Plan[Answer], memory_mb: int | None = None) -> tuple[Answer, Applied]:
        # What writes is imported when it is needed: most commands only read.
        from ingest.adapters.duckdb_apply import DuckDBReader, apply
        from ingest.adapters.duckdb_rows import Rows

        with self.writing(memory_mb) as connection:
            rows = Rows(connection, self.ignored_identities)
            changes, answer = plan(DuckDBReader(rows))
            return answer, apply(rows, changes)

    def untidied(
        self,
        source: str,
        bucket: str,
        prefix: str,
        *,
        step: Literal["archive", "copy", "delete"],
        file_ids: Sequence[str] | None = None,
        before: int | None = None,
    ) -> list[dict[str, Any]]:
        parameters = {
            "source": source, "bucket": bucket, "prefix": prefix, "step": step, "before": before,
            "file_ids": None if file_ids is None else list(file_ids), "limit": _UNTIDIED_AT_ONCE,
        }  # fmt: skip
        with self.reading() as connection:
            return _rows(connection, statement("untidied"), parameters)

    def archives(self) -> list[tuple[str, str, str]]:
        with self.reading() as connection:
            return connection.execute(statement("archives")).fetchall()

    @contextmanager
    def ledger(self, landings: Path, archives: Path, since: datetime) -> Iterator[Iterator[dict[str, Any]]]:
        with self.reading() as connection:
            connection.execute(f"SET memory_limit = '{_COMPARED_MB}MB'")
            for name, path in (("landings", landings), ("archives", archives)):
                quoted = str(path).replace("'", "''")
                connection.execute(f"CREATE TEMP VIEW {name} AS SELECT * FROM read_parquet('{quoted}')")
            yield _streamed(connection, "ledger", since=since)

    def disagreements(self) -> list[dict[str, Any]]:
        from ingest.adapters.duckdb_reconcile import disagreements

        return disagreements(self)

    def repair(self, note: Note) -> None:
        from ingest.adapters.duckdb_reconcile import repair

        repair(self, note)

    def history(self, file_id: str | None = None, run_id: str | None = None) -> list[dict[str, Any]]:
        with self.reading() as connection:
            sql = 'SELECT * FROM history WHERE file_id = $file_id OR run_id = $run_id ORDER BY "at"'
            return _rows(connection, sql, {"file_id": file_id, "run_id": run_id})

    def files(self, where: Mapping[str, object], limit: int | None = None) -> list[dict[str, Any]]:
        conditions = [
            f"{_column(name)} IN (SELECT unnest(${name}))" if isinstance(value, list) else f"{_column(name)} = ${name}"
            for name, value in where.items()
        ] or ["TRUE"]
        limited = "" if limit is None else f"LIMIT {int(limit)}"
        sql = f"SELECT * FROM ledger WHERE {' AND '.join(conditions)} ORDER BY file_no DESC {limited}"
        with self.reading() as connection:
            return _rows(connection, sql, dict(where))

    def find_file(self, reference: str) -> dict[str, Any]:
        if not reference:  # a variable that was not set: each id begins with it
            raise IngestError("A FILE_ID is empty. Give one, the beginning of one, or an s3:// URI.")
        if not is_file_id(reference):
            bucket, key = split_address(reference)
            found = self.files({"bucket": bucket, "key": key}, limit=1)
        else:
            with self.reading() as connection:
                sql = "SELECT * FROM ledger WHERE starts_with(file_id, $prefix) ORDER BY file_id LIMIT 2"
                found = _rows(connection, sql, {"prefix": reference})
        if not found:
            raise IngestError(
                f"No file {reference} is in the ledger. `ingest files` lists those that are.{meant(reference)}"
            )
        if len(found) > 1:
            raise IngestError(
                f"More than one file begins with {reference}. Give more of its id: `ingest files --json`."
            )
        return found[0]

    @contextmanager
    def failed_lines(self, file_id: str) -> Iterator[Iterator[dict[str, Any]]]:
        with self.reading() as connection:
            yield _streamed(connection, "failed_lines_of_file", file_id=file_id)

    def open_failures(self, wanted: FailuresWanted) -> AbstractContextManager[OpenFailures]:
        from ingest.adapters.duckdb_failures import open_failures

        return open_failures(self, wanted)

    def published(self) -> AbstractContextManager[Published]:
        from ingest.adapters.duckdb_published import published

        return published(self)

    @contextmanager
    def query(self, sql: str, limits: QueryLimits | None = None) -> Iterator[QueryResult]:
        with _refused():
            if not _only_reads(sql):
                raise IngestError(
                    "Only one statement that reads (SELECT, WITH, PIVOT, DESCRIBE, EXPLAIN) can be run here."
                )
        with self.reading() as connection, _limited(connection, limits), _refused():
            # A statement may name no file, not even the warehouse, which the engine would open in any case. Tried
            # in a session of its own: where no file can be opened, none can be spilled to, either.
            _enclose(connection, "SET disabled_filesystems = 'LocalFileSystem'")
            connection.sql(sql)
        with self.reading(prepared=False) as connection, _limited(connection, limits), _refused():
            _enclose(connection)
            relation = connection.sql(sql)
            if len(set(relation.columns)) < len(relation.columns):
                relation = relation.project("*")  # which makes names unique: a, a_1
            json_columns = {
                name for name, type in zip(relation.columns, relation.types, strict=True) if str(type) == "JSON"
            }
            yield QueryResult(frozenset(json_columns), relation.to_arrow_reader(1000))

    @contextmanager
    def snapshot(self) -> Iterator["DuckDBWarehouse"]:
        with self.reading():  # while anybody reads, nobody writes
            yield self

    def save(self, file: Path) -> tuple[int, int]:
        from ingest.adapters.duckdb_snapshot import save

        return save(self, file)

    def tables(self) -> AbstractContextManager[Iterator[Table]]:
        from ingest.adapters.duckdb_transfer import tables

        return tables(self)

    def fill(self, tables: Iterable[Table]) -> None:
        from ingest.adapters.duckdb_transfer import fill

        fill(self, tables)

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
        except (duckdb.IOException, duckdb.InternalException, duckdb.FatalException, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # of whoever uses what was read; a reader's has none
                raise
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
                    steps, views = definitions()
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
        steps, views = definitions()
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
        steps, views = definitions()
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
            from ingest.adapters.duckdb_naming import name_anew
            from ingest.adapters.duckdb_rows import Rows

            rows = Rows(connection, self.ignored_identities)
            if identities != wanted[2]:
                rows.join_persons_anew()
            name_anew(rows, self.sources)
        connection.execute("COMMIT")

    def _found(self, connection: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
        """What the tables were last made by. Raises ConfigError if that was no Landfall, or a newer one."""
        steps, views = definitions()
        found = version_of(connection)
        if found[0] > len(steps):
            raise ConfigError(f"{self.path} was written by a newer version of Landfall. Upgrade this one.")
        if not found[0] and (foreign := _foreign(connection, [*steps, views])):
            raise ConfigError(
                f"{self.path} is a database of another program, with {', '.join(foreign)} in it. Name another file"
                " in INGEST_WAREHOUSE."
            )
        return found


def _unseen(
    connection: duckdb.DuckDBPyConnection, files: Sequence[SourceFile], now: datetime
) -> list[tuple[int, bool]]:
    """The places of files that are to be dealt with, and whether the ledger has a row of them."""
    if not files:
        return []
    listed = {
        "place": range(len(files)),
        "file_id": [file.file_id for file in files],
        "version_id": pa.array([file.version_id for file in files], pa.string()),
    }
    connection.register("listed", pa.table(listed))
    found = connection.execute(statement("unseen"), {"now": now, "latest": now + LONGEST_DELAY}).fetchall()
    connection.unregister("listed")
    return found


def recognised(connection: duckdb.DuckDBPyConnection, met: Mapping[int, SourceFile]) -> dict[int, SourceFile]:
    """Those of these files that have a row under another id, with that id; by their places, in order."""
    if not met:
        return {}
    columns = ("bucket", "key", "etag", "version_id", "size_bytes", "last_modified")
    rows = [{"place": place} | {name: getattr(file, name) for name in columns} for place, file in met.items()]
    connection.register("met", pa.Table.from_pylist(rows, _MET))
    found = dict(connection.execute(statement("recognise")).fetchall())
    connection.unregister("met")
    return {place: replace(file, known_as=found[place]) for place, file in met.items() if place in found}


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(sql, params=parameters).to_arrow_table().to_pylist()
    return rows


def _streamed(connection: duckdb.DuckDBPyConnection, name: str, **variables: Any) -> Iterator[dict[str, Any]]:
    """The rows of a statement, some at a time. With parameters the engine would hold its whole answer."""
    for variable, value in variables.items():
        connection.execute(f"SET VARIABLE {variable} = $value", {"value": value})
    reader = connection.sql(statement(name)).to_arrow_reader(1000)
    return (row for batch in reader for row in batch.to_pylist())


def _column(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(name)
    return name


def version_of(connection: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    """(step, views, ignored_identities, naming) as they were when the tables were last made; (0,) before."""
    ours = "database_name = 'warehouse' AND table_name = 'schema_version' AND column_name IN ('step', 'views')"
    if connection.execute(f"SELECT count(*) FROM duckdb_columns() WHERE {ours}").fetchall() != [(2,)]:
        return (0,)
    return next(iter(connection.execute("SELECT * FROM schema_version").fetchall()), (0,))


def _foreign(connection: duckdb.DuckDBPyConnection, texts: Sequence[str]) -> list[str]:
    """The tables and views that are there under names which these statements make."""
    sql = """
        SELECT lower(table_name) FROM duckdb_tables() WHERE database_name = 'warehouse' AND schema_name = 'main'
        UNION SELECT lower(view_name) FROM duckdb_views() WHERE database_name = 'warehouse' AND schema_name = 'main'
        """
    made = re.findall(r"^CREATE (?:OR REPLACE )?(?:TABLE|VIEW) (\w+)", "\n".join(texts), re.MULTILINE)
    return sorted({"schema_version", *made} & {name for (name,) in connection.execute(sql).fetchall()})


@contextmanager
def _refused() -> Iterator[None]:
    """What the engine says to a statement of somebody else's."""
    try:
        yield
    except (duckdb.IOException, duckdb.InternalException, duckdb.FatalException):  # no fault of the statement
        raise
    except (duckdb.Error, OSError) as error:  # the latter from the reader of the answer
        if isinstance(error, OSError) and error.errno:  # of whoever uses it: a full disk, say
            raise
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
