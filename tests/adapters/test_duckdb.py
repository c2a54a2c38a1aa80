"""What is DuckDB's own: how much it may hold in memory, and what its errors mean."""

from pathlib import Path

import duckdb
import pytest

from ingest.warehouse.engines.duckdb import errors as duckdb_errors
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
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
    right = b'{"_p":"ann","_t":1393344604,"_n":"x"}\n'
    assert world.bring("a.json", body=line * 800 + right).state == "loaded"
    assert world.count("failed_lines") == 800


@pytest.mark.parametrize(("error", "room", "is_disk", "is_for_all"), [
    pytest.param(duckdb.IOException, False, True, True, id="no room while rows are inserted"),
    pytest.param(duckdb.TransactionException, False, True, True, id="no room at the commit"),
    pytest.param(duckdb.OutOfMemoryException, False, True, True, id="no room to spill to"),
    pytest.param(duckdb.FatalException, False, True, True, id="no room, and the engine gave up"),
    pytest.param(duckdb.IOException, True, True, False, id="too large for the disk"),
    pytest.param(duckdb.TransactionException, True, True, False, id="too large at the commit"),
    pytest.param(duckdb.OutOfMemoryException, True, False, False, id="too large for the memory"),
    pytest.param(duckdb.InternalException, True, False, False, id="rows that make the engine fail"),
    pytest.param(duckdb.ConversionException, False, False, False, id="rows that the engine refuses"),
])  # fmt: skip
def test_what_an_error_is_blamed_on(
    error: type[duckdb.Error], room: bool, is_disk: bool, is_for_all: bool, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(duckdb_errors, "has_room", lambda _: room)
    told = duckdb_errors.could_not_write(DuckDBWarehouse(tmp_path / "w.duckdb"), error("It says why\nand more"))
    assert (told.is_disk, told.is_for_all) == (is_disk, is_for_all)
    assert "It says why." in str(told)
    assert f"disk of {tmp_path}" in str(told)
