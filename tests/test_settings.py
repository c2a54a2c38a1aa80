"""Settings: what they may be, and that everything wrong is told at once."""

from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import pytest
from airflow.utils.dates import cron_presets

from ingest.errors import ConfigError
from ingest.settings import SOURCE_SETTINGS, Settings, Source, load_settings, warehouse_url
from ingest.staging import staging_folder

SPEC = """
[[source]]
name = "website"
bucket = "acme-events"
prefix = "landing/website/"
format = "kissmetrics"
schedule = "@hourly"
changed_file = "new_version"
existing_files = "load"
max_failed_share = 0.2
after_load = "keep"
expect_every = "24h"
notify = ["smtp:ops_mail"]
report_prefix = ""
aws_conn_id = "aws_default"
endpoint_url = ""
profile = ""
requester_pays = false
"""
SOURCE = '[[source]]\nname = "website"\nbucket = "acme-events"\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load(toml: str, **environ: str) -> Settings:
    Path("ingest.toml").write_text(toml)
    return load_settings(environ)


def problems(toml: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(toml, **environ)
    return caught.value.problems


def test_nothing_set(folder: Path) -> None:
    settings = load_settings({"HOME": "/root", "AWS_PROFILE": "x"})
    assert settings == Settings(warehouse_url=f"duckdb:///{folder}/warehouse.duckdb")


def test_the_example_of_the_contract(folder: Path) -> None:
    settings = load(SPEC)
    assert settings.config_path == folder / "ingest.toml"
    assert settings.sources == {
        "website": Source(
            name="website", bucket="acme-events", prefix="landing/website/", max_failed_share=0.2,
            expect_every=timedelta(days=1), notify=("smtp:ops_mail",),
        )
    }  # fmt: skip


def test_everything_else(folder: Path) -> None:
    settings = load(
        f"""
        max_line_bytes = 100
        time_from = 2010-01-01
        lock_timeout = 1.5
        max_future = "2d"
        max_unpacked_bytes = 1_000_000
        max_process_bytes = 3_000_000_000
        max_file_time = "20m"
        staging = "{folder}"
        ignored_identities = [" Nobody "]
        allowed_buckets = ["acme-other"]
        [uploads]
        bucket = "acme-uploads"
        prefix = "forms"
        max_bytes = 1_000
        max_decompressed_bytes = 2_000
        max_ratio = 12.5
        [intake]
        max_body_bytes = 1_000
        max_decompressed_bytes = 2_000
        max_ratio = 12.5
        vendor_limits = true
        [[source]]
        name = "a"
        bucket = "file"
        prefix = "/data/"
        schedule = 90
        archive_prefix = "done"
        """,
        INGEST_MAX_LINE_BYTES="200",
        INGEST_PROCESSES="3",
        INGEST_MAX_DOCUMENT_BYTES="",
    )
    assert (settings.max_line_bytes, settings.processes, settings.max_document_bytes) == (200, 3, 67_108_864)
    assert (settings.time_from, settings.future_seconds, settings.lock_timeout_seconds) == (1_262_304_000, 172_800, 1.5)
    assert (settings.staging_folder, settings.ignored_identities) == (folder, frozenset({"nobody"}))
    assert (settings.max_unpacked_bytes, settings.max_process_bytes) == (1_000_000, 3_000_000_000)
    assert settings.max_file_seconds == 1200
    assert settings.allowed_buckets == ("acme-other",)
    assert (settings.uploads_bucket, settings.uploads_prefix) == ("acme-uploads", "forms/")
    assert (settings.uploads_max_bytes, settings.uploads_max_decompressed_bytes) == (1_000, 2_000)
    assert settings.uploads_max_ratio == 12.5
    assert (settings.intake_max_body_bytes, settings.intake_max_decompressed_bytes) == (1_000, 2_000)
    assert (settings.intake_max_ratio, settings.intake_vendor_limits) == (12.5, True)
    assert (settings.sources["a"].schedule, settings.sources["a"].archive_prefix) == (90, "done/")


def test_every_field_of_a_source_can_be_set() -> None:
    assert list(SOURCE_SETTINGS) == [field.name for field in fields(Source)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('format = "kissmetric"', 'format has to be "kissmetrics"'),
        ("format = 7", "format has to be"),
        ('bucket2 = "x"', "bucket2: there is no such setting"),
        ('patern = "x"', "did you mean pattern?"),
        ('prefix = "/landing"', 'prefix has to be a prefix that does not begin with /, not "/landing"'),
        ('prefix = "completed_imports/2026/"', "writes to completed_imports/"),
        ('report_prefix = "r/"\nprefix = "r/x/"', "writes to r/"),
        ("schedule = 0", "schedule has to be"),
        ("schedule = -5", "schedule has to be"),
        ("schedule = 1.5", "schedule has to be"),
        ("schedule = true", "schedule has to be"),
        ('schedule = ""', "schedule has to be"),
        ('schedule = "every now and then"', 'a whole number of seconds, 1 to 31,622,400, not "every now and then"'),
        ('schedule = "@hourlyy"', "schedule has to be what Airflow takes (@once, @continuous, @hourly"),
        ('schedule = "61 * * * *"', "schedule has to be"),
        ('schedule = "0 0 30 2 *"', "schedule has to be"),
        ("schedule = 99999999999999999999", "schedule has to be"),
        ('changed_file = "overwrite"', '"new_version" or "replace" or "hold", not "overwrite"'),
        ('existing_files = "ignore"', "existing_files has to be"),
        ("max_failed_share = 1.1", "a number from 0 to 1, not 1.1"),
        ("max_failed_share = nan", "max_failed_share has to be"),
        ("max_failed_share = true", "max_failed_share has to be"),
        ("max_failed_lines = -1", "max_failed_lines has to be"),
        ("max_failed_lines = 1.0", "max_failed_lines has to be"),
        ('strict = "yes"', "strict has to be true or false"),
        ('expect_every = "1 week"', 'a duration such as "30m" or "24h"'),
        ('expect_every = "0h"', "expect_every has to be"),
        ("expect_every = true", "expect_every has to be"),
        ('notify = "smtp:ops"', "notify has to be a list"),
        ('notify = ["ops"]', "notify has to be a list of Airflow connections"),
        ('notify = ["smtp:ops", "carrierpigeon:x"]', '(smtp, slack, http, https), such as ["smtp:ops_mail"], not ['),
        ('notify = ["smtp:"]', "notify has to be a list of Airflow connections"),
        ('notify = ["https://hooks.example.org/x"]', "notify has to be a list of Airflow connections"),
        ('after_load = "move"', "after_load has to be"),
        ('intake_keys = "sha256:00"', "intake_keys has to be a list of hashed keys"),
        ('intake_keys = ["sha256:00"]', "`ingest serve --new-key` makes one."),
        (f'intake_keys = ["SHA256:{"0" * 64}"]', "intake_keys has to be a list"),
        ('archive_prefix = ""', "archive_prefix has to be"),
        ('people_space = " "', "people_space has to be"),
        ('pattern = ""', "pattern has to be"),
        ('pattern = "["', "each [ with its ], not"),
        ('pattern = "[a-c].json[!"', "pattern has to be"),
    ],
)
def test_wrong_source_settings(line: str, sentence: str) -> None:
    (problem,) = problems(SOURCE + line)
    assert problem.startswith('source "website": ')
    assert sentence in problem


