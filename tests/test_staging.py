"""What leaves judging, whatever the bytes: counts add up, each line once, and the same however the work is cut up."""

import bz2
import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from hashlib import sha256
from multiprocessing import active_children, get_context
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ingest import judging, reading_ahead
from ingest import staging as staging_module
from ingest.core.commands import Item, Rules
from ingest.core.formats.kissmetrics import Kissmetrics
from ingest.core.source import SourceFile
from ingest.errors import TransientError
from ingest.pipeline import Pipeline
from ingest.ports import FileResult, StagedFile, StagedRows, Staging
from ingest.reading import BOM, HEAD_BYTES, Block, blocks
from ingest.report import batches
from ingest.staging import _POOL_FROM_BYTES, Limits, stage
from tests.core.lines import lines as any_lines
from tests.support import ARRIVAL, START, MemoryStore, Rows, World, in_order, lines, record


class Staged:
    """Files judged, and the rows that they became."""

    def __init__(self, bodies: Sequence[bytes], **rules: Any) -> None:
        store = MemoryStore()
        files = [
            store.put(
                SourceFile(bucket="b", key=f"{n}.json", etag=str(n), last_modified=ARRIVAL, size_bytes=len(body)), body
            )
            for n, body in enumerate(bodies)
        ]
        chosen = Rules(received_at=files[0].received_at, **rules) if files else Rules()
        with TemporaryDirectory() as folder:
            result = stage(files, store.read, lambda _: chosen, Path(folder), processes=1)
            self.files: Sequence[StagedFile] = result.files
            self.commands = [row for batch in batches(result.commands) for row in batch.to_pylist()]
            self.failed = [row for batch in batches(result.failed) for row in batch.to_pylist()]

    @property
    def rows(self) -> tuple[Rows, Rows]:
        return in_order(self.commands), in_order(self.failed)


def check(staged: Staged, bodies: Sequence[bytes]) -> None:
    """What holds for every file."""
    for number, body in enumerate(bodies):
        counts = staged.files[number].counts
        commands = [row for row in staged.commands if row["staged_no"] == number]
        failed = [row for row in staged.failed if row["staged_no"] == number]
        accepted = {(row["line"], row["item"]) for row in commands}
        refused = [(row["line"], row["item"]) for row in failed]
        assert len(refused) == len(set(refused)) == counts.failed
        assert not accepted & set(refused)
        assert counts.items == len(accepted) + counts.failed
        assert len(commands) == counts.records + counts.sets + counts.aliases
        assert [sum(row["kind"] == kind for row in commands) for kind in ("record", "set", "alias")] == [
            counts.records, counts.sets, counts.aliases,
        ]  # fmt: skip
        for row in failed:
            assert row["codes"]
            sent = body[row["byte_offset"] :][: row["byte_length"]]
            assert len(sent) == row["byte_length"]
            assert row["raw"] == (sent if row["mendable"] else sent[: len(row["raw"])])
        if staged.files[number].outcome == "rejected":
            assert (counts.lines, counts.failed, counts.items) == (1, 1, 1)
            continue
        content = body.removeprefix(BOM)
        physical = content.split(b"\n")
        if not physical[-1]:
            physical.pop()
        assert counts.lines == len(physical)
        assert counts.lines == counts.blank + counts.items
        assert counts.blank == sum(not line.strip() for line in physical)
        for row in failed:
            assert row["raw"] == physical[row["line"] - 1].removesuffix(b"\r")


def files() -> st.SearchStrategy[bytes]:
    """Contents: sound lines, odd lines, blank ones, any bytes; every line end."""
    line = (
        any_lines()
        | st.sampled_from([b"", b" ", b"\r", b"{}", lines(record("ann", 1, "x"))[:-1]])
        | st.binary(max_size=20)
    )
    ends = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\n\n", b"\r", b"\x0b", b"\xe2\x80\xa8"])
    body = st.lists(st.tuples(line, ends).map(b"".join), max_size=8).map(b"".join)
    cut = st.sampled_from([b"", b"", b'{"_p":1', b"\r"])
    head = st.sampled_from([b"", b"", b"", BOM])
    return (
        st.tuples(head, body, cut)
        .map(b"".join)
        .filter(lambda body: not body.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))
    )


@settings(deadline=None, max_examples=150)
@given(st.lists(files(), min_size=1, max_size=3))
def test_any_bytes(bodies: list[bytes]) -> None:
    check(Staged(bodies), bodies)


