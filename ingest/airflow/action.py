"""The DAG `ingest_action`: what a person does to files that were dealt with, with Airflow's permissions, log and audit.

    act ─┬─► announcements ─► announce
         └─► verdict

One run is one action. Mended lines come as text in the form; the history keeps who triggered the run, and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from airflow.sdk import Param

from ingest.airflow.one_off import PASTED_AT_MOST, optional
from ingest.core.lifecycle import ACTIONS
from ingest.errors import ConfigError
from ingest.text import count

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.ports import Audit

REDRIVE: Final = "redrive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    action: str
    files: tuple[str, ...] = ()
    source: str | None = None
    since: str | None = None
    lines: str | None = None
    lines_at: str | None = None
    reason: str = ""

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Request":
        """Read the form's values. Raises ConfigError, a sentence for each thing that is wrong."""
        files = tuple(name for line in params["files"] or [] if (name := line.strip()))
        given = {name: params[name] for name in ("source", "since", "lines", "lines_at")}
        request = cls(action=params["action"], files=files, reason=params["reason"] or "", **given)
        # Empty is not the same as left out: a script whose variable is not set would take more than it means.
        problems = [
            f"{name} is empty. Leave it out, or is a variable not set?"
            for name, value in given.items()
            if value is not None and not value.strip()
        ]
        brings_back = request.action == "force" and request.lines_at and not request.lines
        if (request.lines or request.lines_at) and request.action != REDRIVE and not brings_back:
            problems.append("Fixed lines are for redrive only; force sends those again that are at lines_at.")
        if (request.action == REDRIVE or brings_back) and len(files) != 1:
            problems.append("Fixed lines belong to one file: name it.")
        if request.source and not request.reason.strip():
            problems.append("An action on many files needs a reason: say why, for the history of each.")
        if request.lines and request.lines_at:
            problems.append("Fixed lines come as text or as an object: not both.")
        if problems:
            raise ConfigError(*problems)
        return request


def act(pipeline: "Pipeline", request: Request, note: "Audit") -> list[dict[str, Any]]:
    """Do what the form asks for: what became of each file, `error` set where it is not as asked.

    Raises:
        IngestError: no such file, or nothing was named.
        TransientError: the warehouse did not answer; safe to run again.
    """
    from ingest import actions

    if request.action == REDRIVE:
        return [_redrive(pipeline, request, note, _parts(pipeline, request))]
    if request.action == "force" and request.lines_at:
        return [_force_and_fix(pipeline, request, note)]
    action = next(known for known in ACTIONS if known == request.action)
    rows, new = actions.chosen(pipeline, request.files, action, request.source, request.since)
    results = actions.act(pipeline, action, rows, new, note)
    told = [asdict(result) | {"error": result.error if actions.failed(action, result) else None} for result in results]
    plain: list[dict[str, Any]] = orjson.loads(orjson.dumps(told))  # a tuple comes out of XCom as something else
    return plain


def _force_and_fix(pipeline: "Pipeline", request: Request, note: "Audit") -> dict[str, Any]:
    """Bring a file back, and send its fixed lines of before again."""
    fixed = _parts(pipeline, request)  # before anything is done: they may be gone
    (forced,) = act(pipeline, replace(request, lines_at=None), note)
    if forced["error"]:
        return forced
    return _redrive(pipeline, request, note, fixed) | {"before": forced["before"]}


def _parts(pipeline: "Pipeline", request: Request) -> "list[bytes | None]":
    """Fixed lines in the parts in which they were sent; None: there are none, so all open lines are judged again."""
    from ingest.uploads import read_mended

    if not request.lines_at:
        return [None if request.lines is None else request.lines.encode("utf-8", "surrogatepass")]
    file_id = pipeline.warehouse.find_file(request.files[0])["file_id"]
    return [read_mended(pipeline, file_id, at) for at in request.lines_at.split("\n")]


def _redrive(pipeline: "Pipeline", request: Request, note: "Audit", fixed: "Sequence[bytes | None]") -> dict[str, Any]:
    from ingest.redrive import redrive

    kept = request.lines_at is not None
    outcomes = [redrive(pipeline, request.files[0], part, note, passes_over=kept) for part in fixed]
    last = outcomes[-1]
    original = pipeline.warehouse.find_file(last.of)
    still_wrong = sum(one.still_wrong for one in outcomes)
    loaded = [one.result.file_id for one in outcomes if one.result]
    wrong = f"{count(still_wrong, 'line')} still wrong: nothing was loaded."
    errors = [one.error for one in outcomes if one.error] or [wrong] * (still_wrong > 0 and not loaded)
    return {
        "file_id": last.of, "bucket": original["bucket"], "key": original["key"], "before": original["state"],
        "state": original["state"], "redrive": loaded[-1] if loaded else None, "still_wrong": still_wrong,
        "already": sum(one.already for one in outcomes), "fixed": sum(one.fixed for one in outcomes),
        "not_failed": sum(one.not_failed for one in outcomes),
        "open": last.open, "error": " ".join(errors) or None,
    }  # fmt: skip


def params(sources: Sequence[str]) -> dict[str, Param]:
    """The form. Every field explains itself."""
    return {
        "action": Param(
            type="string", enum=[*ACTIONS, REDRIVE], title="What to do",
            values_display={
                "undo": "Undo: take a file's rows away", "force": "Force: load again, in the place of its rows",
                "release": "Release: load what is held", "ignore": "Ignore: never load it",
                "retry": "Retry: try again now", REDRIVE: "Redrive: load failed lines that are right now",
            },
        ),
        "files": optional(
            "Files", "One a line: the id of a file, its unique beginning, or s3://bucket/key.",
            "array", items={"type": "string"},
        ),
        "source": optional(
            "Or all files of a source", "Those in a state that the action takes on.", enum=[None, "one_off", *sources]
        ),
        "since": optional("Since", "With a source: handled since then: 2026-11-01, or 7d."),
        "lines": optional(
            "Fixed lines", "For redrive: LINE, a tab, the text, as the page of the file lets you download them."
            " Empty: the kept lines are judged again.", format="multiline", maxLength=PASTED_AT_MOST,
        ),
        "lines_at": optional(
            "Or the object with fixed lines", "Where the page Landfall has put them: s3://, below the prefix of"
            " [uploads]. Force sends them again once the file is back.",
        ),
        "reason": optional("Why", "Kept in the history of the file. With a source it has to be said."),
    }  # fmt: skip