@pytest.mark.parametrize(
    "line",
    [
        *(f'schedule = "{name}"' for name in cron_presets), 'schedule = "@once"', 'schedule = "@continuous"',
        'schedule = "@midnight"', 'schedule = "*/5 8-18 * * mon-fri"', 'schedule = "0 0 L * *"',
        'schedule = "0 0 * * MON#1"', "schedule = 31_622_400", 'pattern = "[]a-c]*[!x].json"', 'pattern = "a].json"',
    ],
)  # fmt: skip
def test_sound_source_settings(line: str) -> None:
    load(SOURCE + line)


@pytest.mark.parametrize("name", ["Website", "web-site", "", "one_off", "reconcile", "action", "web\\nsite", "ä"])
def test_wrong_names(name: str) -> None:
    (problem,) = problems(f'[[source]]\nname = "{name}"\nbucket = "acme"')
    assert "name has to be made of small letters" in problem
    assert problem.isprintable()


@pytest.mark.parametrize("name", ["one_off_2", "action_log", "7", "_"])
def test_names_like_the_reserved_ones(name: str) -> None:
    assert list(load(f'[[source]]\nname = "{name}"\nbucket = "acme"').sources) == [name]


@pytest.mark.parametrize(
    ("toml", "environ", "sentence"),
    [
        pytest.param("staging = '/nowhere/x'", {}, "staging: there is no folder /nowhere/x", id="no staging folder"),
        pytest.param("a = ", {}, "ingest.toml: this is not TOML", id="no TOML"),
        pytest.param("[source]\nname = 'a'", {}, "[[source]], in two pairs of brackets", id="one pair of brackets"),
        pytest.param("source = [1]", {}, "[[source]], in two pairs of brackets", id="source is no table"),
        pytest.param("[[source]]\nbucket = 'acme'", {}, "[[source]] no. 1: name is missing", id="no name"),
        pytest.param("[[source]]\nname = 'a'", {}, 'source "a": bucket is missing', id="no bucket"),
        pytest.param("[[source]]\nname='a'\nbucket='s3://acme'", {}, "without s3://", id="bucket with scheme"),
        pytest.param("[[source]]\nname='a'\nbucket='file'\nprefix='x'", {}, "begins with /", id="relative folder"),
        pytest.param("[[source]]\nname='a'\nbucket='file'", {}, "begins with /", id="the whole disk"),
        pytest.param("max_lines = 1", {}, "max_lines: there is no such setting", id="unknown at the top"),
        pytest.param(
            "max_process_bytes = 1000", {}, "max_process_bytes has to be", id="no process begins with so little"
        ),
        pytest.param("max_query_bytes = 1000", {}, "max_query_bytes has to be", id="no statement runs with so little"),
        pytest.param("max_query_time = 'soon'", {}, "max_query_time has to be a duration", id="no time for one"),
        pytest.param("max_file_time = 'soon'", {}, "max_file_time has to be a duration", id="no duration"),
        pytest.param("max_line_bytes = 0", {}, "max_line_bytes has to be", id="wrong at the top"),
        pytest.param("uploads = 'x'", {}, "uploads has to be a table", id="uploads is no table"),
        pytest.param("[uploads]\nprefix = 'x'", {}, "[uploads]: bucket is missing", id="uploads without bucket"),
        pytest.param(
            "[uploads]\nbucket = 'file'", {}, "bucket has to be the name of an S3 bucket", id="uploads on disk"
        ),
        pytest.param("[uploads]\nbucket = 'acme'\nmax_bytes = 0", {}, "max_bytes has to be a whole", id="no bytes"),
        pytest.param("[uploads]\nbucket = 'acme'\nmax_bytes = 1e6", {}, "max_bytes has to be a whole", id="no integer"),
        pytest.param(
            "[uploads]\nbucket = 'acme'\nmax_bytes = 83886080001", {}, "1 to 83,886,080,000, not", id="more than fits"
        ),
        pytest.param(
            "[uploads]\nbucket = 'acme'\nmax_decompressed_bytes = '1 GB'",
            {},
            "max_decompressed_bytes has to",
            id="a text",
        ),
        pytest.param("[uploads]\nbucket = 'acme'\nmax_ratio = 0.5", {}, "a number, 1 or more, not 0.5", id="ratio"),
        pytest.param("[uploads]\nbucket = 'acme'\nmax_ratio = nan", {}, "max_ratio has to be", id="ratio nan"),
        pytest.param("[intake]\nx = 1", {}, "[intake]: x: there is no", id="unknown in intake"),
        pytest.param(
            "[intake]\nmax_body_bytes = '1 MB'", {}, "[intake]: max_body_bytes has to be", id="intake: a text"
        ),
        pytest.param(
            "[intake]\nvendor_limits = 1", {}, "[intake]: vendor_limits has to be true or false", id="a number"
        ),
        pytest.param("intake = true", {}, "intake has to be a table", id="intake is no table"),
        pytest.param("[uploads]\nbucket = 'acme'\nx = 1", {}, "[uploads]: x: there is no", id="unknown in uploads"),
        pytest.param("allowed_buckets = 'acme'", {}, "a list of bucket names", id="a text for a list"),
        pytest.param("", {"INGEST_MAX_LINE_BYTES": "1 MB"}, "INGEST_MAX_LINE_BYTES has to be", id="wrong variable"),
        pytest.param("", {"INGEST_MAX_LINES": "1"}, "INGEST_MAX_LINES: there is no such", id="unknown variable"),
        pytest.param("", {"INGEST_WAREHOUS": "x"}, "did you mean INGEST_WAREHOUSE?", id="mistyped variable"),
        pytest.param("", {"INGEST_TIME_FROM": "soon"}, "INGEST_TIME_FROM has to be a day", id="no day"),
        pytest.param("", {"INGEST_CONFIG": "missing.toml"}, "missing.toml cannot be read", id="no such file"),
        pytest.param("", {"INGEST_WAREHOUSE": "mysql://u:secret@h/d"}, "INGEST_WAREHOUSE: no warehouse", id="unknown"),
        pytest.param("", {"INGEST_WAREHOUSE": "warehouse.duckdb"}, "INGEST_WAREHOUSE: no warehouse", id="no URL"),
        pytest.param("", {"INGEST_WAREHOUSE": "iceberg://c"}, "is named iceberg://catalog/namespace", id="iceberg"),
        pytest.param("", {"INGEST_WAREHOUSE": "duckdb:///"}, "duckdb:///file", id="no file"),
        pytest.param("", {"INGEST_WAREHOUSE": "duckdb://x.duckdb"}, "duckdb:///file", id="two slashes"),
        pytest.param("", {"INGEST_WAREHOUSE": "duckdb:///:memory:"}, "duckdb:///file", id="memory"),
    ],
)
def test_wrong_settings(toml: str, environ: dict[str, str], sentence: str) -> None:
    (problem,) = problems(toml, **environ)
    assert sentence in problem
    assert "secret" not in problem


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        pytest.param("prefix = 'a/'", "prefix = 'b/'", False, id="apart"),
        pytest.param("prefix = 'a/'", "prefix = 'a/'", True, id="the same prefix"),
        pytest.param("prefix = 'a/'", "prefix = 'a/b/'", True, id="nested"),
        pytest.param("prefix = 'a/b/'", "prefix = 'a/'", True, id="nested the other way"),
        pytest.param("", "prefix = 'a/'", True, id="the whole bucket"),
        pytest.param("prefix = 'a/'", "prefix = 'a/'\npattern = 'x*.json'", True, id="one pattern"),
        pytest.param("pattern = 'x*.json'", "pattern = 'y*.json'", False, id="two patterns"),
        pytest.param("pattern = 'x*.json'", "pattern = 'x*.json'", True, id="the same pattern"),
    ],
)
def test_two_sources_that_would_take_the_same(first: str, second: str, both: bool) -> None:
    toml = f"{SOURCE}{first}\n[[source]]\nname = 'second'\nbucket = 'acme-events'\n{second}"
    if not both:
        assert list(load(toml).sources) == ["website", "second"]
        assert list(load(toml.replace("'acme-events'", "'other'")).sources) == ["website", "second"]
        return
    (problem,) = problems(toml)
    assert problem.startswith('source "second": it would take the files of source "website", too')