def cut_into(patch: pytest.MonkeyPatch, block_bytes: int) -> None:
    """Blocks of this size, each judged on its own, of files that are read when it is their turn."""
    patch.setattr(reading_ahead, "SMALL_BYTES", 0)
    patch.setattr(staging_module, "blocks", partial(blocks, block_bytes=block_bytes))
    patch.setattr(staging_module, "_BATCH_BYTES", 1)


@settings(deadline=None, max_examples=60)
@given(st.lists(files(), min_size=1, max_size=2), st.integers(1, 200))
def test_any_size_of_blocks_gives_the_same(bodies: list[bytes], block_bytes: int) -> None:
    whole = Staged(bodies)
    with pytest.MonkeyPatch.context() as patch:
        cut_into(patch, block_bytes)
        cut = Staged(bodies)
    assert cut.rows == whole.rows
    assert [file.counts for file in cut.files] == [file.counts for file in whole.files]
    assert [(file.sha256, file.outcome) for file in cut.files] == [(file.sha256, file.outcome) for file in whole.files]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


def test_several_processes_give_the_same(executor: Executor) -> None:
    @settings(deadline=None, max_examples=25)
    @given(st.lists(files(), min_size=1, max_size=3), st.integers(1, 100))
    def check_one(bodies: list[bytes], block_bytes: int) -> None:
        alone = Staged(bodies)
        with pytest.MonkeyPatch.context() as patch:
            cut_into(patch, block_bytes)
            patch.setattr(staging_module, "_pool", lambda *_: nullcontext(executor))
            patch.setattr(staging_module, "_POOL_FROM_BYTES", 1)
            spread = Staged(bodies)
        assert spread.rows == alone.rows
        assert [file.counts for file in spread.files] == [file.counts for file in alone.files]

    check_one()


