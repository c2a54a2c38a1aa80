"""Actions: each is asked first, refused to those without permission, and a run of `ingest_action`."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ingest.airflow.action import Request
from ingest.errors import ConfigError
from ingest.ports import Audit
from ingest.redrive import redrive
from tests.ui.conftest import ROOT, Site, on_both_engines, runs_of
from tests.ui.producers import text_of

ANN: dict[str, Any] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed Up"}


@pytest.fixture(autouse=True)
def _known(site: Site) -> None:
    site.know_dags()


def a_file(site: Site, name: str = "1.json") -> str:
    return site.load(name, ANN, "no json")


@on_both_engines
def test_undo_is_asked_first_done_by_a_run_and_leads_to_the_file(site: Site, admin: TestClient) -> None:
    file_id = a_file(site)
    before = runs_of("ingest_action")

    asked = admin.get(f"{ROOT}/files/{file_id}/act/undo")
    assert asked.status_code == 200
    assert "1 record, 0 sets and 0 aliases leave the warehouse" in asked.text
    assert "1 failed line cannot be seen until the file is back" in asked.text
    assert runs_of("ingest_action") == before

    started = admin.post(f"{ROOT}/files/{file_id}/act/undo", data={"reason": "sent\0 by <b>mistake</b>\n"})
    waiting = admin.get(started.headers["location"], headers={"X-Part": "1"})
    assert f'data-again="{started.headers["location"]}"' in waiting.text
    page = site.carry_out(started)

    assert site.job.states() == {"1.json": "undone"}
    assert site.job.count("commands") == 0
    (entry,) = site.job.ask(lambda pipeline: pipeline.warehouse.history(file_id))
    assert (entry["action"], entry["by"], entry["reason"]) == ("undo", "the admin", "sent by <b>mistake</b>")

    done = admin.get(page, headers={"X-Part": "1"})
    run_id = page.rpartition("/")[2]
    assert f'data-then="/landfall/files/{file_id}?done={run_id}"' in done.text
    assert "The file is undone." not in admin.get(f"{ROOT}/files/{file_id}?done={run_id}").text, "its state says so"
    assert 'role="status"' not in admin.get(f"{ROOT}/files/{file_id}?done=another").text
    assert "data-again" not in done.text
    opened_later = admin.get(page)
    assert "data-then" not in opened_later.text
    assert f'<a href="/landfall/files/{file_id}">landing/1.json</a>' in opened_later.text
    assert "&lt;b&gt;mistake" in opened_later.text


@pytest.mark.parametrize("action", ["release", "ignore", "retry"])
def test_a_state_that_does_not_take_the_action_is_told(site: Site, admin: TestClient, action: str) -> None:
    file_id = a_file(site)
    before = runs_of("ingest_action")
    for ask in (admin.get, admin.post):
        refused = ask(f"{ROOT}/files/{file_id}/act/{action}")
        assert refused.status_code == 409
        assert f"It is loaded; {action} is for files that are" in refused.text
    assert runs_of("ingest_action") == before


def test_who_may_not_does_not(site: Site, nobody: TestClient, viewer: TestClient, admin: TestClient) -> None:
    file_id = a_file(site)
    before = runs_of("ingest_action")
    for ask in ("get", "post"):
        assert getattr(nobody, ask)(f"{ROOT}/files/{file_id}/act/undo").status_code == 401
        refused = getattr(viewer, ask)(f"{ROOT}/files/{file_id}/act/undo")
        assert (refused.status_code, "permission to run the DAG ingest_action" in refused.text) == (403, True)
        assert getattr(admin, ask)(f"{ROOT}/files/{'0' * 32}/act/undo").status_code == 404
        assert getattr(admin, ask)(f"{ROOT}/files/{file_id}/act/redrive").status_code == 400
    another_site = admin.post(f"{ROOT}/files/{file_id}/act/undo", headers={"Sec-Fetch-Site": "cross-site"})
    assert (another_site.status_code, "nothing was done" in another_site.text) == (403, True)
    assert runs_of("ingest_action") == before


def test_an_action_needs_the_right_to_run_the_source_and_the_action(site: Site) -> None:
    file_id = a_file(site)
    before = runs_of("ingest_action")
    for who, status in (("runs ingest_one_off, ingest_action", 404), ("runs ingest_website", 403)):
        for ask in (site.of(who).get, site.of(who).post):
            assert ask(f"{ROOT}/files/{file_id}/act/undo").status_code == status
    assert runs_of("ingest_action") == before
    both = site.of("runs ingest_website, ingest_action")
    assert both.get(f"{ROOT}/files/{file_id}/act/undo").status_code == 200
    assert both.post(f"{ROOT}/files/{file_id}/act/undo").status_code == 303


def test_what_goes_along_is_named(site: Site, admin: TestClient) -> None:
    file_id = a_file(site)
    copy = a_file(site, "copy.json")
    assert site.job.states()["copy.json"] == "duplicate"
    mended = b'2\t{"_p": "bob", "_t": 1700000001, "_n": "x"}\n'
    site.job.ask(lambda pipeline: redrive(pipeline, file_id, mended, Audit("ann")))

    undo = admin.get(f"{ROOT}/files/{file_id}/act/undo").text
    assert "With it goes what was loaded of 1 fixed line: 1 record. They were not sent from a page" in undo
    assert f'<a href="/landfall/files/{copy}">landing/copy.json</a>' in undo
    assert "stay unloaded until they are forced" in undo
    force = admin.get(f"{ROOT}/files/{copy}/act/force").text
    assert "each fact still counts once" in force
    assert f'<a href="/landfall/files/{file_id}">landing/1.json</a>' in force


@pytest.mark.slow
def test_fixed_lines_that_went_along_are_offered_again_when_the_file_is_back(site: Site, admin: TestClient) -> None:
    site.job.write(f'[uploads]\nbucket = "{site.job.s3.bucket}"\n{(site.job.folder / "ingest.toml").read_text()}')
    file_id = site.load("1.json", ANN, "no json", ANN | {"of": {"a": 1}})
    one = {"line:2": '{"_p": "bob", "_t": 1700000001, "_n": "x"}', "was:2": "", "do": "send"}
    site.carry_out(admin.post(f"{ROOT}/files/{file_id}/mend", data=one))
    assert site.job.count("commands") == 2
    assert "Send them again" not in admin.get(f"{ROOT}/files/{file_id}").text
    two = {"line:3": '{"_p": "cat", "_t": 1700000001, "_n": "x"}', "was:3": "", "do": "send"}
    site.carry_out(admin.post(f"{ROOT}/files/{file_id}/mend", data=two))
    assert site.job.count("commands") == 3
    undo = admin.get(f"{ROOT}/files/{file_id}/act/undo").text
    assert "2 fixed lines: 2 records. They are kept: when you bring the file back, you can" in undo

    # Undo, and bring back with both parts, in one step.
    site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/undo"))
    assert site.job.count("commands") == 0
    page = admin.get(f"{ROOT}/files/{file_id}").text
    assert f'href="{ROOT}/files/{file_id}/act/force">Bring back</a>' in page
    assert "Bring back sends its fixed lines again, too" in page
    asked = admin.get(f"{ROOT}/files/{file_id}/act/force").text
    assert 'name="fixes" value="1" checked> Send its fixed lines again, too: those of 2 redrives' in asked
    back = site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/force", data={"fixes": "1"}))
    assert site.job.count("commands") == 3
    assert {row["state"] for row in site.job.ledger()} == {"loaded"}
    assert "undone</span> → <span" in admin.get(back).text
    landed = text_of(admin.get(f"{ROOT}/files/{file_id}?done={back.rpartition('/')[2]}").text)
    assert "The file is loaded again. 2 lines are fixed. No line of this file is open any more." in landed

    # Or later, on its page.
    site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/undo"))
    site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/force"))
    assert site.job.count("commands") == 1, "the fixed lines are open again"
    assert "those of 2 redrives" in admin.get(f"{ROOT}/files/{file_id}").text
    assert "Send them again" not in site.of("viewer").get(f"{ROOT}/files/{file_id}").text
    again = {"do": "resend"}
    site.carry_out(admin.post(f"{ROOT}/files/{file_id}/mend", data=again))
    assert site.job.count("commands") == 3
    assert "Send them again" not in admin.get(f"{ROOT}/files/{file_id}").text
    assert admin.post(f"{ROOT}/files/{file_id}/mend", data=again).status_code == 409

    # One of them is accepted by the rules of today: the others are sent all the same.
    site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/undo"))
    settings = site.job.folder / "ingest.toml"
    site.job.write(settings.read_text().replace("[[source]]", '[[source]]\nnested = "flatten"'))
    back = site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/force", data={"fixes": "1"}))
    landed = text_of(admin.get(f"{ROOT}/files/{file_id}?done={back.rpartition('/')[2]}").text)
    assert "1 line is fixed. 1 line does not fail, so what was sent is not loaded. No line of this file is" in landed
    assert site.job.count("commands") == 3


def test_a_rejected_file_is_forced_past_its_limits(site: Site, admin: TestClient) -> None:
    site.job.configure(max_failed_lines=0)
    file_id = a_file(site)
    assert site.job.states() == {"1.json": "rejected"}
    assert "max_failed_lines is 0" in admin.get(f"{ROOT}/files/{file_id}/act/force").text
    page = site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/force"))
    assert site.job.states() == {"1.json": "loaded"}
    assert "rejected</span> → <span" in admin.get(page).text


@pytest.mark.slow
def test_many_files_are_chosen_by_a_person_counted_first_and_taken_with_a_reason(site: Site, admin: TestClient) -> None:
    one, two = a_file(site), site.load("2.json", ANN | {"_p": "bob"}, ANN | {"_p": "cat"}, "no json")
    site.job.ask(lambda pipeline: redrive(pipeline, two, b'3\t{"_p": "d", "_t": 1700000001}\n', Audit("ann")))
    mended = b'3\t{"_p": "d", "_t": 1700000001, "_n": "x"}\n'
    site.job.ask(lambda pipeline: redrive(pipeline, two, mended, Audit("ann")))
    assert f'href="{ROOT}/act?source=website"' in admin.get(f"{ROOT}/files/{one}").text

    nothing = admin.get(f"{ROOT}/act").text
    assert " selected" not in nothing
    assert 'method="post"' not in nothing
    asked = admin.get(f"{ROOT}/act?source=website&action=undo").text
    told = text_of(asked)
    for takes in ("files 2", "rows in the warehouse now 4", "redrives 1", "failed lines 2"):
        assert takes in told
    assert re.search('name="reason"[^>]* required', asked)
    assert "nothing to do" in admin.get(f"{ROOT}/act?source=website&action=undo&since=2100-01-01").text
    assert "nothing to do" in admin.get(f"{ROOT}/act?source=website&action=release").text
    assert admin.get(f"{ROOT}/act?source=nowhere&action=undo").status_code == 404
    assert "not 7 days" in admin.get(f"{ROOT}/act?source=website&action=undo&since=7+days").text

    before = len(runs_of("ingest_action"))
    undo = {"source": "website", "action": "undo", "since": "2020-01-01", "reason": " "}
    assert "Say why" in admin.post(f"{ROOT}/act", data=undo).text
    assert admin.post(f"{ROOT}/act", data=undo | {"action": ""}).status_code == 400
    assert admin.post(f"{ROOT}/act", data=undo | {"reason": "x", "since": "7d"}).status_code == 400, "all is not meant"
    assert len(runs_of("ingest_action")) == before
    page = site.carry_out(admin.post(f"{ROOT}/act", data=undo | {"reason": "sent twice"}))
    assert set(site.job.states().values()) == {"undone"}
    assert "sent twice" in admin.get(page).text
    form = dict.fromkeys(("source", "since", "lines", "lines_at", "reason", "files")) | {"action": "undo"}
    with pytest.raises(ConfigError, match="say why"):
        Request.from_params(form | {"source": "website"})


def test_hostile_keys_are_text(site: Site, admin: TestClient) -> None:
    name = '<img src=x onerror=alert(1)>"\u202etxt.json'
    file_id = a_file(site, name=name)
    page = site.carry_out(admin.post(f"{ROOT}/files/{file_id}/act/undo"))
    for text in (admin.get(f"{ROOT}/files/{file_id}/act/force").text, admin.get(page).text):
        assert "<img src=x" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;&#34;⟨U+202E⟩txt.json" in text


@pytest.mark.slow
def test_what_somebody_did_before_is_done(site: Site, admin: TestClient) -> None:
    file_id = a_file(site)
    started = admin.post(f"{ROOT}/files/{file_id}/act/undo")
    site.job.ask(lambda pipeline: pipeline.warehouse.undo([file_id], Audit("ann")))  # was quicker

    page = site.carry_out(started)

    assert "data-then" in admin.get(page, headers={"X-Part": "1"}).text


def test_a_run_that_cannot_find_the_file_says_so(site: Site, admin: TestClient) -> None:
    ran = site.job.run("ingest_action", action="undo", files=["0" * 32])
    assert ran.state == "failed"
    page = admin.get(f"{ROOT}/run/ingest_action/{ran.run_id}")
    assert page.status_code == 200
    assert "0000" in page.text
    assert f"/dags/ingest_action/runs/{ran.run_id.replace('+', '%2B').replace(':', '%3A')}/tasks/act" in page.text
