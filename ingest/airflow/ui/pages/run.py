"""A run of ours: waited for until its end, then what became of its files, and the report of a check.

Airflow's own pages have the rest, and are linked. What a run tells is shown as far as who asks may see the sources.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import orjson
from fastapi import APIRouter, HTTPException, Request, Response

from ingest.airflow.names import ACTION_DAG, ONE_OFF_DAG, has_files, source_of
from ingest.airflow.ui import runs
from ingest.airflow.ui.access import Visitor, VisitorDep
from ingest.airflow.ui.internals import Run
from ingest.airflow.ui.pages.failures import explained
from ingest.airflow.ui.pages.fixing import came_of
from ingest.airflow.ui.runtime import known_sources, loaded_copy, open_runtime
from ingest.airflow.ui.view import page
from ingest.core.address import split_address
from ingest.core.formats.guess import other_format
from ingest.core.schema import Meaning
from ingest.core.source import ONE_OFF
from ingest.discovery import owner_of
from ingest.errors import IngestError, TransientError
from ingest.pipeline import Pipeline
from ingest.ports import FilesWanted
from ingest.report import plain
from ingest.uploads import read_check_report

router = APIRouter()

_SHOWN: Final = 200  # files of a run on its page
_LINES: Final = 20  # failed lines of a check
_WHOLE: Final = frozenset({"wrong_format", "document_not_lines"})
_REPORTS: Final = 100  # of one check
_BEFORE_NAME: Final = re.compile(r".*/\d{8}T\d{6}Z-[0-9a-f]{12}-", re.DOTALL)  # see `ingest.uploads.upload_key`
_LOOK_FIRST: Final = ("retrying", "gone", "rejected", "held")
NO_RUN: Final = "There is no such run."


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
    note: str = ""  # what else whoever asked should know

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
class Report:
    """The report of a check, made ready for the page. `lines` and `preview` are for those who may see raw lines."""

    key: str
    source: str
    format: str
    numbers: Mapping[str, int]
    persons: int
    first_time: str | None
    last_time: str | None
    rejected: str | None
    copy_of: dict[str, Any] | None  # a loaded file of the same source with the same bytes
    events: list[tuple[str, int]]
    more_events: int
    failures: list[tuple[str, int, Meaning]]  # (code, items, what it means)
    warnings: list[tuple[str, int, Meaning]]
    lines: list[tuple[Mapping[str, Any], bytes]]  # (failed line, its raw bytes)
    preview: list[tuple[Mapping[str, Any], str]]  # (command, its properties as JSON)
    seems: str | None  # the other format that the file surely has
    takers: list[str]  # sources of that format that who asks may send it for

    @property
    def name(self) -> str:
        """What the person called the file, as far as its key has it."""
        return _BEFORE_NAME.sub("", self.key)

    @property
    def good(self) -> int:
        """What it asks for that can be loaded."""
        return sum(self.numbers[name] for name in ("records", "sets", "aliases"))

    @property
    def is_whole(self) -> bool:
        """Whether it is refused as a whole: no line of it can be fixed."""
        return self.numbers["lines"] == 1 and any(code in _WHOLE for code, *_ in self.failures)

    @property
    def well(self) -> bool:
        """Whether a load brings something into the warehouse."""
        return bool(self.good) and not self.rejected and not self.copy_of


# --- the page that waits ---------------------------------------------------------------------------------------------


@router.get("/run/{dag_id}/{run_id}")
def of(request: Request, visitor: VisitorDep, dag_id: str, run_id: str) -> Response:
    """How far a run is; once it is finished, what became of each file.

    The page's script asks again with the header X-Part, and leads who waited for one file to it, once pages know it.
    """
    run = _run(visitor, dag_id, run_id)
    root = request.scope.get("root_path", "")
    own = f"{root}/run/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
    is_check = run.conf.get("action") == "check" and dag_id == ONE_OFF_DAG
    outcome, reports, problems = Outcome([]), [], list[str]()
    if run.finished:
        with open_runtime() as pipeline:
            outcome = _outcome(pipeline, visitor, run, is_check=is_check)
            reports = _reports(pipeline, visitor, outcome.files) if is_check else []
        if run.state != "success" and visitor.may_run(dag_id):  # they may name files of sources that not all may see
            problems = runs.problems(dag_id, run_id)
    again, then = "" if run.finished else own, ""
    if run.state == "success" and not is_check and "x-part" in request.headers:
        (only,) = outcome.files if len(outcome.files) == 1 and not outcome.hidden else (None,)
        if only and only.well:
            told = outcome.as_of is not None and run.ended_at is not None and outcome.as_of >= run.ended_at
            if not (told and only.file_id in outcome.known):
                again = own
            else:
                says = f"?done={quote(run_id, safe='')}" if dag_id == ACTION_DAG else ""
                then = f"{root}/files/{only.file_id}{says}"
    return page(
        request, "run.html", run=run, is_check=is_check, again=again, then=then, outcome=outcome,
        files=outcome.files[:_SHOWN], reports=reports, problems=problems, address=runs.address,
        may_load=visitor.may_run(ONE_OFF_DAG),
        begun=not run.finished and any(task.state for task in run.tasks),
    )  # fmt: skip


def _run(visitor: Visitor, dag_id: str, run_id: str) -> Run:
    """Raises HTTPException 404, also for a run that may not be seen."""
    if not visitor.may_read(dag_id):
        raise HTTPException(404, NO_RUN)
    run = runs.find(dag_id, run_id)
    if not has_files(dag_id):
        raise HTTPException(404, "This run deals with no files.")
    return run


def _outcome(pipeline: Pipeline, visitor: Visitor, run: Run, *, is_check: bool) -> Outcome:
    """What the tasks returned; of files whose task died after its commit, what the ledger says."""
    tasks = ("act",) if run.dag_id == ACTION_DAG else ("load", "check")
    results = [one for task in tasks for part in runs.returned(run.dag_id, run.run_id, task) for one in part or ()]
    source = source_of(run.dag_id)
    if source is not None and not visitor.sees(source):
        return Outcome([], hidden=len(results))
    is_action = run.dag_id == ACTION_DAG
    found, hidden = list[Became](), len(results)
    if not is_action:
        of = [str(one.get("source") or source or run.conf.get("source") or ONE_OFF) for one in results]
        seen = visitor.seen(of)
        found = _in_order(_of_row(one, one["file"]) for one, name in zip(results, of, strict=True) if name in seen)
        hidden -= len(found)
    if is_check:
        return Outcome(found, hidden)
    try:
        with pipeline.warehouse.published() as published:
            if is_action:
                ids = tuple(str(one["file_id"]) for one in results)
                wanted = FilesWanted(sources=visitor.seen(known_sources(pipeline)), file_ids=ids)
                rows = {row["file_id"]: row for row in published.files(_all(wanted)).rows}
                found = [_of_action(one, rows[one["file_id"]]) for one in results if one["file_id"] in rows]
                return Outcome(_in_order(found), len(results) - len(found), frozenset(rows), published.as_of)
            told = {one.file_id for one in found}
            sources = visitor.seen(known_sources(pipeline)) if source is None else (source,)
            wanted = FilesWanted(sources=sources, run_id=run.run_id, per_page=_SHOWN)
            found += [_of_row(row, row["key"]) for row in published.files(wanted).rows if row["file_id"] not in told]
            wanted = FilesWanted(sources=sources, file_ids=tuple(one.file_id for one in found[:_SHOWN]))
            known = frozenset(row["file_id"] for row in published.files(_all(wanted)).rows)
            return Outcome(found, hidden, known, published.as_of)
    except TransientError:  # the run is finished all the same
        return Outcome(found, hidden)


def _all(wanted: FilesWanted) -> FilesWanted:
    return replace(wanted, per_page=len(wanted.file_ids or ()) + 1)


def _in_order(files: Iterable[Became]) -> list[Became]:
    return sorted(files, key=lambda one: (one.well, not one.failed))


def _of_row(row: Mapping[str, Any], name: str) -> Became:
    """A row of the ledger, or the result of a load or check."""
    numbers = {name: row[name] for name in ("lines", "records", "sets", "aliases", "failed")}
    return Became(row["file_id"], name, row["state"], row["error"], row["failed"], numbers)


def _of_action(result: Mapping[str, Any], row: Mapping[str, Any]) -> Became:
    return Became(
        result["file_id"], row["key"], result["state"], result["error"], before=result["before"],
        redrive=result.get("redrive"), went_along=len(result.get("redrives") or ()), note=" ".join(came_of(result)),
    )  # fmt: skip


# --- the report of a check -------------------------------------------------------------------------------------------


def _reports(pipeline: Pipeline, visitor: Visitor, files: Sequence[Became]) -> list[Report]:
    """Of the uploads that a run checked; other files have none. Each is for those who may see its source."""
    found = []
    for one in files[:_REPORTS]:
        bucket, key = split_address(one.name)
        source = owner_of(pipeline.settings, bucket, key) or ONE_OFF
        if visitor.sees(source) and (told := read_check_report(pipeline, bucket, key)):
            try:
                found.append(_report(pipeline, visitor, key, source, told))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise IngestError("This is no report of a check: check the file again.") from error
    return found


def _report(pipeline: Pipeline, visitor: Visitor, key: str, source: str, told: Mapping[str, Any]) -> Report:
    copy_of = seems = None
    with suppress(TransientError):  # the report is there all the same
        copy_of = told.get("sha256") and loaded_copy(pipeline, str(told["sha256"]), [source])
    if not _WHOLE.isdisjoint(told.get("codes") or ()) and told.get("failures"):  # it may surely be something else
        seems = other_format(str(told["format"]), _raw(told["failures"][0]))
    its = pipeline.settings.sources.items()
    takers = [name for name, other in its if other.format == seems and name != source and visitor.runs(name)]
    numbers = ("lines", "blank", "items", "records", "sets", "aliases", "failed", "repaired")
    raw, events = visitor.runs(source), list(told["events"].items())
    return Report(
        key, source, told["format"], {name: int(told[name]) for name in numbers},
        int(told["persons"]), told["first_time"], told["last_time"], told["rejected"], copy_of,
        [(name, int(number)) for name, number in events[:_LINES]] if raw else [], len(events) - _LINES,
        explained(told["codes"], told["format"]), explained(told["warnings"], told["format"]),
        [(line, _raw(line)) for line in told["failures"][:_LINES]] if raw else [],
        [(row, orjson.dumps(plain(row["properties"])).decode()) for row in told["preview"]] if raw else [],
        seems, takers,
    )  # fmt: skip


def _raw(line: Mapping[str, Any]) -> bytes:
    if "raw_base64" in line:
        return base64.b64decode(line["raw_base64"])
    return str(line["raw"]).encode("utf-8", "surrogatepass")