def test_a_large_file_starts_processes_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pool."""
    asked = []
    real = staging_module._pool

    @contextmanager
    def seen(processes: int, memory_bytes: int) -> Iterator[Executor]:
        asked.append(processes)
        with real(processes, memory_bytes) as pool:
            yield pool

    body = lines(*(record(f"p{n}", n, "x", a="é" * 20) if n % 50 else f"bad {n}" for n in range(2000)))
    bodies = [body, b"", body[:5000]]
    alone = Staged(bodies)
    monkeypatch.setattr(staging_module, "_pool", seen)
    monkeypatch.setattr(staging_module, "_POOL_FROM_BYTES", len(body))
    cut_into(monkeypatch, 20_000)
    store = MemoryStore()
    placed = [
        store.put(SourceFile(bucket="b", key=f"{n}.json", etag=str(n), last_modified=ARRIVAL, size_bytes=len(b)), b)
        for n, b in enumerate(bodies)
    ]
    with TemporaryDirectory() as folder:
        result = stage(placed, store.read, lambda file: Rules(received_at=file.received_at), Path(folder), processes=2)
        commands = [row for batch in batches(result.commands) for row in batch.to_pylist()]
        failed = [row for batch in batches(result.failed) for row in batch.to_pylist()]
    assert asked == [2]
    assert (in_order(commands), in_order(failed)) == alone.rows
    assert [file.counts for file in result.files] == [file.counts for file in alone.files]
    check(alone, bodies)


# --- files that are not as they should be ----------------------------------------------------------------------------

GOOD = lines(*(record("ann", n, "x", noise=f"{n * 7919 % 1000}") for n in range(3000)))


def damaged(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return packed[:middle] + bytes(byte ^ 0xFF for byte in packed[middle : middle + 8]) + packed[middle + 8 :]


@pytest.mark.parametrize("broken", [
    pytest.param(damaged(gzip.compress(GOOD)), id="gzip damaged in the middle"),
    pytest.param(gzip.compress(GOOD)[:-200], id="gzip cut off"),
    pytest.param(gzip.compress(GOOD)[:-4], id="gzip without the end of its trailer"),
    pytest.param(gzip.compress(GOOD) + gzip.compress(GOOD)[:-9], id="the second member cut off"),
    pytest.param(damaged(pa.Codec("zstd").compress(GOOD, asbytes=True)), id="zstd damaged in the middle"),
])  # fmt: skip
def test_what_is_broken_is_put_off_and_its_neighbours_are_judged(broken: bytes) -> None:
    good = lines(record("ann", 1, "x"))
    staged = Staged([good, broken, good])
    assert [file.outcome for file in staged.files] == ["loaded", "retrying", "loaded"]
    assert [bool(file.error) for file in staged.files] == [False, True, False]
    assert [file.counts.records for file in staged.files][::2] == [1, 1]


def test_nothing_of_a_broken_file_is_loaded(tmp_path: Path) -> None:
    from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
    from tests.support import World

    world = World(DuckDBWarehouse(tmp_path / "w.duckdb"))
    files = [
        world.put("1.json", record("ann", 1, "x")), world.put("2.json.gz", body=damaged(gzip.compress(GOOD))),
        world.put("3.json.gz", body=gzip.compress(GOOD)),
    ]  # fmt: skip
    assert [result.state for result in world.load(*files)] == ["loaded", "retrying", "loaded"]
    assert world.count("commands") == 1 + 3000
    assert world.count("commands", f"file_id = '{files[1].file_id}'") == 0
    assert world.count("failed_lines") == 0


@pytest.mark.parametrize("spread", [False, True])
def test_a_fault_of_the_program_puts_off_its_file_and_no_other(
    spread: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
    from tests.support import World

    judge = Kissmetrics.judge

    def faulty(self: Kissmetrics, unit: bytes, rules: Rules) -> list[Item]:
        if unit == b"crash":
            raise KeyError("a value of somebody's")
        return judge(self, unit, rules)

    monkeypatch.setattr(Kissmetrics, "judge", faulty)
    if spread:
        cut_into(monkeypatch, 1)
    world = World(DuckDBWarehouse(tmp_path / "w.duckdb"))
    sent = [(record("ann", 1, "x"), "bad"), (record("bob", 1, "x"), "bad", "crash"), (record("eve", 1, "x"), "bad")]
    results = world.load(*(world.put(f"{number}.json", *some) for number, some in enumerate(sent, 1)))
    assert [(result.state, result.counts.records, result.counts.failed) for result in results][::2] == [
        ("loaded", 1, 1), ("loaded", 1, 1),
    ]  # fmt: skip
    assert results[1].state == "retrying"
    assert results[1].error == "KeyError while it was judged: this is a fault of the program, see its log."
    assert [world.count(table) for table in ("commands", "failed_lines")] == [2, 2]
    (told,) = [record.getMessage() for record in caplog.records if "fault of the program" in record.getMessage()]
    assert "2.json" in told
    assert told.endswith('KeyError: "a value of somebody\'s"\n')


def test_a_fault_before_anything_is_judged_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(_: Kissmetrics, head: bytes) -> Item | None:
        if head == b"x":
            raise KeyError
        return None

    monkeypatch.setattr(Kissmetrics, "refusal", faulty)
    staged = Staged([lines(record("ann", 1, "x")), b"x", lines(record("ann", 1, "x"))])
    assert [file.outcome for file in staged.files] == ["loaded", "retrying", "loaded"]


# --- files that ask for too much -------------------------------------------------------------------------------------


def small(key: str) -> bytes:
    """Each has bytes of its own."""
    return lines(record(key, 1, "x"))


def big(key: str, number: int = 3000) -> bytes:
    return lines(*(record(f"{key}{n}", n, "x", noise=sha256(b"%d" % n).hexdigest()) for n in range(number)))


def loading(tmp_path: Path, bodies: Mapping[str, bytes], **chosen: Any) -> tuple[World, Pipeline, list[SourceFile]]:
    """A world in which these files wait, and a pipeline with settings of its own."""
    from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

    world = World(DuckDBWarehouse(tmp_path / "w.duckdb"))
    files = [world.put(key, body=body) for key, body in bodies.items()]
    (tmp_path / "staging").mkdir()
    given = replace(world.pipeline.settings, staging_folder=tmp_path / "staging", **chosen)
    return world, replace(world.pipeline, settings=given), files


def small_disk(patch: pytest.MonkeyPatch, takes_bytes: int) -> None:
    """A staging disk that takes no more."""
    write = judging.write

    def full(path: Path, *arguments: Any) -> StagedRows:
        rows = write(path, *arguments)
        if sum(one.stat().st_size for one in path.parent.glob("*.parquet")) > takes_bytes:
            path.write_bytes(b"")
            raise OSError(errno.ENOSPC, "No space left on device")
        return rows

    patch.setattr(judging, "write", full)
    patch.setattr(staging_module, "_BATCH_BYTES", 1 << 14)
    patch.setattr(staging_module, "blocks", partial(blocks, block_bytes=1 << 14))


def states(results: Sequence[FileResult]) -> dict[str, str]:
    return {result.key: result.state for result in results}


@pytest.mark.parametrize("keys", [["b"], ["b", "c"], ["a", "b"], ["a", "b", "c", "d", "e"]])
def test_one_file_that_fills_the_disk_holds_up_nobody(
    keys: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_disk(monkeypatch, 100_000)
    world, pipeline, files = loading(tmp_path, {key: big(key) if key == "b" else small(key) for key in keys})
    results = pipeline.load(files)
    assert states(results) == {key: "retrying" if key == "b" else "loaded" for key in keys}
    (error,) = [result.error for result in results if result.error]
    assert f"staging folder {tmp_path}/staging (No space left on device, " in str(error)
    assert world.rows("SELECT key, attempts FROM ledger WHERE state = 'retrying'") == [{"key": "b", "attempts": 1}]
    assert world.count("commands") == len(keys) - 1
    assert list((tmp_path / "staging").iterdir()) == []


def test_files_that_only_together_fill_the_disk_are_all_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_disk(monkeypatch, 1_500_000)
    bodies = {f"{n}": lines(*(record(f"{n}-{m}", m, "x", noise="y" * 100) for m in range(2000))) for n in range(7)}
    world, pipeline, files = loading(tmp_path, bodies)
    assert set(states(pipeline.load(files)).values()) == {"loaded"}
    assert world.count("commands") == 7 * 2000
    assert len(world.rows("SELECT DISTINCT load_id FROM ledger")) > 1


def test_a_disk_that_is_full_for_all_blames_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_disk(monkeypatch, 0)
    monkeypatch.setattr(staging_module, "has_room", lambda _: False)
    world, pipeline, files = loading(tmp_path, {"a": small("a"), "b": small("b")})
    with pytest.raises(TransientError, match=r"Nothing can be written to the staging folder .*staging \(No space"):
        pipeline.load(files)
    assert world.count("ledger") == 0


@pytest.mark.parametrize(("unfinished", "groups"), [
    pytest.param({2: 10}, ["ab", "c", "de"], id="one"),
    pytest.param({2: 100, 3: 10, 4: 10}, ["ab", "c", "de"], id="one has most"),
    pytest.param({1: 10, 2: 10, 3: 10}, ["a", "b", "cd", "e"], id="some that are equal"),
    pytest.param({0: 10, 1: 10, 2: 10, 3: 10, 4: 10}, ["ab", "cde"], id="all"),
    pytest.param({0: 0}, ["a", "bcde"], id="the first, of which nothing came"),
    pytest.param({4: 1}, ["abcd", "e"], id="the last"),
    pytest.param({}, ["ab", "cde"], id="nobody knows"),
])  # fmt: skip
def test_files_are_taken_apart(unfinished: dict[int, int], groups: list[str]) -> None:
    assert ["".join(group) for group in staging_module._apart("abcde", unfinished)] == groups  # type: ignore[arg-type]


def meddling(world: World, key: str, meddle: Callable[[], object]) -> None:
    """Do something whenever the middle of an object is read, and much of it has been judged by other processes."""
    read = world.store.read

    def meddled(file: SourceFile) -> Iterator[bytes]:
        pieces = read(file)
        yield next(pieces)
        if file.key == key:
            meddle()
        yield from pieces

    world.store.read = meddled  # type: ignore[method-assign]


@pytest.fixture
def many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judging processes from the first byte, many batches for each."""
    cut_into(monkeypatch, 5_000)
    monkeypatch.setattr(staging_module, "_POOL_FROM_BYTES", 1)


