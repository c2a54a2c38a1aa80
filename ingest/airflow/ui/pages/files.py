"""The list of files: what came in, what became of it, and what waits."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal, cast

from fastapi import APIRouter, Query, Request, Response

from ingest.airflow.names import dag_of
from ingest.airflow.ui import internals, runs
from ingest.airflow.ui.access import Visitor, VisitorDep
from ingest.airflow.ui.chart import chart
from ingest.airflow.ui.runtime import known_sources, open_runtime
from ingest.airflow.ui.view import page
from ingest.core.lifecycle import STATES, State
from ingest.core.rhythm import Rhythm, rhythm
from ingest.core.source import ONE_OFF
from ingest.ports import FilesWanted, Glance, ReadModel
from ingest.settings import Settings

router = APIRouter()

_STUCK_ATTEMPTS: Final = 5  # by then it has been tried for half an hour
_MORE: Final = 50  # files on a page
Sort = Literal["dealt_at", "key", "source", "state", "lines", "failed", "failed_share", "size_bytes", "attempts"]


@dataclass(frozen=True, slots=True)
class SourceNow:
    """One source at a glance."""

    name: str
    dag_id: str
    paused: bool
    states: dict[str, int]  # files by state
    stuck: int  # retrying, and tried often
    landing: dict[str, Any] | None  # what the last poll found
    to_fix: int  # failed lines
    last_file_at: datetime | None
    rhythm: Rhythm | None  # None: nothing is expected, and too little is known to guess

    @property
    def late(self) -> bool:
        """As `ingest reconcile` has it where a file is expected; by a guess, only while its DAG looks for files."""
        if self.rhythm is None or (self.rhythm.is_guess and self.paused):
            return False
        return self.last_file_at is None or datetime.now(UTC) - self.last_file_at > self.rhythm.late_after


@router.get("/")
def files(
    request: Request, visitor: VisitorDep, source: str = "",
    state: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI's way
    since: str = "", until: str = "", q: str = "", failures: bool = False, code: str = "",
    sort: Sort = "dealt_at", down: bool = True, at: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:  # fmt: skip
    """One page of the ledger, above it a picture of the last days and what waits."""
    with open_runtime() as pipeline:
        seen = visitor.seen(known_sources(pipeline))
        wanted = FilesWanted(
            sources=tuple(name for name in seen if source in ("", name)),
            states=cast("tuple[State, ...]", tuple(name for name in state if name in STATES)),
            since=day_of(since), until=day_of(until), text=q.strip(), with_failures=failures, code=code or None,
            sort=sort, descending=down, page=at, per_page=_MORE, folded=True,
        )  # fmt: skip
        with pipeline.warehouse.published() as published:
            found = published.files(wanted)
            if not found.rows and found.total:  # beyond the last page
                wanted = replace(wanted, page=-(-found.total // _MORE))
                found = published.files(wanted)
            days = published.days(wanted)
            now = _sources_now(pipeline.settings, published, seen, visitor)
            as_of = published.as_of
    chosen = {
        "source": source, "state": list(wanted.states), "since": wanted.since or "", "until": wanted.until or "",
        "q": wanted.text, "failures": failures, "code": code, "sort": sort, "down": int(down),
    }  # fmt: skip
    return page(
        request, "files.html", found=found, chart=chart(days), sources=now, seen=seen, states=STATES, chosen=chosen,
        at=wanted.page, pages=max(1, -(-found.total // _MORE)), as_of=as_of,
        filtered=any((source, wanted.states, wanted.since, wanted.until, wanted.text, failures, code)),
    )  # fmt: skip


def _sources_now(settings: Settings, published: ReadModel, seen: Sequence[str], visitor: Visitor) -> list[SourceNow]:
    states: dict[str, dict[str, int]] = {name: {} for name in seen}
    for source, state, number in published.states(seen):
        states[source][state] = number
    glances = {one.source: one for one in published.glances(seen)}
    paused = internals.paused([dag_of(name) for name in seen])
    found = []
    for name in seen:
        wanted = FilesWanted(sources=(name,), states=("retrying",), sort="attempts", per_page=1000)
        retrying = published.files(wanted).rows if states[name].get("retrying") else []
        landing = None if name == ONE_OFF else runs.last_landing(dag_of(name))
        if landing and not visitor.runs(name):
            landing["ignored_names"] = []
        glance, its = glances.get(name, Glance(name, 0, 0, None)), settings.sources.get(name)
        found.append(SourceNow(
            name, dag_of(name), dag_of(name) in paused, states[name],
            sum(row["attempts"] >= _STUCK_ATTEMPTS for row in retrying), landing, glance.open, glance.last_file_at,
            rhythm(its.expect_every, glance.hours) if its else None,
        ))  # fmt: skip
    return [one for one in found if one.name != ONE_OFF or one.states]


def day_of(text: str) -> date | None:
    """A day of a form; nothing where it is none, or lies at the end of all days."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day < date.max else None
