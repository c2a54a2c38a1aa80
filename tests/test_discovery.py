"""What a source takes, what it passes over, and what it names as taken by nobody."""

from datetime import UTC, datetime

import pytest

from ingest.core.source import SourceFile
from ingest.discovery import NAMES_KEPT, Selection, in_order, takes, verdict
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
        assert "lie in completed_imports/" in selection.passed_over or pattern


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
