"""What small inputs of the worst kinds become: rows, failed lines, time and memory; and what one object does to pages.

python bench/bounds.py [--seconds 60]   each input of about 1 MiB is judged in a process of its own, for so long at most
python bench/bounds.py --object         forty lines of nothing but nested values: loaded, then its pages are asked for
"""

import argparse
import json
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable
from itertools import count, product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from ingest.core.commands import Rules
from ingest.judging import Part, judge_batch
from ingest.ports import FilesWanted
from ingest.reading import Block
from ingest.settings import Settings
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from ingest.wiring import open_pipeline

MIB = 1 << 20
KM = '"_p":"ann","_t":1393344603,"_n":"x"'
WHEN = 1_393_344_603_000_000
RULES = Rules(people_space="s", received_at=WHEN)


def full(begin: str, part: Callable[[int], str], end: str, size: int = MIB - 64) -> bytes:
    """`begin`, as many parts with commas between them as fit, `end`."""
    parts, length = list[str](), len(begin) + len(end)
    for number in count():
        one = part(number)
        length += len(one) + 1
        if length > size:
            return f"{begin}{','.join(parts)}{end}".encode()
        parts.append(one)
    raise AssertionError


def splits(names: int) -> str:
    """An object whose every leaf flattens to the same name: `a.a.a…`, split in every way."""
    tree: dict[str, Any] = {}
    for cuts in product((False, True), repeat=names - 1):
        parts = ["a"]
        for cut in cuts:
            if cut:
                parts.append("a")
            else:
                parts[-1] += ".a"
        at = tree
        for part in parts[:-1]:
            at = at.setdefault(part, {})
        at[parts[-1]] = 1
    return json.dumps(tree, separators=(",", ":"))[1:-1]


def half_broken(number: int) -> str:
    product = number if number % 2 else "{}"
    return f'{{"view":{{"sessionExternalId":"a{number}","productId":{product}}}}}'


