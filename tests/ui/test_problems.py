"""How much is left to fix: on the page of failures, on cards, in the list of files. Each number leads to its lines."""

import fcntl
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from ingest.airflow.ui.access import Visitor
from ingest.warehouse.engines.duckdb import published as duckdb_published
from tests.ui.conftest import ROOT, Site
from tests.ui.producers import load, text_of

ANN: dict[str, object] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed Up"}
MILLIS = ANN | {"_t": 1_795_435_200_000}


def page_of(client: TestClient, address: str) -> str:
    answer = client.get(f"{ROOT}{address}")
    assert answer.status_code == 200, answer.text
    return str(answer.text)


def test_failures_are_told_by_problem_and_lead_to_their_lines(site: Site, admin: TestClient) -> None:
    big = load(site.job, "big.json", ANN, *[MILLIS | {"n": n} for n in range(30)], "broken")
    small = load(site.job, "small.json", ANN, MILLIS)
    html = page_of(admin, "/failures")
    told = text_of(html)
    assert "32 lines to fix in 2 files." in told
    assert told.index("time_in_milliseconds 31 to fix") < told.index("not_json 1 to fix")
    assert "Divide it until it counts seconds" in told
    assert f'href="{ROOT}/files/{big}?code=time_in_milliseconds&amp;open=1#failed"' in html
    assert f'href="{ROOT}/files/{small}/mend?code=time_in_milliseconds"' in html
    assert "<figcaption>Lines to fix, by the day of their files" in html
    assert "32 lines of website to fix" in html
    to_files = re.findall(r'href="(/landfall/\?[^"]*code=not_json[^"]*)"', html)[0].replace("&amp;", "&")
    listed = page_of(admin, to_files.removeprefix(ROOT))
    assert "big.json" in listed
    assert "small.json" not in listed
    assert "Show all" in listed

    today = datetime.now(UTC).date()
    assert "big.json" in page_of(admin, f"/failures?source=website&since={today - timedelta(days=1)}")
    for none in ("?source=shop", f"?until={today - timedelta(days=2)}"):
        assert "No failed line matches" in page_of(admin, f"/failures{none}")
    assert f'href="{ROOT}/failures"' in page_of(admin, "/"), "from the navigation and from the picture"


def test_failures_of_others_are_told_to_nobody_and_raw_lines_to_none(site: Site, viewer: TestClient) -> None:
    load(site.job, "a.json", ANN, "a secret line")
    html = page_of(viewer, "/failures")
    assert "not_json" in html
    assert "secret" not in html
    assert "/mend" not in html, "who may not fix is offered nothing to press"
    for query in ("", "?source=website", "?dag_id=ingest_website"):
        other = page_of(site.of("runs ingest_one_off, ingest_action"), f"/failures{query}")
        assert "a.json" not in other
        assert "of website" not in other


def test_the_tab_of_a_dag_shows_its_source(site: Site, admin: TestClient) -> None:
    load(site.job, "a.json", ANN, "broken")
    html = page_of(admin, "/failures?dag_id=ingest_website")
    assert "1 line to fix in 1 file of website" in text_of(html)


def test_what_is_left_to_fix_is_on_the_card_and_in_the_list(site: Site, admin: TestClient) -> None:
    file_id = load(site.job, "a.json", ANN, "broken", "too")
    html = page_of(admin, "/")
    assert f'<dt>lines to fix</dt><dd><a href="{ROOT}/failures?source=website">2</a>' in html
    assert '<span class="state loaded to-fix">loaded · 2 to fix</span>' in html
    assert f'href="{ROOT}/files/{file_id}?open=1#failed">2</a>' in html
    assert "loaded · 2 to fix" in page_of(admin, f"/files/{file_id}")
    load(site.job, "b.json", ANN)
    assert '<span class="state loaded">loaded</span>' in page_of(admin, "/?q=b.json")


def test_a_source_that_is_late_says_so(site: Site, admin: TestClient) -> None:
    load(site.job, "a.json", ANN)
    assert "expected" not in page_of(admin, "/")
    site.job.configure(expect_every="2h")
    told = text_of(page_of(admin, "/"))
    assert "last file just now, one every 2 hours expected" in told
    assert "Late:" not in told
    with patch("ingest.airflow.ui.pages.files.datetime") as clock:
        clock.now.return_value = datetime.now(UTC) + timedelta(hours=2, minutes=1)
        assert "Late: last file" in text_of(page_of(admin, "/"))


def test_a_page_that_has_to_wait_looks_again_by_itself(
    site: Site, admin: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages have no copy yet and a load is in the way; the copy cannot be opened; Airflow's own database is locked."""
    monkeypatch.setattr(duckdb_published, "_FIRST_SECONDS", 0)
    load(site.job, "a.json", ANN, "broken")

    def waits(sentence: str) -> None:
        answer = admin.get(f"{ROOT}/")
        assert (answer.status_code, answer.headers.get("refresh")) == (503, "3"), answer.text
        assert sentence in answer.text
        assert "tries again by itself" in answer.text

    warehouse: Any = site.job.ask(lambda pipeline: pipeline.warehouse)
    with warehouse.locked(fcntl.LOCK_EX):
        waits("Loads hold")
    assert "a.json" in page_of(admin, "/")
    with patch.object(duckdb_published, "_open", return_value=None):
        load(site.job, "b.json", ANN)
        waits("could not be opened")
    with patch.object(Visitor, "seen", side_effect=OperationalError("", {}, Exception("database is locked"))):
        waits("Airflow&#39;s database did not answer in time")
        sent = admin.post(f"{ROOT}/act", data={"source": "website", "action": "undo", "reason": "x"})
        assert "refresh" not in sent.headers, "nothing is sent twice"
    answer = admin.get(f"{ROOT}/")
    assert "refresh" not in answer.headers
    assert "b.json" in answer.text