@pytest.fixture
def signal_workers() -> Iterator[Callable[[int], None]]:
    """Sends a signal to the judging processes, which are gone in the end; not to those of other tests."""
    others = active_children()

    def send(number: int) -> None:
        children = [child for child in active_children() if child not in others]
        assert children
        for child in children:
            assert child.pid
            os.kill(child.pid, number)

    yield send
    assert [child for child in active_children() if child not in others] == []


@pytest.mark.parametrize("times", [1, 100])
def test_a_killed_judging_process_takes_nobody_with_it(
    times: int, tmp_path: Path, many_batches: None, signal_workers: Callable[[int], None]
) -> None:
    world, pipeline, files = loading(tmp_path, {"a": small("a"), "b": big("b"), "c": small("c")}, processes=2)
    left = iter(range(times))
    meddling(world, "b", lambda: signal_workers(signal.SIGKILL) if next(left, None) is not None else None)
    results = pipeline.load(files)
    assert states(results) == {"a": "loaded", "b": "loaded" if times == 1 else "retrying", "c": "loaded"}
    assert world.count("commands") == 2 + (3000 if times == 1 else 0)
    assert str(results[1].error).startswith("None" if times == 1 else "A process that judged it was killed")


@pytest.mark.slow
def test_a_judging_process_that_is_stuck_is_given_up(
    tmp_path: Path, many_batches: None, monkeypatch: pytest.MonkeyPatch, signal_workers: Callable[[int], None]
) -> None:
    monkeypatch.setattr(staging_module, "_STUCK_SECONDS", 5)
    world, pipeline, files = loading(tmp_path, {"a": small("a"), "b": big("b"), "c": small("c")}, processes=1)
    meddling(world, "b", lambda: signal_workers(signal.SIGSTOP))
    results = pipeline.load(files)
    assert states(results) == {"a": "loaded", "b": "retrying", "c": "loaded"}
    assert str(results[1].error).startswith("Judging a part of it came to no end in 5 s.")