def inputs() -> dict[str, tuple[str, bytes, dict[str, Any]]]:
    """Format, bytes and rules of each."""
    long, half, flat = "n" * 255, "n" * (MIB // 2), {"nested": "flatten"}
    action, broken = '{"name":"x","time":1393344603000}', '{"name":7}'
    visit = '{"visitor":{"id":"ann"},"time":1393344603000,"f":"%s","actions":[' % ("v" * (MIB // 2))
    return {
        "nested values": ("kissmetrics", full(f"{{{KM},", lambda n: f'"x{n}":[]', "}"), {}),
        "one long name": ("kissmetrics", f'{{{KM},"{half * 2}":[]}}'.encode()[: MIB - 200] + b'":[]}', {}),
        "long names": ("kissmetrics", full(f"{{{KM},", lambda n: f'"{long}{n}":[]', "}"), {}),
        "NULs": ("kissmetrics", full(f'{{{KM},"a":[', lambda _: '"\\u0000"', "]}"), flat),
        "NULs below a long name": ("kissmetrics", full(f'{{{KM},"{half}":[', lambda _: '"\\u0000"', "]}"), flat),
        "values below a long name": ("kissmetrics", full(f'{{{KM},"{half}":[', lambda _: "1", "]}"), flat),
        "warnings": ("kissmetrics", full(f"{{{KM},", lambda n: f'"{long}{n}":1', "}"), {}),
        "flattened below 255": ("kissmetrics", full(f'{{{KM},"{long}":{{', lambda n: f'"{n}":1', "}}"), flat),
        "one name in every way": ("kissmetrics", f"{{{KM},{splits(13)}}}".encode(), flat),
        "broken lines": ("kissmetrics", b"{}\n" * (MIB // 3), {}),
        "small lines": ("kissmetrics", b'{"_p":"a","_t":1393344603,"_n":"b"}\n' * (MIB // 36), {}),
        "visit fields in actions": ("woopra", full(visit, lambda _: action, "]}"), {}),
        "visit fields, broken actions": ("woopra", full(visit, lambda _: broken, "]}"), {}),
        "broken users": ("webengage", full('{"users":[', lambda _: "{}", "]}"), {}),
        "broken whole": ("webengage", full('{"x":1,"users":[', lambda _: "{}", "]}"), {}),
        "broken links": (
            "retailrocket", full('[{"view":{"productId":1,"link":[', lambda _: "1", "]}}]"), {},
        ),
        "half broken": (
            "retailrocket", full("[", half_broken, "]"), {},
        ),
        "broken messages": ("vitally", full("[", lambda _: "{}", "]"), {}),
    }  # fmt: skip


def packed(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd", compression_level=19).compress(data, asbytes=True))


def peak_mb() -> int:
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) >> 10


def judge(format: str, data: bytes, rules: dict[str, Any], answer: Connection) -> None:
    """Judge one input as a block of its own."""
    from dataclasses import replace

    with tempfile.TemporaryDirectory() as folder:
        before, begin = peak_mb(), time.perf_counter()
        judged = judge_batch([Part(0, format, replace(RULES, **rules), Block(1, 0, data))], folder, "x")
        seconds = time.perf_counter() - begin
        sizes = {kind: sum(path.stat().st_size for path in Path(folder).glob(f"{kind}*")) for kind in KINDS}
    (tally,) = judged.tallies
    counts = tally.counts
    accepted = counts.records + counts.sets + counts.aliases
    answer.send((*sizes.values(), accepted, counts.failed, seconds, peak_mb() - before, tally.error))


KINDS = ("commands", "failed")


def judge_all(seconds: float) -> None:
    print(f"{'input':30} {'sent':>9} {'zstd':>8} {'rows':>13} {'failed':>13} {'items':>16} {'time':>7} {'memory':>8}")
    for name, (format, data, rules) in inputs().items():
        ours, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(target=judge, args=(format, data, rules, theirs))
        child.start()
        theirs.close()
        told = f"{name:30} {len(data):9,} {len(packed(data)):8,}"
        try:
            if not ours.poll(seconds):
                raise EOFError
            rows, failed, accepted, refused, took, memory, error = ours.recv()
            told += f" {rows:13,} {failed:13,} {accepted:8,}{refused:8,} {took:6.1f}s {memory:5,} MB {error}"
        except EOFError:
            told += f" nothing after {seconds:.0f} s, or it died"
        print(told, flush=True)
        child.kill()
        child.join()


def pages(path: Path, answer: Connection) -> None:
    """A process that shows pages, as a worker of Airflow's web server."""
    warehouse, before = DuckDBWarehouse(path), peak_mb()
    for name in ("first", "second"):
        begin = time.perf_counter()
        try:
            with warehouse.published() as published:
                (row,) = published.files(FilesWanted(sources=("one_off",))).rows
                groups = published.failure_groups([row["file_id"]])
                lines = published.failed_lines([row["file_id"]], limit=21)
                open_lines = sum(1 for _ in published.open_lines(row["file_id"]))
            told = f"{len(groups)} groups, {len(lines)} lines, {open_lines} to download"
        except Exception as error:  # noqa: BLE001 - it is what is measured
            told = f"{type(error).__name__}: {error}"
        copy = path.with_name(f"{path.name}.published")
        size = copy.stat().st_size if copy.exists() else 0
        seconds = time.perf_counter() - begin
        print(f"{name} page: {seconds:.1f} s, +{peak_mb() - before:,} MB, copy {size:,} bytes: {told}", flush=True)
    answer.send(None)


def one_object() -> None:
    line = full(f"{{{KM},", lambda n: f'"x{n}":[]', "}")
    body = b"\n".join([line] * 40)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "object.json"
        place.write_bytes(packed(body))
        print(f"object: {place.stat().st_size:,} bytes, unpacked {len(body):,}")
        path = Path(folder) / "w.duckdb"
        settings = Settings(warehouse_url=f"duckdb:///{path}", processes=1)
        before, begin = peak_mb(), time.perf_counter()
        with open_pipeline(settings) as pipeline:
            (result,) = pipeline.load(pipeline.locate(str(place)))
        seconds = time.perf_counter() - begin
        print(f"load: {result.state}, {result.counts.failed} failed, {seconds:.1f} s, +{peak_mb() - before:,} MB")
        with DuckDBWarehouse(path).failed_lines(result.file_id) as rows:
            kept = [len(row["failures"]) for row in rows]
        print(f"failures: {sum(kept):,} bytes, {max(kept):,} of one line; warehouse {path.stat().st_size:,} bytes")
        _, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("spawn").Process(target=pages, args=(path, theirs))
        child.start()
        child.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--object", action="store_true")
    chosen = parser.parse_args()
    if chosen.object:
        one_object()
    else:
        judge_all(chosen.seconds)
