"""A warehouse that is put back from an older backup: what only the archive has is named, and comes back."""

import gzip
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ingest import unarchiving
from ingest.core.source import SourceFile
from ingest.ports import Audit, Mark
from ingest.reconcile import reconcile
from ingest.settings import Source
from ingest.unarchiving import copies_of, look_at_poll
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.conftest import S3
from tests.support import VOLATILE, Line, World, everything, lines, record
from tests.test_archiving import BAD, GOOD, TODAY, Landing

NOTE = Audit("tester", "the disk was broken")
# What a listing of the archive does not tell: when the objects came, and which versions they were.
UNTOLD = VOLATILE | {"last_modified", "position", "version_id", "deleted_at", "duplicate_of"}


@pytest.fixture
def landing(s3: S3, tmp_path: Path) -> Landing:
    return Landing(s3, tmp_path, after_load="archive")


def restored(landing: Landing, *before: tuple[str, Line], after: dict[str, tuple[Line, ...]]) -> dict[str, Any]:
    """Put back the warehouse as it was when only `before` was loaded; gives what it held in the end."""
    for key, line in before:
        landing.put(key, line)
    landing.poll()
    path = Path(landing.warehouse.name.removeprefix("duckdb:///"))
    shutil.copy(path, path.with_suffix(".backup"))
    for key, content in after.items():
        landing.put(key, *content)
    landing.poll()
    held = everything(landing.warehouse, without=UNTOLD)
    shutil.copy(path.with_suffix(".backup"), path)
    return held


def unknown(landing: Landing, **more: Any) -> list[str]:
    found = reconcile(landing.pipeline, **more)
    assert {one.what for one in found.differences} <= {"archive_unknown"}
    return [one.key.removeprefix("landing/") for one in found.differences]


@pytest.mark.slow
@pytest.mark.parametrize("versioned", [False, True])
def test_what_was_archived_after_a_backup_is_named_and_comes_back(landing: Landing, versioned: bool) -> None:
    if versioned:
        landing.s3.keep_versions()
    after: dict[str, tuple[Line, ...]] = {
        "landing/b.json": (GOOD, BAD), "landing/c.json": (GOOD, BAD),  # a copy of b
        "landing/d e/ü+%.json": (record("eve", 3, "z"),),
        "landing/e.deadbeef.json": (record("fay", 4, "z"),),
    }  # fmt: skip
    held = restored(landing, ("landing/a.json", GOOD), after=after)
    names = ["b.json", "c.json", "d e/ü+%.json", "e.deadbeef.json"]

    told = look_at_poll(landing.pipeline, "website")
    assert told
    assert told.startswith("Its archive holds 4 files that the ledger does not know (landing/b.json, ")
    assert "`ingest reconcile --repair`" in told
    assert unknown(landing) == names
    found = reconcile(landing.pipeline, repair=NOTE)
    assert [one.key.removeprefix("landing/") for one in found.repaired] == names
    assert found.differences == []
    now = everything(landing.warehouse, without=UNTOLD)
    if versioned:  # which version it was is not known any more
        for rows in (*held.values(), *now.values()):
            for row in rows:
                row.pop("file_id", None)
    assert [sorted(rows, key=repr) for rows in now.values()] == [sorted(rows, key=repr) for rows in held.values()]

    assert (look_at_poll(landing.pipeline, "website"), unknown(landing)) == (None, [])
    assert landing.poll() == []
    assert landing.row("landing/b.json")["archived_to"] == f"completed_imports/{TODAY}/landing/b.json"
    history = landing.warehouse.history(landing.row("landing/b.json")["file_id"])
    assert [(one["action"], one["by"]) for one in history] == [("archived", "tester"), ("deleted", "tester")]


