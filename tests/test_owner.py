"""What belongs to a source stays in it: whoever names an object, as whatever, by address, prefix or archived copy."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.adapters.local import LocalStore
from ingest.core.source import SourceFile
from ingest.errors import ConfigError
from ingest.pipeline import Pipeline
from ingest.ports import Audit, Mark
from ingest.settings import Source, load_settings
from ingest.warehouse.engines.duckdb.warehouse import DuckDBWarehouse
from tests.support import World, record

WEB = Source(name="web", bucket="bucket", prefix="web/", people_space="of web")
SHOP = Source(name="shop", bucket="bucket", prefix="shop/", format="woopra")
NOTE = Audit("ann")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(DuckDBWarehouse(tmp_path / "warehouse.duckdb"), [WEB, SHOP])


def pipeline_of(world: World, *sources: Source) -> Pipeline:
    settings = replace(world.pipeline.settings, uploads_bucket="bucket")
    if sources:
        settings = replace(settings, sources={source.name: source for source in sources})
    return replace(world.pipeline, settings=settings)


def named(pipeline: Pipeline, key: str, **as_what: str | None) -> tuple[SourceFile, list[str]]:
    """What an address means, and what was said of it."""
    said: list[str] = []
    (file,) = pipeline.locate(f"s3://bucket/{key}", notice=said.append, **as_what)  # type: ignore[arg-type]
    return file, said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("as_what", "is_said"),
    [
        ({"source": "shop"}, True), ({"format": "woopra"}, True), ({"source": "shop", "format": "auto"}, True),
        ({"format": "auto"}, False), ({"source": "web"}, False), ({"source": "web", "format": "kissmetrics"}, False),
        ({}, False),
    ],
    ids=str,
)  # fmt: skip
def test_an_object_is_taken_by_the_rules_of_its_source(world: World, as_what: dict[str, str], is_said: bool) -> None:
    pipeline = pipeline_of(world)
    for key in ("web/a.json", "web/a.csv", "completed_imports/2026/11/27/web/a.json"):
        put = world.put(key, record("ann", 1, key))
        for known in (False, True):
            if known:
                world.load(put.for_source("web", "kissmetrics"))
            file, said = named(pipeline, key, **as_what)
            assert (file.source, file.format) == ("web", "kissmetrics")
            assert pipeline.rules(file).people_space == "of web"
            # Of a new file it is also said where no source was named: who names none may mean one_off.
            is_new = not known and "source" not in as_what
            belongs = "1 file belongs to the source web, and is taken by its rules, as kissmetrics."
            assert said == ([f"s3://bucket/{key}: {belongs}"] if is_said or is_new else [])
        (checked,) = pipeline.locate(f"s3://bucket/{key}", archived=False, **as_what)  # type: ignore[arg-type]
        assert (checked.source, checked.format) == ("web", "kissmetrics")


def test_below_a_prefix_each_file_is_taken_by_its_own_source(world: World) -> None:
    for key in ("web/a.json", "web/b.json", "shop/c.json", "d.json"):
        world.put(key, record("ann", 1, key))
    said: list[str] = []
    files = pipeline_of(world).locate("s3://bucket/", "shop", notice=said.append)
    assert {file.key: (file.source, file.format) for file in files} == {
        "web/a.json": ("web", "kissmetrics"), "web/b.json": ("web", "kissmetrics"), "shop/c.json": ("shop", "woopra"),
        "d.json": ("shop", "woopra"),
    }  # fmt: skip
    assert said == ["s3://bucket/: 2 files belong to the source web, and are taken by its rules, as kissmetrics."]


@pytest.mark.slow
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("source", [None, "shop", "web"])
@pytest.mark.parametrize("of", ["web", "one_off", "no_more"])
def test_a_file_of_the_ledger_keeps_its_source_whatever_the_settings_are_now(
    world: World, of: str, source: str | None, force: bool
) -> None:
    key = "d.json" if of == "one_off" else "web/d.json"
    world.load(world.put(key, record("ann", 1, "x"), source=of))
    moved = replace(SHOP, format="kissmetrics", prefix=""), replace(WEB, prefix="elsewhere/")
    pipeline = pipeline_of(world, *moved)
    file, said = named(pipeline, key, source=source)
    pipeline.load([file], intent="force" if force else "again", note=NOTE)
    assert [(row["source"], row["state"]) for row in world.warehouse.files({})] == [(of, "loaded")]
    assert bool(said) is (source is not None and source != of)


def test_a_format_that_was_named_for_what_is_nobodys_holds(world: World) -> None:
    world.load(world.put("d.json", record("ann", 1, "x")))
    file, said = named(pipeline_of(world), "d.json", format="woopra")
    assert (file.source, file.format, said) == ("one_off", "woopra", [])


@pytest.mark.parametrize("state", ["loaded", "undone"])
@pytest.mark.parametrize(
    ("archive", "address"),
    [
        ("completed_imports", "completed_imports/2026/11/27/web/a.json"),
        ("a-former-archive", "a-former-archive/2026/11/27/web/a.json"), ("a-former-archive", "a-former-archive/"),
    ],
)  # fmt: skip
def test_an_archived_copy_is_the_file_that_was_archived(world: World, archive: str, address: str, state: str) -> None:
    copy = f"{archive}/2026/11/27/web/a.json"
    put = world.put("web/a.json", {"_p": "ann", "_t": 1_700_000_000, "_n": "x"}, source="web")
    world.load(put)
    world.warehouse.mark([Mark(put.file_id, archived_to=copy, deleted_at=datetime.now(UTC))], NOTE)
    world.store.put(replace(put, key=copy), world.store.objects.pop(("bucket", "web/a.json"))[1])
    if state == "undone":
        world.warehouse.undo([put.file_id], NOTE)
    pipeline = pipeline_of(world)
    said: list[str] = []
    files = pipeline.locate(f"s3://bucket/{address}", notice=said.append)
    assert [(file.file_id, file.key, file.source) for file in files] == [(put.file_id, "web/a.json", "web")]
    assert said == [f"s3://bucket/{address}: {copy} is the archived copy of web/a.json, which is taken in its place."]
    pipeline.load(files, note=NOTE)
    assert [(row["key"], row["state"]) for row in world.warehouse.files({})] == [("web/a.json", state)]
    pipeline.load(files, intent="force", note=NOTE)
    assert [(row["key"], row["source"], row["state"]) for row in world.warehouse.files({})] == [
        ("web/a.json", "web", "loaded")
    ]


def test_a_copy_that_the_ledger_does_not_know_is_a_duplicate_of_its_source(world: World) -> None:
    world.load(world.put("web/a.json", record("ann", 1, "x"), source="web"))
    world.put("completed_imports/2026/11/27/web/a.json", record("ann", 1, "x"))
    file, _ = named(pipeline_of(world), "completed_imports/2026/11/27/web/a.json")
    (result,) = pipeline_of(world).load([file])
    assert (result.source, result.state) == ("web", "duplicate")


UPLOAD = "uploads/2026/11/27/20261127T101112Z-0123456789ab"


@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize("source", [None, "web"])
@pytest.mark.parametrize(
    ("key", "what"),
    [
        (f"{UPLOAD}-a.json.check.json", "is the report of a check"),
        (f"{UPLOAD}-{'0' * 32}-{'0' * 64}.mended.txt", "holds fixed lines for a redrive"),
        ("told/web/a.json.0a1b2c3d.report.json", "is the report of a load"),
        ("told/web/a.json.0a1b2c3d.lines.tsv", "is the report of a load"),
        ("completed_imports/.landfall-probe", "is a file that this program only works with"),
    ],
)
def test_what_the_program_wrote_is_no_source_file_and_that_is_said(
    world: World, key: str, what: str, source: str | None, archived: bool
) -> None:
    everything = replace(WEB, prefix="", pattern="*")
    pipeline = pipeline_of(world, replace(everything, report_prefix="told/"))
    world.put(key, "raw lines")
    with pytest.raises(ConfigError) as refused:
        pipeline.locate(f"s3://bucket/{key}", source, archived=archived)
    assert str(refused.value) == (f"s3://bucket/{key} {what}. The program itself wrote it: it is no source file.")
    assert pipeline.discover("web").pending == []
    assert pipeline_of(world, everything).discover("web").pending == []  # nor when settings have changed since
    world.put("uploads/x.json", "a person's")
    below = pipeline.locate("s3://bucket/", source, archived=archived)
    assert [file.key for file in below] == ["uploads/x.json"]


def test_what_belongs_to_a_source_with_wrong_settings_is_nobodys_to_load(world: World, tmp_path: Path) -> None:
    (tmp_path / "ingest.toml").write_text(
        '[[source]]\nname = "web"\nbucket = "bucket"\nprefix = "web/"\nschedule = "now and then"\n'
        '[[source]]\nname = "shop"\nbucket = "bucket"\nprefix = "shop/"\n'
    )
    settings = load_settings({"INGEST_CONFIG": str(tmp_path / "ingest.toml")}, sound_only=True)
    assert list(settings.sources) == ["shop"]
    pipeline = replace(world.pipeline, settings=settings)
    for key in ("web/a.json", "completed_imports/2026/11/27/web/a.json"):
        world.put(key, record("ann", 1, "x"))
        for source in (None, "shop"):
            with pytest.raises(ConfigError, match="The settings of the source web are wrong"):
                named(pipeline, key, source=source)


def test_an_upload_for_a_source_that_is_no_more_is_nobodys(world: World) -> None:
    world.put("uploads/sources/gone/2026/11/27/a.json", record("ann", 1, "x"))
    for source in (None, "web"):
        with pytest.raises(ConfigError, match=r"There is no source 'gone' in ingest\.toml"):
            named(pipeline_of(world), "uploads/sources/gone/2026/11/27/a.json", source=source)


def test_a_local_file_has_one_name_whatever_links_lead_there(world: World, tmp_path: Path) -> None:
    (tmp_path / "drop" / "sub").mkdir(parents=True)
    (tmp_path / "drop" / "sub" / "a.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "drop")
    local = Source(name="local", bucket="file", prefix=f"{tmp_path}/drop/")
    pipeline = replace(pipeline_of(world, WEB, local), store_of=lambda _: LocalStore())
    plain = f"{tmp_path}/drop/sub/a.json"
    for way in (
        plain,
        f"/proc/self/root{plain}",
        f"{tmp_path}/link/sub/a.json",
        f"{tmp_path}/link/",
        f"{tmp_path}/drop/sub/",
    ):
        (file,) = pipeline.locate(f"s3://file/{way}", archived=False)
        assert (file.source, file.key) == ("local", plain), way
