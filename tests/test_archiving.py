"""After a load: what is archived, deleted and reported, and that whatever dies on the way is made up for later."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import HTTPClientError
from jsonschema import Draft202012Validator

from ingest import archiving
from ingest.actions import act, would
from ingest.adapters.s3 import S3Store
from ingest.adapters.stores import Stores
from ingest.archiving import archive
from ingest.core.schema import load
from ingest.core.source import SourceFile
from ingest.discovery import verdict
from ingest.errors import ConfigError, TransientError
from ingest.pipeline import Pipeline
from ingest.ports import Audit, FileResult, Mark
from ingest.reconcile import reconcile
from ingest.settings import Settings, Source
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.adapters.odd_store import odd_store
from tests.conftest import S3
from tests.support import Line, everything, in_order, lines, record

NOTE = Audit("tester")
GOOD = record("ann", 1, "Signed up")
BAD = '{"_p":"ann"}'
UNREADABLE = b'{"_p":"\xff"}'
TODAY = datetime.now(UTC).strftime("%Y/%m/%d")


class Landing:
    """A bucket, a warehouse and one source."""

    def __init__(self, s3: S3, folder: Path, **source: Any) -> None:
        self.s3 = s3
        self.source = Source(**{"name": "website", "bucket": s3.bucket, "prefix": "landing/"} | source)
        self.warehouse = DuckDBWarehouse(folder / "warehouse.duckdb")
        settings = Settings(warehouse_url=self.warehouse.name, processes=1, sources={"website": self.source})
        stores = Stores(lambda: s3.store)
        self.pipeline = Pipeline(settings, lambda _: stores, self.warehouse)

    def put(self, key: str, *content: Line) -> None:
        self.s3.put(key, lines(*content))

    def load(self) -> list[FileResult]:
        """Load what is pending, and no more."""
        return self.pipeline.load(self.pipeline.discover("website").pending)

    def poll(self) -> list[str]:
        """Load and archive, as the integrators do."""
        return archive(self.pipeline, "website", NOTE, self.load())

    def archive(self) -> list[str]:
        """Tidy what former tries have left."""
        return archive(self.pipeline, "website", NOTE)

    def listed(self) -> list[str]:
        return sorted(file.key for file in self.s3.store.list(self.s3.bucket, ""))

    def body(self, key: str) -> bytes:
        return self.s3.client.get_object(Bucket=self.s3.bucket, Key=key)["Body"].read()

    def row(self, key: str) -> dict[str, Any]:
        return self.warehouse.files({"key": key}, 1)[0]

    def actions(self, key: str) -> list[tuple[str, str]]:
        done = self.warehouse.history(self.row(key)["file_id"])
        return [
            (entry["action"], entry["reason"] or "") for entry in done if entry["action"] in ("archived", "deleted")
        ]


Open = Callable[..., Landing]


@pytest.fixture
def landing(s3: S3, tmp_path: Path) -> Open:
    return lambda **source: Landing(s3, tmp_path, **source)


@pytest.mark.parametrize("versioned", [False, True])
def test_loaded_files_are_archived(landing: Open, versioned: bool) -> None:
    world = landing(after_load="archive")
    if versioned:
        world.s3.keep_versions()
    names = ["1.json", "a b+c%20.json", "ä/ö 😀.json"]
    for name in names:
        world.put(f"landing/{name}", record("ann", 1, name))
    world.put("landing/notes.txt", "not ours")
    assert world.poll() == []
    archived = [f"completed_imports/{TODAY}/landing/{name}" for name in names]
    assert world.listed() == sorted([*archived, "landing/notes.txt"])
    for name, to in zip(names, archived, strict=True):
        assert world.body(to) == lines(record("ann", 1, name))
        row = world.row(f"landing/{name}")
        assert (row["archived_to"], bool(row["deleted_at"])) == (to, True)
        assert world.actions(f"landing/{name}") == [("archived", ""), ("deleted", "")]
    assert world.poll() == world.archive() == []
    assert world.actions("landing/1.json") == [("archived", ""), ("deleted", "")]


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_what_was_unpacked_on_the_way_stays(s3: S3, tmp_path: Path, after_load: str) -> None:
    """More came than was listed: it is loaded, but nobody can tell that all of it came."""
    content = lines(GOOD) * 3
    with odd_store({"landing/1.json": content}, no_length=True, listed_sizes={"landing/1.json": 20}) as odd:
        world = Landing(replace(s3, bucket="b", store=S3Store(odd.client())), tmp_path, after_load=after_load)
        (told,) = world.poll()
        assert told.startswith("s3://b/landing/1.json: the store unpacked it on the way")
        assert world.row("landing/1.json")["state"] == "loaded"
        assert world.archive() == []  # said once
        assert odd.objects == {"landing/1.json": content}
        assert [one.what for one in reconcile(world.pipeline).information] == ["unproven"]
        assert not any(command in ("PUT", "DELETE") for command, _, _ in odd.requests)


@pytest.mark.parametrize("versioned", [False, True])
def test_what_was_archived_can_be_undone_and_loaded_and_forced(landing: Open, versioned: bool) -> None:
    world = landing(after_load="archive")
    if versioned:
        world.s3.keep_versions()
    world.put("landing/1.json", GOOD, BAD)
    assert world.poll() == []
    without = ["archived_to", "deleted_at"]
    before = everything(world.warehouse)
    file_id, uri = world.row("landing/1.json")["file_id"], f"s3://{world.s3.bucket}/landing/1.json"
    world.warehouse.undo([file_id], NOTE)
    (result,) = world.pipeline.load(world.pipeline.locate(uri, "website"), intent="again", note=NOTE)
    assert (result.state, result.file_id) == ("loaded", file_id)
    assert archive(world.pipeline, "website", NOTE, [result]) == world.archive() == []
    assert everything(world.warehouse) == before
    world.put("landing/1.json", record("bob", 1, "another version"))
    (row,) = world.warehouse.files({"file_id": file_id})
    (forced,) = act(world.pipeline, "force", [row], [], NOTE)
    assert (forced.state, forced.error) == ("loaded", None)
    assert everything(world.warehouse, without) == {name: in_order(rows, without) for name, rows in before.items()}
    assert world.body(f"completed_imports/{TODAY}/landing/1.json") == lines(GOOD, BAD)


def test_the_day_is_that_of_the_load(landing: Open) -> None:
    world = landing(after_load="archive", archive_prefix="old/")
    world.put("landing/1.json", GOOD)
    world.load()
    with world.warehouse.writing() as connection:
        connection.execute("UPDATE ledger SET loaded_at = TIMESTAMPTZ '2026-01-02 01:30:00+02'")
    assert world.archive() == []
    assert world.listed() == ["old/2026/01/01/landing/1.json"]


def test_copies_go_too_and_the_rest_stays(landing: Open) -> None:
    world = landing(after_load="archive", max_failed_lines=1)
    world.put("landing/1.json", GOOD)
    world.put("landing/2.json", GOOD)
    world.put("landing/rejected.json", BAD, BAD, GOOD)
    world.put("landing/retrying.json.gz", GOOD)
    world.s3.put("landing/retrying.json.gz", b"\x1f\x8b broken")
    assert world.poll() == world.archive() == []
    assert [world.row(f"landing/{n}")["state"] for n in ("2.json", "rejected.json", "retrying.json.gz")] == [
        "duplicate", "rejected", "retrying",
    ]  # fmt: skip
    assert world.listed() == [
        f"completed_imports/{TODAY}/landing/1.json", f"completed_imports/{TODAY}/landing/2.json",
        "landing/rejected.json", "landing/retrying.json.gz",
    ]  # fmt: skip


def test_keep_touches_nothing(landing: Open) -> None:
    world = landing()
    world.put("landing/1.json", GOOD, BAD)
    assert world.poll() == world.archive() == []
    assert world.listed() == ["landing/1.json"]


def test_only_what_lies_in_the_landing_is_ours(landing: Open) -> None:
    world = landing(after_load="delete", pattern="*.json")
    elsewhere = ["other/1.json", "landing/1.txt", "completed_imports/1.json"]
    for key in elsewhere:
        world.put(key, record("ann", 1, key))
    files = [file for key in elsewhere for file in world.pipeline.locate(f"s3://{world.s3.bucket}/{key}", "website")]
    assert archive(world.pipeline, "website", NOTE, world.pipeline.load(files)) == world.archive() == []
    assert world.listed() == sorted(elsewhere)
    assert archive(world.pipeline, "one_off", NOTE) == []


def test_delete_waits_until_every_failed_line_is_mended(landing: Open) -> None:
    world = landing(after_load="delete")
    world.put("landing/1.json", GOOD, BAD)
    world.put("landing/2.json", record("bob", 1, "Signed up"))
    assert world.poll() == world.archive() == []
    assert world.listed() == ["landing/1.json"]
    with world.warehouse.writing() as connection:
        connection.execute("UPDATE failed_line_rows SET redriven_at = now(), redriven_by = 'x'")
    assert world.archive() == []
    assert world.listed() == []
    row = world.row("landing/1.json")
    assert (row["archived_to"], bool(row["deleted_at"])) == (None, True)


def test_who_undoes_what_was_deleted_is_warned(landing: Open) -> None:
    """Nothing is left to load it from, unless the bucket keeps versions."""
    told = {}
    for versioned in (False, True):
        world = landing(after_load="delete")
        if versioned:
            world.s3.keep_versions()
        key = f"landing/{versioned}.json"
        world.put(key, record("ann", versioned, "x"))
        world.poll()
        (before,) = would("undo", [world.row(key)], [], [])
        (after,) = act(world.pipeline, "undo", [world.row(key)], [], NOTE)
        assert before.warning == after.warning
        told[versioned] = after.warning
    assert told[True] is None
    assert "can only come back if its producer sends it again" in str(told[False])


def test_what_waits_for_mended_lines_is_not_read_at_each_poll(landing: Open) -> None:
    world = landing(after_load="delete")
    for n in range(3):
        world.put(f"landing/{n}.json", record("ann", n, "Signed up"), *[BAD] * (n != 0))
    results = world.load()

    def due(**more: Any) -> list[str]:
        rows = world.warehouse.untidied("website", world.s3.bucket, "landing/", step="delete", **more)
        return [row["key"] for row in rows]

    assert due() == ["landing/0.json"]
    assert due(file_ids=[results[1].file_id]) == []
    with world.warehouse.writing() as connection:
        connection.execute("UPDATE failed_line_rows SET redriven_by = 'x' WHERE file_no = 2")
    assert due() == ["landing/1.json", "landing/0.json"]
    assert due(file_ids=[results[1].file_id]) == ["landing/1.json"]
    assert due(before=2) == ["landing/0.json"]


def test_a_long_ledger_is_read_in_pieces_and_only_some_of_it_at_a_poll(
    landing: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = landing(after_load="archive")
    for n in range(7):
        world.put(f"landing/{n}.json", record("ann", n, "Signed up"))
    results = world.load()
    monkeypatch.setattr(archiving, "_PER_POLL", 4)  # an archived and deleted file is two marks
    monkeypatch.setattr("ingest.warehouse.engines.common.warehouse._UNTIDIED_AT_ONCE", 2)
    left = list[int]()
    for _ in range(2):
        assert world.archive() == []
        left.append(sum(key.startswith("landing/") for key in world.listed()))
    assert left == [5, 3]
    assert archive(world.pipeline, "website", NOTE, results) == []  # what was just loaded: all of it
    assert not any(key.startswith("landing/") for key in world.listed())


def test_a_taken_name_gets_the_hash_before_its_extension(landing: Open) -> None:
    world = landing(after_load="archive")
    first, second = lines(GOOD), lines(record("bob", 1, "Signed up"))
    for body in (first, second):
        world.s3.put("landing/day.1.json.gz", body)
        assert world.poll() == []
    assert {key: world.body(key) for key in world.listed()} == {
        f"completed_imports/{TODAY}/landing/day.1.json.gz": first,
        f"completed_imports/{TODAY}/landing/day.1.{sha256(second).hexdigest()[:8]}.json.gz": second,
    }


# --- whatever dies on the way ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.slow
def test_a_death_at_any_request_loses_nothing(landing: Open, versioned: bool) -> None:
    """The n-th request dies, before or after the store has done it, and all after it; the next poll makes up for it."""
    for number in range(1, 15):
        for done in (False, True):
            world = landing(after_load="archive", prefix=f"landing/{number}{done}/", archive_prefix=f"{number}{done}/")
            if versioned:
                world.s3.keep_versions()
            key = f"{world.source.prefix}1.json"
            world.put(key, record("ann", number, "Signed up", done=done))
            results = world.load()
            with _dies(world.s3, number, done):
                problems = archive(world.pipeline, "website", NOTE, results)
            there = [
                one for one in world.listed() if one.startswith((world.source.prefix, world.source.archive_prefix))
            ]
            assert any(one.endswith(key) for one in there)
            assert world.archive() == []
            assert [one for one in world.listed() if one.endswith("1.json") and f"{number}{done}/" in one] == [
                f"{world.source.archive_prefix}{TODAY}/{key}"
            ]
            assert [action for action, _ in world.actions(key)] == ["archived", "deleted"]
            if not problems:
                assert number >= 6  # every request was made
                return
    pytest.fail("it never came to its end")


class _dies:  # noqa: N801 - used as a function
    def __init__(self, s3: S3, number: int, done: bool) -> None:
        self.events, self.number, self.done = s3.client.meta.events, number, done
        self.where = "needs-retry.s3" if done else "before-send.s3"

    def __enter__(self) -> None:
        self.events.register_first(self.where, self.count)

    def __exit__(self, *_: object) -> None:
        self.events.unregister(self.where, self.count)

    def count(self, **_: object) -> None:
        self.number -= 1
        if self.number <= 0:
            raise HTTPClientError(error="away")  # the client does not try that again by itself


@pytest.mark.slow
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_death_when_it_is_written_down(
    landing: Open, monkeypatch: pytest.MonkeyPatch, number: int, written: bool
) -> None:
    """Three files in two batches, each archived, then deleted: it dies at the n-th mark, before or after it."""
    world = landing(after_load="archive")
    names = [f"landing/{n}.json" for n in range(3)]
    for n, name in enumerate(names):
        world.put(name, record("ann", n, "Signed up"))
    results = world.load()
    mark, marked = DuckDBWarehouse.mark, count(1)

    def die(self: DuckDBWarehouse, marks: Sequence[Mark], note: Audit) -> None:
        last = next(marked) == number
        if written or not last:
            mark(self, marks, note)
        if last:
            raise KeyboardInterrupt

    monkeypatch.setattr(archiving, "_PER_MARK", 2)
    with monkeypatch.context() as patched:
        patched.setattr(DuckDBWarehouse, "mark", die)
        with pytest.raises(KeyboardInterrupt):
            archive(world.pipeline, "website", NOTE, results)
    listed = world.listed()
    for name in names:  # nothing is deleted whose copy is not written down
        assert name in listed or world.row(name)["archived_to"] in listed
    assert world.archive() == []
    assert world.listed() == [f"completed_imports/{TODAY}/{name}" for name in names]
    for name in names:
        assert world.actions(name) == [("archived", ""), ("deleted", "")]


@pytest.mark.parametrize(("after_load", "transactions"), [("archive", 6), ("delete", 3)])
def test_many_files_cost_few_transactions(
    landing: Open, monkeypatch: pytest.MonkeyPatch, after_load: str, transactions: int
) -> None:
    world = landing(after_load=after_load)
    for n in range(10):
        world.put(f"landing/{n}.json", record("ann", n, "Signed up"))
    results = world.load()
    monkeypatch.setattr(archiving, "_PER_MARK", 4)
    writing, sessions = DuckDBWarehouse.writing, []

    def counted(self: DuckDBWarehouse, memory_mb: int | None = None) -> AbstractContextManager[Any]:
        sessions.append(memory_mb)
        return writing(self, memory_mb)

    monkeypatch.setattr(DuckDBWarehouse, "writing", counted)
    assert archive(world.pipeline, "website", NOTE, results) == []
    assert len(sessions) == transactions
    assert [key for key in world.listed() if key.startswith("landing/")] == []


def test_what_cannot_be_written_down_is_not_deleted(landing: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    world = landing(after_load="archive")
    names = [f"landing/{n}.json" for n in range(3)]
    for n, name in enumerate(names):
        world.put(name, record("ann", n, "Signed up"))
    results = world.load()

    def busy(*_: object) -> None:
        raise TransientError("the warehouse is busy")

    with monkeypatch.context() as patched:
        patched.setattr(DuckDBWarehouse, "mark", busy)
        assert archive(world.pipeline, "website", NOTE, results) == ["the warehouse is busy"]
    assert [key for key in world.listed() if key.startswith("landing/")] == names
    assert world.archive() == []
    assert [key for key in world.listed() if key.startswith("landing/")] == []


def test_two_that_tidy_at_once_write_it_down_once(landing: Open) -> None:
    world = landing(after_load="archive")
    world.put("landing/1.json", GOOD)
    results = world.load()
    assert archive(world.pipeline, "website", NOTE, results) == []
    first = world.row("landing/1.json")
    later = Mark(first["file_id"], archived_to=first["archived_to"], deleted_at=datetime.now(UTC))
    world.warehouse.mark([later, Mark("unknown", archived_to="x")], NOTE)
    assert world.row("landing/1.json") == first
    assert world.actions("landing/1.json") == [("archived", ""), ("deleted", "")]
    assert world.warehouse.history("unknown") == []


@pytest.mark.parametrize("versioned", [False, True])
def test_overwritten_after_the_load(landing: Open, versioned: bool) -> None:
    world = landing(after_load="archive")
    if versioned:
        world.s3.keep_versions()
    world.put("landing/1.json", GOOD)
    results = world.load()
    world.put("landing/1.json", record("bob", 1, "Signed up"))
    problems = archive(world.pipeline, "website", NOTE, results)
    copy = f"completed_imports/{TODAY}/landing/1.json"
    if versioned:
        assert problems == []
        assert world.actions("landing/1.json") == [
            ("archived", ""), ("deleted", "another version stands under its key now, and stays"),
        ]  # fmt: skip
    else:
        assert problems == [
            f"s3://{world.s3.bucket}/landing/1.json: it was deleted or overwritten before it could be archived"
        ]
    assert world.listed() == [copy, "landing/1.json"] if versioned else ["landing/1.json"]
    assert world.archive() == []  # nothing can be done for it any more: it is not tried for ever
    assert world.poll() == []  # the new one goes its own way
    assert [key for key in world.listed() if not key.startswith("completed_imports/")] == []
    assert len(world.listed()) == 1 + versioned


def test_an_archive_key_that_is_too_long(landing: Open) -> None:
    world = landing(after_load="archive")
    key = f"landing/{'x' * 1011}.json"
    world.put(key, GOOD)
    world.put("landing/1.json", record("bob", 1, "Signed up"))
    for problems in (world.poll(), world.archive()):
        (problem,) = problems
        assert problem.endswith("S3 takes keys of 1,024 bytes, this one has 1,053: shorten it")
    assert world.listed() == [f"completed_imports/{TODAY}/landing/1.json", key]
    assert world.row(key)["deleted_at"] is None


def test_a_store_that_cannot_delete_on_condition(landing: Open) -> None:
    world = landing(after_load="archive")

    def forget(params: dict[str, Any], **_: object) -> None:
        params["headers"].pop("If-Match", None)

    world.s3.client.meta.events.register("before-call.s3.DeleteObject", forget)
    for n in range(3):
        world.put(f"landing/{n}.json", record("ann", n, "Signed up"))
    (problem,) = world.poll()
    assert "nothing is deleted" in problem
    assert len(world.listed()) == 6  # copied, and not deleted
    assert world.archive() == [problem]


@pytest.mark.slow
def test_a_store_that_cannot_delete_is_not_asked_for_every_file(landing: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    world = landing(after_load="archive")
    for n in range(50):
        world.put(f"landing/{n}.json", record("ann", n, "Signed up"))
    results = world.load()
    asked = list[str]()

    def refuse(self: S3Store, file: SourceFile, own_prefix: str) -> bool:
        asked.append(file.key)
        raise ConfigError("it cannot delete")

    monkeypatch.setattr(S3Store, "remove", refuse)
    monkeypatch.setattr("ingest.warehouse.engines.common.warehouse._UNTIDIED_AT_ONCE", 10)
    assert archive(world.pipeline, "website", NOTE, results) == ["it cannot delete"]
    assert len(world.listed()) == 100  # all are copied
    assert 20 <= len(asked) < 30
    monkeypatch.undo()
    assert world.archive() == []
    assert len(world.listed()) == 50


@pytest.mark.slow
def test_a_store_that_is_away_is_not_asked_for_every_file(landing: Open) -> None:
    world = landing(after_load="archive")
    for n in range(40):
        world.put(f"landing/{n}.json", record("ann", n, "Signed up"))
    results = world.load()
    with _dies(world.s3, 1, False):
        assert 20 <= len(archive(world.pipeline, "website", NOTE, results)) < 30
    assert world.archive() == []
    assert all(key.startswith("completed_imports/") for key in world.listed())


# --- reports ---------------------------------------------------------------------------------------------------------


def reports(world: Landing) -> dict[str, bytes]:
    return {key: world.body(key) for key in world.listed() if key.startswith("reports/")}


@pytest.mark.parametrize("after_load", ["keep", "archive", "delete"])
def test_reports_of_files_with_failures(landing: Open, after_load: str) -> None:
    world = landing(after_load=after_load, report_prefix="reports/", max_failed_lines=2)
    world.put("landing/good.json", GOOD)
    world.put("landing/a b.json", GOOD, BAD, UNREADABLE)
    world.put("landing/rejected.json", BAD, BAD, BAD)
    assert world.poll() == []
    found = reports(world)
    assert len(found) == 4
    for key, codes in (("landing/a b.json", 3), ("landing/rejected.json", 2)):
        row = world.row(key)
        name = f"reports/{key}.{row['file_id'][:8]}"
        report = json.loads(found[f"{name}.report.json"])
        Draft202012Validator(load("report"), format_checker=Draft202012Validator.FORMAT_CHECKER).validate(report)
        assert (report["file_id"], report["key"], report["failed"]) == (row["file_id"], key, row["failed"])
        assert len(report["failures"]) == row["failed"]
        assert len(report["codes"]) == codes
        assert all(one["problem"] and one["remedy"] for one in report["codes"])
    assert found[f"reports/landing/a b.json.{world.row('landing/a b.json')['file_id'][:8]}.lines.tsv"] == (
        b"2\t" + BAD.encode() + b"\n3\t" + UNREADABLE + b"\n"
    )
    assert world.poll() == world.archive() == []
    assert reports(world) == found


def test_the_report_schema_is_sound() -> None:
    Draft202012Validator.check_schema(load("report"))


def test_mended_lines_are_no_longer_among_those_to_mend(landing: Open) -> None:
    world = landing(after_load="delete", report_prefix="reports/")
    world.put("landing/1.json", BAD, BAD, GOOD)
    world.poll()
    with world.warehouse.writing() as connection:
        connection.execute("UPDATE failed_line_rows SET redriven_at = now(), redriven_by = 'x' WHERE line = 1")
    assert world.archive() == []
    report, to_mend = sorted(reports(world).items(), reverse=True)
    assert to_mend[1] == b"2\t" + BAD.encode() + b"\n"
    failures = json.loads(report[1])["failures"]
    assert [one["redriven_at"] is None for one in failures] == [False, True]
    Draft202012Validator(load("report")).validate(json.loads(report[1]))


# --- the local disk --------------------------------------------------------------------------------------------------


def test_local_files_go_into_the_folder_beside(landing: Open, tmp_path: Path) -> None:
    folder = tmp_path / "landing"
    (folder / "sub").mkdir(parents=True)
    world = landing(
        bucket="file", prefix=str(folder), after_load="archive", archive_prefix="done/", report_prefix="why/"
    )
    (folder / "sub/1.json").write_bytes(lines(GOOD, BAD))
    (folder / "2.json").write_bytes(lines(record("bob", 1, "Signed up")))
    assert world.poll() == []
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    file_id = world.row(str(folder / "sub/1.json"))["file_id"]
    assert found == [
        f"done/{TODAY}/2.json", f"done/{TODAY}/sub/1.json",
        f"why/sub/1.json.{file_id[:8]}.lines.tsv", f"why/sub/1.json.{file_id[:8]}.report.json",
    ]  # fmt: skip
    assert world.load() == []  # what is in our own folders is nobody's source file
    own = replace(world.source, prefix=f"{folder}/")
    assert verdict(own, f"{folder}/done/{TODAY}/2.json") == "own"
    assert SourceFile.of_row(world.row(str(folder / "2.json"))).key == str(folder / "2.json")
