"""The list of files: who sees what, what is asked for, the picture above it, and addresses that make no sense."""

import json
import re
import threading
from datetime import date
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ingest.airflow.ui.chart import HEIGHT, chart
from ingest.core.rhythm import HOURS_FROM
from ingest.ports import Audit, Day
from ingest.redrive import redrive
from tests.ui.conftest import ROOT, Site
from tests.ui.producers import HOSTILE, load, text_of

ANN: dict[str, object] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed Up"}


def listed(client: TestClient, query: str = "") -> list[str]:
    """The keys on a page, in order."""
    answer = client.get(f"{ROOT}/{query}")
    assert answer.status_code == 200, answer.text
    return [text_of(key).strip() for key in re.findall(r'class="key"><a[^>]*>(.*?)</a>', answer.text)]


def test_who_sees_the_list(site: Site, nobody: TestClient, viewer: TestClient, admin: TestClient) -> None:
    load(site.job, "a.json", ANN, "broken")
    answer = nobody.get(f"{ROOT}/")
    assert answer.status_code == 401
    assert "a.json" not in answer.text
    assert listed(viewer) == listed(admin) == ["landing/a.json"]
    assert "Upload" in admin.get(f"{ROOT}/").text
    assert "Upload" not in viewer.get(f"{ROOT}/").text


def test_of_a_source_that_may_not_be_seen_nothing_is_told(site: Site) -> None:
    load(site.job, "a.json", ANN)
    for query in ("", "?source=website", "?q=a.json", "?state=loaded"):
        told = site.of("runs ingest_one_off, ingest_action").get(f"{ROOT}/{query}").text
        assert "landing/a.json" not in told
        assert ">website<" not in told


def test_search_filter_sort(site: Site, admin: TestClient) -> None:
    load(site.job, "10.json", ANN, "broken")
    nine = load(site.job, "9.json", ANN)
    load(site.job, "B 100% _.json", ANN, ANN, ANN, "broken", "too")
    assert listed(admin, "?sort=key&down=0") == ["landing/9.json", "landing/10.json", "landing/B 100% _.json"]
    assert listed(admin, "?sort=failed&down=1")[0] == "landing/B 100% _.json"
    assert listed(admin, "?q=%25%20_") == ["landing/B 100% _.json"]
    assert listed(admin, f"?q={nine[:12]}") == ["landing/9.json"]
    assert listed(admin, "?failures=1&sort=lines") == ["landing/B 100% _.json", "landing/10.json"]
    assert listed(admin, "?state=undone") == []
    assert "No file matches" in admin.get(f"{ROOT}/?state=undone").text
    assert listed(admin, "?since=2020-01-01&until=2020-01-02") == []
    assert 'aria-sort="ascending"' in admin.get(f"{ROOT}/?sort=key&down=0").text


@pytest.mark.slow
def test_a_page_beyond_the_last_is_the_last(site: Site, admin: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.airflow.ui.pages.files._MORE", 2)
    for number in range(5):
        load(site.job, f"{number}.json", ANN | {"n": number})
    assert listed(admin, "?at=3") == listed(admin, "?at=999999") == ["landing/0.json"]
    assert "Page 3 of 3" in admin.get(f"{ROOT}/?at=999999").text
    pages = [listed(admin, f"?at={at}&sort=key&down=0") for at in (1, 2, 3)]
    assert [key for page in pages for key in page] == [f"landing/{number}.json" for number in range(5)]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?until=9999-12-31&since=0001-01-01", 200), ("?since=yesterday", 200), ("?state=x&source=nowhere", 200),
        ("?at=0", 400), ("?at=-1", 400), ("?at=abc", 400), ("?at=99999999999999999999999", 400),
        ("?sort=nonsense", 400), ("?q=%00", 200), ("?q=%27%3B--", 200), ("?q=" + "x" * 5000, 200),
    ],
)  # fmt: skip
def test_addresses_that_make_no_sense(site: Site, admin: TestClient, query: str, status: int) -> None:
    answer = admin.get(f"{ROOT}/{query}")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "Traceback" not in answer.text


def test_hostile_keys_are_text(site: Site, admin: TestClient) -> None:
    for text in HOSTILE:
        if "/" not in text and text.strip() and "\0" not in text:
            load(site.job, f"{text}.json", ANN | {"n": text})
    html = admin.get(f"{ROOT}/").text
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert not re.search(r"[\x1b\u202e\u200b]", html)


