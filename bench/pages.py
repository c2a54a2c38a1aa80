"""How long pages wait when the ledger is large and a load holds the warehouse, and how long the copy they read takes.

python bench/pages.py [--files 1000000] [--failed 100000]      failed lines of 1 KB, all of one file
"""

import argparse
import multiprocessing
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb

from ingest.ports import FilesWanted, ReadModel
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse

SOURCES = tuple(f"source_{number}" for number in range(20))
TIMES = 10  # each call

LEDGER = """
INSERT INTO ledger BY NAME
SELECT
    sha256('file' || i) AS file_id, nextval('file_numbers') AS file_no, 'source_' || (i % 20) AS source,
    'bucket' AS bucket,
    'landing/' || (i % 20) || '/' || hash(i) % 100000000 || '.json' AS key, md5('etag' || i) AS etag,
    sha256('body' || i) AS sha256, 1000 + hash(i) % 100000 AS size_bytes, 'kissmetrics' AS format,
    'kissmetrics' AS people_space, CASE WHEN i % 50 = 0 THEN 'rejected' ELSE 'loaded' END AS state,
    hash(i) % 1000 AS lines, hash(i) % 1000 AS items, hash(i) % 1000 AS records,
    CASE WHEN i = $files THEN $failed ELSE 0 END AS failed, '{}' AS warnings, md5('load' || i // 100) AS load_id,
    'scheduled__' || i // 1000 AS run_id, TIMESTAMPTZ '2026-01-01' + to_seconds(i * 20) AS last_modified,
    TIMESTAMPTZ '2026-01-01' + to_seconds(i * 20 + 100) AS loaded_at, 1 AS attempts, '2026' || i AS position
FROM generate_series(1, $files) AS t(i)
"""
HISTORY = "INSERT INTO history SELECT file_id, 'load', loaded_at, 'ingest', NULL, run_id FROM ledger"
FAILED = """
INSERT INTO failed_line_rows
SELECT
    $files, i, '', i * 1001, 1000,
    encode(left(array_to_string([sha256(i || 'part' || n) FOR n IN range(16)], ''), 1000)),
    sha256('raw' || i), TRUE, ['time_missing', 'person_missing'],
    '[{"code":"time_missing","message":"_t is missing. Every line needs the time.","pointer":"/_t","got":null},'
    || '{"code":"person_missing","message":"_p is missing.","pointer":"/_p","got":null}]', NULL, NULL, NULL
FROM generate_series(1, $failed) AS t(i)
"""


def load(path: Path, ready: Connection) -> None:
    """Commit something, then hold the warehouse as a load does, until told to end."""
    warehouse = DuckDBWarehouse(path)
    with warehouse.writing() as connection:
        connection.execute("UPDATE ledger SET attempts = 2 WHERE file_no = 1")
    with warehouse.writing():
        ready.send("held")
        ready.recv()


def calls(file_id: str, other: str) -> dict[str, Callable[[ReadModel], Any]]:
    """What pages ask, the dearest of each."""
    mine: dict[str, Any] = {"sources": SOURCES, "folded": True}
    one = [file_id]
    return {
        "files, newest": lambda p: p.files(FilesWanted(**mine)),
        "files, page 20,000": lambda p: p.files(FilesWanted(**mine, page=20_000)),
        "files, page 10,000 by key": lambda p: p.files(FilesWanted(**mine, sort="key", page=10_000)),
        "files, page 10,000 by failed_share": lambda p: p.files(FilesWanted(**mine, sort="failed_share", page=10_000)),
        "files, page 10,000 by state": lambda p: p.files(FilesWanted(**mine, sort="state", page=10_000)),
        "files, text": lambda p: p.files(FilesWanted(**mine, text="landing/7/12")),
        "files, text like an id": lambda p: p.files(FilesWanted(**mine, text="a1b2")),
        "files of a day and a source": lambda p: p.files(
            FilesWanted(sources=SOURCES[:1], since=date(2026, 3, 1), until=date(2026, 3, 1))
        ),
        "days": lambda p: p.days(FilesWanted(**mine)),
        "states": lambda p: p.states(SOURCES),
        "glances": lambda p: p.glances(SOURCES),
        "file": lambda p: p.file(other),
        "related": lambda p: p.related(other),
        "history": lambda p: p.history(other),
        "failure_groups": lambda p: p.failure_groups(one),
        "failed_lines": lambda p: p.failed_lines(one),
        "failed_lines, 50,000 on, of a rule": lambda p: p.failed_lines(
            one, code="time_missing", pointer="/_t", offset=50_000
        ),
    }


def peak_mb() -> int:
    """What this process held at most."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) >> 10


def pages(path: Path, rows: int, answer: Connection) -> None:
    """A process that shows pages, as a worker of Airflow's web server."""
    warehouse = DuckDBWarehouse(path)
    with duckdb.connect(":memory:") as connection:
        ids = f"SELECT sha256('file' || {rows}), sha256('file' || {rows // 3})"
        ((file_id, other),) = connection.execute(ids).fetchall()
    print(f"opened: {peak_mb()} MB", flush=True)
    for name, call in calls(file_id, other).items():
        seconds, cpu = [], []
        for _ in range(TIMES):
            begin, used = time.perf_counter(), time.process_time()
            with warehouse.published() as published:
                call(published)
            seconds.append(time.perf_counter() - begin)
            cpu.append(time.process_time() - used)
        p50, p95, core = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1], statistics.median(cpu)
        print(
            f"{name:36} p50 {1000 * p50:4.0f} ms  p95 {1000 * p95:4.0f} ms  of a core {1000 * core:4.0f} ms", flush=True
        )
    begin = time.perf_counter()
    with warehouse.published() as published:
        count = sum(1 for _ in published.open_lines(file_id))
    print(f"open_lines: {count:,} lines in {time.perf_counter() - begin:.1f} s; peak memory {peak_mb()} MB", flush=True)
    answer.send("done")


def publish(path: Path, answer: Connection) -> None:
    """A process that has to make the first copy."""
    begin, cpu = time.perf_counter(), time.process_time()
    with DuckDBWarehouse(path).published():
        pass
    took, used = time.perf_counter() - begin, time.process_time() - cpu
    size = path.with_name(path.name + ".published").stat().st_size >> 20
    print(f"copied in {took:.1f} s ({used:.1f} s of a core), {size} MB on disk, peak memory {peak_mb()} MB", flush=True)
    answer.send("done")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--failed", type=int, default=100_000)
    arguments = parser.parse_args()
    sizes = {"files": arguments.files, "failed": arguments.failed}
    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as folder:
        path = Path(folder) / "ours.duckdb"
        with DuckDBWarehouse(path).writing():  # makes the tables
            pass
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET enable_progress_bar = false")
            connection.execute(LEDGER, sizes)
            connection.execute(HISTORY)
            connection.execute(FAILED, sizes)
        print(f"{arguments.files:,} files, {arguments.failed:,} failed lines, {os.cpu_count()} cores", flush=True)
        here, there = spawned.Pipe()
        worker = spawned.Process(target=publish, args=(path, there))
        worker.start()
        here.recv()
        worker.join()
        held, holding = spawned.Pipe()
        loader = spawned.Process(target=load, args=(path, holding))
        loader.start()
        held.recv()
        worker = spawned.Process(target=pages, args=(path, arguments.files, there))
        worker.start()
        here.recv()
        worker.join()
        held.send("end")
        loader.join()


if __name__ == "__main__":
    main()
