"""The page of a run, and the tab on Airflow's own pages: what became of files, and which lines failed."""

import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import airflow
import pytest
from fastapi.testclient import TestClient

from ingest.airflow.ui import internals
from tests.ui.conftest import ROOT, Site, runs_of
from tests.ui.producers import text_of

ANN: dict[str, Any] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed Up"}
AIRFLOW: Final = tuple(map(int, airflow.__version__.split(".")[:2]))
HOSTILE = '<img src=x onerror=alert(1)>"\u202e.json'


@pytest.fixture(autouse=True)
def _known(site: Site) -> None:
    site.know_dags()


def tab(client: TestClient, **values: object) -> Any:
    return client.get(f"{ROOT}/run?{urlencode(values)}")


def of(client: TestClient, dag_id: str, run_id: str, *, part: bool = False) -> Any:
    address = f"{ROOT}/run/{dag_id}/{quote(run_id, safe='')}"
    return client.get(address, headers={"X-Part": "1"} if part else {})


def test_a_scheduled_run_and_its_tabs(site: Site, viewer: TestClient, admin: TestClient, nobody: TestClient) -> None:
    site.job.put("1.json", ANN)
    site.job.put(HOSTILE, ANN | {"_n": 7}, '{"<b>": "no json', "no json")
    ran = site.job.run()
    ids = {row["key"]: row["file_id"] for row in site.job.ledger()}
    key = f"landing/{HOSTILE}"

    page = of(admin, "ingest_website", ran.run_id, part=True)
    assert page.status_code == 200
    assert "data-then" not in page.text  # two files: which one?
    for file_id in ids.values():
        assert f'href="{ROOT}/files/{file_id}"' in page.text
    assert f"/dags/ingest_website/runs/{quote(ran.run_id, safe='')}" in page.text

    for client, where in ((admin, True), (viewer, False)):
        shown = tab(client, dag_id="ingest_website", run_id=ran.run_id, task_id="{TASK_ID}", map_index="{MAP_INDEX}")
        assert shown.status_code == 200
        assert "3 failed lines in 1 file of 2; <strong>3 to fix" in shown.text
        assert f'href="{ROOT}/files/{ids[key]}"' in shown.text
        assert ids["landing/1.json"] not in shown.text
        assert "not_json 2 lines 2 open" in text_of(shown.text)
        assert ("no json" in text_of(shown.text)) is where  # the lines themselves
        assert ("<mark>7</mark>" in shown.text) is where
        assert "<img src=x" not in shown.text
        assert "&lt;img src=x onerror=alert(1)&gt;&#34;⟨U+202E⟩.json" in shown.text
        assert "<b>" not in shown.text

    run = {"dag_id": "ingest_website", "run_id": ran.run_id}
    lines = tab(admin, **run, code="not_json").text
    assert re.findall(r"line (\d)", text_of(lines)) == ["2", "3"]
    assert len(re.findall("<article", tab(viewer, **run, at=1).text)) == 3
    assert "no json" not in tab(viewer, **run, at=1).text
    assert tab(admin, **run, task_id="load", map_index="9" * 30).status_code == 200

    loads = tab(admin, dag_id="ingest_website", run_id=ran.run_id, task_id="load", map_index="0")
    assert "3 failed lines in 1 file of 2" in loads.text
    other = tab(admin, dag_id="ingest_website", run_id=ran.run_id, task_id="load", map_index="1")
    assert "This task handled no file of its own" in other.text
    assert "This task handled no file of its own" in tab(
        admin, dag_id="ingest_website", run_id=ran.run_id, task_id="discover", map_index="-1"
    ).text  # fmt: skip
    assert tab(nobody, dag_id="ingest_website", run_id=ran.run_id).status_code == 401
    assert of(nobody, "ingest_website", ran.run_id).status_code == 401


def notes_of_runs() -> list[str]:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        runs = session.scalars(
            select(DagRun).where(DagRun.dag_id == "ingest_website").order_by(DagRun.id.desc()).limit(3)
        )
        return [run.note for run in runs if run.note]


