"""A load into a lake beside a bare append of the same rows, and beside a load into DuckDB; then what commits cost.

    python bench/iceberg.py [--rows 1000000] [--rounds 3] [--files 10] [--commits 200]

`bare`: the staged rows appended by pyiceberg to an empty table of the same columns, nothing looked up, no ledger.
`empty`: a whole load into an empty lake. `large`: one into a lake with so many files of as many rows over the same
days; a tenth of its facts is there already. `duckdb`: as `empty`, into a DuckDB file. In turn, medians, in one process;
the catalog is a SQLite file, the table a folder. Then loads of one line, one after the other, and a look at the ledger,
before and after upkeep. TMPDIR says where.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from postgres import written
from pyarrow import parquet

from ingest.pipeline import Pipeline
from ingest.ports import Audit, Staging, Warehouse
from ingest.settings import Settings
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from ingest.warehouse.engines.iceberg.lake import COMMANDS
from ingest.warehouse.engines.iceberg.warehouse import IcebergWarehouse
from ingest.wiring import stores_of

_DAYS = 30
_numbers = count()


def lake_in(folder: Path) -> IcebergWarehouse:
    """A lake that nobody has made yet."""
    name = f"lake{next(_numbers)}"
    (folder / name).mkdir()
    told = {"TYPE": "sql", "URI": f"sqlite:///{folder}/{name}.db", "WAREHOUSE": f"file://{folder}/{name}"}
    os.environ |= {f"PYICEBERG_CATALOG__{name.upper()}__{key}": value for key, value in told.items()}
    return IcebergWarehouse.at(f"iceberg://{name}/landfall", folder / f"mirrors of {name}")


@contextmanager
def judged(warehouse: Warehouse, path: Path) -> Iterator[Staging]:
    settings = Settings(warehouse_url="", staging_folder=path.parent)
    pipeline = Pipeline(settings, stores_of(settings), warehouse)
    with pipeline.judged([pipeline.store_of("").describe("file", str(path))]) as staging:
        yield staging


def bare(lake: IcebergWarehouse, staging: Staging) -> None:
    table = lake.lake.make().table
    columns = [name for name in COMMANDS if name not in ("part", "stage_no")]
    for path in staging.commands:
        rows = parquet.read_table(path).select(columns)
        rows = rows.append_column("part", pa.array(["commands"] * len(rows)))
        texts = [one.storage if isinstance(one.type, pa.JsonType) else one for one in rows["properties"].chunks]
        rows = rows.set_column(rows.column_names.index("properties"), "properties", pa.chunked_array(texts))
        rows = rows.append_column("stage_no", pa.array([1] * len(rows), pa.int64()))
        table.append(rows)


def took(act: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of this process."""
    cpu, wall = time.process_time(), time.monotonic()
    act()
    return time.process_time() - cpu, time.monotonic() - wall


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--commits", type=int, default=200)
    asked = parser.parse_args()
    with TemporaryDirectory() as name:
        _loads(Path(name), asked.rows, asked.rounds, asked.files)
        _commits(Path(name), asked.commits)


def _loads(folder: Path, rows: int, rounds: int, files: int) -> None:
    large = lake_in(folder)
    for number in range(files):
        # A tenth is what the file that is measured brings, too.
        begin = (number + 1) * rows - (rows // 10 if not number else 0)
        path = written(folder / f"there {number}.json", range(begin, begin + rows), 0, _DAYS)
        with judged(large, path) as staging:
            large.load(staging, path.stem, None)
        path.unlink()
    path = written(folder / "ours.json", range(rows), 0, _DAYS)
    found: dict[str, list[tuple[float, float]]] = {what: [] for what in ("bare", "empty", "large", "duckdb")}
    with judged(large, path) as staging:
        for number in range(rounds + 1):  # the first is a warm-up
            file = DuckDBWarehouse(folder / f"{number}.duckdb")
            empty, plain = lake_in(folder), lake_in(folder)
            load_id = f"load {number}"

            def again(warehouse: Any, load_id: str = load_id, intent: Any = "force") -> Callable[[], object]:
                return lambda: warehouse.load(staging, load_id, None, intent=intent)

            acts: dict[str, Callable[[], object]] = {
                "bare": partial(bare, plain, staging),
                "empty": again(empty),
                "duckdb": again(file),
            }
            for what, act in (acts | {"large": again(large)}).items():
                measured = took(act)
                if number:
                    found[what].append(measured)
            large.undo([row["file_id"] for row in large.files({"key": str(path)})], Audit("bench"))
    (cpu, wall) = (median(one[place] for one in found["bare"]) for place in (0, 1))
    print(f"{rows:,} rows; {files * rows:,} others in the large lake")
    for what, times in found.items():
        own = [median(one[place] for one in times) for place in (0, 1)]
        told = f"{own[0] / cpu:5.2f} of a bare append's CPU, {own[1] / wall:5.2f} of its time"
        print(f"  {what:8} {own[0]:6.2f} CPU s {own[1]:6.2f} s {told}", flush=True)


def _commits(folder: Path, many: int) -> None:
    lake, other = lake_in(folder), None
    print(f"loads of one line into one lake, and a look at the ledger that another host then takes: {many}")
    for number in range(many):
        path = written(folder / f"{number}.json", range(number, number + 1), 0, _DAYS)
        with judged(lake, path) as staging:
            load = took(partial(lake.load, staging, str(number), None))
        if other is None:
            other = IcebergWarehouse(lake.lake, IcebergWarehouse.at(lake.name, folder / "another").mirror)
        look = took(partial(other.files, {}, limit=1))
        if number + 1 in (1, 50, 200, many):
            print(f"  {number + 1:6} load {load[1]:.3f} s, look {look[1]:.3f} s", flush=True)
    anew = IcebergWarehouse(lake.lake, IcebergWarehouse.at(lake.name, folder / "anew").mirror)
    print(f"  a mirror made of them all {took(lambda: anew.files({}, limit=1))[1]:.2f} s")
    print(f"  upkeep {took(lake.upkeep)[1]:.2f} s")
    path = written(folder / "last.json", range(many, many + 1), 0, _DAYS)
    with judged(lake, path) as staging:
        print(f"  load {took(lambda: lake.load(staging, 'last', None))[1]:.3f} s")
    anew.mirror.remove()
    print(f"  a mirror made of what is there now {took(lambda: anew.files({}, limit=1))[1]:.2f} s")


if __name__ == "__main__":
    main()
