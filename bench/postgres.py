"""A load into Postgres beside the server's own bulk ingest of the same rows: ratios, alternating, medians.

    python bench/postgres.py [rows] [rounds] [loaders]

`plain`: the staged rows by COPY into a table without index, nothing looked up. `empty`: a whole load into an empty
warehouse. `more`: another one, a tenth of whose facts is there already, into what the first one left.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ingest.pipeline import Pipeline
from ingest.settings import Settings
from ingest.wiring import stores_of
from tests import postgres

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
LOADERS = int(sys.argv[3]) if len(sys.argv) > 3 else 4


def written(folder: Path, number: int) -> Path:
    """Events of eleven days, a tenth of them those of the file before."""
    path, first = folder / f"{number}.json", number * ROWS * 9 // 10
    with path.open("w", encoding="utf-8") as file:
        for n in range(first, first + ROWS):
            at = 1_795_000_000 + n * 7919 % 950_400
            file.write(
                f'{{"_p":"person {n % 70_000}@example.com","_t":{at},"_n":"Viewed page","url":"/products/{n % 1000}",'
                f'"price":{n % 100}.10,"session":"s{n}"}}\n'
            )
    return path


def seconds(act: Any) -> float:
    begun = time.monotonic()
    act()
    return time.monotonic() - begun


def main() -> None:
    with TemporaryDirectory() as name, postgres.server(durable=True) as server:
        folder = Path(name)
        files = [written(folder, number) for number in range(LOADERS + 1)]
        settings = Settings(warehouse_url="", staging_folder=folder)

        def judged(pipeline: Pipeline, path: Path) -> Any:
            return pipeline.judged([pipeline.store_of("").describe("file", str(path))])

        def plain(staging: Any) -> None:
            with postgres.warehouse(server.url("bare")).writing() as session:
                from ingest.warehouse.engines.postgres.applying import beside, booleans

                with beside(160) as staged:
                    paths = [str(path) for path in staging.commands]
                    rows = staged.connection.sql("SELECT * FROM read_parquet($paths)", params={"paths": paths})
                    session.rows("DROP TABLE IF EXISTS bare")
                    session.rows(
                        "CREATE TABLE bare (staged_no integer, line bigint, item_no integer, item text, kind text,"
                        " people_space text, person text, person_key text, occurred_at timestamptz, event text,"
                        " event_key text, alias text, alias_key text, properties json, time_source text, identity text,"
                        " command_id uuid)"
                    )
                    session.ingest("bare", booleans(rows.to_arrow_reader(20_480)))

        server.new()
        server.sql("CREATE DATABASE bare OWNER loader TEMPLATE landfall_new")
        took: dict[str, list[float]] = {"plain": [], "empty": [], "more": []}
        for _ in range(ROUNDS):
            warehouse = postgres.warehouse(server.new())
            pipeline = Pipeline(settings, stores_of(settings), warehouse)
            with judged(pipeline, files[0]) as first, judged(pipeline, files[1]) as second:
                took["plain"].append(seconds(partial(plain, first)))
                took["empty"].append(seconds(partial(warehouse.load, first, "a", None)))
                took["more"].append(seconds(partial(warehouse.load, second, "b", None)))
        base = median(took["plain"])
        print(f"{ROWS:,} rows, {ROUNDS} rounds, medians:")
        for what, times in took.items():
            print(f"  {what:6} {median(times):6.2f} s  {median(times) / base:5.2f}")
        for many in (1, 2, 4):
            if many > LOADERS:
                break
            warehouse = postgres.warehouse(server.new())
            pipeline = Pipeline(settings, stores_of(settings), warehouse)
            with ExitStack() as stack, ThreadPoolExecutor(many) as pool:
                load = partial(warehouse.load, load_id="c", run_id=None)
                stagings = [stack.enter_context(judged(pipeline, path)) for path in files[:many]]
                took_all = seconds(partial(list, pool.map(load, stagings)))
            print(f"  {many} loaders: {many * ROWS / took_all:10,.0f} rows/s")


if __name__ == "__main__":
    main()
