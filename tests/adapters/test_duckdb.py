"""What is DuckDB's own: how much it may hold in memory."""

from pathlib import Path

import pytest

from ingest.adapters.duckdb import DuckDBWarehouse
from tests.support import World

ROWS = 700_000


@pytest.mark.slow
def test_a_load_that_repeats_what_is_there_leaves_memory_for_disk(tmp_path: Path) -> None:
    world = World(DuckDBWarehouse(tmp_path / "w.duckdb", load_memory_mb=96))
    body = b"".join(b'{"_p":"p%d","_t":%d,"_n":"x","a":%d}\n' % (n, 1_393_344_603 + n, n) for n in range(ROWS))
    assert world.bring("a.json", body=body).state == "loaded"
    again = world.bring("b.json", body=body + b'{"_p":"new","_t":1393344603,"_n":"x"}\n')
    assert (again.state, again.counts.records, again.counts.duplicates) == ("loaded", ROWS + 1, ROWS)
    assert world.count("events") == ROWS + 1
    earlier = world.bring("c.json", body=body, arrived=-3600.0, source="other")
    assert (earlier.state, earlier.counts.duplicates) == ("loaded", ROWS)
    assert world.rows("SELECT count(*) AS n FROM events JOIN ledger USING (file_id) WHERE ledger.key = 'c.json'") == [
        {"n": ROWS}
    ]


@pytest.mark.slow
def test_many_long_failed_lines_are_loaded_rather_with_more_memory_than_not_at_all(tmp_path: Path) -> None:
    world = World(DuckDBWarehouse(tmp_path / "w.duckdb", load_memory_mb=64))
    line = b'{"_p":"ann","_t":"no time","a":"%b"}\n' % (b"x" * 200_000)
    assert world.bring("a.json", body=line * 800).state == "loaded"
    assert world.count("failed_lines") == 800