def test_what_breaks_in_a_page_is_one_sentence(site: Site, admin: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("ingest.airflow.ui.pages.files._sources_now", broken)
    answer = admin.get(f"{ROOT}/")
    assert answer.status_code == 500
    assert "Something went wrong here" in answer.text
    assert "secret" not in answer.text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


def test_without_a_login_the_page_brings_its_own_style(site: Site, nobody: TestClient) -> None:
    answer = nobody.get(f"{ROOT}/")
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', answer.text))
    policy = answer.headers["content-security-policy"]
    assert f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'" in policy
    assert nonce not in nobody.get(f"{ROOT}/").text
    assert nobody.get(f"{ROOT}/static/landfall.css").status_code == 401
    assert 'src="' not in answer.text


def test_fixed_lines_are_folded_under_their_file(site: Site, admin: TestClient) -> None:
    file_id = load(site.job, "a.json", ANN, "broken", "too")
    fixed = f"2\t{json.dumps(ANN | {'n': 1})}\n3\t{json.dumps(ANN | {'n': 2})}\n".encode()
    told = site.job.ask(lambda pipeline: redrive(pipeline, file_id, fixed, Audit("ann")).result)
    assert told
    html = admin.get(f"{ROOT}/").text
    assert "1 file<" in html
    assert "a.json 2 fixed lines sent again 2 lines loaded just now" in text_of(html)
    assert f'href="{ROOT}/files/{told.file_id}"' in html


def test_who_comes_first_after_a_load_sees_the_present_as_soon_as_it_is_read(
    site: Site, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(site.job, "a.json", ANN)
    assert "data-behind" not in admin.get(f"{ROOT}/").text
    load(site.job, "b.json", ANN | {"n": 1})
    for name in ("_QUICK_SECONDS", "_WAITED_SECONDS"):  # as with a copy that takes long
        monkeypatch.setattr(f"ingest.warehouse.engines.duckdb.published.{name}", 0.0)
    monkeypatch.setattr("ingest.warehouse.engines.duckdb.published._REST", 0.0)
    first = admin.get(f"{ROOT}/").text
    assert "b.json" not in first
    assert "newer data is being read" in first
    assert '<main id="content" tabindex="-1" data-fresh data-behind="1">' in first, "so its script asks again soon"
    assert '<noscript><meta http-equiv="refresh"' in first
    for thread in threading.enumerate():
        if thread.name == "landfall-published":
            thread.join()
    then = admin.get(f"{ROOT}/").text
    assert "b.json" in then
    assert "data-behind" not in then


def test_how_often_files_come_is_learned_and_marked_as_a_guess(
    site: Site, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(HOURS_FROM):
        site.job.put(f"{number}.json", ANN | {"n": number})
    site.job.ask(lambda pipeline: pipeline.load(pipeline.discover("website").pending))

    def came(hours_ago: int) -> str:
        def write(pipeline: Any) -> None:
            with pipeline.warehouse.writing() as connection:
                connection.execute(f"UPDATE ledger SET last_modified = now() - to_hours({hours_ago} + file_no)")

        site.job.ask(write)
        return text_of(admin.get(f"{ROOT}/").text)

    assert re.search(r"[^:] last file \d hours? ago, one every hour expected \(a guess\)", came(0))
    assert re.search(r"Late: last file \d+ hours ago, one every hour expected \(a guess\)", came(4))
    monkeypatch.setattr("ingest.airflow.ui.pages.files.internals.paused", set)  # then nobody looks for files
    assert "Late:" not in came(4)
    site.job.configure(expect_every="36h")
    assert re.search(r"one every 36 hours expected (?!\(a guess\))", came(0))


# --- the picture -----------------------------------------------------------------------------------------------------


def test_loaded_and_failed_are_drawn_on_one_scale() -> None:
    drawn = chart([Day(date(2026, 1, 1), "web", 1, 300, 100), Day(date(2026, 1, 3), "ios", 1, 100, 0)])
    assert drawn is not None
    heights = {bar.title: bar.height for bar in drawn.bars}
    assert heights == {
        "2026-01-01: 300 lines of web loaded": HEIGHT * 0.75, "2026-01-01: 100 lines of web failed": HEIGHT * 0.25,
        "2026-01-03: 100 lines of ios loaded": HEIGHT * 0.25,
    }  # fmt: skip
    assert drawn.zero == HEIGHT * 0.75
    styles = {bar.title.split(": ")[1]: bar.style for bar in drawn.bars}
    assert styles["100 lines of web failed"] == f"{styles['300 lines of web loaded']} failed"


def test_bars_stand_on_each_other_and_within_the_picture() -> None:
    days = [Day(date(2026, 1, n), f"s{m}", 1, n * m, n) for n in range(1, 20) for m in range(1, 9)]
    drawn = chart(days)
    assert drawn is not None
    assert all(bar.y >= 0 and bar.y + bar.height <= HEIGHT + 0.1 for bar in drawn.bars)
    above = [bar for bar in drawn.bars if "failed" not in bar.style]
    assert {bar.style for bar in above} == {"c0", "c1", "c2", "c3", "c4", "c5", "other"}
    last = [bar for bar in above if bar.x == max(one.x for one in above)]
    assert sum(bar.height for bar in last) == pytest.approx(drawn.zero, abs=0.1)
    assert chart([]) is None
