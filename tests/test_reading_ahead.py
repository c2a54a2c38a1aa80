"""Objects that are read before it is their turn come as if they had not been: in order, whole, each with its errors."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from random import Random
from threading import Event, Lock, get_ident
from typing import Any

import pytest

from ingest import reading_ahead
from ingest.adapters.stores import Stores
from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.errors import ObjectGone, TransientError
from ingest.reading_ahead import SMALL_BYTES, THREADS, read_ahead
from tests.support import ARRIVAL, MemoryStore


def file(number: int, size_bytes: int = 1, bucket: str = "b") -> SourceFile:
    return SourceFile(bucket=bucket, key=str(number), etag=str(number), last_modified=ARRIVAL, size_bytes=size_bytes)


def until(what: Any) -> None:
    """Wait for a moment that comes soon, or fail."""
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def at_work() -> int:
    return sum(one.name == "read ahead" for one in threading.enumerate())


def test_files_come_in_their_order_and_whole_while_others_are_read() -> None:
    random = Random(1)
    sizes = [random.choice([0, 1, 1000, SMALL_BYTES, SMALL_BYTES + 1]) for _ in range(150)]
    files = [file(n, size, LOCAL_BUCKET if n % 7 == 3 else "b") for n, size in zip(range(150), sizes, strict=True)]
    at_once, most, readers, lock = 0, 0, dict[str, int](), Lock()

    def read(one: SourceFile) -> Iterator[bytes]:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            readers[one.key] = get_ident()
        time.sleep(random.random() / 200)
        with lock:
            at_once -= 1
        body = one.key.encode() * one.size_bytes
        yield body[: one.size_bytes // 2]
        yield body[one.size_bytes // 2 : one.size_bytes]

    with closing(read_ahead(files, read, 60)) as readings:
        for one, reading in zip(files, readings, strict=True):
            content = b"".join(reading.pieces)
            assert (len(content), content[:1]) == (one.size_bytes, one.key[:1].encode()[: one.size_bytes])
    assert 2 < most <= THREADS + 1
    own = {one.key for one in files if readers[one.key] == get_ident()}
    assert own == {one.key for one in files if one.bucket == LOCAL_BUCKET or one.size_bytes > SMALL_BYTES}
    until(lambda: at_work() == 0)


@pytest.mark.parametrize(("most_bytes", "most_files", "begun"), [(1_000, 64, 3), (10_000, 5, 5)])
def test_no_more_is_held_than_may_be(
    most_bytes: int, most_files: int, begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_ahead, "AHEAD_BYTES", most_bytes)
    monkeypatch.setattr(reading_ahead, "FILES_AHEAD", most_files)
    read: list[str] = []

    def one_piece(one: SourceFile) -> Iterator[bytes]:
        read.append(one.key)
        yield bytes(one.size_bytes)

    files = [file(number, 300) for number in range(20)]
    with closing(read_ahead(files, one_piece, 60)) as readings:
        for number, _ in zip(range(20), readings, strict=True):
            until(lambda: len(read) == min(number + begun, 20))  # noqa: B023 - it is over before the next
            time.sleep(0.002)
            assert len(read) == min(number + begun, 20)


def test_of_more_than_was_listed_one_piece_is_taken() -> None:
    given: list[int] = []

    def endless(_: SourceFile) -> Iterator[bytes]:
        for number in range(100):
            given.append(number)
            yield b"1234"

    with closing(read_ahead([file(1, 4), file(2, 4)], endless, 60)) as readings:
        first = next(readings)
        until(lambda: len(given) == 4)
        assert len(b"".join(first.pieces)) == 400
        assert len(given) == 102


def test_the_error_of_an_object_comes_where_it_would_and_is_its_own() -> None:
    def read(one: SourceFile) -> Iterator[bytes]:
        if one.key == "1":
            raise ObjectGone("1: gone")
        return rest(one)

    def rest(one: SourceFile) -> Iterator[bytes]:
        yield b"a"
        if one.key == "2":
            raise TransientError("2: cut off")
        yield b"b"

    came: list[Any] = []
    for reading in read_ahead([file(number, 2) for number in range(4)], read, 60):  # some stores raise at once
        try:
            came.extend(reading.pieces)
        except (ObjectGone, TransientError) as error:
            came.append(str(error))
    assert came == [b"a", b"b", "1: gone", b"a", "2: cut off", b"a", b"b"]


def test_what_takes_too_long_is_left_to_who_asks_and_its_time_counts() -> None:
    def slow(_: SourceFile) -> Iterator[bytes]:
        for piece in (b"a",) * 4:
            time.sleep(0.02)
            yield piece

    reading, other = read_ahead([file(1, 4), file(2, 4)], slow, 0.03)
    assert 0.03 <= reading.seconds < 0.07
    assert (len([*reading.pieces]), len([*other.pieces])) == (4, 4)


def test_who_stops_waits_for_nobody_and_no_other_read_begins() -> None:
    begun: list[str] = []
    is_answered = Event()

    def hanging(one: SourceFile) -> Iterator[bytes]:
        begun.append(one.key)
        if one.key != "0":
            assert is_answered.wait(20)
        yield b"a"
        yield b"b"

    readings = read_ahead([file(number, 2) for number in range(3 * THREADS)], hanging, 60)
    next(readings)
    until(lambda: len(begun) == THREADS + 1)
    readings.close()
    assert at_work() == THREADS
    is_answered.set()
    until(lambda: at_work() == 0)
    assert len(begun) == THREADS + 1


@pytest.mark.parametrize("files", [[file(1)], [file(1), file(2, bucket=LOCAL_BUCKET)], [file(1), file(2, 1 << 30)]])
def test_a_file_alone_is_read_by_who_asks(files: Sequence[SourceFile]) -> None:
    def read(one: SourceFile) -> Iterator[bytes]:
        yield f"{one.key} {get_ident()}".encode()

    for reading in read_ahead(files, read, 60):
        assert b"".join(reading.pieces).endswith(f" {get_ident()}".encode())


def test_a_store_is_opened_once_however_many_read() -> None:
    opened: list[MemoryStore] = []

    def open_s3() -> MemoryStore:
        time.sleep(0.02)
        opened.append(store)
        return store

    store = MemoryStore()
    files = [store.put(file(number, 2), b"ab") for number in range(20)]
    assert [b"".join(reading.pieces) for reading in read_ahead(files, Stores(open_s3).read, 60)] == [b"ab"] * 20
    assert opened == [store]
