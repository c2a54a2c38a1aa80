"""What pages show of a DuckDB warehouse: a copy beside it, since the file itself lets nobody in while a load writes.

The copy is made whole under another name and put in its place at once, so a page reads a finished one whoever makes the
next. It holds ledger, failed lines and history, and the stamp of the warehouse it was made of: while the warehouse's
files still bear it, nothing was committed since. A stale copy that takes long is made anew in the background, at most
one in a process and one on the host; a page shows what is there and says how old it is. Of one file it holds the texts
of the first failed lines only, and tells the others without: no file makes it large, or takes much to be copied.
"""

import atexit
import fcntl
import logging
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import Event, Lock, Thread, current_thread
from typing import Any

import duckdb
import pyarrow as pa

from ingest.errors import IngestError, TransientError
from ingest.ports import Day, FailureGroup, FailurePlace, FilesPage, FilesWanted, Glance, Problem
from ingest.warehouse.engines.common.published import filters
from ingest.warehouse.engines.duckdb.session import STORAGE_VERSION, DuckDBFile, connect, log_of, quoted
from ingest.warehouse.engines.duckdb.snapshot import clear
from ingest.warehouse.engines.duckdb.statements import definitions, statement

log = logging.getLogger(__name__)

# While the warehouse is held, with what each is told; then, of the copy itself.
_MADE = {"publish_ledger": ("as_of",), "publish_history": ()}
_MADE_OF_FAILED = ("publish_failed_table", "publish_candidates", "publish_parts", "publish_lengths", "publish_chosen",
                   "publish_failed_lines")  # fmt: skip
_MADE_OF_THESE = ("publish_key_order", "publish_failure_places", "publish_failure_codes", "publish_glances",
                  "publish_states")  # fmt: skip
_QUICK_SECONDS = 0.2  # a copy that took no longer is made anew before a page is answered
_WAITED_SECONDS = 1.0  # what a page waits for one that is made in the background, if the last one took no longer
_FIRST_SECONDS = 5.0  # what a page waits for where there is no copy at all
_REST = 4  # times as long as a copy took there is none: loads have the warehouse for themselves
_LONGEST_REST_SECONDS = 60.0
_ENDING_SECONDS = 5.0
_CLOCK_SECONDS = 0.02  # that of files is no finer, at worst
# All of this happens in Airflow's web server: one core, and little memory. What pages ask for fits without a disk.
_QUIET = "SET threads = 1; SET enable_progress_bar = false; SET TimeZone = 'UTC'"
_READING = f"{_QUIET}; SET memory_limit = '256MB'; SET temp_directory = ''"
_MAKING = f"{_QUIET}; SET preserve_insertion_order = false"
_MAKING_MB = 128
_MAKING_LONG_MB = 512  # for long lines only: the engine unpacks those of two thousand rows together
_TEXTS_BYTES = 8 << 20  # of the failed lines of one file: `raw`, `failures` and `context` together
_MEASURED_BYTES = 8 << 20  # of them are read at once, as far as is known before
_COPIED_BYTES = 32 << 20  # of them are copied at once

_CONDITIONS = {
    "sources": "source IN (SELECT unnest($sources::VARCHAR[]))",
    "states": "state IN (SELECT unnest($states::VARCHAR[]))",
    "since": "dealt_at >= $since",
    "until": "dealt_at < $until",
    "text": "contains(lower(key), lower($text))",
    "id_begins": "(contains(lower(key), lower($id_begins)) OR starts_with(file_id, lower($id_begins)))",
    "run_id": "run_id = $run_id",
    "sha256": "sha256 = $sha256",
    "file_ids": "file_id IN (SELECT file_id FROM wanted)",
    "with_failures": "to_fix > 0",
    "code": "file_no IN (SELECT file_no FROM published.failure_codes WHERE code = $code AND open > 0) AND to_fix > 0",
}
_PLACES = {  # what is no column; `key` has an order of its own
    "dealt_at": "coalesce(loaded_at, next_try_at, last_modified)",  # as shown; files that wait: as they are due
    "failed_share": "failed / nullif(items, 0)",
    "key": "0",
}

_guard = Lock()
_threads: dict[Path, Thread] = {}  # by warehouse
_working: dict[Thread, duckdb.DuckDBPyConnection] = {}
_ending = Event()