def test_a_name_that_comes_twice() -> None:
    (problem,) = problems(f"{SOURCE}prefix = 'a/'\n{SOURCE}prefix = 'b/'")
    assert problem.startswith('source "website": its name is taken')


MANY_WRONG = f"""
max_line_bytes = "x"
{SOURCE}
schedule = 0
strict = 1
[[source]]
name = "sound"
bucket = "other"
prefix = "landing/"
[[source]]
name = "third"
bucket = "acme-events"
"""


def test_everything_wrong_is_told_at_once() -> None:
    told = problems(MANY_WRONG, INGEST_MAX="1", INGEST_PROCESSES="x", INGEST_WAREHOUSE="nonsense")
    assert [problem.partition(":")[0].partition(" has")[0] for problem in told] == [
        "INGEST_MAX", "INGEST_PROCESSES", "ingest.toml", 'source "website"', 'source "website"', 'source "third"',
        "INGEST_WAREHOUSE",
    ]  # fmt: skip


def test_the_sound_sources_can_be_had_alone() -> None:
    Path("ingest.toml").write_text(MANY_WRONG)
    settings = load_settings({"INGEST_WAREHOUSE": "nonsense"}, sound_only=True)
    assert list(settings.sources) == ["sound"]
    assert len(settings.problems) == 5
    assert settings.max_line_bytes == 1_048_576
    assert settings.warehouse_url == "nonsense", "a wrong warehouse never becomes another one"


