"""What a source takes, what it passes over, and what it names as taken by nobody."""

from datetime import UTC, datetime

import pytest

from ingest.core.source import SourceFile
from ingest.discovery import NAMES_KEPT, Selection, in_order, own_object, owner_of, takes, verdict
from ingest.settings import Settings, Source

LANDING = Source(
    name="website", bucket="acme", prefix="landing/", format="kissmetrics", report_prefix="landing/reports/"
)


def file(key: str) -> SourceFile:
    return SourceFile(bucket="acme", key=key, etag="e", last_modified=datetime(2026, 1, 1, tzinfo=UTC), size_bytes=0)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        pytest.param("landing/a.json", "taken", id="json"),
        pytest.param("landing/A.JSON", "taken", id="any case"),
        pytest.param("landing/a.json.gz", "taken", id="gzip"),
        pytest.param("landing/a.Json.GZ", "taken", id="gzip, any case"),
        pytest.param("landing/2026/01/a.json", "taken", id="in a folder"),
        pytest.param("landing/.json", "taken", id="no name"),
        pytest.param("landing/a b+ä.json", "taken", id="odd signs"),
        pytest.param("landing/a.json.zst", "ignored", id="no rule takes zst by name"),
        pytest.param("landing/a.jsonl", "ignored", id="jsonl"),
        pytest.param("landing/index.csv", "ignored", id="csv"),
        pytest.param("landing/a.json ", "ignored", id="blank at the end"),
        pytest.param("landing/a.json\n", "ignored", id="newline at the end"),
        pytest.param("landing/json", "ignored", id="no suffix"),
        pytest.param("landing/", "own", id="folder marker"),
        pytest.param("landing/a.json/", "own", id="folder marker with a suffix"),
        pytest.param("landing/reports/a.json", "own", id="our reports"),
        pytest.param("landing/completed_imports/2026/01/02/a.json", "ignored", id="another's archive below the prefix"),
        pytest.param("completed_imports/2026/01/02/landing/a.json", "own", id="our archive"),
        pytest.param("landing/not_completed_imports/a.json", "taken", id="a name like the archive's"),
        pytest.param("landing/uploads/a.json", "own", id="uploads"),
    ],
)
def test_what_a_source_takes(key: str, found: str) -> None:
    assert verdict(LANDING, key, own=("landing/uploads/",)) == found
    assert takes(LANDING, key, own=("landing/uploads/",)) == (found == "taken")


def test_the_archive_is_never_taken() -> None:
    everything = Source(name="all", bucket="acme", archive_prefix="done/")
    assert not takes(everything, "completed_imports/2026/01/02/a.json")
    assert not takes(everything, "done/2026/01/02/a.json")
    assert takes(everything, "a.json")


def test_on_this_machine_the_archive_is_below_the_prefix() -> None:
    folder = Source(name="all", bucket="file", prefix="/landing/")
    assert verdict(folder, "/landing/completed_imports/2026/01/02/a.json") == "own"


def test_another_archive_below_the_prefix_is_counted_and_named() -> None:
    for pattern in (None, "*"):
        selection = Selection(Source(name="all", bucket="acme", prefix="landing/", pattern=pattern))
        listed = [file("landing/a.json"), file("landing/completed_imports/b.json")]
        assert [found.key for found in selection.sift(listed)] == ["landing/a.json"]
        assert selection.ignored_names == ["landing/completed_imports/b.json"]
        assert "in completed_imports/" in selection.passed_over or pattern


def test_a_pattern_decides_alone_but_not_over_the_archive() -> None:
    source = Source(name="all", bucket="acme", pattern="*")
    assert takes(source, "notes.txt")
    assert not takes(source, "completed_imports/a.json")