def test_a_document_that_needs_too_much_memory_is_put_off_alone(tmp_path: Path) -> None:
    document = b"[" + b",".join(b'{"view":{"itemId":%d,"sessionExternalId":"s"}}' % n for n in range(100_000)) + b"]"
    store = MemoryStore()
    files = [
        store.put(
            SourceFile(
                bucket="b", key=str(number), etag=str(number), last_modified=ARRIVAL, size_bytes=len(body),
                format="retailrocket",
            ),
            body,
        )
        for number, body in enumerate([b'[{"view":{"itemId":1,"sessionExternalId":"s"}}]', document])
    ]  # fmt: skip
    staged = stage(
        files, store.read, lambda file: Rules(received_at=file.received_at), tmp_path,
        processes=1, limits=Limits(process_bytes=90 << 20),
    )  # fmt: skip
    assert [file.outcome for file in staged.files] == ["loaded", "retrying"]
    assert "more memory than a judging process may take" in staged.files[1].error


@pytest.mark.parametrize(("chosen", "error"), [
    pytest.param(
        {"max_unpacked_bytes": 100_000},
        "It unpacks to more than 100,000 bytes. Send it in parts, or raise max_unpacked_bytes.", id="unpacked",
    ),
    pytest.param(
        {"max_file_seconds": 0.0},
        "It could not be read and judged in 0 s, and 100,000 of its 200,000 bytes were read. Send it in parts, or raise"
        " max_file_time.", id="time",
    ),
])  # fmt: skip
def test_a_file_over_a_limit_is_put_off(chosen: dict[str, Any], error: str, tmp_path: Path) -> None:
    body = big("a")[:199_999] + b"\n"
    _, pipeline, files = loading(tmp_path, {"a": body}, **chosen)
    assert [(result.state, result.error) for result in pipeline.load(files)] == [("retrying", error)]


def test_the_time_counts_that_a_file_took_before_it_was_its_turn(tmp_path: Path) -> None:
    world, pipeline, files = loading(tmp_path, {"a": small("a"), "b": small("b")}, max_file_seconds=1.0)
    read = world.store.read

    def slow(file: SourceFile) -> Iterator[bytes]:
        for piece in read(file):
            yield piece
            if file.key == "b":
                time.sleep(0.6)

    world.store.read = slow  # type: ignore[method-assign]
    a, b = pipeline.load(files)
    assert (a.state, b.state) == ("loaded", "retrying")
    assert "could not be read and judged in 1 s" in str(b.error)


def test_what_a_packed_file_unpacks_to_is_what_counts(tmp_path: Path) -> None:
    bodies = {"a": small("a"), "b": gzip.compress(bytes(10_000_000)), "c": small("c")}
    _, pipeline, files = loading(tmp_path, bodies, max_unpacked_bytes=1_000_000)
    assert states(pipeline.load(files)) == {"a": "loaded", "b": "retrying", "c": "loaded"}


# --- what becomes of rows that wait ----------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink()


def parquet_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("landfall-*/*.parquet"))


