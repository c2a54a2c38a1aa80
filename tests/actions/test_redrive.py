"""Failed lines, fixed and sent again."""

import gzip
import shutil
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ingest import actions
from ingest.core.source import SourceFile
from ingest.errors import IngestError
from ingest.ports import Staging
from ingest.redrive import _Edits, _substituted, redrive
from ingest.staging import stage
from tests.actions.acting import (
    NOTE,
    SOURCES,
    X,
    accepted_twice,
    again,
    all_of,
    archive,
    do,
    drop,
    events,
    mend,
    mended_by,
    open_lines,
    poll,
    source,
    state,
    told,
)
from tests.support import Line, World, alias, everything, lines, put, record
from tests.test_exactly_once import broken_promises, warehouse_at


def test_mended_lines_stand_where_they_would_have_stood(world: World, tmp_path: Path, empty_warehouse: Path) -> None:
    right: list[Line] = [put("ann", 1, plan="a"), record("bob", 1, "x"), alias("ann", "cat"), put("cat", 1, plan="b")]
    file = drop(world, "web/a.json", right[0], "bad", "", "worse", right[3], arrived=5)
    drop(world, "web/b.json", record("bob", 1, "x"), arrived=500)
    poll(world, "web")
    outcome = mend(world, file, {4: right[2], 2: right[1]})
    assert outcome.result
    assert (outcome.refused, outcome.already, outcome.error) == ([], 0, None)
    assert (outcome.result.counts.records, outcome.result.counts.aliases, outcome.result.counts.failed) == (1, 1, 0)
    (entry,) = world.rows(f"SELECT * FROM ledger WHERE file_id = '{outcome.result.file_id}'")
    assert (entry["state"], entry["redrive_of"], entry["source"]) == ("loaded", file.file_id, "web")
    assert entry["last_modified"] == file.last_modified
    assert mended_by(world, file) == dict.fromkeys((2, 4), outcome.result.file_id)
    found = world.rows(f"SELECT line, kind FROM commands WHERE file_id = '{outcome.result.file_id}' ORDER BY line")
    assert [(row["line"], row["kind"]) for row in found] == [(2, "record"), (4, "alias")]
    assert told(world, file) == [("redrive", "ann", "it was wrong", "run 7")]

    other = World(warehouse_at(Path(shutil.copy(empty_warehouse, tmp_path / "other.duckdb"))), SOURCES)
    drop(other, "web/a.json", right[0], right[1], "", right[2], right[3], arrived=5)
    drop(other, "web/b.json", record("bob", 1, "x"), arrived=500)
    poll(other, "web")
    views = ("events", "identities", "people", "kissmetrics_events")
    shown = [everything(one.warehouse, without=["file_id"], tables=views) for one in (world, other)]
    assert shown[0] == shown[1]
    assert broken_promises(world.warehouse) == {}