@pytest.mark.parametrize(
    ("pattern", "below", "taken"),
    [
        pytest.param("accounts*.json", "accounts.json", True, id="glob"),
        pytest.param("accounts*.json", "accounts.1393344604.json", True, id="Kissmetrics' own naming"),
        pytest.param("accounts*.json", "accounts-20140225.json", True, id="its other naming"),
        pytest.param("accounts*.json", "2026/accounts.1.json", True, id="a base name, in any folder"),
        pytest.param("accounts*.json", "my_accounts.json", False, id="begins otherwise"),
        pytest.param("accounts*.json", "accounts.json.gz", False, id="ends otherwise"),
        pytest.param("accounts*.json", "accounts/other.json", False, id="a folder is no base name"),
        pytest.param("accounts*.json", "Accounts.json", False, id="case counts"),
        pytest.param("accounts.json", "accounts.json", True, id="base name alone"),
        pytest.param("accounts.json", "accounts.2.json", True, id="base name stands for its family"),
        pytest.param("accounts.json", "accountsXjson", False, id="a dot is a dot"),
        pytest.param("accounts.json.gz", "accounts.2.json.gz", True, id="base name with gz"),
        pytest.param("accounts", "accounts.2.json", True, id="base name without a suffix"),
        pytest.param("my.accounts.json", "my.accounts.7.json", True, id="base name with a dot"),
        pytest.param("web/*.json", "web/a.json", True, id="glob with a folder"),
        pytest.param("web/*.json", "app/web/a.json", False, id="glob with a folder stands below the prefix"),
        pytest.param("web/a.json", "web/a.1.json", True, id="base name with a folder"),
        pytest.param("*.[jt]son", "a.tson", True, id="sign class"),
    ],
)
def test_patterns(pattern: str, below: str, taken: bool) -> None:
    source = Source(name="website", bucket="acme", prefix="landing/", pattern=pattern)
    assert takes(source, f"landing/{below}") == taken


SETTINGS = Settings(
    warehouse_url="",
    uploads_bucket="acme",
    sources={
        source.name: source
        for source in (
            Source(name="web", bucket="acme", prefix="landing/web/", report_prefix="told/"),
            Source(name="shop", bucket="acme", prefix="landing/", pattern="orders*.json", archive_prefix="old/"),
            Source(name="people", bucket="acme", prefix="landing/", pattern="people*.json"),
            Source(name="visits", bucket="acme", prefix="landing/", pattern="*visits.json"),
            Source(name="disk", bucket="file", prefix="/data/in/", report_prefix="told/"),
            Source(name="all", bucket="other"),
        )
    },
)


@pytest.mark.parametrize(
    ("bucket", "key", "owner"),
    [
        pytest.param("acme", "landing/web/a.json", "web", id="below a prefix"),
        pytest.param("acme", "landing/web/a.csv", "web", id="which no rule takes"),
        pytest.param("acme", "landing/web/orders.1.json", "web", id="the longest prefix of those that take it"),
        pytest.param("acme", "landing/web/orders.1.csv", "web", id="the longest prefix of those that do not"),
        pytest.param("acme", "landing/orders.1.json", "shop", id="one prefix, the first pattern"),
        pytest.param("acme", "landing/people.1.json", "people", id="one prefix, the second pattern"),
        pytest.param("acme", "landing/a.json", "shop", id="one prefix, no pattern"),
        pytest.param("acme", "landing/web/a.json#0123456789ab", "web", id="a redrive"),
        pytest.param("acme", "elsewhere/a.json", None, id="below no prefix"),
        pytest.param("third", "landing/web/a.json", None, id="another bucket"),
        pytest.param("acme", "completed_imports/2026/11/27/landing/web/a.json", "web", id="an archive"),
        pytest.param("acme", "old/2026/11/27/landing/orders.1.json", "shop", id="an archive of its own"),
        pytest.param("acme", "old/2026/11/27/landing/web/a.json", "shop", id="in which another one archives nothing"),
        pytest.param("acme", "old/2026/11/27/landing/orders.1.0a1b2c3d.json", "shop", id="a name that was taken"),
        pytest.param(
            "acme", "completed_imports/2026/11/27/landing/all-visits.0a1b2c3d.json", "visits", id="whose end decides"
        ),
        pytest.param("acme", "completed_imports/2026/11/27/landing/orders.1.json", "shop", id="the default, before"),
        pytest.param("acme", "completed_imports/landing/web/a.json", None, id="no day"),
        pytest.param("acme", "completed_imports/2026/11/27/x/a.json", None, id="of what is nobody's"),
        pytest.param("other", "completed_imports/2026/11/27/x/a.json", "all", id="of a whole bucket"),
        pytest.param("acme", "uploads/2026/11/27/20261127T101112Z-0123456789ab-a.json", None, id="an upload"),
        pytest.param("acme", "uploads/sources/web/2026/11/27/a.json", "web", id="an upload for a source"),
        pytest.param("acme", "uploads/sources/gone/2026/11/27/a.json", "gone", id="for a source that is no more"),
        pytest.param("acme", "uploads/sources/web", None, id="a file, no folder"),
        pytest.param("other", "uploads/sources/web/a.json", "all", id="no bucket for uploads"),
        pytest.param("file", "/data/in/a.json", "disk", id="a folder"),
        pytest.param("file", "/data/in", "disk", id="the folder itself"),
        pytest.param("file", "/data/inside/a.json", None, id="a folder beside it"),
        pytest.param("file", "/data/in/completed_imports/2026/11/27/a.json", "disk", id="the archive in a folder"),
        pytest.param("file", "-", None, id="standard input"),
    ],
)
def test_an_object_belongs_to_one_source_or_to_nobody(bucket: str, key: str, owner: str | None) -> None:
    assert owner_of(SETTINGS, bucket, key) == owner