@pytest.mark.parametrize(("damage", "loaded"), [
    pytest.param(lambda folder: remove(parquet_in(folder)[:1]), "b", id="a file is removed"),
    pytest.param(lambda folder: remove(parquet_in(folder)), "", id="all files are removed"),
    pytest.param(lambda folder: os.truncate(parquet_in(folder)[0], 100), "b", id="a file is cut"),
    pytest.param(lambda folder: flip(parquet_in(folder)[0]), "b", id="a bit is flipped"),
    pytest.param(
        lambda folder: shutil.copy(parquet_in(folder)[1], parquet_in(folder)[0]), "b", id="a file is replaced"
    ),
    pytest.param(lambda folder: shutil.rmtree(parquet_in(folder)[0].parent), "ab", id="the folder is removed"),
])  # fmt: skip
def test_rows_that_are_lost_while_they_wait_are_noticed(
    damage: Callable[[Path], object], loaded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, 50_000)
    world, pipeline, files = loading(tmp_path, {"a": big("a"), "b": big("b")})
    once = iter([damage])
    meddling(world, "b", lambda: next(once, lambda _: None)(tmp_path / "staging"))
    results = pipeline.load(files)
    assert states(results) == {key: "loaded" if key in loaded else "retrying" for key in "ab"}
    assert world.count("commands") == 3000 * len(loaded)
    for result in results:
        assert result.state == "loaded" or "vanished or changed in the staging folder" in str(result.error)


