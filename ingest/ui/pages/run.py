"""A run of ours: waited for until its end, then what became of its files; and the failed lines of a run or task.

Airflow's own pages have the rest, and are linked. What a run tells is shown as far as who asks may see the sources.
"""

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import orjson
from fastapi import APIRouter, HTTPException, Request, Response

from ingest.core.formats import FORMATS
from ingest.core.schema import Meaning, codes
from ingest.core.source import ONE_OFF
from ingest.errors import IngestError, TransientError
from ingest.pipeline import Pipeline, split_address
from ingest.ports import FailureGroup, FilesWanted
from ingest.report import plain
from ingest.ui import runs
from ingest.ui.access import Visitor, VisitorDep, dag_of
from ingest.ui.view import page
from ingest.ui.world import known_sources, open_world
from ingest.uploads import read_check_report

router = APIRouter()

_SHOWN: Final = 200  # files of a run on its page
_GROUPED: Final = 1_000  # files whose failed lines are counted by rule
_LINES: Final = 20  # failed lines of a check
_OTHER_DAGS: Final = ("ingest_reconcile", "landfall_config_errors")  # ours, but they deal with no file
_CHECKED: Final = "checked"
_LOOK_FIRST: Final = ("retrying", "gone", "rejected", "held")
_NO_RUN: Final = "There is no such run."