def test_a_run_without_failed_lines(site: Site, admin: TestClient) -> None:
    site.job.put("1.json", ANN)
    ran = site.job.run()
    assert "1 file, and every line was accepted" in tab(admin, dag_id="ingest_website", run_id=ran.run_id).text
    empty = site.job.run()
    assert "No file was loaded by this run" in tab(admin, dag_id="ingest_website", run_id=empty.run_id).text
    assert 'class="notice good"' in of(admin, "ingest_website", empty.run_id).text

    site.job.put("2.json", ANN, "no json")
    page = of(admin, "ingest_website", site.job.run().run_id).text
    assert "1 line failed: see and fix it." in text_of(page)
    assert notes_of_runs() == ["1 line to fix in 1 file: see the tab Failed lines."]
    assert 'class="notice good"' not in page, "it is not as well as without failed lines"


def test_two_sources_may_share_the_name_of_a_run(site: Site, admin: TestClient) -> None:
    """Scheduled runs of one moment do: each tells of its own source only."""
    bucket = site.job.s3.bucket
    site.job.write(
        f'[[source]]\nname = "website"\nbucket = "{bucket}"\nprefix = "landing/"\n'
        f'[[source]]\nname = "shop"\nbucket = "{bucket}"\nprefix = "shop/"\n'
    )
    site.job.put("1.json", "no json")
    ran = site.job.run()
    site.job.s3.put("shop/2.json", b"no json either\n")
    uri = f"s3://{bucket}/shop/2.json"
    site.job.ask(lambda pipeline: pipeline.load(pipeline.locate(uri, "shop"), run_id=ran.run_id))
    shown = tab(admin, dag_id="ingest_website", run_id=ran.run_id).text
    assert ("landing/1.json" in shown, "shop/2.json" in shown) == (True, False)
    shown = of(admin, "ingest_website", ran.run_id).text
    assert ("landing/1.json" in shown, "shop/2.json" in shown) == (True, False)


def test_a_file_that_was_not_loaded_says_why(site: Site, admin: TestClient) -> None:
    site.job.configure(max_failed_lines=0)
    site.job.put("1.json", ANN, "no json")
    ran = site.job.run()
    page = of(admin, "ingest_website", ran.run_id, part=True).text
    assert "Not every file is as it was asked to be" in page
    assert "max_failed_lines is 0" in page
    assert "data-then" not in page
    assert f"/dags/ingest_website/runs/{quote(ran.run_id, safe='')}/tasks/verdict" in page


def test_what_ended_a_task_is_told(site: Site, admin: TestClient) -> None:
    ran = site.job.run("ingest_one_off", files=["s3://a-bucket-of-<b>others/x.json"])
    page = of(admin, "ingest_one_off", ran.run_id).text
    assert "The bucket a-bucket-of-&lt;b&gt;others may not be read from here." in page
    assert f"/dags/ingest_one_off/runs/{quote(ran.run_id, safe='')}/tasks/collect" in page


def test_waiting_says_what_for(site: Site, admin: TestClient) -> None:
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import update

    file_id = site.load("1.json", ANN)
    started = admin.post(f"{ROOT}/files/{file_id}/act/undo").headers["location"]

    def pause(paused: bool) -> None:
        with create_session() as session:
            session.execute(update(DagModel).where(DagModel.dag_id == "ingest_action").values(is_paused=paused))

    assert "Waits to be started by Airflow" in admin.get(started).text
    pause(True)
    page = admin.get(started).text
    pause(False)
    assert "is paused, so nothing is done" in page
    assert 'data-airflow href="/dags/ingest_action"' in page
    assert f'data-again="{started}"' in page


def test_runs_that_may_not_be_seen_are_not_there(site: Site) -> None:
    site.job.put("1.json", "no json")
    ran = site.job.run()
    (row,) = site.job.ledger()
    acted = site.job.run("ingest_action", action="force", files=[row["file_id"]])
    somebody = site.of("runs ingest_one_off, ingest_action")
    assert of(somebody, "ingest_website", ran.run_id).status_code == 404
    assert tab(somebody, dag_id="ingest_website", run_id=ran.run_id).status_code == 404
    page = of(somebody, "ingest_action", acted.run_id)
    assert (page.status_code, row["key"] in page.text) == (200, False)
    assert "1 file of sources that you may not see" in page.text
    shown = tab(somebody, dag_id="ingest_action", run_id=acted.run_id)
    assert (shown.status_code, row["file_id"] in shown.text) == (200, False)


