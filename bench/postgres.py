"""A load into Postgres beside the server's own bulk ingest of the same rows: ratios, alternating, medians.

    python bench/postgres.py [--rows 1000000] [--rounds 3] [--there 10000000] [--loaders 1 2 4]

`plain`: the staged rows by COPY into an empty table of the same columns without an index, nothing looked up. `empty`: a
whole load into an empty warehouse. `recent`: one into a warehouse that has so many others, of a hundred days; its rows
are of the last of them and of ten new ones. `late`: one whose rows are spread over all the hundred days. A tenth of the
facts of both is there already. Then loaders at once, each a process that loads a file of its own into one empty
warehouse, a tenth of whose facts is the neighbour's. TMPDIR says where server and files are.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from ingest.pipeline import Pipeline
from ingest.ports import Staging
from ingest.settings import Settings
from ingest.warehouse.engines.duckdb.applying import stage
from ingest.warehouse.engines.postgres.applying import beside, booleans
from ingest.wiring import stores_of
from tests import postgres

_FIRST, _DAYS = 1_780_000_000, 100  # of the events that are there
_DAY = 86_400
_THERE = """
    INSERT INTO command_rows (
        occurred_at, command_id, file_no, line, item_no, is_first, kind, time_source, person, event, properties
    )
    SELECT
        to_timestamp({first} + n::double precision / {rows} * {days} * 86400),
        md5(n::text)::uuid, -1 - n / 100000, n % 100000, 0, TRUE, 'record', 'event',
        'person ' || n % 70000 || '@example.com', 'Viewed page',
        format('{{"url":"/products/%s","price":%s.10,"session":"t%s"}}', n % 1000, n % 100, n)::json
    FROM generate_series(1, {rows}) AS n"""
_THEIR_FILES = """
    INSERT INTO ledger (
        file_id, file_no, source, bucket, key, etag, last_modified, size_bytes, format, people_space, state, lines,
        items, records, loaded_at, position
    )
    SELECT 'there ' || n, -1 - n, 'there', 'there', n::text, n::text, now(), 1, 'kissmetrics', 'kissmetrics', 'loaded',
        100000, 100000, 100000, now(), 'there ' || n
    FROM generate_series(0, {rows} / 100000) AS n"""


def written(path: Path, numbers: range, first_day: int, days: int) -> Path:
    """Events of some days, in no order of time. What a number stands for is the same in all files of the same days."""
    with path.open("w", encoding="utf-8") as file:
        for n in numbers:
            file.write(
                f'{{"_p":"person {n % 70_000}@example.com","_t":{_FIRST + first_day * _DAY + n * 7919 % (days * _DAY)},'
                f'"_n":"Viewed page","url":"/products/{n % 1000}","price":{n % 100}.10,"session":"s{n}"}}\n'
            )
    return path


def _of_the_time_there(lines: Iterable[str]) -> Iterator[str]:
    end = _FIRST + _DAYS * _DAY
    return (line for line in lines if orjson.loads(line)["_t"] < end)


def judged(url: str, path: Path) -> Any:
    settings = Settings(warehouse_url="", staging_folder=path.parent)
    pipeline = Pipeline(settings, stores_of(settings), postgres.warehouse(url))
    return pipeline.judged([pipeline.store_of("").describe("file", str(path))])


def plain(url: str, staging: Staging) -> None:
    with postgres.warehouse(url).writing() as session, beside(160) as staged:
        stage(staged.connection, "staged_rows", staging.commands)
        rows = staged.connection.sql(
            "SELECT * EXCLUDE (staged_no), 1::BIGINT AS file_no, TRUE AS is_first FROM staged_rows"
        )
        session.rows("CREATE TABLE plain (LIKE command_rows)")
        session.ingest("plain", booleans(rows.to_arrow_reader(20_480)))


def loader(url: str, path: Path, ready: Barrier) -> None:
    with judged(url, path) as staging:
        ready.wait()
        postgres.warehouse(url).load(staging, path.stem, None)
        ready.wait()


def seconds(act: Callable[[], object]) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def at_once(url: str, paths: list[Path]) -> float:
    spawned = multiprocessing.get_context("spawn")
    ready = spawned.Barrier(len(paths) + 1)
    loaders = [spawned.Process(target=loader, args=(url, path, ready)) for path in paths]
    for one in loaders:
        one.start()
    ready.wait()
    took = seconds(ready.wait)
    for one in loaders:
        one.join()
    return took


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--there", type=int, default=10_000_000)
    parser.add_argument("--loaders", type=int, nargs="*", default=[1, 2, 4])
    arguments = parser.parse_args()
    rows, tenth = arguments.rows, arguments.rows // 10
    took: dict[str, list[float]] = {what: [] for what in ("plain", "empty", "recent", "late")}
    with TemporaryDirectory() as name, postgres.server(durable=True) as server:
        folder, large = Path(name), server.new()
        recent = written(folder / "recent.json", range(rows), _DAYS - 1, 11)
        late = written(folder / "late.json", range(rows, 2 * rows), 0, _DAYS)
        for sql in (_THERE, _THEIR_FILES):
            server.sql(sql.format(rows=arguments.there, first=_FIRST, days=_DAYS), large.rpartition("/")[2])
        for path in (recent, late):
            there = folder / f"there of {path.name}"
            with path.open(encoding="utf-8") as file:
                there.write_text("".join(islice(_of_the_time_there(file), tenth)), encoding="utf-8")
            os.utime(there, (_FIRST, _FIRST))  # it came before
            with judged(large, there) as staging:
                postgres.warehouse(large).load(staging, there.stem, None)
        server.sql("VACUUM ANALYZE", large.rpartition("/")[2])
        print(f"{rows:,} rows; {arguments.there:,} others in the large warehouse", flush=True)
        for number in range(arguments.rounds + 1):  # the first is a warm-up
            empty, one, other = server.new(), server.new(large), server.new(large)
            with judged(empty, recent) as first, judged(other, late) as second:
                acts: dict[str, Callable[[], object]] = {
                    "plain": partial(plain, empty, first),
                    "empty": partial(postgres.warehouse(empty).load, first, "empty", None),
                    "recent": partial(postgres.warehouse(one).load, first, "recent", None),
                    "late": partial(postgres.warehouse(other).load, second, "late", None),
                }
                order = list(acts)
                for what in order[number % 4 :] + order[: number % 4]:
                    took[what] += [seconds(acts[what])][: number and 1]
            for url in (empty, one, other):
                server.drop(url)
        for what, times in took.items():
            print(f"  {what:6} {median(times):6.2f} s  {median(times) / median(took['plain']):5.2f}", flush=True)
        files = [
            written(folder / f"{number}.json", range(number * rows * 9 // 10, number * rows * 9 // 10 + rows), 0, 11)
            for number in range(max([0, *arguments.loaders]))
        ]
        rates: dict[int, list[float]] = {many: [] for many in arguments.loaders}
        for _ in range(arguments.rounds):
            for many, of in rates.items():
                url = server.new()
                of.append(many * rows / at_once(url, files[:many]))
                server.drop(url)
        for many, of in rates.items():
            print(
                f"  {many} loaders {median(of):10,.0f} rows/s  {median(of) / median(rates[arguments.loaders[0]]):5.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
