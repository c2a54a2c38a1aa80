"""The DAGs, run to their end against a real S3 server and a real warehouse."""

import gzip
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.airflow.conftest import Job

ANN: dict[str, Any] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed Up"}
BOB: dict[str, Any] = {"_p": "bob", "_t": 1_700_000_001, "_n": "Signed Up"}


def test_new_files_are_loaded_announced_and_told_of(job: Job) -> None:
    job.put("2.json", ANN, {"_p": "ann", "_t": 1_700_000_000_000, "_n": "Left"})
    job.put("10.json", BOB)

    ran = job.run()

    assert ran.state == "success"
    assert ran.names == ["landing/2.json and 1 more: 1 failed line"]
    assert job.states() == {"2.json": "loaded", "10.json": "loaded"}
    assert job.count("events") == 2
    assert {row["run_id"] for row in job.ledger()} == {ran.run_id}
    assert ran.returned["verdict"]["failed_lines"] == 1
    assert [row["code"] for row in ran.returned["verdict"]["failed_by_code"]] == ["time_in_milliseconds"]
    told = {event["file"].rpartition("/")[2]: event for event in job.events()}
    assert {name: (event["action"], event["records"], event["failed"]) for name, event in told.items()} == {
        "2.json": ("loaded", 1, 1),
        "10.json": ("loaded", 1, 0),
    }
    assert {event["asset"] for event in told.values()} == {"landfall/website"}


@pytest.mark.slow
def test_a_second_run_finds_nothing_and_tells_nothing(job: Job) -> None:
    job.put("1.json", ANN)
    job.run()

    again = job.run()

    assert again.state == "success"
    assert again.tasks.pop("discover") == "success"
    assert set(again.tasks.values()) == {"skipped"}
    assert job.count("commands") == 1
    assert len(job.events()) == 1


