"""What else is measured of a load, each beside something in the same run.

    python bench/beside.py judge              lines judged by one core, beside orjson and msgspec, which only decode
    python bench/beside.py large              1 MB into an empty warehouse, and into one of 10,000,000 events
    python bench/beside.py dlt --with PYTHON  100,000 sound lines, and a dlt pipeline; PYTHON has dlt

Times are CPU seconds, of all processes together, medians over the rounds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import duckdb
import msgspec
import orjson
from generate import write
from run import load, spent

from ingest.core.commands import Rules
from ingest.judging import Part, judge_batch
from ingest.reading import blocks
from ingest.settings import Settings
from ingest.wiring import open_pipeline

_THERE = """
INSERT INTO command_rows BY NAME
SELECT
    -1 AS file_no, i AS line, 0 AS item_no, 'record' AS kind, 'visitor' || i % 90_000 || '@example.com' AS person,
    TIMESTAMPTZ '2023-11-14 00:00:00Z' + to_seconds((i * 7919) % 259_200) AS occurred_at, 'Visited Site' AS event,
    '{"url":"/products/' || i % 1000 || '"}' AS properties, 'event' AS time_source, md5(i::VARCHAR)::UUID AS command_id,
    TRUE AS is_first
FROM range(10_000_000) AS t(i)
"""
_DLT = """
import dlt, orjson, sys
events = dlt.resource((orjson.loads(line) for line in open(sys.argv[1], "rb")), name="events")
dlt.pipeline("bench", destination=dlt.destinations.duckdb(sys.argv[2]), pipelines_dir=sys.argv[3]).run(events)
"""


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["judge", "large", "dlt"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--with", dest="python", default=sys.executable)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as name:
        folder = Path(name)
        if arguments.what == "judge":
            _judge(folder, arguments.rounds)
        elif arguments.what == "large":
            _large(folder, arguments.rounds)
        else:
            _dlt(folder, arguments.rounds, arguments.python)


def _judge(folder: Path, rounds: int) -> None:
    path = folder / "plain.json"
    write(path, 300_000, 0.0)
    content = path.read_bytes()
    settings = Settings(warehouse_url="", staging_folder=folder)
    with open_pipeline(settings) as pipeline:
        rules = pipeline.rules(pipeline.store_of("").describe("file", str(path)))
    lines, cut = content.splitlines(), [*blocks([content], rules.max_line_bytes)]
    decoder = msgspec.json.Decoder()

    def judged(rules: Rules) -> None:
        for number, block in enumerate(cut):
            judge_batch([Part(0, "kissmetrics", rules, block)], str(folder), str(number))

    def decoded(decode: Callable[[bytes], object]) -> None:
        for line in lines:
            decode(line)

    acts: dict[str, Callable[[], None]] = {
        "orjson decodes": partial(decoded, orjson.loads), "msgspec decodes": partial(decoded, decoder.decode),
        "judged and staged, native core": partial(judged, rules),
        "judged and staged, Python only": partial(judged, replace(rules, native=False)),
    }  # fmt: skip
    took: dict[str, list[float]] = {what: [] for what in acts}
    for number in range(rounds + 1):  # the first is a warm-up
        for what, act in acts.items():
            begun = time.process_time()
            act()
            took[what] += [time.process_time() - begun][: number and 1]
    for what, times in took.items():
        least = median(took["orjson decodes"]) / median(times)
        print(f"  {what:32} {len(content) / median(times) / 1e9:5.2f} GB/s  {least:5.2f} of orjson", flush=True)


def _large(folder: Path, rounds: int) -> None:
    path, large, other = folder / "plain.json", folder / "there.duckdb", folder / "ours.duckdb"
    write(path, 7_300)
    _cpu(load(path), large)
    with duckdb.connect(str(large)) as connection:
        connection.execute(_THERE)
    took: dict[str, list[float]] = {"into an empty warehouse": [], "into ten million events": []}
    for number in range(rounds + 1):
        write(path, 7_300, 0.01, number + 1)
        for what in took:
            other.unlink(missing_ok=True)
            if what == "into ten million events":
                shutil.copyfile(large, other)
            took[what] += [_cpu(load(path), other)][: number and 1]
    _tell(took, "into an empty warehouse")


def _dlt(folder: Path, rounds: int, python: str) -> None:
    took: dict[str, list[float]] = {"ours": [], "dlt": []}
    path, file = folder / "plain.json", folder / "ours.duckdb"
    write(path, 100_000, 0.0)
    commands = {"ours": load(path), "dlt": [python, "-c", _DLT, str(path), str(file), str(folder / "dlt")]}
    for number in range(rounds + 1):
        for what, command in commands.items():
            file.unlink(missing_ok=True)
            shutil.rmtree(folder / "dlt", ignore_errors=True)
            took[what] += [_cpu(command, file)][: number and 1]
    _tell(took, "ours")


def _cpu(command: list[str], file: Path) -> float:
    before = spent()
    done = subprocess.run(
        command, env=os.environ | {"INGEST_WAREHOUSE": f"duckdb:///{file}"}, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1):
        sys.exit(f"{command} ended with {done.returncode}: {done.stderr}")
    took: float = spent() - before
    return took


def _tell(took: dict[str, list[float]], one: str) -> None:
    for what, times in took.items():
        print(f"  {what:32} {median(times):6.2f} CPU s  {median(times) / median(took[one]):6.2f}", flush=True)


if __name__ == "__main__":
    main()
