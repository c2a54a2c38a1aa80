"""How fast a load is beside what the engine alone can do, and how much memory it takes.

    make bench                     2,000,000 lines, 1 % failed, and files like it: `ingest load`, and DuckDB reading the
                                   first with read_json(auto)
    make bench-smoke               300,000 lines of the first alone: fails where a ratio is a third below what it was
    python bench/run.py --memory 2 one load of a file of so many GB, and of its gzip: the peak of all processes together
    python bench/run.py --linear   1, 2, 4 and 8 million lines; and 2 million with 1, 2 and 4 judging processes

Each round runs all of them, one after the other; told are medians over the rounds. Times are those of whole processes,
start included; CPU is that of all processes of a load together, and holds where wall time does not: quote ratios.
The peer checks no rule, keeps no ledger and nulls bad lines: it is the limit, not a rival.
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import pyarrow as pa
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
_RATIOS = {"load": 0.38, "load, Python only": 0.27}  # of CPU, with 300,000 lines, when this was written down


def _in_words(line: str, number: int) -> str:
    """Names of persons in German and Japanese."""
    return line.replace("visitor", "Jürgen Größe-" if number % 2 else "訪問者")


def _integers(line: str, _: int) -> str:
    """Persons by their numbers."""
    head, found, rest = line.partition('"visitor')
    return head + rest.replace('@example.com"', "", 1) if found else line


def _transported(line: str, number: int) -> str:
    """As Kissmetrics' own library sends it."""
    return f'{line[:-1]},"_k":"{number % 1000}","_ip":"192.0.2.{number % 250}"}}' if line.endswith("}") else line


