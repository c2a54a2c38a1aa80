"""What actions and loads mean, tried on dictionaries: each state with each of them, and what goes along with what."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from ingest.core.lifecycle import ENDS, FINAL_STATES, STATES, TAKES, WAITS, Intent, State, is_settled, refusal
from ingest.core.source import SourceFile
from ingest.errors import StaleRedrive, TransientError
from ingest.judging import FAILED
from ingest.plans.changes import LedgerRow, NotWrittenError, Plan
from ingest.ports import Audit, Counts, Mark, Redrive, StagedFile, Staging
from tests.memory_engine import MemoryWarehouse, Tables

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOTE = Audit("ann", "because", "run 7")


def file(name: str, **more: Any) -> SourceFile:
    told: dict[str, Any] = {"bucket": "b", "key": f"{name}.json", "etag": name, "last_modified": NOW, "size_bytes": 1}
    return SourceFile(**told | more)


def row(name: str, state: State, number: int, **more: Any) -> LedgerRow:
    of = file(name)
    told: dict[str, Any] = {
        "file_id": of.file_id, "file_no": number, "source": "web", "bucket": "b", "key": of.key, "etag": of.etag,
        "version_id": None, "last_modified": NOW, "size_bytes": 1, "format": "kissmetrics", "people_space": "web",
        "state": state, "position": of.position, "sha256": name, "attempts": 1,
        "next_try_at": NOW if state == "retrying" else None,
    }  # fmt: skip
    return LedgerRow(**told | more)


def warehouse(
    rows: Iterable[LedgerRow], failed: Mapping[int, Mapping[int, str | None]] | None = None
) -> MemoryWarehouse:
    """`failed`: of files the failed lines, and by whom they are mended."""
    lines = {
        number: {
            (line, ""): {"line": line, "item": "", "raw_sha256": "x", "redriven_by": by, "redriven_at": by and NOW}
            for line, by in of.items()
        }
        for number, of in (failed or {}).items()
    }
    ledger = {one.file_id: one for one in rows}
    return MemoryWarehouse(Tables(ledger, {}, lines, [], {}, max((one.file_no for one in ledger.values()), default=0)))


def states(of: MemoryWarehouse) -> dict[str, State]:
    return {one.key.removesuffix(".json"): one.state for one in of.tables.ledger.values()}


def told(of: MemoryWarehouse) -> list[tuple[str, str]]:
    names = {one.file_id: one.key.removesuffix(".json") for one in of.tables.ledger.values()}
    return [(names[line["file_id"]], line["action"]) for line in of.tables.history]


def staged(*files: SourceFile, folder: Path = Path(), **more: Any) -> Staging:
    return Staging(
        folder, [StagedFile(one, n, Counts(), sha256=one.etag, **more) for n, one in enumerate(files)], [], []
    )


EACH = [row(state, state, number) for number, state in enumerate(STATES, 1)]


# --- each state with each action -------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["undo", "ignore", "retry"])
def test_an_action_takes_the_states_of_the_diagram_and_refuses_the_others(action: Any) -> None:
    there = warehouse(EACH)
    ids = [one.file_id for one in EACH]
    ways: dict[str, Callable[[], Any]] = {
        "undo": lambda: there.undo(ids, NOTE),
        "ignore": lambda: there.ignore(ids, [], NOTE),
        "retry": lambda: there.retry(ids, NOTE),
    }
    results = ways[action]()
    assert [(result.before, result.error) for result in results] == [
        (state, refusal(action, state)) for state in STATES
    ]
    ends = {state: ENDS.get(action, state) if state in TAKES[action] else state for state in STATES}
    assert states(there) == ends == {result.before: result.state for result in results}
    assert sorted(told(there)) == sorted((state, action) for state in TAKES[action])


def test_what_waits_is_closed_when_its_object_is_gone_and_nothing_else() -> None:
    there = warehouse(EACH)
    there.close_gone([one.file_id for one in EACH], NOTE)
    assert states(there) == {state: "replaced" if state in WAITS else state for state in STATES}
    assert sorted(told(there)) == [("held", "gone"), ("retrying", "gone")]
    assert all("was deleted" in line["reason"] for line in there.tables.history)


@pytest.mark.parametrize("intent", ["new", "again", "release", "force"])
@pytest.mark.parametrize("outcome", ["loaded", "rejected", "retrying"])
def test_a_load_takes_the_states_of_the_diagram_and_leaves_the_others(intent: Intent, outcome: State) -> None:
    versions = [replace(one, version_id="1", replaced_by="another") for one in EACH]
    there = warehouse(versions)
    files = [one.file for one in versions]
    results = there.load(staged(*files, outcome=outcome, skip_same_bytes=False), "load", None, intent=intent)
    for state, result, before in zip(STATES, results, versions, strict=True):
        after = there.tables.ledger[before.file_id]
        settled = is_settled(state, intent)
        assert result.already == settled
        if settled or (outcome == "retrying" and state in FINAL_STATES):  # what is there stays
            assert after == before
            assert result.state == (before.state if settled else "retrying")
        else:
            assert (result.state, after.state, after.attempts) == (outcome, outcome, 2)
            assert after.file_no > len(EACH)


def test_what_is_not_known_is_ignored_too() -> None:
    there = warehouse([])
    (result,) = there.ignore([], [file("new")], NOTE)
    assert (result.before, result.state, states(there)) == ("pending", "ignored", {"new": "ignored"})
    assert told(there) == [("new", "ignore")]


# --- what goes along -------------------------------------------------------------------------------------------------


def redriven(state: State) -> MemoryWarehouse:
    """A file with two lines, each mended by a redrive, and a copy."""
    of = row("a", state, 1, failed=2)
    first = row("first", "loaded", 2, redrive_of=of.file_id)
    second = row("second", "loaded", 3, redrive_of=of.file_id)
    copy = row("copy", "duplicate", 4, duplicate_of=of.file_id)
    return warehouse([of, first, second, copy], {1: {1: first.file_id, 2: second.file_id}})


@pytest.mark.parametrize(("state", "chosen", "gone"), [
    pytest.param("loaded", "a", "a first second", id="a file takes its redrives along"),
    pytest.param("loaded", "first", "first", id="a redrive goes alone"),
    pytest.param("rejected", "first", "first second", id="the first of a rejected file holds all of it"),
    pytest.param("rejected", "second", "second", id="a later one goes alone"),
    pytest.param("loaded", "second a", "a first second", id="what went along is told once"),
])  # fmt: skip
def test_what_an_undo_takes_along(state: State, chosen: str, gone: str) -> None:
    there = redriven(state)
    results = there.undo([file(name).file_id for name in chosen.split()], NOTE)
    assert {name for name, now in states(there).items() if now == "undone"} == {*gone.split()}
    assert sorted(told(there)) == [(name, "undo") for name in sorted(gone.split())]
    names = {file(name).file_id: name for name in ("a", "first", "second", "copy")}
    assert [[names[one] for one in result.duplicates] for result in results][-1] == ["copy"] * ("a" in chosen.split())
    lines = there.tables.failed.get(1, {}).values()
    assert [names.get(line["redriven_by"]) for line in lines if line["redriven_by"]] == [
        name for name in ("first", "second") if "a" not in gone.split() and name not in gone.split()
    ]


def test_what_went_along_is_refused_when_it_is_named_too() -> None:
    there = redriven("loaded")
    results = there.undo([file("a").file_id, file("second").file_id], NOTE)
    assert [(result.state, bool(result.error)) for result in results] == [("undone", False), ("undone", True)]


def test_a_file_that_a_load_entered_under_another_id_is_not_entered_once_more() -> None:
    there = warehouse([row("a", "retrying", 1)])
    (result,) = there.ignore([], [file("a", version_id="1")], NOTE)  # versions were switched on in between
    assert (result.before, result.state, states(there)) == ("retrying", "ignored", {"a": "ignored"})


def test_a_rejected_file_is_ignored_only_without_what_redrives_brought() -> None:
    """Else its lines would be loaded, and come again when somebody loads the file by name."""
    there = redriven("rejected")
    (refused,) = there.ignore([file("a").file_id], [], NOTE)
    assert (refused.state, bool(refused.error), told(there)) == ("rejected", True, [])
    there.undo([file("first").file_id], NOTE)
    (result,) = there.ignore([file("a").file_id], [], NOTE)
    assert (result.state, result.error) == ("ignored", None)


def test_marks_are_told_once_and_the_first_stays() -> None:
    there = warehouse([row("a", "loaded", 1)])
    for copy in ("there", "elsewhere"):
        there.mark([Mark(file("a").file_id, archived_to=copy), Mark(file("unknown").file_id, deleted_at=NOW)], NOTE)
    there.mark([Mark(file("a").file_id, archived_to="there", deleted_at=NOW, reason="it was not there")], NOTE)
    (found,) = there.tables.ledger.values()
    assert (found.archived_to, found.deleted_at) == ("there", NOW)
    assert told(there) == [("a", "archived"), ("a", "deleted")]
    assert [line["reason"] for line in there.tables.history] == ["because", "it was not there"]


def test_a_notice_is_sent_once_unless_it_could_not_be_sent() -> None:
    there = warehouse([])
    assert [there.notify_once(["a", "b", "a"], NOTE), there.notify_once(["a", "b"], NOTE)] == [["a", "b"], []]
    assert there.notify_once(["a"], Audit("ann", "another")) == ["a"]
    there.not_notified(["b"], NOTE)
    assert there.notify_once(["a", "b"], NOTE) == ["b"]


def test_the_first_poll_passes_over_what_no_id_of_the_ledger_is_of() -> None:
    there = warehouse([row("a", "loaded", 1)])
    versioned = file("a", version_id="1")  # the same object, seen with other eyes
    listed = [versioned, file("b")]
    assert [there.first_poll("web", listed, NOW), there.first_poll("web", [file("c")], NOW)] == [1, 0]
    assert states(there) == {"a": "loaded", "b": "ignored"}
    assert there.was_polled("web")


# --- loads -----------------------------------------------------------------------------------------------------------


def test_a_redrive_of_lines_that_are_not_open_any_more_is_stale() -> None:
    there = redriven("loaded")
    mending = file("mended", key="a.json#1", mends="a.json")
    before = there.tables
    (one,) = staged(mending).files
    for lines, whole_of in (([(1, "")], None), ([(9, "")], None), ([], 2)):
        redrive = Redrive(file("a").file_id, lines, whole_of=whole_of)
        with pytest.raises(StaleRedrive):
            there.load(replace(staged(), files=[replace(one, redrive=redrive)]), "load", None, intent="again")
    assert there.tables is before


def test_two_redrives_of_one_line_in_one_load_are_stale() -> None:
    there = warehouse([row("a", "loaded", 1, failed=1)], {1: {1: None}})
    redrive = Redrive(file("a").file_id, [(1, "")])
    both = staged(
        *(file(name, key=f"a.json#{name}", mends="a.json") for name in "xy"), redrive=redrive, skip_same_bytes=False
    )
    with pytest.raises(StaleRedrive):
        there.load(both, "load", None, intent="again")
    (first,) = there.load(replace(both, files=both.files[:1]), "load", None, intent="again")
    assert first.state == "loaded"
    assert there.tables.failed[1][1, ""]["redriven_by"] == first.file_id


def test_a_redrive_never_takes_the_place_of_the_file_that_it_mends() -> None:
    there = warehouse([row("a", "loaded", 1, failed=1)], {1: {1: None}})
    mending = file("mended", key="a.json#1", mends="a.json")
    redrive = Redrive(file("a").file_id, [(1, "")], failed=0)
    there.load(staged(mending, redrive=redrive, changed_file="replace"), "load", None, intent="again")
    assert states(there) == {"a": "loaded", "a.json#1": "loaded"}


def test_lines_that_were_right_when_a_file_was_rejected_fail_in_it_and_are_counted_there(tmp_path: Path) -> None:
    there = warehouse([row("a", "rejected", 1, failed=1)], {1: {1: None}})
    mending = file("mended", key="a.json#1", mends="a.json")
    redrive = Redrive(file("a").file_id, [(1, "")], failed=1, whole_of=1)
    there.load(failing(tmp_path, staged(mending, redrive=redrive), {2: "y"}), "load", None, intent="again")
    assert there.tables.ledger[file("a").file_id].failed == 2
    assert {place[0]: line["redriven_by"] for place, line in there.tables.failed[1].items()} == {
        1: mending.file_id, 2: None,
    }  # fmt: skip


def failing(folder: Path, staging: Staging, lines: Mapping[int, str]) -> Staging:
    """The same with failed lines of its first file: the number of each, and the hash of what stands there."""
    (first, *others) = staging.files
    rows = [
        dict.fromkeys(FAILED.names)
        | {"staged_no": first.staged_no, "line": line, "item": "", "raw_sha256": raw, "raw": b"", "codes": ["not_json"]}
        for line, raw in lines.items()
    ]
    parquet.write_table(pa.Table.from_pylist(rows, FAILED), folder / "failed.parquet")
    counts = Counts(failed=0 if first.redrive else len(lines))
    return replace(staging, files=[replace(first, counts=counts), *others], failed=[folder / "failed.parquet"])


@pytest.mark.parametrize(("policy", "lines", "mended", "of_first", "of_second"), [
    pytest.param("new_version", {1: "x", 2: "x"}, "first second", "a", "a", id="a version beside, the same lines"),
    pytest.param("new_version", {1: "x", 2: "y"}, "first", "a", "a", id="a version beside, one line is another"),
    pytest.param("replace", {1: "x", 2: "x"}, "first second", "new", "new", id="in its place, the same lines"),
    pytest.param("replace", {1: "x", 2: "y"}, "first", "new", "replaced", id="in its place, one line is another"),
    pytest.param("replace", {1: "x"}, "first", "new", "replaced", id="in its place, one line is right"),
])  # fmt: skip
def test_lines_that_fail_as_they_did_stay_mended(
    tmp_path: Path, policy: Any, lines: Mapping[int, str], mended: str, of_first: str, of_second: str
) -> None:
    there = redriven("loaded")
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    (result,) = there.load(failing(tmp_path, staged(new, changed_file=policy), lines), "load", None)
    redrives = {name: there.tables.ledger[file(name).file_id] for name in ("first", "second")}
    names = {file("a").file_id: "a", new.file_id: "new"}
    assert [names[str(one.redrive_of)] if one.state == "loaded" else one.state for one in redrives.values()] == [
        of_first,
        of_second,
    ]
    kept = [line["redriven_by"] for line in there.tables.failed[5].values() if line["redriven_by"]]
    assert kept == [file(name).file_id for name in mended.split()]
    assert result.fixed == len(kept)
    assert (1 in there.tables.failed) == (policy == "new_version")


def test_what_is_put_anew_keeps_what_was_mended_of_it(tmp_path: Path) -> None:
    """A redrive that mended another line, too, goes: that line may be accepted now."""
    there = redriven("loaded")
    again = failing(tmp_path, staged(file("a")), {1: "x"})
    there.load(again, "load", None, intent="force", note=NOTE)
    assert states(there) == {"a": "loaded", "first": "loaded", "second": "undone", "copy": "duplicate"}
    assert told(there) == [("a", "force"), ("second", "undo")]


def test_what_a_redrive_that_goes_had_mended_is_open_and_not_told_as_fixed(tmp_path: Path) -> None:
    both = row("both", "loaded", 2, redrive_of=file("a").file_id)
    there = warehouse([row("a", "loaded", 1, failed=2), both], {1: dict.fromkeys((1, 2), both.file_id)})
    (result,) = there.load(failing(tmp_path, staged(file("a")), {1: "x"}), "load", None, intent="force")
    assert states(there) == {"a": "loaded", "both": "undone"}
    assert (result.fixed, there.tables.failed[3][1, ""]["redriven_by"]) == (0, None)


def test_a_rejected_file_that_is_put_anew_takes_its_redrives_along() -> None:
    there = redriven("rejected")
    there.load(staged(file("a")), "load", None, intent="force")
    assert states(there) == {"a": "loaded", "first": "undone", "second": "undone", "copy": "duplicate"}


def test_a_plan_reads_what_it_has_changed() -> None:
    """The redrives that go with a rejected file are gone when a change of the same load looks for them."""
    there = redriven("rejected")
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    there.load(staged(file("a"), new, changed_file="replace"), "load", None, intent="force")
    assert {one.state for one in there.tables.ledger.values() if one.redrive_of} == {"undone"}
    assert sorted(told(there)) == [("a", "force"), ("first", "undo"), ("second", "undo")]


def test_what_was_brought_of_a_rejected_version_leaves_with_the_change() -> None:
    there = redriven("rejected")
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    (result,) = there.load(staged(new, changed_file="replace"), "load", None)
    assert {one.state for one in there.tables.ledger.values() if one.redrive_of} == {"replaced"}
    assert len(result.replaces) == 2
    assert not any(line["redriven_by"] for line in there.tables.failed[1].values())


def test_a_copy_of_what_this_load_replaces_is_none() -> None:
    there = warehouse([row("a", "loaded", 1, sha256="x")])
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    a, b = staged(*(replace(one, source="web") for one in (new, file("b"))), changed_file="replace").files
    results = there.load(replace(staged(), files=[a, replace(b, sha256="x")]), "load", None)
    assert [result.state for result in results] == ["loaded", "loaded"]


@pytest.mark.parametrize(("state", "becomes"), [
    ("loaded", "duplicate"), ("duplicate", "duplicate"), ("replaced", "loaded"), ("held", "held"),
    ("undone", "loaded"), ("ignored", "ignored"), ("rejected", "rejected"),
])  # fmt: skip
def test_the_same_bytes_under_a_key_are_no_change_whatever_the_store_calls_them(state: State, becomes: State) -> None:
    """`undone`, as asked for by name."""
    there = warehouse([row("a", state, 1, sha256="x", duplicate_of="1" * 32 if state == "duplicate" else None)])
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    (one,) = staged(new, changed_file="hold").files
    intent: Intent = "again" if state == "undone" else "new"
    (result,) = there.load(replace(staged(), files=[replace(one, sha256="x")]), "load", None, intent=intent)
    assert result.state == becomes
    is_same = state in ("held", "ignored", "rejected", "undone")
    assert (result.file_id == file("a").file_id) == is_same
    assert there.tables.ledger[result.file_id].etag == "other"
    if becomes == "duplicate":
        assert result.duplicate_of == ("1" * 32 if state == "duplicate" else file("a").file_id)


@pytest.mark.parametrize(("former", "intent", "becomes"), [
    (None, "new", "replaced"), ("retrying", "new", "replaced"), (None, "again", "replaced"),
    ("undone", "again", "loaded"), ("undone", "force", "loaded"), (None, "force", "loaded"),
])  # fmt: skip
def test_a_version_that_was_slow_takes_the_place_of_a_later_one_only_by_name(
    former: State | None, intent: Intent, becomes: State
) -> None:
    """Of a bucket with versions no poll would load the later one again."""
    later = row("later", "loaded", 1, key="a.json", version_id="2", last_modified=NOW + timedelta(seconds=1))
    slow = file("a", version_id="1")
    known = row("a", former or "retrying", 2, file_id=slow.file_id, version_id="1")
    there = warehouse([later, known][: 1 if former is None else 2])
    (result,) = there.load(staged(slow, changed_file="replace"), "load", None, intent=intent, note=NOTE)
    assert (result.state, states(there)) == (becomes, {"a": becomes})
    assert there.tables.ledger[slow.file_id].replaced_by == (later.file_id if becomes == "replaced" else None)
    assert there.tables.ledger[later.file_id].state == ("loaded" if becomes == "replaced" else "replaced")
    assert ("a", "replace") in told(there)


def test_a_change_that_was_held_and_taken_back_is_held_again() -> None:
    """Also where its bytes come under another ETag: they never were loaded."""
    there = warehouse([row("a", "loaded", 1), row("taken back", "replaced", 2, key=file("a").key, sha256="x")])
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    (one,) = staged(new, changed_file="hold").files
    (result,) = there.load(replace(staged(), files=[replace(one, sha256="x")]), "load", None)
    assert result.state == "held"


def test_bytes_that_are_held_are_not_loaded_when_they_could_not_be_read_under_another_etag() -> None:
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    waits = row("b", "retrying", 3, file_id=new.file_id, key=new.key, etag=new.etag)
    there = warehouse([row("a", "loaded", 1), row("held", "held", 2, key=new.key, sha256="x"), waits])
    (one,) = staged(new, changed_file="hold").files
    (result,) = there.load(replace(staged(), files=[replace(one, sha256="x")]), "load", None)
    assert result.state == "held"


def test_bytes_of_which_a_redrive_holds_all_are_loaded() -> None:
    there = redriven("rejected")
    new = file("a", etag="other", last_modified=NOW + timedelta(seconds=1))
    (one,) = staged(new).files
    (result,) = there.load(replace(staged(), files=[replace(one, sha256="a")]), "load", None)
    assert (result.state, result.duplicate_of, result.file_id) == ("duplicate", file("a").file_id, new.file_id)
    assert states(there) | {"a": "duplicate"} == {**states(redriven("rejected")), "a": "duplicate"}


def test_where_the_object_of_a_file_went_is_kept_when_it_is_put_anew() -> None:
    there = warehouse([row("a", "loaded", 1, archived_to="there", deleted_at=NOW)])
    there.load(staged(file("a")), "load", None, intent="force")
    (found,) = there.tables.ledger.values()
    assert (found.archived_to, found.deleted_at) == ("there", NOW)


class Refusing(MemoryWarehouse):
    """An engine that refuses whatever holds a file called `bad`."""

    world = False

    def transact(self, plan: Plan[Any]) -> Any:
        before = self.tables
        done = super().transact(plan)
        if any(name == "bad" and state == "loaded" for name, state in states(self).items()):
            self.tables = before
            raise NotWrittenError("No.", reason="No.", is_disk=self.world, is_for_all=False, is_of_the_world=self.world)
        return done


@pytest.mark.parametrize("of_the_disk", [False, True])
def test_a_load_that_the_engine_refuses_is_halved_until_it_is_known_why(of_the_disk: bool) -> None:
    there = Refusing()
    there.world = of_the_disk
    names = ("a", "b", "bad", "c", "d")
    results = there.load(staged(*map(file, names)), "load", None)
    assert [result.state for result in results] == ["retrying" if name == "bad" else "loaded" for name in names]
    assert "No." in (results[2].error or "")
    assert states(there).get("bad") == (None if of_the_disk else "retrying")
    if of_the_disk:
        with pytest.raises(TransientError):
            there.load(staged(file("bad")), "load", None)


def test_a_failure_at_any_step_of_a_load_leaves_all_or_nothing() -> None:
    def load(of: MemoryWarehouse) -> object:
        new = replace(file("a"), etag="other", last_modified=NOW + timedelta(seconds=1))
        return of.load(staged(new, file("b"), changed_file="replace"), "load", None)

    whole = redriven("loaded")
    load(whole)
    ended = [(one.file_id, one.state) for one in whole.tables.ledger.values()]
    assert {state for _, state in ended} == {"replaced", "duplicate", "loaded"}
    for step in range(1, len(whole.steps) + 1):
        there = redriven("loaded")
        before, there.fail_at, there.error = there.tables, step, KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            load(there)
        assert (there.tables is before) == (whole.steps[step - 1] != "after the commit")
        load(there)
        assert [(one.file_id, one.state) for one in there.tables.ledger.values()] == ended
