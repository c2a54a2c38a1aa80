"""Fix many lines at once: by the values that their failures state, or by finding and replacing text.

Nothing is sent unseen: a preview shows lines before and after, each judged by the rules of its file, and how many there
are. Sending makes the lines again from what is open then, and goes on only if they are those of the preview.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response

from ingest.airflow.ui.access import VisitorDep
from ingest.airflow.ui.pages.fixing import MendedForm, Verdict, demand_mendable, demanded, sent_on, stated, verdicts_of
from ingest.airflow.ui.runtime import open_runtime
from ingest.airflow.ui.view import page
from ingest.core.lifecycle import KEEPS_LINES
from ingest.core.placed import Place, on_one_line, placed
from ingest.redrive import judge_mended
from ingest.uploads import MENDED_AT_MOST

if TYPE_CHECKING:
    from ingest.pipeline import Pipeline
    from ingest.ports import ReadModel

router = APIRouter()

_SHOWN: Final = 20  # lines of the preview
_TEXT_AT_MOST: Final = 10_000  # characters that are looked for


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to each line."""

    code: str = ""  # lines that break this rule only; empty: any
    find: str = ""  # text that `put` takes the place of; empty: the stated values are used
    put: str = ""

    def of(self, line: Mapping[str, Any]) -> bytes | None:
        """An open failed line, changed; None where it stays as it is."""
        if self.code and self.code not in line["codes"]:
            return None
        try:
            before = on_one_line(line["raw"]).decode()
        except UnicodeDecodeError:
            return None
        after = before.replace(self.find, self.put) if self.find else stated(before, line["failures"], self.code)
        return None if after == before or "\n" in after or "\r" in after else after.encode()


@dataclass(slots=True)
class Made:
    """Lines that a change was made to."""

    lines: dict[Place, bytes] = field(default_factory=dict)
    contexts: dict[Place, bytes | None] = field(default_factory=dict)
    before: dict[Place, bytes] = field(default_factory=dict)  # of the first ones
    size_bytes: int = 0
    passed_over: int = 0  # open lines that the change is for and that stay as they are
    is_cut: bool = False  # there are more than may be sent at once

    @property
    def digest(self) -> str:
        """By which a preview is known again."""
        told = sha256()
        for place, raw in self.lines.items():
            told.update(placed(place, raw))
        return told.hexdigest()


@router.get("/files/{file_id}/fix")
def preview(request: Request, visitor: VisitorDep, file_id: str, code: str = "") -> Response:
    """What the stated values would make of the open lines, or of those that break one rule."""
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        row = demanded(visitor, pipeline, published, file_id)
        return _preview(request, pipeline, published, row, Change(code))


@router.post("/files/{file_id}/fix")
def fix(request: Request, visitor: VisitorDep, file_id: str, form: MendedForm) -> Response:
    """Preview another change, or send the lines of the last preview."""
    change = Change(*(str(form.get(name, ""))[:_TEXT_AT_MOST] for name in ("code", "find", "put")))
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        row = demanded(visitor, pipeline, published, file_id)
        if form.get("do") != "send":
            notice = "" if change.find else "Say what to find."
            return _preview(request, pipeline, published, row, change, notice)
        demand_mendable(row)
        made = _make(published, row, change)
        if not made.lines or made.digest != form.get("previewed"):
            notice = "Nothing was sent: the open lines are others than in the preview. Look at them once more."
            return _preview(request, pipeline, published, row, change, notice, 409)
        return sent_on(request, visitor, pipeline, file_id, made.lines, str(form.get("reason", "")))


def _make(published: "ReadModel", row: Mapping[str, Any], change: Change) -> Made:
    made = Made()
    for line in published.open_lines(row["file_id"]):
        place = (line["line"], line["item"])
        after = change.of(line)
        if after is None:
            made.passed_over += not change.code or change.code in line["codes"]
            continue
        size_bytes = len(placed(place, after))
        if made.size_bytes + size_bytes > MENDED_AT_MOST:
            made.is_cut = True
            break
        made.lines[place], made.contexts[place] = after, line["context"]
        made.size_bytes += size_bytes
        if len(made.before) < _SHOWN:
            made.before[place] = on_one_line(line["raw"])
    return made


def _preview(
    request: Request, pipeline: "Pipeline", published: "ReadModel", row: dict[str, Any], change: Change,
    notice: str = "", status: int = 200,
) -> Response:  # fmt: skip
    made = _make(published, row, change)
    first: list[tuple[Place, bytes, Verdict]] = []
    right = 0
    for place, verdict in verdicts_of(judge_mended(pipeline, row, made.lines, made.contexts), made.lines):
        right += bool(verdict.becomes)
        if place in made.before:
            first.append((place, made.before[place], verdict))
    groups = [group for group in published.failure_groups([row["file_id"]], places=1) if group.open]
    return page(
        request, "fix.html", status=status, row=row, change=change, made=made, first=first, right=right,
        total=len(made.lines), groups=groups, notice=notice, mendable=row["state"] in KEEPS_LINES,
        can_send=pipeline.settings.uploads_bucket is not None, as_of=published.as_of, most_mb=MENDED_AT_MOST >> 20,
    )  # fmt: skip