def test_a_staging_folder_need_not_be_where_airflow_schedules() -> None:
    Path("ingest.toml").write_text("staging = '/nowhere/x'")
    settings = load_settings({}, sound_only=True)
    assert (settings.staging_folder, settings.problems) == (Path("/nowhere/x"), ())
    with pytest.raises(ConfigError, match="staging: there is no folder /nowhere/x"), staging_folder(Path("/nowhere/x")):
        pass


def test_without_a_readable_file_there_are_no_sources() -> None:
    Path("ingest.toml").write_text("[[source")
    settings = load_settings({}, sound_only=True)
    assert (settings.sources, len(settings.problems)) == ({}, 1)


def test_where_the_warehouse_is(folder: Path) -> None:
    etc = folder / "etc"
    etc.mkdir()
    (etc / "my.toml").write_text(SOURCE)
    there = {"INGEST_CONFIG": "etc/my.toml"}
    assert load_settings(there).warehouse_url == f"duckdb:///{etc}/warehouse.duckdb"
    assert load_settings(there | {"INGEST_WAREHOUSE": "duckdb:///w/x.db"}).warehouse_url == f"duckdb:///{etc}/w/x.db"
    assert load_settings(there | {"INGEST_WAREHOUSE": "duckdb:////w/x.db"}).warehouse_url == "duckdb:////w/x.db"
    assert load_settings({"INGEST_WAREHOUSE": "duckdb:///x.db"}).warehouse_url == f"duckdb:///{folder}/x.db"


@pytest.mark.parametrize("password", ["change me", "p@ss", "pa/ss", "p?x", "p#x", "10%", "a:b", "a：b", "a[b", "é"])
def test_a_password_that_is_not_escaped_is_not_shown_either(password: str) -> None:
    """libpq's own sentence repeats what it takes for a host."""
    with pytest.raises(ConfigError, match="%40 for @") as refused:
        warehouse_url(f"postgresql://landfall:{password}@db/events", Path("/"))
    assert password not in str(refused.value)


@pytest.mark.parametrize(
    "rest",
    ["l@h:5432/db?sslmode=verify-full", "/db", "h/db?options=-csearch_path%3Dours", "a:b%40@[::1]:5/db",
     "h1:1,h2:2/db", "u:p@/db?host=/run/postgresql"],
)  # fmt: skip
def test_urls_as_libpq_takes_them(rest: str) -> None:
    assert warehouse_url(f"postgres://{rest}", Path("/")) == f"postgresql://{rest}"


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Settings(warehouse_url="postgresql://u:secret@h/d"))


def test_a_key_that_is_not_hashed_is_not_repeated() -> None:
    (problem,) = problems(f'{SOURCE}intake_keys = ["my-secret-key"]')
    assert "secret" not in problem
