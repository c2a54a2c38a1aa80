"""How fast a load is beside what the engine alone can do, and how much memory it takes.

    make bench                     2,000,000 lines, 1 % bad: `ingest load`, and DuckDB reading it with read_json(auto)
    python bench/run.py --memory   one load of a file of 2 GB: the peak of all processes together

Figures are wall times of whole processes, start included: quote the ratio, not the seconds.
The peer checks no rule, keeps no ledger and nulls bad lines: it is the limit, not a rival.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from generate import write

_PEER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[2])
connection.execute(
    "CREATE TABLE events AS SELECT * FROM read_json(?, format='newline_delimited', ignore_errors=true)", [sys.argv[1]]
)
connection.close()
"""
_POLL_SECONDS = 0.05


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as name:
        folder = Path(name)
        if arguments.memory:
            _memory(folder)
        else:
            _speed(folder, arguments.lines, arguments.rounds)


def _speed(folder: Path, lines: int, rounds: int) -> None:
    path = folder / "events.json"
    print(f"writing {lines:,} lines …", flush=True)
    write(path, lines)
    print(f"{path.stat().st_size / 1e6:,.0f} MB, {len(os.sched_getaffinity(0))} cores", flush=True)
    times: dict[str, list[float]] = {"ingest load": [], "read_json(auto)": []}
    peaks: list[int] = []
    for number in range(rounds + 1):  # the first is a warm-up, and measures memory, since looking costs time
        for what, command in (
            ("ingest load", [sys.executable, "-m", "ingest", "load", str(path)]),
            ("read_json(auto)", [sys.executable, "-c", _PEER, str(path), str(folder / "peer.duckdb")]),
        ):
            for left in folder.glob("*.duckdb*"):
                left.unlink()
            seconds, peak = run(command, folder, watch=not number)
            peaks.append(peak)
            if number:
                times[what].append(seconds)
                print(f"  {what:16} {seconds:6.2f} s  {lines / seconds / 1e3:7,.0f} k lines/s", flush=True)
    ours, peer = (statistics.median(times[what]) for what in times)
    print(
        f"medians of {rounds}: ingest load {ours:.2f} s ({lines / ours / 1e3:,.0f} k lines/s), "
        f"read_json(auto) {peer:.2f} s ({lines / peer / 1e3:,.0f} k lines/s)\n"
        f"ratio {peer / ours:.2f} (1.00: as fast as the engine alone)\n"
        f"peak memory of all our processes {peaks[0] / 1e6:,.0f} MB"
    )


def _memory(folder: Path) -> None:
    path, copies = folder / "events.json", folder / "large.json"
    write(path, 2_000_000)
    with copies.open("wb") as large:
        while large.tell() < 2 << 30:
            large.write(path.read_bytes())
    path.unlink()
    seconds, peak = run([sys.executable, "-m", "ingest", "load", str(copies)], folder, watch=True)
    print(
        f"{copies.stat().st_size / 1e9:.2f} GB in {seconds:,.0f} s, peak memory of all processes {peak / 1e6:,.0f} MB"
    )


def run(command: list[str], folder: Path, *, watch: bool, more: Mapping[str, str] | None = None) -> tuple[float, int]:
    """Seconds, and, if watched, the largest sum of the memory of all processes at one time, in bytes."""
    environment = os.environ | {"INGEST_WAREHOUSE": f"duckdb:///{folder / 'ours.duckdb'}"} | dict(more or {})
    begin = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while watch and process.poll() is None:
        peak = max(peak, sum(_memory_of(pid) for pid in _family(process.pid)))
        time.sleep(_POLL_SECONDS)
    process.wait()
    seconds = time.perf_counter() - begin
    if process.returncode not in (0, 1):
        sys.exit(
            f"{command} ended with {process.returncode}: {process.stderr.read().decode() if process.stderr else ''}"
        )
    return seconds, peak


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(one for child in children for one in _family(int(child)))]


def _memory_of(pid: int) -> int:
    """Proportional set size: shared pages are counted once over all processes."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)


if __name__ == "__main__":
    main()
