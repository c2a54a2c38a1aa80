"""One file: what it is, what became of it, which of its lines failed and why, and what its lines became.

Raw lines, values and names of properties are for those who may run the DAG of its source: others are told of line
numbers, codes and counts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from ingest import actions
from ingest.airflow.one_off import readable_buckets
from ingest.core.formats import FORMATS
from ingest.core.schema import Meaning, codes
from ingest.core.states import ACTIONS
from ingest.errors import IngestError
from ingest.ports import FailureGroup, Published
from ingest.preview import Preview, preview
from ingest.ui import runs
from ingest.ui.access import VisitorDep, dag_of
from ingest.ui.view import page
from ingest.ui.world import open_world

router = APIRouter()

LINES: Final = 20  # on a page
MENDABLE_STATES: Final = ("loaded", "rejected")
_GROUPS: Final = 100  # a file may break one rule at ten thousand places
_SAMPLED: Final = 8  # groups that show their first lines
_SAMPLES: Final = 3
_FAILURES: Final = 10  # of one line
_COLUMNS: Final = ("", "/_p", "/_t", "/_n", "/_p2")  # places that tell nothing of what was sent


@dataclass(frozen=True, slots=True)
class Failed:
    """A failed line as a page shows it; without `raw` and messages for those who may not see them."""

    line: int
    item: str
    byte_offset: int
    byte_length: int
    mendable: bool
    failures: list[dict[str, Any]]
    more_failures: int
    raw: bytes | None
    raw_sha256: str
    redriven_at: datetime | None
    redriven_by: str | None
    redriven_by_whom: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Failed lines that break one rule at one place."""

    code: str
    pointer: str | None  # None: whoever looks may not know
    meaning: Meaning
    message: str  # of the first of them; empty: may not be known
    lines: int
    open: int
    first_line: int
    samples: list[Failed] = field(default_factory=list)


@router.get("/files/{file_id}")
def file(
    request: Request,
    visitor: VisitorDep,
    file_id: str,
    code: str = "",
    pointer: str | None = None,
    open: Annotated[bool, Query()] = False,
    at: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """The page of a file. With `code`, `open` or `at` it lists failed lines, else it shows some of each group."""
    with open_world() as pipeline, pipeline.warehouse.published() as published:
        row = visitor.seen_file(published.file(file_id))
        shows_raw = visitor.runs(row["source"])
        if not shows_raw and pointer not in _COLUMNS:
            pointer = None
        history = published.history(file_id)
        groups = published.failure_groups([file_id]) if row["failed"] else []
        listed, more = [], False
        if code or open or at:
            found = published.failed_lines(
                [file_id], code=code or None, pointer=pointer, open_only=open, offset=LINES * max(0, at - 1),
                limit=LINES + 1,
            )  # fmt: skip
            listed, more = failed_lines(found[:LINES], row, history, shows_raw), len(found) > LINES
            shown = _groups(None, groups, row, history, shows_raw)
        else:
            shown = _groups(published, groups, row, history, shows_raw)
        related = [one for one in published.related(file_id) if visitor.sees(one["source"])]
        as_of = published.as_of
    may_act = visitor.may_run(runs.ACTION_DAG)
    allowed = [action for action in ACTIONS if actions.would(action, [row], [])[0].error is None] if may_act else []
    wanted: dict[str, object] = {"code": code, "open": int(open)} if code or open or at else {}
    if wanted and pointer is not None:
        wanted["pointer"] = pointer
    return page(
        request, "file.html", row=row, shows_raw=shows_raw, dag_id=dag_of(row["source"]), history=history,
        groups=shown, more_groups=max(0, len(groups) - _GROUPS), listed=listed, more=more, at=max(1, at),
        wanted=wanted, per_page=LINES, total=_total(groups, row, code, pointer, open), related=related, as_of=as_of,
        actions=allowed,
        may_mend=shows_raw and may_act and row["open_failures"] > 0 and row["state"] in MENDABLE_STATES,
        warnings=_warnings(row), runs=_runs([row["run_id"], *(one["run_id"] for one in history)], row["source"]),
    )  # fmt: skip


@router.get("/files/{file_id}/lines")
def lines(
    request: Request,
    visitor: VisitorDep,
    file_id: str,
    first: Annotated[int, Query(alias="from", ge=1, le=10**12)] = 1,
) -> Response:
    """What the lines of a file become, from a given one on. What goes wrong while reading them is told on the page."""
    with open_world() as pipeline:
        with pipeline.warehouse.published() as published:
            row = visitor.seen_file(published.file(file_id))
            as_of = published.as_of
        visitor.demand_run(dag_of(row["source"]))
        found, problem = Preview(), ""
        try:
            found = preview(pipeline, row, first, readable_buckets(pipeline.settings), LINES)
        except IngestError as error:
            problem = str(error)
    return page(request, "lines.html", row=row, found=found, first=first, problem=problem, as_of=as_of, step=LINES)


def _groups(
    published: Published | None, groups: Sequence[FailureGroup], row: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]], shows_raw: bool,
) -> list[Group]:  # fmt: skip
    """The groups with the most lines, with samples of the first ones where there is something to read them from."""
    known, shown = meanings(row["format"]), []
    for number, group in enumerate(groups[:_GROUPS]):
        samples: list[Failed] = []
        if published and number < _SAMPLED:
            found = published.failed_lines([row["file_id"]], code=group.code, pointer=group.pointer, limit=_SAMPLES)
            samples = failed_lines(found, row, history, shows_raw)
        pointer = group.pointer if shows_raw or group.pointer in _COLUMNS else None
        meaning, message = known.get(group.code, Meaning("", "")), group.message if shows_raw else ""
        shown.append(Group(group.code, pointer, meaning, message, group.lines, group.open, group.first_line, samples))
    return shown