@pytest.mark.slow
def test_versions_of_a_key_come_back_in_their_order(
    landing: Landing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = Landing(landing.s3, tmp_path, after_load="archive", changed_file="replace")
    restored(landing, ("landing/0.json", GOOD), after={"landing/a.json": (record("old", 1, "x"),)})
    later: dict[str, timedelta] = {}  # moto tells times in whole seconds
    for hours, person in enumerate(("newer", "newest"), 1):
        landing.put("landing/a.json", record(person, 1, "x"))
        copy = f"completed_imports/{TODAY}/landing/a.json"
        body = landing.body("landing/a.json")
        digest = sha256(body).hexdigest()[:8]
        landing.s3.put(copy.replace("a.json", f"a.{digest}.json"), body)
        later[copy.replace("a.json", f"a.{digest}.json")] = timedelta(hours=hours)
        landing.s3.client.delete_object(Bucket=landing.s3.bucket, Key="landing/a.json")
    listed = landing.s3.store.list

    def at_times(bucket: str, prefix: str) -> Iterator[SourceFile]:
        for file in listed(bucket, prefix):
            yield replace(file, last_modified=file.last_modified + later.get(file.key, timedelta(0)))

    monkeypatch.setattr(landing.s3.store, "list", at_times)
    reconcile(landing.pipeline, repair=NOTE)
    rows = landing.warehouse.files({"key": "landing/a.json"})
    assert [row["state"] for row in rows] == ["loaded", "replaced", "replaced"]
    with landing.warehouse.query("SELECT person FROM events ORDER BY ALL") as answer:
        assert answer.reader.read_all()["person"].to_pylist() == ["ann", "newest"]
    assert unknown(landing) == []


@pytest.mark.slow
def test_an_older_version_does_not_take_the_place_of_what_came_since(landing: Landing, tmp_path: Path) -> None:
    landing = Landing(landing.s3, tmp_path, after_load="archive", changed_file="replace")
    restored(landing, ("landing/0.json", GOOD), after={"landing/a.json": (record("old", 1, "x"),)})
    later = datetime.now(UTC) + timedelta(hours=1)
    newer = SourceFile(bucket=landing.s3.bucket, key="landing/a.json", etag="e", last_modified=later, size_bytes=1,
                       source="website")  # fmt: skip
    world = World(landing.warehouse, [landing.source])
    world.load(world.store.put(newer, lines(record("new", 1, "x"))))
    reconcile(landing.pipeline, repair=NOTE)
    rows = landing.warehouse.files({"key": "landing/a.json"})
    assert sorted(row["state"] for row in rows) == ["ignored", "loaded"]
    assert (landing.warehouse.history(rows[0]["file_id"])[0]["reason"] or "").endswith("takes its place.")
    assert unknown(landing) == []


@pytest.mark.slow
def test_what_cannot_be_loaded_stays_unknown_and_holds_up_no_other(landing: Landing) -> None:
    restored(landing, ("landing/a.json", GOOD), after={"landing/b.json": (record("eve", 3, "z"),)})
    broken = gzip.compress(lines(*[GOOD] * 1000))[:-20]
    landing.s3.put(f"completed_imports/{TODAY}/landing/broken.json.gz", broken)
    for _ in range(2):
        found = reconcile(landing.pipeline, repair=NOTE)
        assert {(one.what, one.key) for one in found.differences} == {
            ("archive_unknown", "landing/broken.json.gz"), ("retrying", "landing/broken.json.gz"),
        }  # fmt: skip
        assert landing.row("landing/b.json")["state"] == "loaded"
        landing.poll()


def test_what_is_not_lost_is_not_named(landing: Landing) -> None:
    landing.put("landing/a.json", GOOD)
    landing.poll()
    landing.put("landing/b.json", record("eve", 3, "z"))
    landing.load()
    for key in (
        "landing/b.json",  # being archived: the copy is made, and not written down yet
        "other/x.json", "landing/notes.txt",  # no source that archives would take them
    ):  # fmt: skip
        landing.s3.put(f"completed_imports/{TODAY}/{key}", lines(record("eve", 3, "z")))
    landing.s3.put("completed_imports/2026/13/45/landing/x.json", b"{}")
    landing.s3.put("completed_imports/landing/x.json", b"{}")
    assert (look_at_poll(landing.pipeline, "website"), unknown(landing)) == (None, [])


def test_what_another_warehouse_archived_before_the_first_poll_is_not_missed_where_that_is_skipped(
    landing: Landing, tmp_path: Path
) -> None:
    landing.s3.put("completed_imports/2025/01/02/landing/x.json", lines(GOOD))
    assert look_at_poll(landing.pipeline, "website")
    skipping = Landing(landing.s3, tmp_path, after_load="archive", existing_files="skip")
    skipping.pipeline.begin_poll("website")
    assert (look_at_poll(skipping.pipeline, "website"), unknown(skipping)) == (None, [])


@pytest.mark.parametrize(("since", "today", "folders"), [
    (None, "2026-11-27", [""]),
    ("2026-11-27", "2026-11-27", ["2026/11/27/in/"]),
    ("2026-11-30", "2026-12-01", ["2026/11/30/in/", "2026/12/01/in/"]),
    ("2026-11-25", "2026-11-27", ["2026/11/"]),
    ("2026-09-30", "2026-11-01", ["2026/09/", "2026/10/", "2026/11/"]),
    ("2024-12-31", "2026-01-01", ["2024/", "2025/", "2026/"]),
])  # fmt: skip
def test_a_poll_lists_little(since: str | None, today: str, folders: list[str]) -> None:
    source = Source(name="web", bucket="bucket", prefix="in/")
    begin = date.fromisoformat(since) if since else None
    found = unarchiving._folders(source, begin, date.fromisoformat(today))
    assert list(found) == [f"completed_imports/{folder}" for folder in folders]


def test_a_poll_of_a_sound_source_costs_one_listing(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.put("landing/a.json", GOOD)
    landing.poll()
    listed: list[str] = []
    pages = type(landing.s3.store).list

    def counted(store: Any, bucket: str, prefix: str) -> Iterator[SourceFile]:
        listed.append(prefix)
        return pages(store, bucket, prefix)

    monkeypatch.setattr(type(landing.s3.store), "list", counted)
    assert look_at_poll(landing.pipeline, "website") is None
    assert listed == [f"completed_imports/{TODAY}/landing/"]
    keeping = replace(landing.pipeline.settings, sources={"website": replace(landing.source, after_load="keep")})
    assert look_at_poll(replace(landing.pipeline, settings=keeping), "website") is None
    assert len(listed) == 1


@pytest.mark.slow
def test_a_folder_on_this_machine_is_brought_back_by_reconcile(tmp_path: Path) -> None:
    from ingest.adapters.local import LocalStore
    from ingest.adapters.stores import Stores
    from ingest.archiving import archive
    from ingest.pipeline import Pipeline
    from ingest.settings import Settings

    source = Source(name="web", bucket="file", prefix=f"{tmp_path}/in/", after_load="archive")
    (tmp_path / "in").mkdir()
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb")
    settings = Settings(warehouse_url=warehouse.name, processes=2, sources={"web": source})
    pipeline = Pipeline(settings, lambda _: Stores(LocalStore), warehouse)
    assert reconcile(pipeline).differences == []
    (tmp_path / "in" / "a.json").write_bytes(lines(GOOD))
    results = pipeline.load(pipeline.discover("web").pending)
    assert archive(pipeline, "web", NOTE, results) == []
    before = warehouse.files({})
    (tmp_path / "warehouse.duckdb").unlink()
    assert [one.what for one in reconcile(pipeline).differences] == ["archive_unknown"]
    assert reconcile(pipeline, repair=NOTE).differences == []
    (row,) = warehouse.files({})
    assert [(row[name], row["state"]) for name in ("file_id", "key", "archived_to")] == [
        (before[0][name], "loaded") for name in ("file_id", "key", "archived_to")
    ]


@pytest.mark.slow
def test_a_poll_by_command_says_it_and_loads_what_is_new(
    landing: Landing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from ingest.cli import main

    restored(landing, ("landing/a.json", GOOD), after={"landing/b.json": (record("eve", 3, "z"),)})
    landing.put("landing/c.json", record("fay", 4, "z"))
    (tmp_path / "ingest.toml").write_text(
        f'[[source]]\nname = "website"\nbucket = "{landing.s3.bucket}"\nprefix = "landing/"\nafter_load = "archive"\n'
    )
    monkeypatch.setenv("INGEST_CONFIG", str(tmp_path / "ingest.toml"))
    monkeypatch.setattr(sys, "argv", ["ingest", "poll", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = json.loads(capfd.readouterr().out)
    assert ended.value.code == 2
    assert [one["key"] for one in told["files"]] == ["landing/c.json"]
    assert "1 file that the ledger does not know (landing/b.json)" in told["errors"][0]


def test_a_copy_is_known_by_its_name_whatever_its_etag(landing: Landing) -> None:
    """Of a file that came in parts, or under a key of KMS, the copy has another ETag."""
    file = SourceFile(bucket=landing.s3.bucket, key="landing/a.json", etag="in-2", last_modified=datetime.now(UTC),
                      size_bytes=7, source="website")  # fmt: skip
    world = World(landing.warehouse, [landing.source])
    world.load(world.store.put(file, lines(GOOD)))
    name = "completed_imports/2020/01/02/landing/a.json"
    copy = replace(file, key=name, etag="other")
    (found,) = copies_of(landing.pipeline, [copy], [landing.source])
    assert list(landing.warehouse.unknown_copies([found])) == [found]
    # A copy of the day of the load may be just being made; and of that size.
    today = replace(found, copy=replace(copy, key=name.replace("2020/01/02", TODAY)), day=datetime.now(UTC).date())
    assert list(landing.warehouse.unknown_copies([today])) == []
    other = replace(today, file=replace(today.file, size_bytes=8))
    assert list(landing.warehouse.unknown_copies([other])) == [other]
    landing.warehouse.mark([Mark(file.file_id, name)], NOTE)
    assert list(landing.warehouse.unknown_copies([found])) == []
