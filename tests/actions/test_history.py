"""What was done, by whom, why and in which run."""

import re
from datetime import UTC, datetime
from typing import get_args

import pytest

from ingest.core.lifecycle import HISTORY, Done
from ingest.ports import Mark
from tests.actions.acting import NOTE, X, again, do, drop, mend, path_of, poll
from tests.support import ROOT, World, record
from tests.test_exactly_once import warehouse_at


def every_deed(world: World) -> None:
    """Everything that `history` tells of, once."""
    loaded = drop(world, "web/a.json", X, "bad")
    poll(world, "web")
    mend(world, loaded, {2: record("bob", 1, "x")})
    do(world, "force", loaded)
    world.warehouse.mark([Mark(loaded.file_id, "completed_imports/a.json", datetime.now(UTC))], NOTE)
    for _ in range(2):
        world.warehouse.notify_once([loaded.file_id], NOTE)
        world.warehouse.not_notified([loaded.file_id], NOTE)
    do(world, "undo", loaded)
    again(world, loaded)
    drop(world, "replace/a.json", X)
    poll(world, "replace")
    drop(world, "replace/a.json", record("bob", 1, "x"))
    world.pipeline.load(world.pipeline.discover("replace").pending, note=NOTE)
    drop(world, "hold/a.json", X)
    poll(world, "hold")
    held = drop(world, "hold/a.json", record("bob", 1, "x"))
    poll(world, "hold")
    do(world, "release", held)
    broken = drop(world, "web/b.json", X)
    world.store.broken["web/b.json"] = "It broke off."
    poll(world, "web")
    do(world, "retry", broken)
    drop(world, "hold/a.json", record("cat", 1, "x"))
    poll(world, "hold")
    world.store.objects.pop(("bucket", "hold/a.json"))
    world.pipeline.discover("hold", NOTE)
    do(world, "ignore", f"s3://bucket/{drop(world, 'web/c.json', X).key}")
    warehouse = warehouse_at(path_of(world))
    with warehouse.writing() as connection:
        connection.execute("UPDATE ledger SET state = 'undone' WHERE key = 'replace/a.json' AND state = 'loaded'")
    world.warehouse.repair(NOTE)


@pytest.mark.slow
def test_history_tells_of_all_that_is_done_by_whom_why_and_in_which_run(world: World) -> None:
    every_deed(world)
    rows = world.rows('SELECT DISTINCT action, "by", reason IS NOT NULL AS why, run_id FROM history')
    assert {row["action"] for row in rows} == set(HISTORY)
    assert {(row["by"], row["why"], row["run_id"]) for row in rows} == {(NOTE.by, True, NOTE.run_id)}


def test_what_history_tells_of_is_documented() -> None:
    assert set(get_args(Done)) == set(HISTORY)
    table = (
        (ROOT / "docs/warehouse.md").read_text(encoding="utf-8").partition("| action | means |")[2].partition("\n\n")[0]
    )
    documented = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert documented == HISTORY
