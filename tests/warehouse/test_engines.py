"""What every engine reads and applies, however it does that: DuckDB and the dictionaries that plans are tried on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.core.lifecycle import LONGEST_DELAY, STATES, State, is_due, is_settled, may_return
from ingest.plans.changes import Changes, LedgerRow
from ingest.ports import Audit
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.memory_engine import MemoryWarehouse
from tests.warehouse.test_plans import NOW, file, row

ENGINES: dict[str, Callable[[Path], Any]] = {
    "duckdb": lambda folder: DuckDBWarehouse(folder / "warehouse.duckdb"),
    "memory": lambda _: MemoryWarehouse(),
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return ENGINES[request.param](tmp_path)


def holding(engine: Any, *rows: LedgerRow) -> list[LedgerRow]:
    changes = Changes(Audit("test"), NOW, ledger={one.file_id: one for one in rows})
    engine.transact(lambda _: (changes, None))
    return list(rows)


def test_what_is_to_be_loaded_is_what_the_diagram_says(engine: Any) -> None:
    times = {"due": NOW, "put off": NOW + LONGEST_DELAY / 2, "by a wrong clock": NOW + 2 * LONGEST_DELAY}
    each = [
        (state, version_id, replaced_by, when)
        for state in STATES for version_id in (None, "1") for replaced_by in (None, "another")
        for when in (times if state == "retrying" else ("due",))
    ]  # fmt: skip
    rows = holding(
        engine,
        *(
            row(f"{state} {version_id} {by} {when}", state, n, version_id=version_id, replaced_by=by,
                next_try_at=times[when])
            for n, (state, version_id, by, when) in enumerate(each, 1)
        ),
    )  # fmt: skip
    for versions_are_on in (True, False):
        files = [one.file if versions_are_on else replace(one.file, version_id=None) for one in rows]
        settled = [
            is_settled(state, may_return=may_return(version_id if versions_are_on else None, by))
            for state, version_id, by, _ in each
        ]
        waits = [state == "retrying" and not is_due(times[when], NOW) for state, _, _, when in each]
        found = engine.unseen(files, NOW)
        expected = [not is_left and not put_off for is_left, put_off in zip(settled, waits, strict=True)]
        assert [file in found for file in files] == expected
        assert 0 < sum(expected) < len(rows)
        known = engine.known(files)
        assert [file.file_id in known for file in files] == settled


def test_rows_are_read_as_they_were_put(engine: Any) -> None:
    a = row("a", "loaded", 2, warnings='{"repaired": 1}', deleted_at=NOW, loaded_at=NOW, run_id="run", failed=3)
    b = row("b", "duplicate", 1, duplicate_of=a.file_id, sha256=a.sha256, version_id="1", match="exact", read_bytes=4)
    c = row("c", "loaded", 3, redrive_of=a.file_id, key=a.key, error="no")
    rows = {one.file_id: one for one in holding(engine, a, b, c)}
    asked: list[tuple[str, list[str], tuple[State, ...], list[LedgerRow]]] = [
        ("file_id", [*rows, "unknown"], STATES, [b, a, c]), ("file_id", [*rows], ("duplicate",), [b]),
        ("key", [a.key], STATES, [a, c]), ("sha256", [str(a.sha256)], STATES, [b, a]),
        ("redrive_of", [a.file_id], STATES, [c]), ("duplicate_of", [a.file_id], STATES, [b]), ("key", [], STATES, []),
    ]  # fmt: skip
    with engine.reader() as reader:
        for column, values, states, found in asked:
            assert reader.ledger(column, values, states) == found
    holding(engine, replace(a, state="undone", deleted_at=None))
    with engine.reader() as reader:
        assert reader.ledger("file_id", [a.file_id]) == [replace(a, state="undone", deleted_at=None)]


def test_what_was_told_and_whether_a_source_was_polled(engine: Any) -> None:
    for hours, action in enumerate(("notified", "not_notified")):
        changes = Changes(Audit("ann", "mail"), NOW + timedelta(hours=hours), polled=None if hours else "web")
        changes.tell(action, ["a", "b"][hours:])  # type: ignore[arg-type]
        changes.tell("notified", ["a"], "another")
        engine.transact(lambda _, changes=changes: (changes, None))
    with engine.reader() as reader:
        assert sorted(reader.notices(["a", "b"], "mail")) == [
            ("a", "notified"),
            ("b", "not_notified"),
            ("b", "notified"),
        ]
        assert dict(reader.notices(["a", "b"], "mail")) == {"a": "notified", "b": "not_notified"}
        assert (reader.was_polled("web"), reader.was_polled("other")) == (True, False)


def test_a_file_is_known_under_another_id_where_it_is_the_same(engine: Any) -> None:
    (a,) = holding(engine, row("a", "loaded", 1))
    seen_with_versions, changed = file("a", version_id="1"), file("a", version_id="2", etag="other")
    again, new = engine.recognise([seen_with_versions, changed])
    assert (again.file_id, new.file_id) == (a.file_id, changed.file_id)
    assert engine.unseen([seen_with_versions, changed], NOW) == [changed]
