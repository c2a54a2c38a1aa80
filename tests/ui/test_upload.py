"""Upload: streamed, refused in clear words, checked first, loaded once; hostile names and keys stay words."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from ingest.airflow import one_off
from tests.support import lines, record
from tests.ui.conftest import ROOT, Site, runs_of
from tests.ui.producers import text_of

EVENTS = lines(record("ann", 0, "Signed <b>up</b>", plan="1.10"), record("bob", 1, "Paid"), b'{"_p":"<i>","_t":"then"}')
HOSTILE = [
    "../../x.json",
    "<img src=x onerror=alert(1)>.json",
    "a\0b\r\nSet-Cookie: a=b.json",
    "x" * 300,
    "=cmd|' /C calc'",
]


@pytest.fixture(autouse=True)
def _uploads(site: Site) -> None:
    site.know_dags()
    uploads(site)


def uploads(site: Site, more: str = "") -> None:
    bucket = site.job.s3.bucket
    source = f'[[source]]\nname = "website"\nbucket = "{bucket}"\nprefix = "landing/"\n'
    site.job.write(f'{source}[uploads]\nbucket = "{bucket}"\n{more}')


def send(client: TestClient, body: Any, name: str = "events.json", source: str = "one_off", **headers: str) -> Response:
    address = f"{ROOT}/upload/file?name={quote(name)}&source={source}"
    sent: Response = client.put(address, content=body, headers=headers)
    return sent


def stored(site: Site) -> list[str]:
    assert site.job.s3.client.list_multipart_uploads(Bucket=site.job.s3.bucket).get("Uploads", []) == []
    return [file.key for file in site.job.s3.store.list(site.job.s3.bucket, "uploads/")]


def begin(
    client: TestClient, action: str, key: str | list[str], source: str = "one_off", format: str = "auto"
) -> Response:
    begun: Response = client.post(f"{ROOT}/upload/{action}", data={"key": key, "source": source, "format": format})
    return begun


def test_check_load_and_the_same_bytes_again(site: Site, admin: TestClient, tmp_path: Path) -> None:
    sent = send(admin, EVENTS, "My events.json", "website")
    assert sent.status_code == 200, sent.text
    told = sent.json()
    assert (told["size_bytes"], told["twin"]) == (len(EVENTS), None)
    assert told["key"].endswith("-My-events.json")

    page = site.carry_out(begin(admin, "check", told["key"], "website"))
    assert site.job.ledger() == []
    shown = admin.get(page, headers={"X-Part": "1"})
    assert "data-again" not in shown.text
    assert "data-then" not in shown.text
    report = report_of(site, told["key"])
    local = tmp_path / "events.json"
    local.write_bytes(EVENTS)
    said = subprocess.run(
        [sys.executable, "-m", "ingest", "check", str(local), "--json"], capture_output=True, check=False
    )
    real = json.loads(said.stdout)
    assert report.pop("sha256") == hashlib.sha256(EVENTS).hexdigest()
    assert report | {"file": ""} == real | {"file": ""}
    for number in ("lines", "records", "failed"):
        assert f"<dt>{number}</dt><dd>{real[number]}</dd>" in shown.text
    text = unescape(shown.text)
    assert real["failures"][0]["failures"][0]["message"] in text
    assert "Signed &lt;b&gt;up" in shown.text
    assert "<b>up" not in shown.text
    assert "<mark>&#34;then&#34;</mark>" in shown.text
    assert f'name="key" value="{told["key"]}"' in shown.text
    assert "1 of 3 lines is wrong." in text
    assert main_of(shown) == ["Load it"]

    page = site.carry_out(begin(admin, "load", told["key"], "website"))
    (row,) = site.job.ledger()
    assert (row["state"], row["source"], row["key"], row["records"], row["failed"]) == (
        "loaded",
        "website",
        told["key"],
        2,
        1,
    )
    done = admin.get(page, headers={"X-Part": "1"})
    assert f'data-then="{ROOT}/files/{row["file_id"]}"' in done.text

    twin = send(admin, EVENTS).json()["twin"]
    assert (twin["file_id"], twin["key"], twin["state"], twin["source"]) == (
        row["file_id"],
        told["key"],
        "loaded",
        "website",
    )

    copy = send(admin, EVENTS, source="website").json()["key"]
    shown = admin.get(site.carry_out(begin(admin, "check", copy, "website")))
    assert "A load would find it to be a duplicate and load nothing" in shown.text
    assert main_of(shown) == []
    assert f'href="{ROOT}/files/{row["file_id"]}"' in shown.text
    shown = admin.get(site.carry_out(begin(admin, "check", send(admin, EVENTS).json()["key"])))
    assert "duplicate" not in shown.text, "the bytes are loaded by another source"


def main_of(page: Response) -> list[str]:
    """What is on the main buttons of a page."""
    return re.findall(r'<(?:button|a) class="(?:button )?main"[^>]*>([^<]+)<', page.text)


def test_several_are_checked_and_loaded_together(site: Site, admin: TestClient) -> None:
    other = b'{"visitor": {"id": "ann"}, "actions": [{"time": 1393344604000, "name": "x"}]}\n'
    good, seems, wrong, broken = (
        send(admin, body).json()["key"] for body in (EVENTS, other, b"no\n" * 9, b'{\n"a": 1')
    )
    keys = [good, seems, wrong, broken]
    shown = admin.get(site.carry_out(begin(admin, "check", keys, format="kissmetrics")))
    assert "4 files are checked: 1 can be loaded" in shown.text
    text = text_of(shown.text)
    assert "it seems to be woopra. A load would reject it." in text
    mains = ["Load the 1 that can be loaded", "Load it", "Check again as woopra", "Upload a corrected file"]
    assert sorted(main_of(shown)) == sorted(mains), "of what cannot be loaded, Load is never the main button"
    assert text.count("Load it all the same") == text.count("Upload a corrected file") - 1 == 3

    page = site.carry_out(begin(admin, "load", keys))
    states = [row["state"] for row in site.job.ledger()]
    assert sorted(states) == ["loaded", "loaded", "rejected", "rejected"], "woopra was told by the file itself"
    done = admin.get(page, headers={"X-Part": "1"})
    assert "data-then" not in done.text, "the list of what became of each is here"
    website = send(admin, EVENTS, source="website").json()["key"]
    assert begin(admin, "load", [good, website]).status_code == 400
    assert begin(admin, "load", [good, "landing/1.json"]).status_code == 400
    assert begin(admin, "load", [good] * 101).status_code == 400


def test_what_was_sent_for_a_source_of_another_format_may_go_to_one_that_has_it(site: Site, admin: TestClient) -> None:
    bucket = site.job.s3.bucket
    crm = f'[[source]]\nname = "crm"\nbucket = "{bucket}"\nprefix = "crm/"\nformat = "woopra"\n'
    uploads(site, crm)
    key = send(admin, b'{"visitor": {"id": "ann"}, "actions": []}\n', source="website").json()["key"]
    shown = admin.get(site.carry_out(begin(admin, "check", key, "website")))
    assert f'href="{ROOT}/upload?source=crm">Upload it for crm<' in shown.text
    assert f'href="{ROOT}/upload?source=website">Upload a corrected file<' in shown.text
    assert "Check again as" not in shown.text
    assert '<option value="crm" selected>' in admin.get(f"{ROOT}/upload?source=crm").text


def report_of(site: Site, key: str) -> dict[str, Any]:
    found = site.job.s3.client.get_object(Bucket=site.job.s3.bucket, Key=f"{key}.check.json")["Body"].read()
    return dict(json.loads(found))


def test_a_copy_loads_nothing(site: Site, admin: TestClient) -> None:
    first, second = (send(admin, EVENTS).json()["key"] for _ in "12")
    for key in (first, second):
        site.carry_out(begin(admin, "load", key))
    states = {row["key"]: (row["state"], row["duplicate_of"]) for row in site.job.ledger()}
    loaded = next(row["file_id"] for row in site.job.ledger() if row["key"] == first)
    assert states == {first: ("loaded", None), second: ("duplicate", loaded)}
    assert site.job.count("events") == 2


def test_the_form_of_the_dag_takes_what_is_started(site: Site, admin: TestClient) -> None:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    key = send(admin, EVENTS, source="website").json()["key"]
    started = begin(admin, "load", key, "website", "kissmetrics")
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.run_id.in_(runs_of("ingest_one_off")))).all()[-1]
        conf, by = run.conf, run.triggering_user_name
    assert started.status_code == 303
    assert set(conf) == set(one_off.params())
    assert (conf["files"], by) == ([f"s3://{site.job.s3.bucket}/{key}"], "the admin")


def test_history_names_who_uploaded_and_who_forced(site: Site, admin: TestClient) -> None:
    key = send(admin, EVENTS, source="website").json()["key"]
    site.carry_out(begin(admin, "load", key, "website"))
    conf = {"files": [f"s3://{site.job.s3.bucket}/{key}"], "force": True, "format": "woopra"}
    user = site.of("user")
    begun = user.post("/api/v2/dags/ingest_one_off/dagRuns", json={"logical_date": None, "conf": conf})
    site.do("ingest_one_off", begun.json()["dag_run_id"])
    (row,) = site.job.ledger()
    assert (row["source"], row["format"], row["state"]) == ("website", "kissmetrics", "loaded")
    history = site.job.ask(lambda pipeline: pipeline.warehouse.history(row["file_id"]))
    assert [(one["action"], one["by"]) for one in history] == [("load", "the admin"), ("force", "the user")]


def test_an_upload_is_for_the_source_that_it_was_sent_for(site: Site, admin: TestClient) -> None:
    nobodys, its = (send(admin, EVENTS, source=source).json()["key"] for source in ("one_off", "website"))
    assert "/sources/website/" in its
    before = runs_of("ingest_one_off")
    for key, source in ((nobodys, "website"), (its, "one_off")):
        refused = begin(admin, "load", key, source)
        assert (refused.status_code, "was sent for another source" in refused.text) == (400, True)
    refused = begin(admin, "load", its, "website", "woopra")
    assert (refused.status_code, "have the format kissmetrics" in refused.text) == (400, True)
    elsewhere = its.replace("/website/", "/nowhere/")
    assert begin(admin, "load", elsewhere, "nowhere").status_code == 403
    assert begin(admin, "load", f"{nobodys}.check.json").status_code == 400
    assert runs_of("ingest_one_off") == before


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_a_word_of_a_key(site: Site, admin: TestClient, name: str) -> None:
    sent = send(admin, EVENTS, name)
    key = sent.json()["key"]
    assert stored(site) == [key]
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")
    assert ".." not in key
    assert len(key) < 150
    assert "set-cookie" not in sent.headers
    assert begin(admin, "check", key).status_code == 303


@pytest.mark.parametrize(
    "key",
    [
        "landing/1.json", "uploads/1.json", "uploads/../landing/1.json", "", "uploads/", "/uploads/2026/11/24/x.json",
        "uploads/2026/11/24/20261124T101112Z-0123456789ab-x.json/../../y.json",
        "uploads/2026/11/24/20261124T101112Z-0123456789ab-x.json\n", "s3://secret/uploads/1.json",
        "uploads/2026/11/24/20261124T101112Z-0123456789ab-<img>.json",
    ],
)  # fmt: skip
def test_a_key_that_is_not_of_our_making_is_refused(site: Site, admin: TestClient, key: str) -> None:
    before = runs_of("ingest_one_off")
    assert begin(admin, "check", key).status_code == begin(admin, "load", key).status_code == 400
    assert runs_of("ingest_one_off") == before


def test_who_may_not_sends_nothing(site: Site, nobody: TestClient, viewer: TestClient, admin: TestClient) -> None:
    key = send(admin, EVENTS).json()["key"]
    before = runs_of("ingest_one_off")
    for client, status in ((nobody, 401), (viewer, 403)):
        assert client.get(f"{ROOT}/upload").status_code == status
        assert send(client, EVENTS).status_code == status
        assert begin(client, "check", key).status_code == begin(client, "load", key).status_code == status
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    assert send(admin, EVENTS, **elsewhere).status_code == 403
    assert admin.post(f"{ROOT}/upload/load", data={"key": key}, headers=elsewhere).status_code == 403
    assert send(admin, EVENTS, source="nowhere").status_code == begin(admin, "load", key, "nowhere").status_code == 403
    assert begin(admin, "load", key, format="xml").status_code == 400
    assert stored(site) == [key]
    assert runs_of("ingest_one_off") == before


def test_a_source_needs_the_permission_to_run_its_dag(site: Site, admin: TestClient) -> None:
    key = send(admin, EVENTS, source="website").json()["key"]
    site.job.ask(lambda pipeline: pipeline.load(pipeline.locate(f"s3://{site.job.s3.bucket}/{key}")))
    somebody = site.of("runs ingest_one_off")
    assert '<option value="website">' not in somebody.get(f"{ROOT}/upload").text
    assert begin(somebody, "load", key, "website").status_code == begin(somebody, "check", key).status_code == 403
    assert send(somebody, EVENTS, source="website").status_code == 403
    assert send(somebody, EVENTS).json()["twin"] is None  # nor is it told that these bytes are there


def test_what_was_sent_for_a_source_is_loaded_only_if_somebody_who_may_run_it_says_so(
    site: Site, admin: TestClient
) -> None:
    from ingest.airflow.ui.runs import problems

    key = send(admin, EVENTS, source="website").json()["key"]
    uri = f"s3://{site.job.s3.bucket}/{key}"
    site.carry_out(begin(admin, "check", key, "website"))
    ran = site.job.run("ingest_one_off", files=[uri])
    assert (ran.state, site.job.ledger()) == ("failed", [])
    (problem,) = problems("ingest_one_off", ran.run_id)
    assert problem.startswith(f"{uri} was sent for the source website, and not to be loaded:")
    assert begin(site.of("runs ingest_one_off"), "load", key, "website").status_code == 403
    assert site.job.run("ingest_one_off", files=[uri]).state == "failed"
    begin(admin, "load", key, "website")
    assert site.job.run("ingest_one_off", files=[uri]).state == "success"
    assert [(row["source"], row["key"]) for row in site.job.ledger()] == [("website", key)]


def test_the_page(site: Site, admin: TestClient) -> None:
    before = site.job.s3.client.list_objects_v2(Bucket=site.job.s3.bucket)["KeyCount"]
    page = admin.get(f"{ROOT}/upload")
    assert page.status_code == 200
    assert '<option value="website">' in page.text
    assert "At most 5.4 GB" in page.text
    assert "style=" not in page.text
    assert "onclick" not in page.text
    assert site.job.s3.client.list_objects_v2(Bucket=site.job.s3.bucket)["KeyCount"] == before
    assert admin.get(f"{ROOT}/static/upload.js").headers["content-type"].startswith("text/javascript")


def test_without_a_bucket_the_page_says_what_to_set(site: Site, admin: TestClient) -> None:
    site.job.configure()
    page = admin.get(f"{ROOT}/upload")
    assert (page.status_code, "[uploads]" in page.text, "<form" in page.text) == (200, True, False)
    assert send(admin, EVENTS).status_code == begin(admin, "load", "uploads/1.json").status_code == 409


@pytest.mark.parametrize(
    ("limits", "body", "status", "words"),
    [
        pytest.param("max_bytes = 1000", bytes(1001), 413, "larger than 1,000 bytes", id="too large"),
        pytest.param("max_bytes = 1000", iter([b"{}\n"] * 400), 413, "larger than 1,000 bytes", id="of unknown length"),
        pytest.param("", gzip.compress(b" " * (200 << 20)), 413, "unpacks to more than 200 times", id="a bomb"),
        pytest.param(
            "max_decompressed_bytes = 99", gzip.compress(b" " * 100), 413, "Unpacked", id="too large unpacked"
        ),
        pytest.param("", b"", 400, "empty", id="empty"),
        pytest.param("", b"PK\3\4", 400, "The file is a ZIP archive: unpack it", id="ZIP"),
        pytest.param("", gzip.compress(EVENTS)[:-9], 400, "", id="cut off"),
        pytest.param("", b"_p,_t,_n\nann,1,x\nbob,2,y\n", 400, "The file is a table (CSV): export it", id="CSV"),
    ],
)
def test_what_is_refused_is_said_and_leaves_nothing(
    site: Site, admin: TestClient, limits: str, body: Any, status: int, words: str
) -> None:
    uploads(site, limits)
    sent = send(admin, body)
    assert (sent.status_code, words in sent.json()["error"]) == (status, True), sent.text
    assert stored(site) == []


def test_too_large_by_its_own_word_is_refused_unread(site: Site, admin: TestClient) -> None:
    read = []

    def pieces() -> Iterator[bytes]:
        read.append(1)
        yield b"{}\n" * 300

    uploads(site, "max_bytes = 1000")
    assert send(admin, pieces(), **{"Content-Length": "1001"}).status_code == 413
    assert read == []
    assert send(admin, pieces(), **{"Content-Length": "900"}).status_code == 200
    assert read == [1]


def test_another_store_than_that_of_the_source(site: Site, admin: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credentials of a source need not reach the bucket for uploads."""
    extra = {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"total_max_attempts": 1}}}
    connection = {"conn_type": "aws", "login": "a", "password": "b", "extra": extra | {"region_name": "us-east-1"}}
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(connection))
    bucket = site.job.s3.bucket
    site.job.write(
        f'[[source]]\nname = "website"\nbucket = "{bucket}"\nprefix = "landing/"\naws_conn_id = "elsewhere"\n'
        f'after_load = "delete"\n[uploads]\nbucket = "{bucket}"\n'
    )
    key = send(admin, EVENTS, source="website").json()["key"]
    site.carry_out(begin(admin, "load", key, "website"))
    assert [(row["state"], row["source"]) for row in site.job.ledger()] == [("loaded", "website")]
    assert stored(site) == [key, f"{key}.may-load"]  # it lies in no landing, so nobody takes it away
