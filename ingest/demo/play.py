"""What the demo shows: files dropped in two rounds, the runs that load them, and what is then in the warehouse."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from ingest.cli.output import say, write_json, write_table
from ingest.demo import samples
from ingest.demo.processes import Processes
from ingest.demo.stack import PASSWORD, USER, Stack, wait_for
from ingest.pipeline import Pipeline
from ingest.report import explained
from ingest.settings import load_settings
from ingest.wiring import open_pipeline

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]  # columns, rows
_OURS: Final = ("INGEST_CONFIG", "INGEST_WAREHOUSE")
DAG_ID: Final = f"ingest_{samples.SOURCE}"


def play(stack: Stack, processes: Processes, tell: Callable[[str], None], *, stays: bool, as_json: bool) -> bool:
    """Play the two rounds and show the outcome. True if every expected row is there."""
    with open_pipeline(load_settings(stack.environment)) as pipeline:
        client = stack.s3()
        client.create_bucket(Bucket=samples.BUCKET)
        told: set[str] = set()
        for files, expected, why in (
            (samples.FIRST_ROUND, samples.EXPECTED_FIRST, "sample files"),
            (samples.SECOND_ROUND, samples.EXPECTED_FILES, "a changed file under a known key, and a vendor's retry"),
        ):
            for name, content in files.items():
                client.put_object(Bucket=samples.BUCKET, Key=samples.PREFIX + name, Body=content)
            tell(f"dropped in s3://{samples.BUCKET}/{samples.PREFIX}: {why}; now {DAG_ID} has to find them")
            wait_for(partial(_ledger_is, pipeline, expected), "the expected ledger", processes)
            for run_id in sorted({row["run_id"] for row in pipeline.warehouse.files({})} - told):
                wait_for(partial(_has_ended, stack, run_id), f"the end of {run_id}", processes)
                tell(f"run {run_id}: {_run_state(stack, run_id)}, {_loaded_by(stack, run_id)}")
                told.add(run_id)
        wrong = _wrong(pipeline)
        if as_json:
            tables = _tables(pipeline).items()
            named = {title: [dict(zip(names, row, strict=True)) for row in rows] for title, (names, rows) in tables}
            write_json({"wrong": wrong} | named)
        else:
            for title, (columns, rows) in _tables(pipeline).items():
                write_table(title, columns, rows)
    say("")
    for sentence in wrong or ["Every expected row is there, and no other."]:
        say(sentence)
    if stays:
        for line in (
            "",
            f"Look around: {stack.url}/plugin/landfall  (login {USER}, password {PASSWORD})",
            f"The DAG that loads: {stack.url}/dags/{DAG_ID}",
            "Your own questions, in another terminal:",
            *(f"  export {name}={stack.environment[name]}" for name in _OURS if name in stack.environment),
            f'  {Path(sys.executable).parent / "ingest"} sql "select * from events"',
            "Ctrl-C ends it and removes everything.",
        ):
            say(line)
    return not wrong


def _states(pipeline: Pipeline) -> dict[tuple[str, str], int]:
    rows = pipeline.warehouse.files({})
    return dict(Counter((row["key"].removeprefix(samples.PREFIX), row["state"]) for row in rows))


def _ledger_is(pipeline: Pipeline, expected: Mapping[tuple[str, str], int]) -> bool:
    return _states(pipeline) == expected


def _has_ended(stack: Stack, run_id: str) -> bool:
    return _run_state(stack, run_id) not in ("queued", "running")


def _run_state(stack: Stack, run_id: str) -> str:
    return str(stack.get(f"/api/v2/dags/{DAG_ID}/dagRuns/{_quoted(run_id)}")["state"])


def _loaded_by(stack: Stack, run_id: str) -> str:
    tasks = stack.get(f"/api/v2/dags/{DAG_ID}/dagRuns/{_quoted(run_id)}/taskInstances")["task_instances"]
    return "; ".join(f"load [{task['rendered_map_index']}]" for task in tasks if task["task_id"] == "load")


def _quoted(run_id: str) -> str:
    return quote(run_id, safe="")


def _tables(pipeline: Pipeline) -> dict[str, Table]:
    columns = ("state", "lines", "records", "sets", "aliases", "failed")
    ledger = sorted(pipeline.warehouse.files({}), key=lambda row: row["file_no"])
    latest = "SELECT occurred_at, person_id, event, properties FROM events ORDER BY occurred_at DESC LIMIT 6"
    events = _query(pipeline, latest)
    return {
        "The ledger: every file, and what became of it": (
            ("file", *columns),
            [(row["key"].removeprefix(samples.PREFIX), *(row[name] for name in columns)) for row in ledger],
        ),
        "Failed lines by code, kept until they are fixed": (
            ("code", "lines", "problem", "remedy"),
            [tuple(one.values()) for one in explained("kissmetrics", _codes(pipeline))],
        ),
        "Some events (view `events`: each fact once)": (
            ("occurred_at", "person_id", "event", "properties"),
            [(f"{occurred_at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", *rest) for occurred_at, *rest in events],
        ),
        "The people (view `people`: aliases joined, latest properties)": (
            ("person_id", "identities", "properties"),
            _query(pipeline, "SELECT person_id, identities, properties FROM people ORDER BY person_id"),
        ),
    }


def _codes(pipeline: Pipeline) -> Counter[str]:
    found = Counter[str]()
    for row in pipeline.warehouse.files({}):
        with pipeline.warehouse.failed_lines(row["file_id"]) as lines:
            found.update(code for line in lines for code in line["codes"])
    return found


def _query(pipeline: Pipeline, sql: str) -> list[tuple[Any, ...]]:
    with pipeline.warehouse.query(sql) as result:
        return [tuple(row.values()) for row in result.reader.read_all().to_pylist()]


def _wrong(pipeline: Pipeline) -> list[str]:
    loaded = pipeline.warehouse.files({"state": "loaded"})
    counted = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in ("events", "people", "failed_lines"))
    ((events, people, failed),) = _query(pipeline, f"SELECT {counted}")
    found = {
        "events": events,
        "people": people,
        **{name: sum(row[name] for row in loaded) for name in ("records", "sets", "aliases")},
        "failed lines": failed,
        "repaired lines": sum(row["repaired"] for row in loaded),
    }
    pairs = (
        (samples.EXPECTED_FILES, _states(pipeline)), (samples.EXPECTED_COUNTS, found),
        (samples.EXPECTED_CODES, _codes(pipeline)),
    )  # fmt: skip
    return [
        f"WRONG: {name}: expected {expected.get(name, 0)}, found {actual.get(name, 0)}"
        for expected, actual in pairs
        for name in sorted({*expected, *actual}, key=str)
        if expected.get(name, 0) != actual.get(name, 0)
    ]