@pytest.mark.slow
def test_a_broken_file_turns_the_run_red_by_name_and_holds_up_no_other(
    job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    job.put("1.json", ANN)
    job.s3.put("landing/2.json.gz", gzip.compress(b'{"_p": "x", "_t": 1700000000, "_n": "y"}\n' * 1000)[:-20])
    job.put("3.json", BOB)

    ran = job.run()

    assert ran.state == "failed"
    assert ran.tasks["load[0]"] == ran.tasks["announce[0]"] == "success"
    assert ran.tasks["verdict"] == "failed"
    assert job.states() == {"1.json": "loaded", "2.json.gz": "retrying", "3.json": "loaded"}
    (sentence,) = ran.returned["verdict"]["not_loaded"]
    assert f"s3://{job.s3.bucket}/landing/2.json.gz: retrying" in sentence
    assert len(job.events()) == 2
    again = job.run()  # it is put off, and said as long as it waits
    assert (again.state, again.tasks["discover"]) == ("failed", "failed")
    job.put("4.json", BOB | {"more": 1})
    again = job.run()  # nobody is held up by it
    assert (again.state, again.tasks["load[0]"]) == ("failed", "success")
    assert "2.json.gz" in again.returned["verdict"]["not_loaded"][0]


def test_a_rejected_file_turns_the_run_red(job: Job) -> None:
    job.configure(max_failed_lines=0)
    job.put("1.json", ANN, "no json")

    ran = job.run()

    assert (ran.state, job.states()) == ("failed", {"1.json": "rejected"})
    assert "max_failed_lines" in ran.returned["verdict"]["not_loaded"][0]
    assert job.events() == []


@pytest.mark.slow
def test_many_small_files_share_a_few_tasks(job: Job) -> None:
    for number in range(700):
        job.s3.put(f"landing/{number}.json", b'{"_p": "a", "_t": 1700000000, "_n": "e", "n": %d}\n' % number)

    ran = job.run()

    assert ran.state == "success"
    assert len(ran.names) <= 3
    assert ran.names[0].startswith("landing/0.json and ")
    assert job.count("events") == len(job.events()) == 700


@pytest.mark.slow
def test_a_task_that_dies_after_its_commit_is_told_of_all_the_same(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger says what was loaded, not what the task returned."""
    from ingest.airflow import steps

    real = steps.load

    def load_and_die(*args: Any, **more: Any) -> Any:
        real(*args, **more)
        raise OSError("the worker is gone")

    job.put("1.json", ANN)
    monkeypatch.setattr(steps, "load", load_and_die)
    monkeypatch.setitem(__import__("ingest.airflow.dags").airflow.dags.COMMON["default_args"], "retries", 0)

    ran = job.run()

    assert ran.tasks["load[0]"] == "failed"
    assert ran.state == "failed"
    assert ran.returned["verdict"]["not_loaded"] == []
    assert [event["file"].rpartition("/")[2] for event in job.events()] == ["1.json"]


@pytest.mark.slow
def test_an_unreachable_warehouse_is_tried_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    from ingest.airflow import dags, steps
    from ingest.errors import TransientError

    real, calls = steps.load, []

    def load_at_the_second_try(*args: Any, **more: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise TransientError("the warehouse did not answer")
        return real(*args, **more)

    job.put("1.json", ANN)
    monkeypatch.setattr(steps, "load", load_at_the_second_try)
    monkeypatch.setitem(dags.COMMON["default_args"], "retry_delay", 0)

    assert job.run().state == "success"
    assert len(calls) == 2
    assert job.states() == {"1.json": "loaded"}


@pytest.mark.slow
@pytest.mark.parametrize("address", ["landing/1.json", "landing/"], ids=["a file", "a prefix"])
def test_a_person_loads_files_by_address(job: Job, address: str) -> None:
    job.put("1.json", ANN)

    ran = job.run("ingest_one_off", files=[f"s3://{job.s3.bucket}/{address}"])

    assert ran.state == "success"
    assert job.states() == {"1.json": "loaded"}
    assert [event["asset"] for event in job.events()] == ["landfall/website"]
    assert job.run("ingest_website").tasks["load"] == "skipped"  # the ledger knows it, whoever loaded it


@pytest.mark.slow
def test_what_a_person_names_stays_in_its_source(
    job: Job, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from ingest.airflow.ui.runs import problems

    source = '[[source]]\nname = "{}"\nbucket = "{}"\nprefix = "{}/"\nschedule = "@yearly"\n'
    job.write(source.format("website", job.s3.bucket, "landing") + source.format("mine", job.s3.bucket, "mine"))
    job.put("1.json", ANN, "what was sent")
    job.s3.put("elsewhere/2.json", json.dumps(BOB).encode())
    its, nobodys = f"s3://{job.s3.bucket}/landing/1.json", f"s3://{job.s3.bucket}/elsewhere/2.json"

    forms: list[dict[str, Any]] = [
        {"files": [its], "format": "woopra", "action": "check"}, {"files": [its], "format": "woopra"},
        {"files": [its], "force": True}, {"files": [its], "source": "website"},
    ]  # fmt: skip
    for form in forms:
        ran = job.run("ingest_one_off", **form)
        assert ran.state == "success"
        assert "what was sent" not in json.dumps(ran.returned)
    assert f"{its}: 1 file belongs to the source website, and is taken by its rules, as kissmetrics." in caplog.text
    logged = capsys.readouterr().out
    assert "Returned value was" in logged
    assert "what was sent" not in logged + caplog.text
    rows = [(row["source"], row["format"], row["state"]) for row in job.ledger()]
    assert rows == [("website", "kissmetrics", "loaded")]

    refused = list[str]()
    forms = [
        {"files": [its], "source": "mine", "force": True}, {"files": [nobodys], "source": "website"},
        {"files": [nobodys], "source": "nowhere"}, {"lines": json.dumps(ANN), "source": "website"},
    ]  # fmt: skip
    for form in forms:
        ran = job.run("ingest_one_off", **form)
        assert (ran.state, ran.tasks["collect"]) == ("failed", "failed")
        refused += problems("ingest_one_off", ran.run_id)
    assert [(row["source"], row["format"], row["state"]) for row in job.ledger()] == rows
    instead = "Send a file on the page Upload: it knows whether you may run that source."
    assert refused == [
        f"{its} does not belong to the source mine, so it cannot be loaded for it here. {instead}",
        f"{nobodys} does not belong to the source website, so it cannot be loaded for it here. {instead}",
        f"{nobodys} does not belong to the source nowhere, so it cannot be loaded for it here. {instead}",
        f"Pasted lines belong to no source, so they cannot be loaded for website. {instead}",
    ]


def test_pasted_lines_are_a_local_file_where_no_bucket_is_set_up(job: Job) -> None:
    ran = job.run("ingest_one_off", lines='{"_p": "ann", "_t": 1700000000, "_n": "Pasted"}\r\nbroken')

    assert ran.state == "success"
    (row,) = job.ledger()
    assert (row["bucket"], row["records"], row["failed"], row["source"]) == ("file", 1, 1, "one_off")


def test_pasted_lines_are_an_object_where_a_bucket_is_set_up(job: Job) -> None:
    job.write(f'[uploads]\nbucket = "{job.s3.bucket}"\nprefix = "uploads/"\n')

    ran = job.run("ingest_one_off", lines='{"_p": "ann", "_t": 1700000000, "_n": "Pasted"}')

    assert ran.state == "success"
    (row,) = job.ledger()
    assert row["key"].startswith("uploads/")
    body = job.s3.client.get_object(Bucket=job.s3.bucket, Key=row["key"])["Body"].read()
    assert body == b'{"_p": "ann", "_t": 1700000000, "_n": "Pasted"}'


def test_a_check_loads_nothing(job: Job) -> None:
    job.put("1.json", ANN, "no json")

    ran = job.run("ingest_one_off", files=[f"s3://{job.s3.bucket}/landing/1.json"], action="check")

    assert ran.state == "success"
    assert ran.names == ["landing/1.json: 1 failed line"]
    assert ran.returned["verdict"]["states"] == {"checked": 1}
    assert [(row["code"], row["lines"]) for row in ran.returned["verdict"]["failed_by_code"]] == [("not_json", 1)]
    assert job.ledger() == []


@pytest.mark.slow
def test_a_check_leaves_its_report_beside_an_upload(job: Job) -> None:
    from ingest.uploads import read_check_report, store_upload

    job.write(f'[uploads]\nbucket = "{job.s3.bucket}"\n')
    body = json.dumps(ANN).encode() + b"\nno json\n"
    at = datetime(2026, 11, 24, tzinfo=UTC)
    stored = job.ask(lambda pipeline: store_upload(pipeline, [body], "../my events.json", by="ann", at=at))

    ran = job.run("ingest_one_off", files=[stored.uri], action="check")

    report = job.ask(lambda pipeline: read_check_report(pipeline, stored.bucket, stored.key))
    assert ran.state == "success"
    assert report is not None
    assert (report["file"], report["records"], report["codes"]) == (stored.uri, 1, {"not_json": 1})
    assert [failure["raw"] for failure in report["failures"]] == ["no json"]
    assert job.ledger() == []

    # The day's folder holds the report as well, which is nobody's source file.
    assert job.run("ingest_one_off", files=[f"{stored.uri.rpartition('/')[0]}/"]).state == "success"
    assert [(row["key"], row["records"], row["failed"]) for row in job.ledger()] == [(stored.key, 1, 1)]


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({}, id="nothing was named"),
        pytest.param({"files": ["/etc/passwd"]}, id="a path of the worker"),
        pytest.param({"files": ["s3://somebody-elses/1.json"]}, id="a bucket that nobody allowed"),
        pytest.param({"files": ["s3://{bucket}/landing/none.json"]}, id="nothing there"),
    ],
)
def test_a_wrong_form_fails_at_once_and_loads_nothing(job: Job, form: dict[str, list[str]]) -> None:
    filled = {name: [text.format(bucket=job.s3.bucket) for text in texts] for name, texts in form.items()}

    ran = job.run("ingest_one_off", **filled)

    assert (ran.state, ran.tasks["collect"]) == ("failed", "failed")
    assert job.ledger() == []


@pytest.mark.slow
def test_reconcile_is_green_when_all_is_well_and_red_when_a_file_is_stuck(job: Job) -> None:
    job.put("1.json", ANN)
    job.run()
    assert job.run("ingest_reconcile").state == "success"

    job.s3.put("landing/2.json.gz", gzip.compress(b"{}")[:-4])
    job.run()
    ran = job.run("ingest_reconcile")

    assert ran.state == "failed"
    assert "landing/2.json.gz: retrying" in ran.returned["reconcile"]["differences"][0]


def test_wrong_settings_are_a_dag_and_the_sound_sources_stay(job: Job) -> None:
    job.write(
        '[[source]]\nname = "website"\nbucket = "acme"\n'
        '[[source]]\nname = "shop"\nbucket = "acme-shop"\nschedule = "each tuesday"\n'
        '[[source]]\nname = "Bad Name"\nbucket = "acme"\n'
    )

    dags = job.dags()

    assert set(dags) == {
        "ingest_website", "ingest_one_off", "ingest_action", "ingest_reconcile", "landfall_config_errors",
    }  # fmt: skip
    shown = dags["landfall_config_errors"].doc_md
    assert "Bad Name" in shown
    assert 'source "shop": schedule has to be' in shown
    assert job.run("landfall_config_errors").state == "failed"


def test_settings_that_cannot_be_read_at_all_are_shown_too(job: Job) -> None:
    job.write("[[source]\n")

    assert "not TOML" in job.dags()["landfall_config_errors"].doc_md


@pytest.mark.slow
def test_the_warehouse_may_be_named_by_a_connection(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.put("1.json", ANN)
    other = job.folder / "elsewhere.duckdb"
    monkeypatch.setenv("AIRFLOW_CONN_LANDFALL_WAREHOUSE", f"duckdb:///{other}")

    assert job.run().state == "success"
    assert other.exists()

    monkeypatch.setenv("INGEST_WAREHOUSE", f"duckdb:///{job.folder / 'third.duckdb'}")
    ran = job.run()
    assert (ran.tasks["discover"], ran.state) == ("failed", "failed")


def test_a_cleared_run_tells_what_it_loaded_before(job: Job) -> None:
    """Cleared after its commit, a run finds nothing new; what it loaded is still to be told of, by its own id."""
    from ingest.airflow import steps

    job.put("1.json", ANN)
    ran = job.run()

    batches = job.ask(lambda pipeline: steps.announcements(pipeline, ran.run_id, "website"))
    others = job.ask(lambda pipeline: steps.announcements(pipeline, ran.run_id, "shop"))
    stale = [{"file_id": "of an earlier try", "state": "retrying", "failed": 0}]
    told = job.ask(lambda pipeline: steps.verdict(pipeline, [], stale))

    assert [[extra["file"].rpartition("/")[2] for extra in batch] for batch in batches] == [["1.json"]]
    assert others == []
    assert told["not_loaded"] == []


@pytest.mark.slow
def test_what_an_action_returns_is_plain_json(job: Job) -> None:
    """Airflow gives a tuple back as something of its own."""
    from ingest.airflow.action import Request, act
    from ingest.ports import Audit

    job.put("1.json", ANN, "bad", "worse", "worst")
    job.run()
    (row,) = job.ledger()

    def told(action: str, lines: dict[int, str] | None = None) -> dict[str, Any]:
        text = "".join(f"{number}\t{line}\n" for number, line in lines.items()) if lines else None
        request = Request(action=action, files=(row["file_id"],), lines=text)
        (result,) = job.ask(lambda pipeline: act(pipeline, request, Audit("ann")))
        assert json.loads(json.dumps(result)) == result
        return result

    first = told("redrive", {2: json.dumps(ANN | {"_n": "mended"}), 3: "bad"})
    assert (bool(first["redrive"]), first["already"]) == (True, 0)
    assert (first["still_wrong"], first["fixed"], first["open"], first["error"]) == (1, 1, 2, None)
    again = told("redrive", {2: json.dumps(ANN | {"_n": "mended"}), 3: "bad", 4: "bad"})
    assert (again["redrive"], again["already"]) == (None, 1)
    assert again["error"] == "2 lines still wrong: nothing was loaded."
    assert told("undo")["redrives"] == [first["redrive"]]


@pytest.mark.parametrize("wrong", [
    {"lines": ""}, {"lines": " \n"}, {"lines_at": ""},
    {"action": "undo", "files": [], "source": "web", "since": ""}, {"action": "undo", "files": [], "source": ""},
], ids=" ".join)  # fmt: skip
def test_what_is_empty_in_the_form_of_an_action_is_not_as_if_it_were_left_out(wrong: dict[str, Any]) -> None:
    from ingest.airflow.action import Request
    from ingest.errors import ConfigError

    form = dict.fromkeys(("source", "since", "lines", "lines_at", "reason")) | {"action": "redrive", "files": ["ab"]}
    assert Request.from_params(form) == Request(action="redrive", files=("ab",))
    with pytest.raises(ConfigError, match="is empty"):
        Request.from_params(form | wrong)


@pytest.mark.slow
def test_a_run_is_red_if_its_archive_holds_what_the_ledger_does_not_know(job: Job) -> None:
    """As of a warehouse that was put back from an older backup. What is new is loaded all the same."""
    job.configure(after_load="archive")
    job.put("1.json", ANN)
    assert (job.run().state, job.states()) == ("success", {"1.json": "loaded"})
    day = datetime.now(UTC).strftime("%Y/%m/%d")
    job.s3.put(f"completed_imports/{day}/landing/2.json", json.dumps(ANN | {"_n": "lost"}).encode())
    job.put("3.json", ANN | {"_n": "new"})
    ran = job.run()
    assert (ran.state, ran.tasks["verdict"]) == ("failed", "failed")
    assert (
        "archive holds 1 file that the ledger does not know (landing/2.json)"
        in ran.returned["verdict"]["not_loaded"][0]
    )
    assert job.states() == {"1.json": "loaded", "3.json": "loaded"}
    nothing_new = job.run()
    assert (nothing_new.state, nothing_new.tasks["discover"]) == ("failed", "failed")


@pytest.mark.slow
def test_actions_and_what_is_told_of_them(job: Job) -> None:
    from ingest.airflow import steps

    job.put("1.json", ANN, "not json")
    job.run()
    (row,) = job.ledger()

    mended = json.dumps(ANN | {"_n": "mended"})
    redriven = job.run("ingest_action", action="redrive", files=[row["file_id"]], lines=f"2\t{mended}", reason="typo")
    assert (redriven.state, job.count("events")) == ("success", 2)
    undone = job.run("ingest_action", action="undo", files=[f"s3://{row['bucket']}/{row['key']}"])
    assert (undone.state, job.count("events")) == ("success", 0)
    again = job.run("ingest_action", action="force", source="website", reason="all again")
    assert (again.state, job.states()["1.json"]) == ("success", "loaded")
    wrong = job.run("ingest_action", action="retry", files=[row["file_id"][:12]])
    assert (wrong.tasks["verdict"], wrong.state) == ("failed", "failed")
    assert job.run("ingest_action", action="undo").state == "failed"

    def told(run_id: str) -> list[str]:
        batches = job.ask(lambda pipeline: steps.announcements(pipeline, run_id, None))
        return [extra["action"] for batch in batches for extra in batch]

    assert told(redriven.run_id) == []  # undone since: what is told is what is so
    assert told(undone.run_id) == ["undone"]  # of the redrive; the file itself was loaded again
    assert told(again.run_id) == ["loaded"]
    history = job.ask(lambda pipeline: pipeline.warehouse.history(row["file_id"]))
    assert [(entry["action"], entry["reason"]) for entry in history] == [
        ("redrive", "typo"), ("undo", None), ("force", "all again"),
    ]  # fmt: skip