def test_the_same_mended_lines_again_change_nothing(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad", "worse")
    poll(world, "web")
    mend(world, file, {2: record("bob", 1, "x")})
    shows = all_of(world)
    for name in ("bob", "somebody else"):
        outcome = mend(world, file, {2: record(name, 1, "x")})
        assert (outcome.result, outcome.already, outcome.refused, outcome.error) == (None, 1, [], None)
        assert all_of(world) == shows
    outcome = mend(world, file, {3: record("cat", 1, "x"), 2: record("bob", 1, "x")})
    assert outcome.result
    assert (outcome.already, outcome.result.counts.records, open_lines(world, file)) == (1, 1, [])
    assert len(set(mended_by(world, file).values())) == 2


def test_lines_that_are_still_wrong_stay_open_and_only_there(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad", "worse", "worst")
    poll(world, "web")
    outcome = mend(world, file, {2: record("bob", 1, "x"), 3: '{"_p":"bob"}'})
    assert outcome.result
    assert [(row["line"], row["codes"]) for row in outcome.refused] == [(3, ["time_missing", "no_command"])]
    assert (open_lines(world, file), list(mended_by(world, file))) == ([3, 4], [2])
    assert world.rows("SELECT DISTINCT file_id FROM failed_lines") == [{"file_id": file.file_id}]
    with world.warehouse.failed_lines(file.file_id) as rows:
        assert [row["raw"] for row in rows] == [b"bad", b"worse", b"worst"]  # as sent
    outcome = mend(world, file, {3: "still", 4: "wrong"})
    assert (outcome.result, [row["line"] for row in outcome.refused]) == (None, [3, 4])
    assert world.count("ledger") == 2


@pytest.mark.parametrize(("fixed", "says"), [
    pytest.param(b"no number\n", "line 1", id="not in the shape"),
    pytest.param(b"1\t{}\n", "1", id="a line that did not fail"),
    pytest.param(b"99\t{}\n", "99", id="a line that is not there"),
    pytest.param(b"2/actions/1\t{}\n", "2/actions/1", id="an item that is not there"),
])  # fmt: skip
def test_what_mends_nothing_is_refused_with_a_sentence(world: World, fixed: bytes, says: str) -> None:
    file = drop(world, "web/a.json", X, "bad")
    poll(world, "web")
    shows = all_of(world)
    with pytest.raises(IngestError, match=says):
        redrive(world.pipeline, file.file_id, b"2\t" + lines(X) + fixed if "line" not in says else fixed, NOTE)
    assert all_of(world) == shows


def test_a_redrive_that_goes_when_its_file_is_forced_opens_its_lines_in_other_versions(world: World) -> None:
    content = lines(X, record("bob", 1, "x", o={"a": 1}), "worse")
    old = drop(world, "web/a.json", body=content)
    poll(world, "web")
    mend(world, old, {2: record("bob", 1, "x"), 3: record("cat", 1, "x")})
    new = drop(world, "web/a.json", body=gzip.compress(content))
    poll(world, "web")
    assert open_lines(world, new) == []
    world.store.put(old, content)
    world.sources = (source("web", nested="flatten"),)
    do(world, "force", old)  # the second line is accepted by now, so that its redrive would bring it twice
    assert (open_lines(world, old), open_lines(world, new)) == ([3], [2, 3])
    assert broken_promises(world.warehouse) == {}


NOTHING = [
    pytest.param(b"", id="no byte"),
    pytest.param(b"\n \r\n\t\n\n", id="blank lines"),
    pytest.param(b"\xef\xbb\xbf", id="a BOM alone"),
    pytest.param(b"\xef\xbb\xbf\r\n", id="a BOM and a line end"),
]


@pytest.mark.parametrize("name", ["web", "strict"])
@pytest.mark.parametrize("fixed", NOTHING)
def test_an_empty_file_of_mended_lines_is_an_error(world: World, name: str, fixed: bytes) -> None:
    """Without one the kept lines are judged again, which is another thing."""
    file = drop(world, f"{name}/a.json", X, record("bob", 1, "x", o={"a": 1}))
    poll(world, name)
    world.sources = (source(name, nested="flatten"),)  # by these rules all of it would be loaded
    shows = all_of(world)
    with pytest.raises(IngestError, match="There is no line in what was sent, so nothing was changed"):
        redrive(world.pipeline, file.file_id, fixed, NOTE)
    assert all_of(world) == shows


@pytest.mark.parametrize(("name", "steps"), [
    pytest.param("web", [
        ({2: record("bob", 1, "x")}, 1, 2),
        ({2: record("bob", 1, "x"), 3: "still wrong"}, 0, 2),
        (None, 0, 2),
        ({3: record("cat", 1, "x"), 4: record("dan", 1, "x")}, 2, 0),
        ({3: record("cat", 1, "x")}, 0, 0),
    ], id="of a loaded file"),
    pytest.param("limit", [
        ({2: record("bob", 1, "x")}, 0, 3),
        ({2: record("bob", 1, "x"), 3: record("cat", 1, "x")}, 2, 1),
        ({4: "still wrong"}, 0, 1),
        ({4: record("dan", 1, "x")}, 1, 0),
    ], id="of a rejected file, that is loaded once it is within its limit"),
])  # fmt: skip
def test_a_redrive_says_how_many_lines_it_fixed_and_how_many_are_open(
    world: World, name: str, steps: list[tuple[dict[int, Line] | None, int, int]]
) -> None:
    file = drop(world, f"{name}/a.json", X, "bad", "worse", "worst")
    poll(world, name)
    for mended, fixed, left in steps:
        outcome = mend(world, file, mended)
        assert (outcome.fixed, outcome.open, len(open_lines(world, file))) == (fixed, left, left), mended


def test_a_line_that_fails_only_now_counts_as_open(world: World) -> None:
    file = drop(world, "limit/a.json", X, record("bob", 1, "", a=1), "bad", "worse")  # a blank event only warns
    poll(world, "limit")
    world.sources = (source("limit", strict=True, max_failed_lines=2),)
    outcome = mend(world, file, {3: record("cat", 1, "x")})
    assert (outcome.fixed, outcome.open, open_lines(world, file)) == (1, 2, [2, 4])


def test_without_mended_lines_the_rules_of_today_hold(world: World) -> None:
    nested = record("bob", 1, "x", o={"a": 1})
    file = drop(world, "web/a.json", X, nested, "bad")
    poll(world, "web")
    outcome = mend(world, file, None)
    assert (outcome.result, [row["line"] for row in outcome.refused]) == (None, [2, 3])
    world.sources = (source("web", nested="flatten"),)
    outcome = mend(world, file, None)
    assert outcome.result
    assert ([row["line"] for row in outcome.refused], open_lines(world, file)) == ([3], [3])
    assert world.rows("SELECT properties FROM events WHERE person = 'bob'") == [{"properties": '{"o.a":1}'}]


def test_undo_takes_redrives_along_and_the_same_lines_may_be_sent_again(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad", alias("bob", "cat"))
    poll(world, "web")
    first = mend(world, file, {2: record("bob", 1, "x")})
    assert first.result
    before = everything(world.warehouse, without=["redriven_at"])
    (undone,) = do(world, "undo", file)
    assert undone.redrives == (first.result.file_id,)
    assert [row["state"] for row in world.rows("SELECT state FROM ledger")] == ["undone", "undone"]
    assert (world.count("commands"), world.count("failed_lines"), world.count("identities")) == (0, 0, 0)
    again(world, file)
    assert (open_lines(world, file), events(world)) == ([2], [("ann", "x")])
    second = mend(world, file, {2: record("bob", 1, "x")})
    assert second.result
    assert second.result.file_id == first.result.file_id
    assert everything(world.warehouse, without=["redriven_at"]) == before


def test_undo_of_a_redrive_opens_its_lines_again(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad", "worse")
    poll(world, "web")
    before = everything(world.warehouse, tables=("commands", "failed_lines", "events", "identities", "people"))
    one, other = mend(world, file, {2: record("bob", 1, "x")}), mend(world, file, {3: record("cat", 1, "x")})
    assert one.result
    assert other.result
    do(world, "undo", one.result.file_id)
    assert (open_lines(world, file), mended_by(world, file)) == ([2], {3: other.result.file_id})
    assert events(world) == [("ann", "x"), ("cat", "x")]
    do(world, "undo", other.result.file_id)
    now = everything(world.warehouse, tables=("commands", "failed_lines", "events", "identities", "people"))
    assert now == before
    assert [row[0] for row in told(world, file)][-1:] == ["redrive"]
    assert mend(world, file, {2: record("bob", 1, "x")}).result


@pytest.mark.slow
def test_a_redrive_and_its_original_undone_together(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad")
    poll(world, "web")
    outcome = mend(world, file, {2: record("bob", 1, "x")})
    assert outcome.result
    for order in ([file.file_id, outcome.result.file_id], [outcome.result.file_id, file.file_id]):
        results = do(world, "undo", *order)
        assert {result.state for result in results} == {"undone"}
        assert not any(actions.failed("undo", result) for result in results)
        assert (world.count("commands"), world.count("failed_lines")) == (0, 0)
        again(world, file)
        mend(world, file, {2: record("bob", 1, "x")})
        assert events(world) == [("ann", "x"), ("bob", "x")]


def test_a_rejected_file_is_loaded_whole_once_it_is_within_its_limits(world: World) -> None:
    file = drop(world, "limit/a.json", X, "bad", record("bob", 1, "x"), "worse", "worst")
    assert poll(world, "limit") == {"limit/a.json": "rejected"}
    shows = all_of(world)
    outcome = mend(world, file, {2: record("cat", 2, "x")})
    assert (outcome.result, [row["line"] for row in outcome.refused]) == (None, [4, 5])
    assert outcome.error
    assert "max_failed_lines" in outcome.error
    assert all_of(world) == shows
    outcome = mend(world, file, {2: record("cat", 2, "x"), 5: record("dan", 2, "x")})
    assert outcome.result
    assert (outcome.result.state, [row["line"] for row in outcome.refused]) == ("loaded", [4])
    assert events(world) == [("ann", "x"), ("bob", "x"), ("cat", "x"), ("dan", "x")]
    assert [row["line"] for row in world.rows("SELECT line FROM events ORDER BY position")] == [1, 2, 3, 5]
    assert mended_by(world, file) == dict.fromkeys((2, 5), outcome.result.file_id)
    assert open_lines(world, file) == [4]
    assert accepted_twice(world) == []
    do(world, "undo", outcome.result.file_id)
    assert (open_lines(world, file), events(world), state(world, file)) == ([2, 4, 5], [], "rejected")
    mend(world, file, {2: record("cat", 2, "x"), 5: record("dan", 2, "x")})
    (undone,) = do(world, "undo", file)
    assert undone.redrives == (outcome.result.file_id,)
    assert (world.count("commands"), world.count("failed_lines")) == (0, 0)


def test_a_rejected_file_that_a_redrive_holds_is_not_ignored(world: World) -> None:
    file = drop(world, "strict/a.json", X, "bad")
    poll(world, "strict")
    assert mend(world, file, {2: record("bob", 1, "x")}).result
    shows = all_of(world)
    rows, _ = actions.chosen(world.pipeline, [file.file_id], "ignore")
    redrives = world.warehouse.files({"redrive_of": file.file_id, "state": "loaded"})
    results = [*do(world, "ignore", file), *actions.would("ignore", rows, [], redrives)]
    assert [(one.state, "Undo it first" in (one.error or "")) for one in results] == [("rejected", True)] * 2
    assert all_of(world) == shows


def test_a_rejected_file_whose_object_is_gone_stays_rejected(world: World) -> None:
    file = drop(world, "strict/a.json", X, "bad")
    poll(world, "strict")
    del world.store.objects["bucket", "strict/a.json"]
    shows = all_of(world)
    with suppress(IngestError):
        outcome = mend(world, file, {2: record("bob", 1, "x")})
        assert (outcome.result, bool(outcome.error)) == (None, True)
    assert all_of(world) == shows


def test_a_rejected_file_is_mended_from_the_archive(world: World) -> None:
    file = drop(world, "web/a.json", X, "bad")
    poll(world, "web")
    archive(world, file)
    do(world, "undo", file)
    world.sources = (source("web", max_failed_lines=0),)
    assert again(world, *world.pipeline.locate(file.uri, "web")) == ["rejected"]
    assert mend(world, file, {2: record("bob", 1, "x")}).result
    assert events(world) == [("ann", "x"), ("bob", "x")]


# Rejected while what is nested was right: line 4 fails anew. The mended line 2 is longer than the one that was sent.
NESTED = record("dan", 4, "n", o={"a": 1})


def rejected_under_other_rules(world: World, *, most: int) -> SourceFile:
    world.sources = (source("web", max_failed_lines=1, nested="flatten"),)
    file = world.put(
        "web/a.json", source="web", body=b"\xef\xbb\xbf" + lines(X) + b"bad\r\n\n" + lines(NESTED) + b"worse"
    )
    assert poll(world, "web") == {"web/a.json": "rejected"}
    world.sources = (source("web", max_failed_lines=most),)
    return file


@pytest.mark.slow
def test_what_fails_only_now_is_open_and_can_be_mended(world: World) -> None:
    file = rejected_under_other_rules(world, most=2)
    outcome = mend(world, file, {2: record("bob", 2, "x")})
    assert outcome.result
    assert [(row["line"], row["codes"]) for row in outcome.refused] == [(4, ["nested_value"]), (5, ["not_json"])]
    assert (outcome.still_wrong, open_lines(world, file)) == (2, [4, 5])
    assert mended_by(world, file) == {2: outcome.result.file_id}
    assert (events(world), world.warehouse.find_file(file.file_id)["failed"]) == ([("ann", "x"), ("bob", "x")], 3)
    with world.warehouse.failed_lines(file.file_id) as rows:
        for row in rows:  # where it stands in the object
            begin = row["byte_offset"]
            assert world.store.objects["bucket", "web/a.json"][1][begin : begin + row["byte_length"]] == row["raw"]
    counts = outcome.result.counts
    assert (counts.lines, counts.blank, counts.items, counts.records, counts.failed) == (3, 1, 2, 2, 0)
    assert broken_promises(world.warehouse) == {}
    assert world.warehouse.disagreements() == []

    assert mend(world, file, {4: record("dan", 4, "x"), 5: record("eve", 5, "x")}).result
    assert (open_lines(world, file), len(events(world)), accepted_twice(world)) == ([], 4, [])
    do(world, "undo", outcome.result.file_id)  # the second leans on it
    assert (open_lines(world, file), events(world)) == ([2, 4, 5], [])
    mended = {line: record("x", line, "x") for line in (2, 4, 5)}
    assert mend(world, file, mended).result
    assert (open_lines(world, file), len(events(world)), accepted_twice(world)) == ([], 4, [])
    assert world.warehouse.disagreements() == []


def test_what_fails_only_now_counts_for_the_limits(world: World) -> None:
    file = rejected_under_other_rules(world, most=1)
    shows = all_of(world)
    outcome = mend(world, file, {2: record("bob", 2, "x")})
    assert (outcome.result, [row["line"] for row in outcome.refused]) == (None, [4, 5])
    assert all_of(world) == shows


@pytest.mark.parametrize("name", ["web", "limit"])  # loaded, and rejected
def test_a_blank_line_mends_nothing(world: World, name: str) -> None:
    file = drop(world, f"{name}/a.json", X, "bad", "worse")
    poll(world, name)
    outcome = mend(world, file, {2: "", 3: record("cat", 3, "x")})
    assert outcome.result
    assert (outcome.still_wrong, open_lines(world, file), list(mended_by(world, file))) == (1, [2], [3])
    assert outcome.result.counts.blank == 0
    assert mend(world, file, {2: record("bob", 2, "x")}).result
    assert events(world) == [("ann", "x"), ("bob", "x"), ("cat", "x")]


def test_what_is_sent_wrong_does_not_keep_a_line_that_is_right_by_now(world: World) -> None:
    world.sources = (source("web", max_failed_lines=0),)
    file = drop(world, "web/a.json", X, NESTED)
    poll(world, "web")
    world.sources = (source("web", max_failed_lines=0, nested="flatten"),)
    outcome = mend(world, file, {2: "bad"})
    assert outcome.result
    assert (outcome.refused, outcome.still_wrong, open_lines(world, file)) == ([], 0, [])
    assert events(world) == [("ann", "x"), ("dan", "n")]


@pytest.mark.parametrize("between", ["force", "redrive", "undo of the first"])
def test_what_somebody_else_does_meanwhile_brings_no_line_twice(
    world: World, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no line is marked as mended: then only the file itself tells."""
    file = drop(world, "strict/a.json", X, "bad", "worse")
    poll(world, "strict")
    world.sources = (source("strict", max_failed_lines=2),)
    first = mend(world, file, {3: record("cat", 3, "x")}) if between == "undo of the first" else None
    todo = [between]

    def disturbed(*arguments: Any, **more: Any) -> Staging:
        staging = stage(*arguments, **more)
        if todo:
            todo.pop()
            if first and first.result:
                do(world, "undo", first.result.file_id)
            elif between == "force":
                do(world, "force", file)
            else:
                assert mend(world, file, {2: record("bob", 2, "x")}).result
        return staging

    monkeypatch.setattr("ingest.redrive.stage", disturbed)
    outcome = mend(world, file, {2: record("bob", 2, "x")} if first else None)
    assert bool(outcome.result) == bool(first)
    assert accepted_twice(world) == []
    assert events(world) == [("ann", "x"), *[("bob", "x")] * (between != "force")]


def test_a_redrive_that_the_warehouse_refuses_leaves_its_lines_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = drop(world, "web/a.json", X, "bad")
    poll(world, "web")
    shows = all_of(world)

    def refuse(*_: object) -> None:
        raise duckdb.ConversionException("no")

    monkeypatch.setattr("ingest.warehouse.engines.duckdb.applying.DuckDBApplying.insert_commands", refuse)
    with pytest.raises(IngestError, match="refused the fixed lines"):
        mend(world, file, {2: record("bob", 1, "x")})
    assert all_of(world) == shows


def test_a_long_line_is_replaced_without_being_held() -> None:
    pieces = [b"first\nsec", *[b"x" * 1000] * 5000, b"ond\nthird\nfo", b"urth"]
    edits = _Edits()
    tracemalloc.start()
    try:
        out = list(_substituted(iter(pieces), {2: b"two", 4: b"4"}, edits))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert b"".join(out) == b"first\ntwo\nthird\n4"
    assert peak < 1 << 20
    whole = b"".join(pieces)
    assert [edits.original(at) for at in (0, 6, 10)] == [0, 6, whole.index(b"third")]


def test_lines_that_are_kept_in_part_are_not_judged_again_and_it_is_said(world: World) -> None:
    file = drop(world, "web/a.json", X, record("bob", 1, "x" * (1 << 20)), "bad")
    poll(world, "web")
    outcome = mend(world, file, None)
    assert (outcome.result, [row["line"] for row in outcome.refused]) == (None, [3])
    assert outcome.error
    assert "1 open line was not judged again" in outcome.error
    assert mend(world, file, {3: record("cat", 1, "x")}).error is None


def test_of_very_many_wrong_lines_the_first_are_shown_and_all_are_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.redrive._SHOWN_AT_MOST", 2)
    file = drop(world, "web/a.json", "bad", "bad", "bad", "bad")
    poll(world, "web")
    outcome = mend(world, file, None)
    assert ([row["line"] for row in outcome.refused], outcome.still_wrong) == ([1, 2], 4)


@pytest.mark.parametrize("most", [1, 2])
def test_the_rest_of_a_rejected_file_may_be_mended_later(world: World, most: int) -> None:
    world.sources = (source("web", max_failed_lines=most),)
    file = drop(world, "web/a.json", X, "bad", "worse", "worst", *["more"] * (most - 1))
    assert poll(world, "web") == {"web/a.json": "rejected"}
    assert mend(world, file, {2: record("bob", 1, "x"), 3: record("cat", 1, "x")}).result
    outcome = mend(world, file, {4: record("dan", 1, "x")})
    assert outcome.error is None
    assert events(world) == [("ann", "x"), ("bob", "x"), ("cat", "x"), ("dan", "x")]
    assert accepted_twice(world) == []


def test_a_line_that_is_sent_twice_with_two_texts_is_an_error(world: World) -> None:
    file = drop(world, "web/a.json", "bad")
    poll(world, "web")
    good, other = lines(X), lines(record("bob", 1, "x"))
    with pytest.raises(IngestError, match="Line 1 stands twice in what was sent"):
        redrive(world.pipeline, file.file_id, b"1\t" + good + b"1\t" + other, NOTE)
    assert events(world) == []
    assert redrive(world.pipeline, file.file_id, b"1\t" + good + b"1\t" + good, NOTE).fixed == 1