@pytest.mark.parametrize("lose", [
    pytest.param(lambda staging: replace(staging, commands=staging.commands[1:]), id="commands"),
    pytest.param(lambda staging: replace(staging, commands=[]), id="all commands"),
    pytest.param(lambda staging: replace(staging, failed=[]), id="failed lines"),
    pytest.param(lambda staging: replace(staging, commands=[*staging.commands, staging.commands[0]]), id="too many"),
])  # fmt: skip
def test_what_is_inserted_is_what_was_judged(
    lose: Callable[[Staging], Staging], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever lost them: nothing tells but the numbers."""
    monkeypatch.setattr(staging_module, "_BATCH_BYTES", 1)
    world, pipeline, files = loading(tmp_path, {"a": lines(record("ann", 1, "x"), "bad"), "b": b"", "c": b""})
    with pipeline.judged(files) as staging:
        results = world.warehouse.load(lose(replace(staging, written=())), "load", None)
    assert states(results) == {"a": "retrying", "b": "loaded", "c": "loaded"}
    assert (world.count("commands"), world.count("failed_lines")) == (0, 0)
    assert states(pipeline.load(files, intent="again"))["a"] == "loaded"


# --- the disk of the warehouse ---------------------------------------------------------------------------------------


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """No file may become larger: as a full disk, but for this process alone."""
    before = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        setrlimit(RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.parametrize("room", [False, True])
def test_a_full_disk_of_the_warehouse_is_not_blamed_on_a_file(
    room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.warehouse.engines.duckdb import errors as duckdb_errors

    world, pipeline, files = loading(tmp_path, {"a": big("a"), "b": big("b", 30_000)})
    world.bring("0", record("ann", 1, "x"))
    monkeypatch.setattr(duckdb_errors, "has_room", lambda _: room)
    with largest_file((tmp_path / "w.duckdb").stat().st_size + (1 << 20)):
        with pytest.raises(TransientError, match=rf"w\.duckdb could not be written.* disk of {tmp_path} ") as caught:
            pipeline.load(files[1:])
        # Another file may find room beside it, and is loaded; if there is none, nothing is tried any further.
        with suppress(TransientError) if not room else nullcontext():
            assert states(pipeline.load(files)) == {"a": "loaded", "b": "retrying"}
    assert isinstance(caught.value, TransientError)
    assert world.rows("SELECT key FROM ledger ORDER BY key") == [{"key": key} for key in ("0a" if room else "0")]
    assert states(pipeline.load(files)) == {"a": "loaded", "b": "loaded"}


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: pa.Codec("zstd").compress(data, asbytes=True)])
def test_offsets_are_of_the_decompressed_file(pack: Any) -> None:
    body = BOM + lines(record("ann", 1, "é"), "bad é", "", "worse")
    staged = Staged([pack(body)])
    assert [body[row["byte_offset"] :][: row["byte_length"]] for row in staged.failed] == ["bad é".encode(), b"worse"]
    assert [row["line"] for row in staged.failed] == [2, 4]


@pytest.mark.parametrize(("body", "rejected"), [
    pytest.param(json.dumps([record("ann", 1, "x")], indent=1).encode(), True, id="array"),
    pytest.param(b"\n\n" + json.dumps({"links": [record("ann", 1, "x")]}, indent=1).encode(), True, id="object"),
    pytest.param(BOM + b"{\r\n}\r\n", True, id="with BOM and CRLF"),
    pytest.param(b"[\n" + lines(record("ann", 1, "x")) + b"]", False, id="a line is an object"),
    pytest.param(b"[1]\n[2]", False, id="the first line is complete"),
    pytest.param(b"nothing\n{", False, id="the first line opens nothing"),
    pytest.param(b"[\n" + b"1,\n" * HEAD_BYTES + lines(record("ann", 1, "x")), True, id="an object too far on"),
])  # fmt: skip
def test_a_document_over_lines_is_refused_as_a_whole(body: bytes, rejected: bool) -> None:
    staged = Staged([body])
    (file,) = staged.files
    assert file.outcome == ("rejected" if rejected else "loaded")
    check(staged, [body])
    if rejected:
        (failed,) = staged.failed
        assert failed["codes"] == ["document_not_lines"]
        assert (failed["line"], failed["byte_offset"], failed["byte_length"]) == (1, 0, len(body))
        assert staged.commands == []
        assert (file.counts.lines, file.counts.failed) == (1, 1)


ONE = json.dumps(record("ann", 1, "x"))


@pytest.mark.parametrize("size", [2, 3, 3_000], ids=["two", "three", "over 64 KiB"])
@pytest.mark.parametrize(
    ("begin", "between", "end", "command"),
    [
        pytest.param("[\n", ",\n", "\n]\n", "jq -c '.[]' FILE", id="commas behind"),
        pytest.param("[\n", ",\n", ",\n]", "jq -c '.[]' FILE", id="behind the last, too"),
        pytest.param("[\n", "\n,", "\n]\n", "jq -c '.[]' FILE", id="commas before"),
        pytest.param("[", ",\r\n", "]", "jq -c '.[]' FILE", id="brackets on lines of objects"),
        pytest.param("[", ",\n\n", "\n]", "jq -c '.[]' FILE", id="blank lines between"),
        pytest.param("[\n", ",\n", "", "jq -c '.[]' FILE", id="cut off"),
        pytest.param('{"events": [\n', ",\n", "\n]}", "jq -c '.events[]' FILE", id="in an object"),
        pytest.param('{"all events": [\n', ",\n", "\n]}", "jq -c '.' FILE", id="in an object, by an odd name"),
    ],
)
def test_an_array_with_one_object_a_line_is_refused_once_whatever_its_size(
    begin: str, between: str, end: str, command: str, size: int
) -> None:
    body = (begin + between.join([ONE] * size) + end).encode()
    staged = Staged([body])
    check(staged, [body])
    (file,) = staged.files
    (failed,) = staged.failed
    assert (file.outcome, failed["codes"], failed["byte_length"]) == ("rejected", ["document_not_lines"], len(body))
    assert command in file.error


@pytest.mark.parametrize("pack", [lambda body: body, gzip.compress], ids=["plain", "in gzip"])
def test_another_kind_of_file_is_refused_as_a_whole(pack: Callable[[bytes], bytes]) -> None:
    inner = bz2.compress(lines(*(record("ann", n, "x") for n in range(3_000))))
    staged = Staged([pack(inner), pack(lines(record("ann", 1, "x")))])
    refused, sound = staged.files
    assert (refused.outcome, sound.outcome) == ("rejected", "loaded")
    said = "It is bzip2 data: unpack it, or pack it with gzip or zstd instead."
    assert refused.error == f"The file does not hold what its format says. {said}"
    assert (refused.counts.lines, refused.counts.failed, refused.counts.items) == (1, 1, 1)
    (failed,) = staged.failed
    assert (failed["codes"], failed["byte_offset"], failed["byte_length"]) == (["wrong_format"], 0, len(inner))
    assert not failed["mendable"]


def test_the_range_of_a_document_is_the_whole_file() -> None:
    body = b'{\n"a":"' + b"x" * 200_000 + b'"\n}\n'
    (failed,) = Staged([body], max_line_bytes=1000).failed
    assert failed["byte_length"] == len(body)
    assert failed["raw_sha256"] == sha256(body).hexdigest()


def test_an_object_after_a_line_over_the_limit_is_seen() -> None:
    staged = Staged([b"{\n" + b"x" * 200 + b"\n" + lines(record("ann", 1, "x"))], max_line_bytes=100)
    assert (staged.files[0].outcome, staged.files[0].counts.records) == ("loaded", 1)


LIMIT = 100


@pytest.mark.parametrize(("length", "end", "refused"), [
    (LIMIT, b"\n", False), (LIMIT, b"\r\n", False), (LIMIT, b"", False), (LIMIT + 1, b"\n", True),
    (LIMIT + 1, b"\r\n", True), (LIMIT + 1, b"", True), (HEAD_BYTES * 3, b"\n", True),
])  # fmt: skip
@pytest.mark.parametrize("block_bytes", [1, 64, 1 << 20])
def test_a_line_over_the_limit(
    length: int, end: bytes, refused: bool, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_into(monkeypatch, block_bytes)
    bare = lines({"_p": "ann", "_t": START, "a": ""})[:-1]
    long = bare.replace(b'""', b'"%b"' % (b"x" * (length - len(bare))))
    assert len(long) == length
    sound = lines(record("ann", 1, "x"))
    body = sound + long + end + (sound if end else b"")
    staged = Staged([body], max_line_bytes=LIMIT)
    counts = staged.files[0].counts
    assert (counts.lines, counts.records, counts.sets) == (2 + bool(end), 1 + bool(end), int(not refused))
    if not refused:
        assert staged.failed == []
        return
    (failed,) = staged.failed
    assert (failed["line"], failed["codes"], failed["mendable"]) == (2, ["line_too_long"], False)
    assert (failed["byte_offset"], failed["byte_length"]) == (len(sound), length)
    assert failed["raw"] == long[: len(failed["raw"])]
    assert len(failed["raw"]) == min(length, HEAD_BYTES)


def test_warnings_and_repairs_are_counted() -> None:
    body = lines(
        f'{{"_p":"ann","_t":"{START}","_n":"a\\302\\243"}}', f'{{"_p":"ann","_t":{START}.0,"_n":" ","a":1}}',
        record("null", 0, "x"), record("ann", 0, "x"),
    )  # fmt: skip
    (file,) = Staged([body]).files
    assert file.counts.repaired == 1
    assert file.counts.warnings == {"repaired": 1, "time_coerced": 2, "event_blank": 1, "ignored_identity": 1}
    assert (file.counts.records, file.counts.sets, file.counts.failed) == (3, 1, 0)
    (strict,) = Staged([body], strict=True).files
    assert (strict.counts.records, strict.counts.failed) == (1, 3)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / "landfall-left"
    left.mkdir()
    (left / "owned").touch()
    (left / "commands-00000001.parquet").write_bytes(b"x")
    with staging_module.staging_folder(tmp_path) as first:
        assert not left.exists()
        with staging_module.staging_folder(tmp_path) as second:
            assert first.exists()
            assert second.exists()
    assert list(tmp_path.iterdir()) == []


# --- scripts ---------------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from ingest.settings import load_settings
from ingest.wiring import open_pipeline

def main():
    settings = load_settings({"INGEST_WAREHOUSE": "duckdb:///w.duckdb", "INGEST_PROCESSES": "2"})
    with open_pipeline(settings) as pipeline:
        for result in pipeline.load(pipeline.locate(sys.argv[1])):
            print(result.state, result.counts.records)

"""


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_that_loads_a_large_file(tmp_path: Path, guarded: bool) -> None:
    """Judging processes import it: one that loads while it is imported is told so, and comes to an end."""
    large = tmp_path / "large.json"
    large.write_bytes(lines(*[record("ann", 1, "x", a="y" * 1_000_000)] * (1 + (_POOL_FROM_BYTES // 1_000_000))))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + ('if __name__ == "__main__": main()' if guarded else "main()"))
    done = subprocess.run(  # noqa: PLW1510 - how it ended is looked at
        [sys.executable, str(script), str(large)], cwd=tmp_path, capture_output=True, text=True, timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(staging_module.__file__).parents[1])},
    )  # fmt: skip
    if guarded:
        assert (done.stdout, done.returncode) == ("loaded 17\n", 0)
    else:
        assert (done.stdout, done.returncode) == ("", 1)
        assert "ConfigError: A script that loads has to do so below `if __name__ ==" in done.stderr
        assert "TransientError: No judging process could begin." in done.stderr


def test_rows_of_many_documents_stand_together(tmp_path: Path) -> None:
    body = b'[{"type":"track","userId":"u","event":"e","messageId":"m","timestamp":"2020-01-01T00:00:00Z"}]'
    parts = [judging.Part(of, "vitally", Rules(match="exact"), Block(1, 0, body)) for of in (0, 0, 1)]
    (rows,) = judging.judge_batch(parts, str(tmp_path), "one").written
    assert parquet.read_table(rows.path)["staged_no"].to_pylist() == [0, 0, 1]
