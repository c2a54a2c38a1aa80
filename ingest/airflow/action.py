"""The DAG `ingest_action`: what a person does to files that were dealt with, with Airflow's permissions, log and audit.

    act ─┬─► announcements ─► announce
         └─► verdict

One run is one action. Mended lines come as text in the form; the history keeps who triggered the run, and why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson
from airflow.sdk import Param

from ingest.airflow.one_off import PASTED_AT_MOST
from ingest.core.states import ACTIONS
from ingest.errors import ConfigError
from ingest.text import count

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.ports import Note

REDRIVE: Final = "redrive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The form, read."""

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
        request = cls(
            action=params["action"], files=files, source=params["source"], since=params["since"],
            lines=params["lines"], lines_at=params["lines_at"], reason=params["reason"] or "",
        )  # fmt: skip
        # Empty is not the same as left out: a script whose variable is not set would take more than it means.
        given = {"source": request.source, "since": request.since, "lines": request.lines, "lines_at": request.lines_at}
        problems = [
            f"{name} is empty. Leave it out, or is a variable not set?"
            for name, value in given.items()
            if value is not None and not value.strip()
        ]
        if request.action == REDRIVE and len(files) != 1:
            problems.append("Fixed lines belong to one file: name it.")
        if (request.lines or request.lines_at) and request.action != REDRIVE:
            problems.append("Fixed lines are for redrive only.")
        if request.lines and request.lines_at:
            problems.append("Fixed lines come as text or as an object: not both.")
        if problems:
            raise ConfigError(*problems)
        return request


def act(pipeline: "Pipeline", request: Request, note: "Note") -> list[dict[str, Any]]:
    """Do what the form asks for: what became of each file, `error` set where it is not as asked.

    Raises:
        IngestError: no such file, or nothing was named.
        TransientError: the warehouse did not answer; safe to run again.
    """
    from ingest import actions

    if request.action == REDRIVE:
        return [_redrive(pipeline, request, note)]
    action = next(known for known in ACTIONS if known == request.action)
    rows, new = actions.chosen(pipeline, request.files, action, request.source, request.since)
    results = actions.act(pipeline, action, rows, new, note)
    told = [asdict(result) | {"error": result.error if actions.failed(action, result) else None} for result in results]
    plain: list[dict[str, Any]] = orjson.loads(orjson.dumps(told))  # a tuple comes out of XCom as something else
    return plain


def _redrive(pipeline: "Pipeline", request: Request, note: "Note") -> dict[str, Any]:
    from ingest.redrive import read_mended, redrive

    fixed = None if request.lines is None else request.lines.encode("utf-8", "surrogatepass")
    if request.lines_at:
        fixed = read_mended(pipeline, pipeline.warehouse.find_file(request.files[0])["file_id"], request.lines_at)
    outcome = redrive(pipeline, request.files[0], fixed, note)
    original = pipeline.warehouse.find_file(outcome.of)
    wrong = f"{count(outcome.still_wrong, 'line')} still wrong: nothing was loaded."
    nothing = wrong if outcome.still_wrong and not outcome.result else None
    return {
        "file_id": outcome.of, "bucket": original["bucket"], "key": original["key"], "before": original["state"],
        "state": original["state"], "redrive": outcome.result.file_id if outcome.result else None,
        "still_wrong": outcome.still_wrong, "already": outcome.already, "fixed": outcome.fixed, "open": outcome.open,
        "error": outcome.error or nothing,
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
        "files": Param(
            None, type=["null", "array"], items={"type": "string"}, title="Files",
            description="One a line: the id of a file, its unique beginning, or s3://bucket/key.",
        ),
        "source": Param(
            None, type=["null", "string"], enum=[None, "one_off", *sources], title="Or all files of a source",
            description="Those in a state that the action takes on.",
        ),
        "since": Param(
            None, type=["null", "string"], title="Since",
            description="With a source: handled since then: 2026-11-01, or 7d.",
        ),
        "lines": Param(
            None, type=["null", "string"], format="multiline", maxLength=PASTED_AT_MOST, title="Fixed lines",
            description="For redrive: LINE, a tab, the text, as `ingest failures FILE_ID --lines` gives them."
            " Empty: the kept lines are judged again.",
        ),
        "lines_at": Param(
            None, type=["null", "string"], title="Or the object with fixed lines",
            description="Where the page Landfall has put them: s3://, below the prefix of [uploads].",
        ),
        "reason": Param(None, type=["null", "string"], title="Why", description="Kept in the history of the file."),
    }  # fmt: skip