UPLOAD = "2026/11/27/20261127T101112Z-0123456789ab"


@pytest.mark.parametrize(
    ("bucket", "key", "what"),
    [
        ("acme", f"uploads/{UPLOAD}-a.json", None),
        ("acme", f"uploads/{UPLOAD}-a.json.check.json", "is the report of a check"),
        ("acme", f"former/{UPLOAD}-a.json.gz.check.json", "is the report of a check"),
        (
            "acme",
            "uploads/2026/11/27/pasted-2026-11-27T101112-0123456789ab.json.check.json",
            "is the report of a check",
        ),
        ("acme", "uploads/a.check.json", "is the report of a check"),
        ("acme", "landing/web/a.check.json", None),
        ("acme", f"uploads/{UPLOAD}-{'0' * 32}.mended.txt", "holds fixed lines for a redrive"),
        ("acme", f"former/{UPLOAD}-{'0' * 32}.mended.txt", "holds fixed lines for a redrive"),
        ("acme", "landing/web/a.mended.txt", None),
        ("acme", f"uploads/sources/web/{UPLOAD}-a.json.may-load", "says that an upload may be loaded"),
        ("acme", "told/landing/web/a.json.0a1b2c3d.report.json", "is the report of a load"),
        ("acme", "former/landing/web/a.json.0a1b2c3d.lines.tsv", "is the report of a load"),
        ("acme", "landing/web/report.json", None),
        ("file", "/data/in/told/a.json", "is the report of a load"),
        ("acme", "completed_imports/.landfall-probe", "is a file that this program only works with"),
        ("file", f"/data/in/.landfall-{'0' * 32}", "is a file that this program only works with"),
        ("acme", "completed_imports/2026/11/27/landing/web/a.json", None),
    ],
)
def test_what_the_program_wrote_itself_is_known(bucket: str, key: str, what: str | None) -> None:
    assert own_object(SETTINGS, bucket, key) == what


def test_what_the_program_wrote_is_taken_by_no_pattern_though_its_prefix_has_changed() -> None:
    source = Source(name="all", bucket="acme", pattern="*")
    names = ["a.json.0a1b2c3d.report.json", "a.json.0a1b2c3d.lines.tsv", f".landfall-{'0' * 32}"]
    names += [f"{UPLOAD}-a.json.check.json", f"{UPLOAD}-{'0' * 32}.mended.txt"]
    selection = Selection(source)
    assert [found.key for found in selection.sift(map(file, [*names, "a.json"]))] == ["a.json"]
    assert selection.ignored_names == names


def test_what_nobody_takes_is_counted_and_named() -> None:
    selection = Selection(LANDING)
    names = [f"landing/{number}.csv" for number in range(50)]
    listed = [file("landing/"), file("landing/10.json"), *map(file, names), file("landing/9.json")]
    taken = in_order(selection.sift(listed))
    assert [found.key for found in taken] == ["landing/9.json", "landing/10.json"]
    assert {(found.source, found.format) for found in taken} == {("website", "kissmetrics")}
    assert (selection.taken, selection.ignored) == (2, 50)
    assert selection.ignored_names == names[:NAMES_KEPT]


def test_own_prefixes_are_those_of_every_source_in_the_bucket() -> None:
    sources = (LANDING, Source(name="other", bucket="elsewhere", report_prefix="r/"))
    settings = Settings(sources={source.name: source for source in sources}, warehouse_url="", uploads_bucket="acme")
    assert settings.own_prefixes("acme") == ("completed_imports/", "landing/reports/", "uploads/")
    assert settings.own_prefixes("elsewhere") == ("completed_imports/", "r/")