_CASES: Mapping[str, Callable[[str, int], str]] = {
    "names in German and Japanese": _in_words, "integer persons": _integers, "transport names": _transported,
    "CRLF": lambda line, _: line + "\r",
}  # fmt: skip


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="of the files, beside the first")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--memory", type=int, metavar="GB")
    parser.add_argument("--linear", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as name:
        folder = Path(name)
        if arguments.memory:
            _memory(folder, arguments.memory)
        elif arguments.linear:
            _linear(folder)
        elif arguments.smoke:
            _smoke(_against_peer(folder, 300_000, 3))
        else:
            _speed(folder, arguments.lines, arguments.rounds, arguments.only)


def _files(folder: Path, lines: int) -> Mapping[str, Callable[[], Path]]:
    """The files that are loaded beside the first, each made when it is its turn."""
    plain = folder / "plain.json"

    def altered(how: Callable[[str, int], str]) -> Path:
        path = folder / "altered.json"
        with plain.open(encoding="utf-8") as source, path.open("w", encoding="utf-8", newline="") as file:
            file.writelines(how(line.rstrip("\n"), number) + "\n" for number, line in enumerate(source))
        return path

    def failed(share: float) -> Path:
        write(folder / "failed.json", lines, share)
        return folder / "failed.json"

    def packed(codec: str) -> Path:
        path = plain.with_suffix(f".json.{codec}")
        with (
            plain.open("rb") as source,
            gzip.open(path, "wb", 6) if codec == "gz" else pa.CompressedOutputStream(path, "zstd") as file,
        ):
            while piece := source.read(1 << 20):
                file.write(piece)
        return path

    return {
        **{what: partial(altered, how) for what, how in _CASES.items()},
        "gzip": partial(packed, "gz"), "zstd": partial(packed, "zst"),
        "no line failed": partial(failed, 0.0), "every line failed": partial(failed, 1.0),
    }  # fmt: skip


def _against_peer(folder: Path, lines: int, rounds: int) -> dict[str, float]:
    """The part of a load's CPU that the engine alone takes, with the native core and without."""
    plain = folder / "plain.json"
    write(plain, lines)
    print(f"{lines:,} lines, {plain.stat().st_size / 1e6:,.0f} MB, {len(os.sched_getaffinity(0))} cores", flush=True)
    peer = [sys.executable, "-c", _PEER, str(plain), str(folder / "peer.duckdb")]
    runs = {"read_json(auto)": (peer, {}), "load": (load(plain), {}),
            "load, Python only": (load(plain), {"INGEST_NATIVE": "false"})}  # fmt: skip
    cpu, wall = timed(folder, runs, rounds)
    of_cpu = {what: cpu["read_json(auto)"] / cpu[what] for what in runs}
    for what in runs:
        _tell(what, cpu[what], wall[what], lines, "read_json(auto)", of_cpu[what], wall["read_json(auto)"] / wall[what])
    return of_cpu


def load(path: Path) -> list[str]:
    return [sys.executable, "-m", "ingest", "load", str(path)]


def _smoke(of_cpu: Mapping[str, float]) -> None:
    slow = {what: ratio for what, ratio in _RATIOS.items() if of_cpu[what] < ratio * 2 / 3}
    if slow:
        told = ", ".join(f"{what} (was {ratio}, is {of_cpu[what]:.2f})" for what, ratio in slow.items())
        sys.exit(f"A third slower than it was, beside the engine alone: {told}.")


def _speed(folder: Path, lines: int, rounds: int, only: list[str] | None) -> None:
    _against_peer(folder, lines, rounds)
    first = load(folder / "plain.json")
    for what, made in _files(folder, lines).items():
        if only is None or what in only:
            path = made()
            cpu, wall = timed(folder, {"load": (first, {}), what: (load(path), {})}, rounds)
            ratios = cpu["load"] / cpu[what], wall["load"] / wall[what]
            _tell(what, cpu[what], wall[what], lines, "the first", *ratios)
            path.unlink()


def timed(
    folder: Path, runs: Mapping[str, tuple[list[str], dict[str, str]]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of CPU and wall seconds. The first round is a warm-up, and measures memory, since looking costs time."""
    cpu: dict[str, list[float]] = {what: [] for what in runs}
    wall: dict[str, list[float]] = {what: [] for what in runs}
    for number in range(rounds + 1):
        for what, (command, more) in runs.items():
            for left in folder.glob("*.duckdb*"):
                left.unlink()
            before = spent()
            seconds, peak = run(command, folder, watch=not number, more=more)
            if not number:
                print(f"  {what:30} {peak / 1e6:,.0f} MB at most, all processes together", flush=True)
            else:
                wall[what].append(seconds)
                cpu[what].append(spent() - before)
    return ({what: median(times) for what, times in of.items()} for of in (cpu, wall))  # type: ignore[return-value]


def _tell(what: str, cpu: float, wall: float, lines: int, than: str, of_cpu: float, of_wall: float) -> None:
    took = f"{cpu:6.2f} CPU s {wall:6.2f} s {lines / wall / 1e3:7,.0f} k lines/s"
    print(f"  {what:30} {took}  {than} takes {of_cpu:.2f} of it in CPU, {of_wall:.2f} in wall time", flush=True)


def _memory(folder: Path, gigabytes: int) -> None:
    path, large = folder / "events.json", folder / "large.json"
    write(path, 2_000_000)
    for opened, what in ((open, "as it is"), (partial(gzip.open, compresslevel=1), "as gzip")):
        with opened(large, "wb") as file:
            for _ in range(-(-gigabytes * 10**9 // path.stat().st_size)):
                file.write(path.read_bytes())
        seconds, peak = run(load(large), folder, watch=True)
        for left in folder.glob("*.duckdb*"):
            left.unlink()
        print(
            f"  {gigabytes} GB {what}: {seconds:,.0f} s, {peak / 1e6:,.0f} MB at most, all processes together",
            flush=True,
        )


def _linear(folder: Path) -> None:
    path = folder / "events.json"
    for millions in (1, 2, 4, 8):
        write(path, millions * 1_000_000)
        cpu, wall = timed(folder, {"load": (load(path), {})}, 1)
        print(f"  {millions} million lines: {cpu['load']:6.2f} CPU s {wall['load']:6.2f} s", flush=True)
    write(path, 2_000_000)
    runs = {f"{many} judging": (load(path), {"INGEST_PROCESSES": str(many)}) for many in (1, 2, 4)}
    cpu, wall = timed(folder, runs, 3)
    for what in runs:
        print(f"  {what}: {cpu[what]:6.2f} CPU s {wall[what]:6.2f} s", flush=True)


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


def spent() -> float:
    """CPU seconds of all processes that were started and have ended."""
    times = os.times()
    return times.children_user + times.children_system


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
