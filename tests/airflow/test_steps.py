"""What is told of a run, straight from the warehouse."""

from pathlib import Path

import pytest

from ingest.airflow import steps
from ingest.ports import Audit
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import World, record
from tests.test_exactly_once import Steps


def test_a_run_of_many_files_is_told_in_few_sessions_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(DuckDBWarehouse(tmp_path / "warehouse.duckdb"))
    ids = [world.bring(f"{n}.json", record("ann", n, "x")).file_id for n in range(9)]
    world.warehouse.undo(ids[:1], Audit("ann", run_id="one"))
    world.warehouse.undo(ids[1:], Audit("ann", run_id="many"))

    def told(run_id: str) -> tuple[list[list[str]], int]:
        with Steps().taken() as taken:
            batches = steps.announcements(world.pipeline, run_id, None)
        return [[extra["file_id"] for extra in batch] for batch in batches], len(taken.names)

    one, steps_for_one = told("one")
    assert one == [ids[:1]]
    assert told("many") == ([ids[1:]], steps_for_one)
    monkeypatch.setattr(steps, "ANNOUNCED_AT_ONCE", 2)
    monkeypatch.setattr(steps, "_MOST_BATCHES", 3)
    assert [len(batch) for batch in told("many")[0]] == [3, 3, 2]
    assert told("none")[0] == []