@dataclass(frozen=True, slots=True)
class Became:
    """What became of one file."""

    file_id: str
    name: str
    state: str
    error: str | None = None
    failed: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)  # of a load or check
    before: str | None = None  # of an action
    redrive: str | None = None  # the file_id of the mended lines that it loaded
    went_along: int = 0

    @property
    def well(self) -> bool:
        return self.error is None and self.state not in _LOOK_FIRST


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a run that is finished: its files, those to look at first. `hidden`: of sources that who asks may not see."""

    files: list[Became]
    hidden: int = 0
    known: frozenset[str] = frozenset()  # file_ids that have a page by now, of the first files
    as_of: datetime | None = None  # None: the ledger could not be asked

    @property
    def states(self) -> list[tuple[str, int]]:
        return Counter(one.state for one in self.files).most_common()


@dataclass(frozen=True, slots=True)
class Told:
    """How many items have a code, and what it means."""

    code: str
    number: int
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class Report:
    """The report of a check, made ready for the page. `lines` and `preview` are for those who may see raw lines."""

    file: str
    key: str
    source: str
    format: str
    numbers: Mapping[str, int]
    persons: int
    first_time: str | None
    last_time: str | None
    rejected: str | None
    events: list[tuple[str, int]]
    more_events: int
    failures: list[Told]
    warnings: list[Told]
    lines: list[tuple[Mapping[str, Any], bytes]]  # (failed line, its raw bytes)
    preview: list[tuple[Mapping[str, Any], str]]  # (command, its properties as JSON)


# --- the page that waits ---------------------------------------------------------------------------------------------


@router.get("/run/{dag_id}/{run_id}")
def of(request: Request, visitor: VisitorDep, dag_id: str, run_id: str) -> Response:
    """How far a run is; once it is finished, what became of each file.

    The script of the page asks again with the header X-Part. A person who waited for one file is then led to it, once
    the ledger that pages read is as new as the end of the run.
    """
    run = _run(visitor, dag_id, run_id)
    root = request.scope.get("root_path", "")
    own = f"{root}/run/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
    is_check = run.conf.get("action") == "check" and dag_id == runs.ONE_OFF_DAG
    outcome, reports, problems = Outcome([]), [], list[str]()
    if run.finished:
        with open_world() as pipeline:
            outcome = _outcome(pipeline, visitor, run, is_check=is_check)
            reports = _reports(pipeline, visitor, run, outcome.files) if is_check else []
        problems = [] if run.state == "success" else runs.problems(dag_id, run_id)
    again, then = "" if run.finished else own, ""
    if run.state == "success" and not is_check and "x-part" in request.headers:
        (only,) = outcome.files if len(outcome.files) == 1 and not outcome.hidden else (None,)
        if only and only.well:
            told = outcome.as_of is not None and run.ended_at is not None and outcome.as_of >= run.ended_at
            again, then = ("", f"{root}/files/{only.file_id}") if told and only.file_id in outcome.known else (own, "")
    return page(
        request, "run.html", run=run, is_check=is_check, again=again, then=then, outcome=outcome,
        files=outcome.files[:_SHOWN], reports=reports, problems=problems, address=runs.address,
        may_load=visitor.may_run(runs.ONE_OFF_DAG),
        begun=not run.finished and any(task.state for task in run.tasks),
    )  # fmt: skip


def _run(visitor: Visitor, dag_id: str, run_id: str) -> runs.Run:
    """Raises HTTPException 404, also for a run that may not be seen."""
    if not visitor.may("GET", dag_id, None):
        raise HTTPException(404, _NO_RUN)
    run = runs.find(dag_id, run_id)
    if not dag_id.startswith(dag_of("")) or dag_id in _OTHER_DAGS:
        raise HTTPException(404, "This run deals with no files.")
    return run


def _source_of(run: runs.Run) -> str | None:
    """The one source that a run is about; None for actions, which may be about any."""
    if run.dag_id == runs.ACTION_DAG:
        return None
    if run.dag_id == runs.ONE_OFF_DAG:
        return str(run.conf.get("source") or ONE_OFF)
    return run.dag_id.removeprefix(dag_of(""))


def _outcome(pipeline: Pipeline, visitor: Visitor, run: runs.Run, *, is_check: bool) -> Outcome:
    """What the tasks returned; of files whose task died after its commit, what the ledger says."""
    tasks = ("act",) if run.dag_id == runs.ACTION_DAG else ("load", "check")
    results = [one for task in tasks for part in runs.returned(run.dag_id, run.run_id, task) for one in part or ()]
    source = _source_of(run)
    if source is not None and not visitor.sees(source):
        return Outcome([], hidden=len(results))
    if is_check:
        return Outcome(_in_order(map(_of_load, results)))
    try:
        with pipeline.warehouse.published() as published:
            if source is None:
                wanted = FilesWanted(sources=visitor.seen(known_sources(pipeline)), file_ids=_ids(results))
                rows = {row["file_id"]: row for row in published.files(_all(wanted)).rows}
                found = [_of_action(one, rows[one["file_id"]]) for one in results if one["file_id"] in rows]
                return Outcome(_in_order(found), len(results) - len(found), frozenset(rows), published.as_of)
            found = _in_order(map(_of_load, results))
            told = {one.file_id for one in found}
            wanted = FilesWanted(sources=(source,), run_id=run.run_id, per_page=_SHOWN)
            found += [_of_row(row) for row in published.files(wanted).rows if row["file_id"] not in told]
            wanted = FilesWanted(sources=(source,), file_ids=tuple(one.file_id for one in found[:_SHOWN]))
            known = frozenset(row["file_id"] for row in published.files(_all(wanted)).rows)
            return Outcome(found, 0, known, published.as_of)
    except TransientError:  # the run is finished all the same
        return Outcome([], len(results)) if source is None else Outcome(_in_order(map(_of_load, results)))


def _ids(results: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(str(one["file_id"]) for one in results)


def _all(wanted: FilesWanted) -> FilesWanted:
    return replace(wanted, per_page=len(wanted.file_ids or ()) + 1)


def _in_order(files: Iterable[Became]) -> list[Became]:
    return sorted(files, key=lambda one: (one.well, not one.failed))


def _of_load(result: Mapping[str, Any]) -> Became:
    numbers = {name: result[name] for name in ("lines", "records", "sets", "aliases", "failed")}
    return Became(result["file_id"], result["file"], result["state"], result["error"], result["failed"], numbers)


def _of_action(result: Mapping[str, Any], row: Mapping[str, Any]) -> Became:
    return Became(
        result["file_id"], row["key"], result["state"], result["error"], before=result["before"],
        redrive=result.get("redrive"), went_along=len(result.get("redrives") or ()),
    )  # fmt: skip


def _of_row(row: Mapping[str, Any]) -> Became:
    numbers = {name: row[name] for name in ("lines", "records", "sets", "aliases", "failed")}
    return Became(row["file_id"], row["key"], row["state"], row["error"], row["failed"], numbers)


# --- the report of a check -------------------------------------------------------------------------------------------


def _reports(pipeline: Pipeline, visitor: Visitor, run: runs.Run, files: Sequence[Became]) -> list[Report]:
    """Of the uploads that a run checked; other files have none."""
    source = str(run.conf.get("source") or ONE_OFF)
    found = []
    for one in files[:10]:
        bucket, key = split_address(one.name)
        if report := read_check_report(pipeline, bucket, key):
            found.append(_report(report, key, source, raw=visitor.runs(source)))
    return found


def _report(report: Mapping[str, Any], key: str, source: str, *, raw: bool) -> Report:
    numbers = ("lines", "blank", "records", "sets", "aliases", "failed", "repaired")
    try:
        known = codes(report["format"]) if report["format"] in FORMATS else {}
        events = list(report["events"].items())
        return Report(
            report["file"], key, source, report["format"],
            {name: int(report[name]) for name in numbers},
            int(report["persons"]), report["first_time"], report["last_time"], report["rejected"],
            [(name, int(number)) for name, number in events[:_LINES]] if raw else [], len(events) - _LINES,
            _meanings(report["codes"], known), _meanings(report["warnings"], known),
            [(line, _raw(line)) for line in report["failures"][:_LINES]] if raw else [],
            [(row, orjson.dumps(plain(row["properties"])).decode()) for row in report["preview"]] if raw else [],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IngestError("This is no report of a check: check the file again.") from error


def _meanings(numbers: Mapping[str, Any], known: Mapping[str, Meaning]) -> list[Told]:
    return [Told(code, int(number), known.get(code, Meaning("", ""))) for code, number in numbers.items()]


def _raw(line: Mapping[str, Any]) -> bytes:
    if "raw_base64" in line:
        return base64.b64decode(line["raw_base64"])
    return str(line["raw"]).encode("utf-8", "surrogatepass")


# --- failed lines of a run or a task: the tab on Airflow's own pages --------------------------------------------------


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule, and the failed lines that break it."""

    code: str
    meaning: Meaning
    lines: int
    open: int
    pointer: str  # empty: the line as a whole, or not for who asks