@dataclass(frozen=True, slots=True)
class DuckDBPublished:
    """Implements `ingest.ports.ReadModel` on one opened copy."""

    connection: duckdb.DuckDBPyConnection
    as_of: datetime

    def files(self, wanted: FilesWanted) -> FilesPage:
        matching, parameters = self._matching(wanted)
        if wanted.folded:
            matching = f"published.ledger WHERE file_no IN (SELECT of_file_no FROM {matching})"
        place = _PLACES.get(wanted.sort, wanted.sort)
        way = "DESC" if wanted.descending else "ASC"
        if wanted.sort == "key":
            ordered = f"published.key_order AS k SEMI JOIN matching USING (row) ORDER BY k.rowid {way}"
        else:
            ordered = f"matching ORDER BY place {way} NULLS LAST, file_no DESC"
        sql = (
            f"WITH matching AS MATERIALIZED (SELECT rowid AS row, {place} AS place, file_no FROM {matching})"
            f" SELECT row, (SELECT count(*) FROM matching) AS total FROM {ordered} LIMIT $limit OFFSET $offset"
        )
        paging = {"limit": wanted.per_page, "offset": (wanted.page - 1) * wanted.per_page}
        found = self._fetch(sql, parameters | paging)
        if not found:  # perhaps a page past the last one
            return FilesPage(self._fetch(f"SELECT count(*) FROM {matching}", parameters)[0][0], [])
        rows = self._files([row for row, _ in found])
        return FilesPage(found[0][1], self._with_redrives(rows) if wanted.folded else rows)

    def days(self, wanted: FilesWanted, last: int = 30) -> list[Day]:
        matching, parameters = self._matching(wanted)
        sql = f"WITH matching AS (SELECT * FROM {matching}) {statement('published_days')}"
        first = date(1970, 1, 1)
        return [Day(first + timedelta(days=day), *told) for day, *told in self._fetch(sql, parameters | {"last": last})]

    def sources(self) -> set[str]:
        return {source for (source,) in self._fetch("SELECT DISTINCT source FROM published.ledger", {})}

    def states(self, sources: Sequence[str]) -> list[tuple[str, str, int]]:
        return self._fetch(statement("published_states"), {"sources": list(sources)})

    def glances(self, sources: Sequence[str]) -> list[Glance]:
        return [Glance(*told) for told in self._fetch(statement("published_glances"), {"sources": list(sources)})]

    def problems(self, wanted: FilesWanted, files: int = 5) -> list[Problem]:
        matching, parameters = self._matching(wanted)
        sql = statement("published_problems").replace("WITH", f"WITH matching AS (SELECT * FROM {matching}),", 1)
        return [Problem(*told) for told in self._fetch(sql, parameters | {"files": files})]

    def file(self, file_id: str) -> dict[str, Any] | None:
        sql = "SELECT rowid FROM published.ledger WHERE id_hash = hash($file_id) AND file_id = $file_id"
        found = self._fetch(sql, {"file_id": file_id})
        return self._files([row for (row,) in found])[0] if found else None

    def related(self, file_id: str) -> list[dict[str, Any]]:
        file = self.file(file_id)
        if file is None:
            return []
        told = ("file_id", "bucket", "key", "redrive_of", "duplicate_of", "replaced_by")
        found = self._fetch(statement("published_related"), {name: file[name] for name in told})
        rows = self._files([row for row, _ in found])
        return [row | {"relation": relation} for row, (_, relation) in zip(rows, found, strict=True)]

    def history(self, file_id: str) -> list[dict[str, Any]]:
        return self._rows(statement("published_history"), {"file_id": file_id})

    def failure_groups(self, file_ids: Sequence[str], places: int = 20) -> list[FailureGroup]:
        self._want(file_id=pa.array(file_ids, pa.string()))
        found = self._fetch(statement("published_failure_groups"), {"places": places})
        return [
            FailureGroup(code, lines, open, first_line, tuple(FailurePlace(*place) for place in shown or ()), more)
            for code, lines, open, first_line, shown, more in found
        ]

    def failed_lines(
        self,
        file_ids: Sequence[str],
        *,
        code: str | None = None,
        pointer: str | None = None,
        open_only: bool = False,
        first_line: int = 1,
        offset: int = 0,
        limit: int = 20,
    ) -> list[dict[str, Any]]:
        self._want(file_id=pa.array(file_ids, pa.string()))
        wanted = {
            "code": code, "pointer": pointer, "open_only": open_only, "first_line": first_line, "offset": offset,
            "limit": limit,
        }  # fmt: skip
        found = self._fetch(statement("published_failed_lines"), wanted)
        return self._lines([row for (row,) in found])

    def open_lines(self, file_id: str) -> Iterator[dict[str, Any]]:
        for (rows,) in self._fetch(statement("published_open_lines"), {"file_id": file_id}):
            yield from self._lines(rows)

    def open_among(self, file_id: str, places: Collection[tuple[int, str]]) -> dict[tuple[int, str], bool]:
        lines, items = zip(*places, strict=True) if places else ((), ())
        self._want(line=pa.array(lines, pa.int64()), item=pa.array(items, pa.string()))
        found = self._fetch(statement("published_open_among"), {"file_id": file_id})
        return {(line, item): has_text for line, item, has_text in found}

    def _matching(self, wanted: FilesWanted) -> tuple[str, dict[str, Any]]:
        """The rows of these files as a part of a statement, with its values."""
        parameters = filters(wanted)
        conditions = [_CONDITIONS[name] for name in parameters]
        parameters.pop("with_failures", None)
        if (file_ids := parameters.pop("file_ids", None)) is not None:
            self._want(file_id=pa.array(file_ids, pa.string()))
        return f"published.ledger WHERE {' AND '.join(conditions)}", parameters

    def _files(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """These rows of the ledger, in this order: only now are they read whole."""
        self._want(row=pa.array(numbers, pa.int64()))
        found = {row.pop("row"): row for row in self._rows(statement("published_rows"), {})}
        return [found[number] for number in numbers]

    def _with_redrives(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self._want(file_no=pa.array([row["file_no"] for row in rows], pa.int64()))
        of: dict[str, list[dict[str, Any]]] = {row["file_id"]: [] for row in rows}
        for redrive in self._files([row for (row,) in self._fetch(statement("published_redrives"), {})]):
            of[redrive["redrive_of"]].append(redrive)
        return [row | {"redrives": of[row["file_id"]]} for row in rows]

    def _lines(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """These failed lines, in this order."""
        if not numbers:
            return []
        between = f"rowid BETWEEN {min(numbers)} AND {max(numbers)}"
        among = ", ".join(map(str, numbers))
        sql = f"{statement('published_lines')} WHERE {between} AND rowid IN ({among})"
        try:
            rows = self._rows(sql, {})
        except duckdb.OutOfMemoryException:  # long ones, far apart: what lies between was held
            if len(numbers) == 1:
                raise
            middle = len(numbers) // 2
            return [*self._lines(numbers[:middle]), *self._lines(numbers[middle:])]
        found = dict(zip(sorted(numbers), rows, strict=True))
        return [found[number] for number in numbers]

    def _want(self, **columns: pa.Array) -> None:
        """As a table: a thousand values as a parameter take the engine longer than the answer does."""
        self.connection.register("wanted", pa.table(columns))

    def _rows(self, sql: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.connection.sql(sql, params=parameters).to_arrow_table().to_pylist()
        return rows

    def _fetch(self, sql: str, parameters: dict[str, Any]) -> list[Any]:
        return self.connection.execute(sql, parameters).fetchall()


@dataclass(frozen=True, slots=True)
class _Copy:
    """An opened copy. It stays whole while it is open, though another may have taken its place."""

    connection: duckdb.DuckDBPyConnection
    stamp: str  # of the warehouse that it was made of
    took_seconds: float
    made_at: float  # seconds since 1970
    as_of: float  # when somebody last saw that it is not stale


@contextmanager
def published(warehouse: DuckDBFile) -> Iterator[DuckDBPublished]:
    """See `ingest.ports.Warehouse.published`."""
    copy = _newest(warehouse) if warehouse.path.exists() else None
    if copy is None:
        with connect() as connection:
            _make_empty(connection)
            yield DuckDBPublished(connection, datetime.now(UTC))
        return
    with copy.connection:
        now = time.time()
        if copy.stamp != _stamp(warehouse.path):
            now = copy.as_of
        else:
            with suppress(OSError):  # another user's copy, or a disk to read only: its age is told too high then
                os.utime(_place(warehouse), (now, now))
        yield DuckDBPublished(copy.connection, datetime.fromtimestamp(now, UTC))


def _newest(warehouse: DuckDBFile) -> _Copy | None:
    """The copy to show: not stale where that takes no time. None: the warehouse has no tables yet."""
    copy = _open(warehouse)
    if copy is None:
        made = _make(warehouse, _FIRST_SECONDS, _FIRST_SECONDS)
    elif copy.stamp == _stamp(warehouse.path):
        return copy
    elif copy.took_seconds < _QUICK_SECONDS:
        try:
            made = _make(warehouse, 0, 0)
        except IngestError:  # a load holds the warehouse, or another process makes the copy
            _make_in_background(warehouse, copy)
            return copy
        copy.connection.close()
    else:
        making = _make_in_background(warehouse, copy)
        if copy.took_seconds >= _WAITED_SECONDS or _rest_seconds(copy) > 0:
            return copy
        making.join(_WAITED_SECONDS)  # the first visitor after a while sees the present, too
        if making.is_alive():
            return copy
        copy.connection.close()
        made = True
    if not made:
        return None
    copy = _open(warehouse)
    if copy is None:  # it was there a moment ago: to show nothing would say that nothing was ever loaded
        raise TransientError(
            "The copy of the warehouse that pages read could not be opened. Try again in a few seconds."
        )
    return copy


def _open(warehouse: DuckDBFile) -> _Copy | None:
    """The finished copy; None if there is none, or one of another version."""
    place = _place(warehouse)
    if not place.is_file() or place.is_symlink():  # the engine would wait for what a pipe holds
        return None
    connection = connect()
    try:
        as_of = place.stat().st_mtime
        connection.execute(_READING)
        connection.execute(f"ATTACH {quoted(place)} AS published (READ_ONLY)")
        found = connection.execute("SELECT layout, stamp, took_seconds, made_at FROM published.made").fetchall()
    except (duckdb.Error, OSError):
        log.warning("published_unreadable path=%s", place, exc_info=True)
        found = []
    if not found or found[0][0] != _layout():
        connection.close()
        return None
    _, stamp, took_seconds, made_at = found[0]
    return _Copy(connection, stamp, took_seconds, made_at, as_of)


def _make(warehouse: DuckDBFile, wait_for_others: float, wait_for_loads: float) -> bool:
    """Put a copy of the warehouse as it is now in its place, unless one is there. False: it has no tables yet.

    Raises:
        TransientError: for longer than these seconds others make one, or loads hold the warehouse; or the disk is full.
    """
    place = _place(warehouse)
    own = place.with_name(place.name + ".new")  # a folder that nobody else may look into
    patient = replace(warehouse, lock_timeout_seconds=wait_for_loads)
    try:
        with replace(warehouse, lock_timeout_seconds=wait_for_others).locked(fcntl.LOCK_EX, place):
            copy = _open(warehouse)
            if copy is not None:
                copy.connection.close()
                if copy.stamp == _stamp(warehouse.path):
                    return True
            try:
                return _make_alone(patient, place, own)
            finally:
                clear(own)
    except TransientError as error:
        if isinstance(error.__cause__, duckdb.Error):
            raise TransientError(f"{place} could not be written (is the disk full?): {error.__cause__}") from error
        raise TransientError(
            f"Loads hold {warehouse.name}, and pages have no copy of it yet. Try again in a few seconds."
        ) from error
    except (duckdb.Error, OSError) as error:
        raise TransientError(f"{place} could not be written (is the disk full?): {error}") from error


def _make_alone(warehouse: DuckDBFile, place: Path, own: Path) -> bool:
    clear(own)  # of one that was killed
    own.mkdir(mode=0o700)
    new, spilled = own / "copy", own / "spilled"
    begun, settings = time.time(), f"{_MAKING}; SET memory_limit = '{_MAKING_MB}MB'"
    # Not `prepared`: a page does not wait until persons are found anew, nor does it change anything.
    with warehouse.reading(prepared=False) as connection, _interrupted_at_exit(connection):
        as_of, stamp = time.time(), _stamp(warehouse.path)
        connection.execute(settings)
        connection.execute("SET temp_directory = $folder", {"folder": str(spilled)})
        tables = "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'warehouse' AND table_name = 'ledger'"
        if connection.execute(tables).fetchall() == [(0,)]:
            return False
        connection.execute(f"ATTACH {quoted(new)} AS published (STORAGE_VERSION '{STORAGE_VERSION}')")
        _copy_tables(connection, as_of)
        connection.execute("DETACH published")
        # The clock of files is coarse: the next commit must not get the time of the last one.
        time.sleep(max(0.0, min(_CLOCK_SECONDS, _changed_at(warehouse.path) + _CLOCK_SECONDS - time.time())))
    with connect() as connection, _interrupted_at_exit(connection):  # loads may go on
        connection.execute(settings)
        connection.execute("SET temp_directory = $folder", {"folder": str(spilled)})
        connection.execute(f"ATTACH {quoted(new)} AS published")
        _make_of_these(connection)
        took = time.time() - as_of
        connection.execute(
            "CREATE TABLE published.made AS"
            " SELECT $layout AS layout, $stamp AS stamp, $took::DOUBLE AS took_seconds, $made_at::DOUBLE AS made_at",
            {"layout": _layout(), "stamp": stamp, "took": took, "made_at": as_of},
        )
        connection.execute("DETACH published")
    new.chmod(warehouse.mode)  # nobody reads here who may not read there
    os.utime(new, (as_of, as_of))
    new.replace(place)
    log.info("published path=%s seconds=%.2f waited=%.2f", place, took, as_of - begun)
    return True


def _copy_tables(connection: duckdb.DuckDBPyConnection, as_of: float) -> None:
    _copy_failed_lines(connection)
    told = {"as_of": datetime.fromtimestamp(as_of, UTC)}
    for name, parameters in _MADE.items():
        connection.execute(statement(name), {name: told[name] for name in parameters})


def _copy_failed_lines(connection: duckdb.DuckDBPyConnection) -> None:
    """All of them, the first of each file with their texts. These are read some MB at a time, whatever stands there."""
    most = {"most": _TEXTS_BYTES}
    connection.execute(statement("publish_failed_table"))
    connection.execute(statement("publish_candidates"), most)
    connection.execute("CREATE TEMP TABLE lengths (row BIGINT, bytes BIGINT)")
    for first, last, is_candidate in _parts(connection, "candidates", _MEASURED_BYTES):
        if is_candidate:
            _over(connection, statement("publish_lengths"), first, last)
    connection.execute(statement("publish_chosen"), most)
    sql, parts = statement("publish_failed_lines"), _parts(connection, "chosen", _COPIED_BYTES)
    with_texts, without = sql.replace("{texts}", "TRUE"), sql.replace("{texts}", "FALSE")
    try:
        connection.execute("BEGIN")  # else each part is written twice: into the log, too
        for first, last, is_chosen in parts:
            connection.execute(_of_rows(with_texts if is_chosen else without, first, last))
        connection.execute("COMMIT")
    except duckdb.OutOfMemoryException:
        connection.execute("ROLLBACK")
        for first, last, is_chosen in parts:
            for row in _over(connection, with_texts if is_chosen else without, first, last):
                _over(connection, without, row, row)
    connection.execute("DROP TABLE candidates; DROP TABLE lengths; DROP TABLE chosen")


def _parts(connection: duckdb.DuckDBPyConnection, among: str, at_once: int) -> list[tuple[int, int, bool]]:
    """Rows of failed lines, first and last, which are all among those of a table, or all not."""
    sql = statement("publish_parts").replace("{among}", among)
    return connection.execute(sql, {"at_once": at_once}).fetchall()


def _of_rows(sql: str, first: int, last: int) -> str:
    return f"{sql} WHERE f.rowid BETWEEN {first} AND {last}"  # plain numbers: then the engine reads these rows only


def _over(connection: duckdb.DuckDBPyConnection, sql: str, first: int, last: int) -> list[int]:
    """Run a statement on these rows; those that are too large for it, which are left out."""
    sizes = (_MAKING_MB, _MAKING_LONG_MB)
    fits = any(_fits(connection, _of_rows(sql, first, last), memory_mb) for memory_mb in sizes)
    connection.execute(f"SET memory_limit = '{_MAKING_MB}MB'")
    if fits:
        return []
    if first == last:
        return [first]
    middle = (first + last) // 2
    return [*_over(connection, sql, first, middle), *_over(connection, sql, middle + 1, last)]


def _fits(connection: duckdb.DuckDBPyConnection, sql: str, memory_mb: int) -> bool:
    """Run a statement, if it does with so much memory."""
    connection.execute(f"SET memory_limit = '{memory_mb}MB'")
    try:
        connection.execute(sql)
    except duckdb.OutOfMemoryException:
        return False
    return True


def _make_of_these(connection: duckdb.DuckDBPyConnection) -> None:
    for name in _MADE_OF_THESE:
        connection.execute(statement(name))


def _make_empty(connection: duckdb.DuckDBPyConnection) -> None:
    """What is told of a warehouse that nothing was loaded into yet."""
    connection.execute("ATTACH ':memory:' AS warehouse; ATTACH ':memory:' AS published; USE warehouse")
    for step in definitions()[0]:
        connection.execute(step)
    _copy_tables(connection, time.time())
    _make_of_these(connection)


def _rest_seconds(stale: _Copy) -> float:
    """For how long there is no other copy yet."""
    return min(_REST * stale.took_seconds, _LONGEST_REST_SECONDS) - (time.time() - stale.made_at)


def _make_in_background(warehouse: DuckDBFile, stale: _Copy) -> Thread:
    rest = _rest_seconds(stale)
    with _guard:
        thread = _threads.get(warehouse.path)
        if thread is None or not thread.is_alive():
            thread = _threads[warehouse.path] = Thread(
                target=_make_quietly, args=(warehouse, rest), name="landfall-published", daemon=True
            )
            thread.start()
        return thread


def _make_quietly(warehouse: DuckDBFile, rest_seconds: float) -> None:
    if _ending.wait(max(0.0, rest_seconds)):
        return
    try:
        _make(warehouse, 0, warehouse.lock_timeout_seconds)
    except IngestError as error:  # the next page tries again
        log.info("published_later path=%s error=%s", warehouse.path, error.__cause__ or error)


@contextmanager
def _interrupted_at_exit(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """A thread that is inside the engine when the interpreter goes away would bring the process down with an abort."""
    if _ending.is_set():
        raise TransientError("This process ends.")
    _working[current_thread()] = connection
    try:
        yield
    finally:
        del _working[current_thread()]


@atexit.register
def _interrupt() -> None:
    """Wait for every thread that makes a copy: what it does between two statements is the engine's, too."""
    _ending.set()
    deadline = time.monotonic() + _ENDING_SECONDS
    while time.monotonic() < deadline:
        alive = [one for one in (*_threads.values(), *_working) if one.is_alive() and one is not current_thread()]
        if not alive:
            return
        for connection in list(_working.values()):
            with suppress(duckdb.Error):  # it is closed already
                connection.interrupt()
        alive[0].join(0.01)


def _stamp(path: Path) -> str:
    """What differs after each commit: it writes to the file, or to the log beside it."""
    told = []
    for file in (path, log_of(path)):
        with suppress(FileNotFoundError):
            stat = file.stat()
            told.append(f"{file.suffix} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns}")
    return "\n".join(told)


def _changed_at(path: Path) -> float:
    """When the warehouse was last written to, in seconds since 1970."""
    return max(file.stat().st_mtime for file in (path, log_of(path)) if file.exists())


@cache
def _layout() -> str:
    """Of what kind a copy is: one made in another way (hashes are the engine's own) is made anew."""
    return sha256(
        "\n".join(
            (duckdb.__version__, str(_TEXTS_BYTES), *map(statement, (*_MADE, *_MADE_OF_FAILED, *_MADE_OF_THESE)))
        ).encode()
    ).hexdigest()


def _place(warehouse: DuckDBFile) -> Path:
    return warehouse.path.with_name(warehouse.path.name + ".published")
