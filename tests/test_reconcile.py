"""Each difference, provoked for real: it is named, repaired where that is safe, and a sound world has none."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.core.source import SourceFile
from ingest.errors import ConfigError
from ingest.ports import Audit, Warehouse
from ingest.reconcile import Difference, Reconciliation, _Many, reconcile
from ingest.redrive import redrive
from ingest.settings import Source
from tests.support import ARRIVAL, World, alias, change, everything, lines, put, record

NOTE = Audit("tester", "to see")
LONG_AGO = "TIMESTAMPTZ '2026-01-02 00:00:00+00'"
WRONG = '{"_p": "ann", "_t": "when", "_n": "Paid"}'
RIGHT = b'4\t{"_p": "ann", "_t": 1393344700, "_n": "Paid"}\n'


@pytest.fixture
def world(new_warehouse: Callable[[], Warehouse]) -> World:
    return World(new_warehouse(), [website()])


def website(**more: Any) -> Source:
    settings: dict[str, Any] = {"name": "website", "bucket": "bucket", "prefix": "landing/", "max_failed_lines": 2}
    return Source(**settings | more)


def fill(world: World) -> dict[str, str]:
    """Of every kind of file one, all as it should be: file_ids by name."""
    first = bring(world, "1.json", record("ann", 0, "Paid"), put("ann", 1, a=1), alias("ann", "bob"), WRONG)
    second = bring(world, "2.json", record("ann", 0, "Paid"), record("eve", 5, "Left"), alias("guest", "eve"))
    copy = bring(world, "3.json", record("ann", 0, "Paid"), record("eve", 5, "Left"), alias("guest", "eve"))
    undone = bring(world, "4.json", record("kim", 9, "Paid"), WRONG)
    world.warehouse.undo([undone], NOTE)
    mended = redrive(world.pipeline, first, RIGHT, NOTE).result
    assert mended
    rejected = bring(world, "5.json", WRONG, WRONG + " ", WRONG + "  ")
    world.warehouse.ignore([rejected], [], NOTE)
    return {"first": first, "second": second, "copy": copy, "undone": undone, "mended": mended.file_id}


def bring(world: World, name: str, *lines: Any, **more: Any) -> str:
    return world.bring(f"landing/{name}", *lines, source="website", **more).file_id


def told(found: Reconciliation) -> list[tuple[str, str]]:
    return sorted((one.what, one.key.removeprefix("landing/")) for one in found.differences)


def noted(found: Reconciliation) -> list[tuple[str, str]]:
    return sorted((one.what, one.key.removeprefix("landing/")) for one in found.information)


def only(found: list[Difference]) -> Difference:
    (one,) = found
    return one


def test_a_sound_world_has_no_difference(world: World) -> None:
    fill(world)

    found = reconcile(world.pipeline)

    assert (found.differences, found.information) == ([], [])
    assert (found.compared, found.ignored) == ({"website": 5}, {"website": 0})


def test_a_file_that_says_again_what_its_redrive_says_is_sound_once_it_is_forced(world: World) -> None:
    """A file and its redrives stand at one position, so which row of a fact is the first is for one rule to say."""
    said = record("ann", 0, "again")
    file = world.put("again.json", said, "no json", source="website")
    (loaded,) = world.load(file)
    redrive(world.pipeline, loaded.file_id, b"2\t" + lines(said), Audit("ann"))
    world.load(file, force=True)
    assert world.warehouse.disagreements() == []
    assert len(world.rows("SELECT line FROM events WHERE event = 'again'")) == 1


def test_an_empty_world_has_no_difference(world: World) -> None:
    assert reconcile(world.pipeline).differences == []


# --- landing ---------------------------------------------------------------------------------------------------------


def test_files_that_wait_are_told_after_a_while(world: World) -> None:
    file = world.put("landing/1.json", record("ann", 0, "Paid"), source="website")
    now = (datetime.now(UTC) - ARRIVAL).total_seconds()
    world.put("landing/2.json", record("ann", 0, "Paid"), source="website", arrived=now - 60)

    found = reconcile(world.pipeline)

    assert told(found) == [("pending", "1.json")]
    assert found.differences[0].file_id == file.file_id
    assert "paused" in found.differences[0].explanation


def test_what_keeps_failing_is_told_once_with_its_error(world: World) -> None:
    world.store.broken["landing/1.json"] = "the store answered SlowDown"
    bring(world, "1.json", record("ann", 0, "Paid"))
    change(world.warehouse, f"UPDATE ledger SET next_try_at = {LONG_AGO}")  # so that it is pending as well

    found = reconcile(world.pipeline)

    assert told(found) == [("retrying", "1.json")]
    assert "SlowDown" in found.differences[0].explanation


def test_what_no_rule_takes_is_named_and_no_difference(world: World) -> None:
    world.put("landing/a.csv")
    world.put("landing/b.csv")

    found = reconcile(world.pipeline)

    assert found.ignored == {"website": 2}
    assert (told(found), noted(found)) == ([], [("no_rule", "")])
    assert "landing/a.csv, landing/b.csv" in found.information[0].explanation


def test_a_bucket_that_cannot_be_listed_holds_up_no_other(world: World) -> None:
    world.sources = [website(), website(name="other", bucket="closed")]
    bring(world, "1.json", record("ann", 0, "Paid"))
    listed = world.store.list

    def refuse(bucket: str, prefix: str) -> Any:
        if bucket == "closed":
            raise ConfigError("s3://closed/: we may not list it")
        return listed(bucket, prefix)

    world.store.list = refuse  # type: ignore[method-assign]
    found = reconcile(world.pipeline)

    assert [(one.source, one.what) for one in found.differences] == [("other", "unreachable")]
    assert found.compared == {"website": 1}


def test_files_that_wait_for_a_person_are_differences(world: World) -> None:
    world.sources = [website(changed_file="hold")]
    bring(world, "1.json", record("ann", 0, "Paid"))
    bring(world, "1.json", record("ann", 0, "Left"))
    bring(world, "2.json", WRONG, WRONG + " ", WRONG + "  ", record("ann", 1, "Paid"))

    found = reconcile(world.pipeline)

    assert told(found) == [("held", "1.json"), ("rejected", "2.json")]
    assert "ingest release" in found.differences[0].explanation
    assert "max_failed_lines" in found.differences[1].explanation

    del world.store.objects["bucket", "landing/1.json"]
    assert "no longer in the landing" in next(
        one.explanation for one in reconcile(world.pipeline).differences if one.what == "held"
    )


@pytest.mark.slow
def test_a_loaded_object_that_was_deleted_is_information(world: World) -> None:
    fill(world)
    del world.store.objects["bucket", "landing/1.json"]

    found = reconcile(world.pipeline)

    assert (told(found), noted(found)) == ([], [("object_gone", "")])
    assert "landing/1.json is no longer in the landing" in found.information[0].explanation


def test_files_of_other_places_are_not_looked_for(world: World) -> None:
    file = world.put("elsewhere/1.json", record("ann", 0, "Paid"), source="website")
    world.load(file)
    world.bring("landing/2.json", record("ann", 0, "Paid"), source="one_off")
    world.store.objects.clear()

    assert reconcile(world.pipeline).information == []


# --- archive ---------------------------------------------------------------------------------------------------------


def archived(world: World) -> str:
    """An archived file; the key of its copy."""
    from ingest.archiving import archive

    world.sources = [website(after_load="archive")]
    bring(world, "1.json", record("ann", 0, "Paid"))
    assert archive(world.pipeline, "website", NOTE) == []
    ((_, key),) = world.store.objects
    assert key.startswith("completed_imports/")
    return key


def test_an_archived_file_is_where_it_should_be(world: World) -> None:
    archived(world)

    found = reconcile(world.pipeline)

    assert (found.differences, found.information) == ([], [])


def test_an_archived_object_that_is_gone_or_of_another_size_is_a_difference(world: World) -> None:
    key = archived(world)
    file, body = world.store.objects["bucket", key]

    world.store.objects["bucket", key] = replace(file, size_bytes=3), body[:3]
    assert told(reconcile(world.pipeline)) == [("archive_differs", "1.json")]

    world.store.objects.clear()
    found = reconcile(world.pipeline)
    assert told(found) == [("archive_missing", "1.json")]
    assert key in found.differences[0].explanation


def test_an_archive_that_may_not_be_listed_is_asked_object_by_object(world: World) -> None:
    archived(world)
    listed = world.store.list

    def refuse(bucket: str, prefix: str) -> Any:
        if prefix.startswith("completed_imports/"):
            raise ConfigError("we may not list it")
        return listed(bucket, prefix)

    world.store.list = refuse  # type: ignore[method-assign]
    found = reconcile(world.pipeline)
    assert found.differences == []
    assert noted(found) == [("archive_unlisted", "completed_imports/")]


def test_what_is_archived_while_listings_are_read_is_not_asked_for(world: World) -> None:
    key = archived(world)
    change(world.warehouse, "UPDATE history SET \"at\" = now() + INTERVAL '1 hour'")
    asked, listed = list[str](), world.store.list

    def describe(bucket: str, key: str) -> SourceFile:
        asked.append(key)
        return world.store.objects[bucket, key][0]

    world.store.list = lambda bucket, prefix: (one for one in listed(bucket, prefix) if one.key != key)  # type: ignore[method-assign]
    world.store.describe = describe  # type: ignore[method-assign]

    assert reconcile(world.pipeline).differences == []
    assert asked == []
    change(world.warehouse, "UPDATE history SET \"at\" = now() - INTERVAL '1 hour'")
    assert reconcile(world.pipeline).differences == []
    assert asked == [key]


def test_of_many_objects_only_the_first_are_held(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sources = [website(after_load="archive")]
    for n in range(7):
        bring(world, f"{n}.json", record("ann", n, "Paid"))
    tidied = [f"landing/{n}.json" for n in range(3)]
    for key in tidied:
        del world.store.objects["bucket", key]
    change(world.warehouse, f"UPDATE ledger SET archived_to = 'old/' || key WHERE key IN {tuple(tidied)}")
    for n in range(3, 7):
        del world.store.objects["bucket", f"landing/{n}.json"]
    monkeypatch.setattr("ingest.reconcile._NAMED_AT_MOST", 2)
    monkeypatch.setattr("ingest.reconcile._ASKED_AT_MOST", 2)
    monkeypatch.setattr("ingest.reconcile._NOTED_AT_ONCE", 1)
    held = list[int]()
    add = _Many.add

    def counted(self: _Many, one: object) -> None:
        add(self, one)
        held.append(len(self.first))

    monkeypatch.setattr(_Many, "add", counted)

    found = reconcile(world.pipeline)

    assert told(found) == [("archive_missing", ""), ("archive_missing", "0.json"), ("archive_missing", "1.json")]
    assert "Of 1 more archived objects" in found.differences[-1].explanation
    assert "Each of 4 objects (landing/3.json, landing/4.json, …)" in only(found.information).explanation
    assert max(held) == 2


def test_the_same_bytes_after_the_archive_are_information(world: World) -> None:
    archived(world)
    world.put("landing/1.json", record("ann", 0, "Paid"), source="website")

    found = reconcile(world.pipeline)

    assert (told(found), noted(found)) == ([], [("came_again", "")])


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_what_should_have_been_tidied_is_told_after_a_day_and_repaired(world: World, after_load: Any) -> None:
    world.sources = [website(after_load=after_load)]
    bring(world, "1.json", record("ann", 0, "Paid"))
    assert reconcile(world.pipeline).differences == []
    change(world.warehouse, f"UPDATE ledger SET loaded_at = {LONG_AGO}")

    found = reconcile(world.pipeline)
    repaired = reconcile(world.pipeline, repair=NOTE)

    assert told(found) == [("not_tidied", "1.json")]
    assert (repaired.differences, [one.what for one in repaired.repaired]) == ([], ["not_tidied"])
    assert ("bucket", "landing/1.json") not in world.store.objects
    assert reconcile(world.pipeline).information == []


def test_a_file_with_open_lines_is_rightly_not_deleted(world: World) -> None:
    world.sources = [website(after_load="delete")]
    bring(world, "1.json", record("ann", 0, "Paid"), WRONG)
    change(world.warehouse, f"UPDATE ledger SET loaded_at = {LONG_AGO}")

    assert reconcile(world.pipeline).differences == []


# --- tables ----------------------------------------------------------------------------------------------------------

Ids = dict[str, str]
REPAIRABLE: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "the rows of an undone file": (
        "UPDATE ledger SET state = 'undone' WHERE file_id = '{second}'",
        [("leftover_rows", "2.json")],
    ),
    "failed lines of an undone file": (
        """INSERT INTO failed_line_rows
            (file_no, line, item, byte_offset, byte_length, raw, raw_sha256, mendable, codes, failures)
        SELECT l.file_no, line, item, byte_offset, byte_length, raw, raw_sha256, mendable, codes, failures
        FROM failed_line_rows, ledger AS l WHERE l.file_id = '{undone}' LIMIT 1""",
        [("leftover_rows", "4.json")],
    ),
    "a fact without a first row": (
        "UPDATE command_rows SET is_first = FALSE WHERE event = 'Left'",
        [("first_rows", "")],
    ),
    "a fact with two first rows": (
        "UPDATE command_rows SET is_first = TRUE WHERE event = 'Paid'",
        [("first_rows", "")],
    ),
    "a fact whose first row is the wrong one": (
        "UPDATE command_rows SET is_first = NOT is_first WHERE event = 'Paid' AND occurred_at = '2014-02-25 16:10:03Z'",
        [("first_rows", "")],
    ),
    "an alias that joins nobody": ("DELETE FROM person_links WHERE identity_key = 'bob'", [("person_links", "")]),
    "aliases that join nobody": ("DELETE FROM person_links", [("person_links", "")]),
    "a link that no alias made": (
        "INSERT INTO person_links VALUES ('kissmetrics', 'zoe', 'ann')",
        [("person_links", "")],
    ),
    "a person by another name": ("UPDATE person_links SET person_id = 'bob'", [("person_links", "")]),
    "a key linked twice": ("INSERT INTO person_links VALUES ('kissmetrics', 'bob', 'ann')", [("person_links", "")]),
    "lines mended by nobody": (
        "UPDATE failed_line_rows SET redriven_by = 'nobody' WHERE redriven_by IS NULL",
        [("redriven_by", "5.json")],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REPAIRABLE)
def test_what_the_ledger_can_tell_is_repaired(world: World, tmp_path: Path, name: str) -> None:
    ids = fill(world)
    sql, expected = REPAIRABLE[name]
    before = everything(world.warehouse, ["state"])
    change(world.warehouse, sql.format(**ids))

    found = reconcile(world.pipeline)
    repaired = reconcile(world.pipeline, repair=NOTE)

    assert told(found) == expected
    assert (repaired.differences, told(replace(repaired, differences=repaired.repaired))) == ([], expected)
    assert reconcile(world.pipeline).differences == []
    assert found.differences[0].explanation[0].isdigit()
    if name not in ("the rows of an undone file", "lines mended by nobody"):
        assert everything(world.warehouse, ["state"]) == before
    if name == "the rows of an undone file":
        assert world.count("events", "event = 'Paid'") == 2  # the first file's, and what mended lines brought


UNREPAIRABLE: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "a record is missing": ("DELETE FROM command_rows WHERE event = 'Left'", [("records", "2.json")]),
    "a set is missing": ("DELETE FROM command_rows WHERE kind = 'set'", [("sets", "1.json")]),
    "an alias is missing": ("DELETE FROM command_rows WHERE alias = 'eve'", [("aliases", "2.json")]),
    "a failed line is missing": (
        "DELETE FROM failed_line_rows WHERE redriven_by IS NOT NULL",
        [("failed_lines", "1.json")],
    ),
    "the ledger tells too many": (
        "UPDATE ledger SET records = 7 WHERE file_id = '{mended}'",
        [("records", "1.json#")],
    ),
    "rows of no file": (
        """INSERT INTO command_rows
            (file_no, line, item_no, kind, person, occurred_at, event, properties, time_source, command_id, is_first)
        SELECT 999, line, item_no, kind, person, occurred_at, event, properties, time_source, command_id, is_first
        FROM command_rows WHERE event = 'Left'""",
        [("rows_without_file", "")],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREPAIRABLE)
def test_what_only_a_person_can_mend_is_explained_and_left_alone(world: World, name: str) -> None:
    ids = fill(world)
    sql, expected = UNREPAIRABLE[name]
    change(world.warehouse, sql.format(**ids))
    before = everything(world.warehouse)

    found = reconcile(world.pipeline, repair=NOTE)

    assert [(what, key[:7] if "#" in key else key) for what, key in told(found)] == expected
    assert found.repaired == []
    assert everything(world.warehouse) == before


@pytest.mark.slow
def test_a_copy_of_what_was_undone_is_information(world: World) -> None:
    ids = fill(world)
    world.warehouse.undo([ids["second"]], NOTE)

    found = reconcile(world.pipeline)

    assert (told(found), noted(found)) == ([], [("duplicate_of", "3.json")])
    assert "is undone" in found.information[0].explanation
    assert "--force" in found.information[0].explanation

    bring(world, "6.json", record("ann", 0, "Paid"), record("eve", 5, "Left"), alias("guest", "eve"))
    assert reconcile(world.pipeline).information == []  # its bytes are loaded again


def test_repairs_are_in_the_history(world: World) -> None:
    ids = fill(world)
    change(world.warehouse, REPAIRABLE["the rows of an undone file"][0].format(**ids))

    reconcile(world.pipeline, repair=NOTE)

    last = world.warehouse.history(ids["second"])[-1]
    assert (last["action"], last["by"], last["reason"]) == ("repair", "tester", "to see")


# --- nothing came ----------------------------------------------------------------------------------------------------


def hours_ago(hours: float) -> float:
    return (datetime.now(UTC) - timedelta(hours=hours) - ARRIVAL).total_seconds()


@pytest.mark.parametrize(
    ("arrived", "expected"),
    [
        pytest.param([30, 23], [], id="in time"),
        pytest.param([30, 25], [("overdue", "2.json")], id="late"),
        pytest.param([], [("overdue", "")], id="never"),
    ],
)
def test_a_source_that_sends_nothing_is_overdue(
    world: World, arrived: list[float], expected: list[tuple[str, str]]
) -> None:
    world.sources = [website(expect_every=timedelta(hours=24))]
    for number, hours in enumerate(arrived, 1):
        bring(world, f"{number}.json", record("ann", number, "Paid"), arrived=hours_ago(hours))

    found = reconcile(world.pipeline)

    assert told(found) == expected
    assert all("every 24 h" in one.explanation for one in found.differences)


@pytest.mark.parametrize(
    ("every", "words"),
    [(timedelta(days=7), "168 h"), (timedelta(minutes=90), "90 min"), (timedelta(seconds=1), "1 s")],
)
def test_how_often_a_file_is_expected_is_told_in_sane_words(world: World, every: timedelta, words: str) -> None:
    world.sources = [website(expect_every=every)]
    (found,) = reconcile(world.pipeline).differences
    assert f"one is expected every {words}." in found.explanation


def test_a_file_that_came_and_waits_is_not_overdue(world: World) -> None:
    world.sources = [website(expect_every=timedelta(hours=24))]
    world.put("landing/1.json", record("ann", 0, "Paid"), source="website", arrived=hours_ago(20))

    assert told(reconcile(world.pipeline)) == [("pending", "1.json")]


def test_archived_files_and_copies_came_too(world: World) -> None:
    world.sources = [website(expect_every=timedelta(hours=24))]
    bring(world, "1.json", record("ann", 0, "Paid"), arrived=hours_ago(30))
    bring(world, "2.json", record("ann", 0, "Paid"), arrived=hours_ago(2))
    world.store.objects.clear()

    assert reconcile(world.pipeline).differences == []


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Callable[..., tuple[int, str]]:
    from ingest.cli import main

    (tmp_path / "landing").mkdir()
    (tmp_path / "ingest.toml").write_text(
        f'[[source]]\nname = "website"\nbucket = "file"\nprefix = "{tmp_path}/landing/"\n'
    )
    monkeypatch.setenv("INGEST_CONFIG", str(tmp_path / "ingest.toml"))
    monkeypatch.setenv("INGEST_WAREHOUSE", world.warehouse.name)

    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["ingest", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capfd.readouterr().out

    return run


def test_the_command_tells_repairs_and_exits_accordingly(
    world: World, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "landing" / "1.json").write_text(json.dumps(record("ann", 0, "Paid")) + "\n")
    (tmp_path / "landing" / "notes.txt").write_text("")
    assert run("poll")[0] == 0

    code, out = run("reconcile")
    assert (code, out.count("0 differences"), out.count("1 note")) == (0, 1, 1)

    change(world.warehouse, "UPDATE command_rows SET is_first = FALSE")
    code, out = run("reconcile")
    assert (code, "1 difference" in out, "first_rows" in out) == (1, True, True)
    code, out = run("reconcile", "--json")
    assert [one["what"] for one in json.loads(out)["differences"]] == ["first_rows"]
    code, out = run("reconcile", "--repair")
    assert (code, "1 repaired difference" in out) == (0, True)
    assert run("reconcile")[0] == 0