@router.get("/run")
def failed(
    request: Request, visitor: VisitorDep, dag_id: str = "", run_id: str = "", task_id: str = "", map_index: str = ""
) -> Response:
    """The failed lines of just that run or task. What Airflow has no value for comes as `{TASK_ID}`."""
    dag_id, run_id, task_id, map_index = (_filled(text) for text in (dag_id, run_id, task_id, map_index))
    if not dag_id or not run_id:
        raise HTTPException(400, "The address of this page names no run.")
    if not visitor.may("GET", dag_id, None):
        raise HTTPException(404, _NO_RUN)
    if not dag_id.startswith(dag_of("")) and dag_id not in _OTHER_DAGS:
        return page(request, "run_lines.html", stranger=True, dag_id=dag_id)
    run = runs.find(dag_id, run_id)
    number = int(map_index) if map_index.removeprefix("-").isdecimal() else None
    with open_world() as pipeline:
        known = known_sources(pipeline)
        source = _source_of(run)
        if dag_id not in (runs.ACTION_DAG, runs.ONE_OFF_DAG, *_OTHER_DAGS) and source not in known:
            return page(request, "run_lines.html", stranger=True, dag_id=dag_id)
        seen = visitor.seen(known if source is None else {source} & known)
        wanted = FilesWanted(sources=seen, run_id=None if task_id else run_id, sort="failed", per_page=_GROUPED)
        if task_id:
            wanted = _of_task(wanted, run, task_id, number)
        with pipeline.warehouse.published() as published:
            found = published.files(wanted) if seen else None
            rows = [row for row in found.rows if row["failed"] or row["open_failures"]] if found else []
            groups = published.failure_groups([row["file_id"] for row in rows]) if rows else []
            as_of = published.as_of
    return page(
        request, "run_lines.html", stranger=False, run=run, task_id=task_id, rows=rows[:_SHOWN], files=len(rows),
        total=found.total if found else 0, groups=_broken(groups, rows, raw=all(visitor.runs(name) for name in seen)),
        lines=sum(row["failed"] for row in rows), open=sum(row["open_failures"] for row in rows),
        cut=len(rows) == _GROUPED, as_of=as_of,
    )  # fmt: skip


def _filled(text: str) -> str:
    return "" if text.startswith("{") and text.endswith("}") else text


def _of_task(wanted: FilesWanted, run: runs.Run, task_id: str, map_index: int | None) -> FilesWanted:
    """Those files that a task returned."""
    told = runs.returned(run.dag_id, run.run_id, task_id, map_index)
    ids = [
        str(one[name])
        for part in told if isinstance(part, list)
        for one in part if isinstance(one, dict)
        for name in ("file_id", "redrive") if one.get(name)
    ]  # fmt: skip
    return replace(wanted, file_ids=tuple(ids))


def _broken(groups: Sequence[FailureGroup], rows: Sequence[Mapping[str, Any]], *, raw: bool) -> list[Broken]:
    """By code. Where in a line it is broken are words of producers: only for those who may see raw lines."""
    meanings = {code: meaning for name in {row["format"] for row in rows} for code, meaning in codes(name).items()}
    return [
        Broken(one.code, meanings.get(one.code, Meaning("", "")), one.lines, one.open, one.pointer if raw else "")
        for one in groups
    ]