def failed_lines(
    found: Sequence[Mapping[str, Any]], row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], shows_raw: bool
) -> list[Failed]:
    """Rows of `failed_lines` as a page shows them."""
    whom = {one["at"]: one["by"] for one in history if one["action"] == "redrive"}  # written down in one transaction
    known = meanings(row["format"])
    shown = []
    for one in found:
        failures = [{"code": code, "message": " ".join(known.get(code, ())), "pointer": ""} for code in one["codes"]]
        if shows_raw:
            failures = json.loads(one["failures"])
        failed = Failed(
            one["line"], one["item"] if shows_raw else "", one["byte_offset"], one["byte_length"], one["mendable"],
            failures[:_FAILURES], max(0, len(failures) - _FAILURES), one["raw"] if shows_raw else None,
            one["raw_sha256"], one["redriven_at"], one["redriven_by"], whom.get(one["redriven_at"]),
        )  # fmt: skip
        shown.append(failed)
    return shown


def meanings(format: str) -> dict[str, Meaning]:
    """What each code of a format says; nothing where an older ledger names a format that is no more."""
    return codes(format) if format in FORMATS else {}


def _total(
    groups: Sequence[FailureGroup], row: Mapping[str, Any], code: str, pointer: str | None, open_only: bool
) -> int | None:
    """How many lines the list has on all pages; None where lines of several groups might be the same ones."""
    if not code:
        return int(row["open_failures"] if open_only else row["failed"])
    of_code = [one for one in groups if one.code == code and pointer in (None, one.pointer)]
    if len(of_code) > 1:
        return None
    return sum(one.open if open_only else one.lines for one in of_code)


def _warnings(row: Mapping[str, Any]) -> list[tuple[str, int, Meaning]]:
    """(code, items, meaning) of each warning, most first."""
    known = meanings(row["format"])
    counted: dict[str, int] = json.loads(row["warnings"] or "{}")
    ordered = sorted(counted.items(), key=lambda one: -one[1])
    return [(code, number, known.get(code, Meaning("", ""))) for code, number in ordered]


def _runs(run_ids: Sequence[str | None], source: str) -> dict[str, str]:
    """Airflow's page of each of these runs that Airflow still knows, by run_id."""
    return {run_id: runs.address(dag_id, run_id) for run_id, dag_id in runs.dags_of(run_ids, source).items()}