def test_what_is_none_of_ours(site: Site, admin: TestClient) -> None:
    for strange in ("somebody_elses", "ingest_of_somebody_else"):
        for page in (tab(admin, dag_id=strange, run_id="x"), admin.get(f"{ROOT}/failures?dag_id={strange}")):
            assert (page.status_code, "This DAG is not Landfall's" in page.text) == (200, True)
            assert f'<a href="{ROOT}/">The files that Landfall loaded</a>' in page.text
            assert "landing/" not in page.text
    assert of(admin, "somebody_elses", "x").status_code == 404
    assert of(admin, "ingest_website", "no-such-run").status_code == 404
    assert tab(admin, dag_id="ingest_website", run_id="no-such-run").status_code == 404
    assert tab(admin, dag_id="{DAG_ID}", run_id="{RUN_ID}").status_code == 400
    assert tab(admin, dag_id="ingest_website", run_id="\0<img>", map_index="²").status_code == 404


def test_airflow_takes_the_plugin_and_shows_its_tabs_on_our_dags(site: Site, admin: TestClient) -> None:
    (plugin,) = [one for one in admin.get("/api/v2/plugins").json()["plugins"] if one["name"] == "landfall"]
    tabs = [one for one in plugin["external_views"] if one["destination"] != "nav"]
    assert [one["destination"] for one in tabs] == ["dag", "dag_run", "task_instance"]
    buttons = [one["destination"] for one in plugin["react_apps"]]
    assert buttons == (["dag_overview"] if AIRFLOW >= (3, 4) else [])  # where there is no such place
    (tags,) = {tuple(one["applies_to"]["dag.tags.name"]) for one in (*tabs, *plugin["react_apps"])}
    assert all(set(tags) <= set(dag.tags) for dag in site.job.dags().values())
    assert admin.get(f"{ROOT}/static/to-fix.js").headers["content-type"].startswith("text/javascript")


def test_the_button_of_a_dag_counts_what_is_left_to_fix(site: Site, admin: TestClient, nobody: TestClient) -> None:
    def to_fix(client: TestClient, dag_id: str = "ingest_website") -> Any:
        return client.get(f"{ROOT}/to-fix", params={"dag_id": dag_id}).json()

    site.load("1.json", ANN, "no json", "no json either")
    assert to_fix(admin) == {"open": 2}
    for dag_id in ("ingest_action", "ingest_reconcile", "ingest_of_somebody_else"):
        assert to_fix(admin, dag_id) == {"open": 0}
    assert to_fix(site.of("runs ingest_one_off")) == {"open": 0}
    assert nobody.get(f"{ROOT}/to-fix?dag_id=ingest_website").status_code == 401


def test_only_one_module_uses_what_airflow_keeps_to_itself() -> None:
    """Ruff says so, of all that Airflow has beside its public interface."""
    names = {one.name for one in pkgutil.iter_modules(airflow.__path__)}
    private = sorted(names - {"__main__", "plugins_manager", "providers", "sdk", "version"})
    assert len(private) > 30
    code = "".join(f"import airflow.{name}\n" for name in private)
    told = {}
    for module in ("runs", "internals"):
        ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--select", "TID251", "--output-format", "json"]
        place = ["--stdin-filename", str(Path(internals.__file__).with_name(f"{module}.py")), "-"]
        done = subprocess.run([*ruff, *place], input=code, capture_output=True, text=True, check=False)
        told[module] = len(json.loads(done.stdout))
    assert told == {"runs": len(private), "internals": 0}


def test_looking_starts_nothing(site: Site, admin: TestClient) -> None:
    site.job.put("1.json", "no json")
    ran = site.job.run()
    before = [runs_of(dag_id) for dag_id in ("ingest_action", "ingest_one_off")], site.job.ledger()
    of(admin, "ingest_website", ran.run_id)
    tab(admin, dag_id="ingest_website", run_id=ran.run_id)
    for path in ("upload", f"files/{before[1][0]['file_id']}/act/undo", "upload/load", "upload/check"):
        admin.get(f"{ROOT}/{path}")
    assert ([runs_of(dag_id) for dag_id in ("ingest_action", "ingest_one_off")], site.job.ledger()) == before


def test_what_a_poll_found_is_kept_for_the_list_of_files(site: Site) -> None:
    from ingest.airflow.ui.runs import last_landing

    site.job.put("1.json", ANN)
    site.job.s3.put("landing/readme.txt")
    site.job.run()
    found = last_landing("ingest_website")
    assert found is not None
    found.pop("at")
    assert found == {"pending": 1, "matching": 1, "ignored": 1, "ignored_names": ["landing/readme.txt"], "problems": []}
