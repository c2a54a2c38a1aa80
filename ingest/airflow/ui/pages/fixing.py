"""Mend failed lines and send them again: in the page, or downloaded, mended and uploaded.

Checking judges mended lines by the rules of their file and loads nothing. Sending starts a run of `ingest_action`; that
no line is loaded twice, whatever an old page still sends, is for the redrive to see to.
What was edited on one page of lines comes along to the next, in the form, so that it works without scripts. What was
uploaded and checked waits in the bucket for uploads, for who checked it and for its file: those bytes are sent.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.datastructures import FormData, UploadFile

from ingest.airflow.names import ACTION_DAG
from ingest.airflow.ui import runs
from ingest.airflow.ui.access import Visitor, VisitorDep
from ingest.airflow.ui.pages.failures import LINES, Failed, failed_lines, first_failures, meanings
from ingest.airflow.ui.runtime import open_runtime
from ingest.airflow.ui.view import page, query
from ingest.core.commands import Item
from ingest.core.jsontext import replaced
from ingest.core.lifecycle import KEEPS_LINES
from ingest.core.placed import Place, on_one_line, place_of, placed
from ingest.errors import IngestError, ObjectGone
from ingest.handout import as_csv, as_text, changed, is_text, parse_fixed
from ingest.redrive import judge_mended
from ingest.text import count
from ingest.uploads import MENDED_AT_MOST, keep_mended, kept_mended

if TYPE_CHECKING:
    from starlette.types import Message

    from ingest.core.lifecycle import State
    from ingest.pipeline import Pipeline
    from ingest.ports import ReadModel

router = APIRouter()

_FORM_AT_MOST: Final = 4 << 20  # bytes
_UPLOADED_AT_MOST: Final = 64 << 20  # bytes: more than a download of what pages hold, with all that CSV adds
_FIELDS_AT_MOST: Final = 2_000  # an edited line has two
_EDITED_AT_MOST: Final = 16 << 10  # of a line in a text area; longer ones are for an editor
_REASON_AT_MOST: Final = 500  # characters
_WRONG_SHOWN: Final = 50
_ITEMS_AT_MOST: Final = 1_000  # of a document that are looked through for one
_NOT_ONE_LINE: Final = "A fixed line has to stay one line: there is a line break in it."


@dataclass(slots=True)
class Verdict:
    """What a mended line would be: what it becomes, or why it is still wrong."""

    raw: bytes
    becomes: tuple[str, ...] = ()  # record, set, alias
    failures: list[dict[str, Any]] = field(default_factory=list)
    more_failures: int = 0


@dataclass(frozen=True, slots=True)
class Editable:
    """A line on the page: as it failed, and the text that stands in its box (None: it has none)."""

    place: Place
    failed: Failed | None  # None: it is on another page, or not open any more
    text: str | None
    was: str  # SHA-256 of the text as it failed
    verdict: Verdict | None = None
    stated: tuple[str, ...] = ()  # values that its failures say to send
    why: str = ""  # it has no box
    is_open: bool = True
    is_edited: bool = False

    @property
    def name(self) -> str:
        return f"{self.place[0]}{self.place[1]}"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which open lines the address of a page asks for."""

    code: str = ""  # empty: of any
    first_line: Annotated[int, Query(alias="from", ge=1, le=10**12)] = 1
    at: Annotated[int, Query(ge=1, le=1_000_000)] = 1  # the page

    @property
    def query(self) -> dict[str, object]:
        """But for the page, as it stands in an address."""
        return {"code": self.code, "from": self.first_line if self.first_line > 1 else None}


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of checking an upload."""

    right: dict[str, int]  # by what they become: `record`, `alias and record`
    wrong: list[tuple[Place, Verdict]]  # the first ones
    wrong_lines: int
    blank_lines: int
    not_open: list[Place]  # the first ones
    not_open_lines: int
    same_lines: int  # came back as they were handed out
    unjudged_lines: int  # what they were judged with is not on pages


async def _form(request: Request, limit: int) -> FormData:
    """A form of at most `limit` bytes, whatever its header says of its length. Raises HTTPException 413."""
    received = 0

    async def limited() -> "Message":
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, f"This is more than {limit >> 20} MB, the most that may be sent here at once.")
        return message

    return await Request(request.scope, limited).form(max_files=1, max_fields=_FIELDS_AT_MOST)


async def _mended_form(request: Request) -> FormData:
    return await _form(request, _FORM_AT_MOST)


async def _upload_form(request: Request) -> FormData:
    return await _form(request, _UPLOADED_AT_MOST)


MendedForm = Annotated[FormData, Depends(_mended_form)]  # with the lines of a page
UploadForm = Annotated[FormData, Depends(_upload_form)]  # with a file of fixed lines
ChosenDep = Annotated[Chosen, Depends()]


@router.get("/files/{file_id}/mend")
def mend(request: Request, visitor: VisitorDep, file_id: str, chosen: ChosenDep) -> Response:
    """Open failed lines, each in a box."""
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        return _show(request, pipeline, published, demanded(visitor, pipeline, published, file_id), chosen)


@router.get("/files/{file_id}/mended")
def to_mend(request: Request, file_id: str) -> Response:
    """Airflow loads the address of the last answer again; after an upload there is nothing to get here."""
    return _to_mend(request, file_id)


def _to_mend(request: Request, file_id: str, chosen: str = "") -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/files/{quote(file_id, safe='')}/mend{chosen}", 303)


@router.get("/files/{file_id}/lines.{kind}")
def download(visitor: VisitorDep, file_id: str, kind: Literal["txt", "csv"], code: str = "") -> Response:
    """The open lines, or those that break one rule, in a shape in which they are taken back, streamed."""
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        row = demanded(visitor, pipeline, published, file_id)
    name = re.sub(r"[^0-9a-f]", "", row["file_id"])  # ours, and still: nothing else gets into a header
    name += f".{code}" * bool(re.fullmatch("[a-z0-9_]{1,60}", code))
    name += ".first" * bool(row["open_without_text"])  # pages do not hold all of them
    headers = {"Content-Disposition": f'attachment; filename="{name}.lines.{kind}"'}
    media_type = {"txt": "text/plain; charset=utf-8", "csv": "text/csv; charset=utf-8"}[kind]
    return StreamingResponse(_open_lines(row, code, kind), headers=headers, media_type=media_type)


@router.post("/files/{file_id}/mend")
def mend_lines(request: Request, visitor: VisitorDep, file_id: str, form: MendedForm, chosen: ChosenDep) -> Response:
    """Check or send the edited lines, turn to others with them, have all judged again, or send what was undone."""
    what, reason = str(form.get("do", "check")), str(form.get("reason", ""))
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        row = demanded(visitor, pipeline, published, file_id)
        if what == "again":
            demand_mendable(row)
            return _begun(request, visitor, file_id, None, 0, reason)
        if what == "resend":
            demand_mendable(row)
            fixes = sent_fixes(published.related(file_id), "undone")
            if not fixes.redrives:
                raise HTTPException(409, "There are no such fixed lines, or they are loaded already.")
            return _begun(request, visitor, file_id, fixes.lines_at, 0, reason)
        texts = _texts(form)
        if used := place_of(str(form.get("use", ""))):
            _use_stated(published, file_id, used, texts)
        edited = {place: text for place, (text, was) in texts.items() if sha256(_bytes(text)).hexdigest() != was}
        if what in ("show", "enter") and (asked := _asked(form, chosen)) != chosen:
            what, chosen = "turn", asked
        if what in ("show", "turn"):
            if not edited:
                return _to_mend(request, file_id, query(**chosen.query, at=chosen.at if chosen.at > 1 else None))
            return _show(request, pipeline, published, row, chosen, texts, edited=edited.keys(), reason=reason)
        split = [place for place, text in edited.items() if "\n" in text or "\r" in text]
        whole = {place: _bytes(text) for place, text in edited.items() if place not in split}
        if what == "send" and whole and not split:
            demand_mendable(row)
            return sent_on(request, visitor, pipeline, file_id, whole, reason)
        contexts = _contexts(published, row, whole)
        verdicts = dict(verdicts_of(judge_mended(pipeline, row, whole, contexts), whole))
        failure = {"code": "line_break", "message": _NOT_ONE_LINE, "pointer": ""}
        verdicts |= {place: Verdict(_bytes(edited[place]), failures=[failure]) for place in split}
        notice = "" if edited else "No line was changed, so there is nothing to check or to send."
        if what == "send" and split:
            notice = f"Nothing was sent: {_NOT_ONE_LINE[0].lower()}{_NOT_ONE_LINE[1:]}"
        told = (texts, verdicts, edited.keys(), notice, reason, 400 if what == "send" else 200)
        return _show(request, pipeline, published, row, chosen, *told)


@router.post("/files/{file_id}/mended")
def upload(
    request: Request, visitor: VisitorDep, file_id: str, form: UploadForm, do: Literal["check", "send"] = "check"
) -> Response:
    """Check a file of fixed lines, or send it; or send one that was checked, `kept`."""
    reason = str(form.get("reason", ""))
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        row = demanded(visitor, pipeline, published, file_id)
        demand_mendable(row)
        if do == "send" and (kept := str(form.get("kept", ""))):
            try:
                lines = kept_mended(pipeline, file_id, kept, by=visitor.name)
            except ObjectGone:
                raise HTTPException(404, "What you checked is not kept any more: choose the file again.") from None
            return _begun(request, visitor, file_id, kept, lines, reason)
        sent = form.get("file")
        try:
            returned = parse_fixed(sent.file.read() if isinstance(sent, UploadFile) else b"")
        except IngestError as error:
            return _show(request, pipeline, published, row, Chosen(), notice=str(error), status=400)
        mended = changed(returned, published.open_lines(file_id))
        if not mended:
            notice = "Each line in this file is as it was handed out, so there is nothing to check or to send."
            return _show(request, pipeline, published, row, Chosen(), notice=notice, status=400)
        if do == "send":
            return sent_on(request, visitor, pipeline, file_id, mended, reason)
        checked = _checked(pipeline, published, row, mended, same_lines=len(returned) - len(mended))
        can_send = pipeline.settings.uploads_bucket is not None
        kept, to_send = "", 0
        if can_send and (checked.right or checked.unjudged_lines):
            kept, to_send = _kept(pipeline, visitor, file_id, mended)
        return page(
            request, "mended.html", row=row, checked=checked, lines=len(mended), to_send=to_send, kept=kept,
            can_send=can_send, reason=reason[:_REASON_AT_MOST], as_of=published.as_of,
        )  # fmt: skip


# --- who, and what ---------------------------------------------------------------------------------------------------


def demanded(visitor: Visitor, pipeline: "Pipeline", published: "ReadModel", file_id: str) -> dict[str, Any]:
    """The row of a file whose lines the visitor may mend. Raises HTTPException 404, 403."""
    row = visitor.seen_file(published.file(file_id))
    visitor.demand_lines(pipeline.settings, row)
    visitor.demand_run(ACTION_DAG)
    return row


def demand_mendable(row: Mapping[str, Any]) -> None:
    if row["state"] not in KEEPS_LINES:
        raise HTTPException(409, f"The file is {row['state']}: only lines of loaded and rejected files can be fixed.")


def _texts(form: FormData) -> dict[Place, tuple[str, str]]:
    """By place: the text of its box, and the SHA-256 of the text as it failed."""
    # A browser sends line ends as CRLF. One behind the text is a slip of the keyboard, not a part of the line.
    return {
        place: (value.rstrip("\r\n"), str(form.get(f"was:{name[5:]}", "")))
        for name, value in form.multi_items()
        if isinstance(value, str) and name.startswith("line:") and (place := place_of(name[5:]))
    }


def _asked(form: FormData, chosen: Chosen) -> Chosen:
    """Which lines the fields of the form ask for; other lines than before begin with their first page."""
    code = str(form.get("code", chosen.code))
    first_line = _number(form.get("from"), chosen.first_line, 10**12)
    if (code, first_line) != (chosen.code, chosen.first_line):
        return Chosen(code, first_line)
    return replace(chosen, at=_number(form.get("at"), chosen.at, 1_000_000))


def _number(value: object, default: int, most: int) -> int:
    """What was written into a field for a number, as far as it is one."""
    return max(1, min(most, int(value))) if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value) else default


def _use_stated(published: "ReadModel", file_id: str, place: Place, texts: dict[Place, tuple[str, str]]) -> None:
    """Put the values that the failures of a line state into the text of its box."""
    for line in published.failed_lines([file_id], open_only=True, first_line=place[0], limit=_ITEMS_AT_MOST):
        if (line["line"], line["item"]) == place and place in texts and line["failures"] is not None:
            text, was = texts[place]
            texts[place] = stated(text, line["failures"]), was


def _codes_stated(line: Mapping[str, Any]) -> set[str]:
    """Of which rules the failures of a line say what to send."""
    return {one["code"] for one in json.loads(line["failures"] or "[]") if "send" in one}


def stated(text: str, failures: str, code: str = "") -> str:
    """A line with the values that its failures (as JSON) say to send, those of one code if it is given."""
    for one in json.loads(failures):
        if "send" in one and code in ("", one["code"]):
            text = replaced(text, one["pointer"], one["send"]) or text
    return text


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _editable(failed: Failed) -> tuple[str | None, str]:
    """A line as the text of a box, if a browser gives back exactly that; else why it has none."""
    raw = on_one_line(failed.raw or b"")
    if failed.without_text:
        return None, "Its text is not on pages yet: it comes once lines before it are fixed."
    if not failed.mendable:
        return None, "It is not kept whole, so it cannot be fixed: have its producer send it again."
    if len(raw) > _EDITED_AT_MOST:
        return None, f"It is longer than {_EDITED_AT_MOST >> 10} KB: download the lines to fix it."
    if not is_text(raw):
        return None, "It is not UTF-8, which a page cannot hold: download the lines to fix it."
    if re.search(rb"[\r\0]", raw):
        return None, "It holds U+0000 or a carriage return, which a browser would change: download the lines to fix it."
    return raw.decode(), ""


def _show(
    request: Request, pipeline: "Pipeline", published: "ReadModel", row: dict[str, Any], chosen: Chosen,
    texts: Mapping[Place, tuple[str, str]] | None = None, verdicts: Mapping[Place, Verdict] | None = None,
    edited: Collection[Place] = (), notice: str = "", reason: str = "", status: int = 200,
) -> Response:  # fmt: skip
    """The page. What somebody has edited stays in its box; of lines on other pages it comes along in the form, and has
    a box where it was checked, or the line is not open any more."""
    texts, verdicts = texts or {}, verdicts or {}
    file_id, wrong = row["file_id"], sum(bool(one.failures) for one in verdicts.values())
    rows = published.failed_lines(
        [file_id], code=chosen.code or None, open_only=True, first_line=chosen.first_line,
        offset=LINES * (chosen.at - 1), limit=LINES + 1,
    )  # fmt: skip
    groups = [group for group in published.failure_groups([file_id], places=1) if group.open]
    told = {code for one in rows for code in _codes_stated(one)}
    open_lines = next((group.open for group in groups if group.code == chosen.code), 0)
    shown: dict[Place, Editable] = {}
    for failed in failed_lines(rows[:LINES], {file_id: row["format"]}, [], shows_raw=True):
        place = (failed.line, failed.item)
        text, why = _editable(failed)
        stated = tuple(str(one["send"]) for one in failed.failures if "send" in one)
        was = sha256(on_one_line(failed.raw or b"")).hexdigest()
        shown[place] = Editable(place, failed, text, was, stated=() if text is None else stated, why=why)
    elsewhere = published.open_among(file_id, [place for place in edited if place not in shown])
    carried = []
    for place, (text, was) in texts.items():
        if place in shown:
            is_right = place in verdicts and bool(verdicts[place].becomes)
            shown[place] = replace(
                shown[place], text=text, was=was, verdict=verdicts.get(place), is_edited=place in edited,
                stated=() if is_right else shown[place].stated,
            )  # fmt: skip
        elif place in edited:
            is_open = place in elsewhere
            line = Editable(place, None, text, was, verdicts.get(place), is_open=is_open, is_edited=True)
            if line.verdict is None and line.is_open:
                carried.append(line)
            else:
                shown[place] = line
    return page(
        request, "mend.html", status=status, row=row, lines=[shown[place] for place in sorted(shown)], chosen=chosen,
        carried=carried,
        pages=max(1, -(-(open_lines if chosen.code else row["open_failures"]) // LINES)), more=len(rows) > LINES,
        groups=groups, groups_stated=[group for group in groups if group.code in told], notice=notice, reason=reason,
        mendable=row["state"] in KEEPS_LINES,
        as_of=published.as_of, most_mb=_UPLOADED_AT_MOST >> 20, checked=bool(verdicts),
        right=sum(bool(one.becomes) for one in verdicts.values()), wrong=wrong,
        can_send=pipeline.settings.uploads_bucket is not None,
    )  # fmt: skip


# --- check -----------------------------------------------------------------------------------------------------------


def verdicts_of(
    judged: Iterable[tuple[Place, list[Item]]], mended: Mapping[Place, bytes]
) -> Iterator[tuple[Place, Verdict]]:
    """What judged lines are: right only if every item of a line is."""
    for place, items in judged:
        failures = [failure for item in items for failure in item.failures]
        becomes = () if failures else tuple(command.kind for item in items for command in item.commands)
        told = [failure.told() for failure in failures]
        yield place, Verdict(mended[place], becomes, *first_failures(told))


def _checked(
    pipeline: "Pipeline", published: "ReadModel", row: Mapping[str, Any], mended: Mapping[Place, bytes], same_lines: int
) -> Checked:
    open_places = published.open_among(row["file_id"], mended.keys())
    right: dict[str, int] = {}
    wrong: list[tuple[Place, Verdict]] = []
    wrong_lines = blank_lines = 0
    unjudged = {place for place, has_text in open_places.items() if place[1] and not has_text}
    to_judge = {place: raw for place, raw in mended.items() if place in open_places and place not in unjudged}
    contexts = _contexts(published, row, to_judge)
    for place, verdict in verdicts_of(judge_mended(pipeline, row, to_judge, contexts), to_judge):
        if verdict.failures:
            wrong_lines += 1
            wrong += [(place, verdict)] if wrong_lines <= _WRONG_SHOWN else []
        elif verdict.becomes:
            name = " and ".join(verdict.becomes[:5]) + " …" * (len(verdict.becomes) > 5)
            right[name] = right.get(name, 0) + 1
        else:
            blank_lines += 1
    others = sorted(mended.keys() - open_places)
    not_open, not_open_lines = others[:_WRONG_SHOWN], len(others)
    return Checked(right, wrong, wrong_lines, blank_lines, not_open, not_open_lines, same_lines, len(unjudged))


def _contexts(published: "ReadModel", row: Mapping[str, Any], places: Iterable[Place]) -> dict[Place, bytes | None]:
    """What items of documents are judged with. Lines need nothing."""
    wanted = {place for place in places if place[1]}
    if not wanted:
        return {}
    lines = published.open_lines(row["file_id"])
    return {place: line["context"] for line in lines if (place := (line["line"], line["item"])) in wanted}


# --- send ------------------------------------------------------------------------------------------------------------


def sent_on(
    request: Request, visitor: Visitor, pipeline: "Pipeline", file_id: str, mended: Mapping[Place, bytes], reason: str
) -> Response:
    """Start the run that loads mended lines, and lead to its page."""
    return _begun(request, visitor, file_id, *_kept(pipeline, visitor, file_id, mended), reason)


def _begun(request: Request, visitor: Visitor, file_id: str, lines_at: str | None, lines: int, reason: str) -> Response:
    """Without `lines_at` all open lines are judged again."""
    conf: dict[str, Any] = {"action": "redrive", "files": [file_id], "reason": reason[:_REASON_AT_MOST] or None}
    conf |= {} if lines_at is None else {"lines_at": lines_at}
    conf |= {"sent": lines} if lines else {}
    return runs.start(request, visitor, ACTION_DAG, conf)


def came_of(result: Mapping[str, Any]) -> list[str]:
    """What a run says of fixed lines that it was given, in sentences."""
    not_loaded = ", so what was sent now in place of it was not loaded."
    not_failed = "not fail, so what was sent is not loaded."
    words = {  # of one line, of several
        "fixed": ("is fixed.", "are fixed."),
        "still_wrong": ("still wrong: it stays open.", "still wrong: they stay open."),
        "already": ("was fixed before" + not_loaded, "were fixed before" + not_loaded),
        "not_failed": ("does " + not_failed, "do " + not_failed),
        "open": ("of this file is open.", "of this file are open."),
    }
    told = [f"{count(number, 'line')} {words[name][number != 1]}" for name in words if (number := result.get(name))]
    none_left = result.get("fixed") and not result.get("open")
    return told + ["No line of this file is open any more."] * bool(none_left)


@dataclass(frozen=True, slots=True)
class Fixes:
    """Redrives of a file that came from pages, so that their lines can be sent again."""

    redrives: list[dict[str, Any]]  # in the order in which they were loaded
    lines_at: str  # where their lines are, one address a line


def sent_fixes(related: Iterable[dict[str, Any]], state: "State") -> Fixes:
    """Of the redrives in this state, among the files that are related to one."""
    found = [one for one in related if one["relation"] == "redrive" and one["state"] == state and one["run_id"]]
    addresses = runs.sent_fixes(one["run_id"] for one in found)
    redrives = [one for one in reversed(found) if one["run_id"] in addresses]
    every = dict.fromkeys(at for one in redrives for at in addresses[one["run_id"]].split("\n"))
    return Fixes(redrives, "\n".join(every))


def _kept(pipeline: "Pipeline", visitor: Visitor, file_id: str, mended: Mapping[Place, bytes]) -> tuple[str, int]:
    """Where mended lines wait for their run, and how many: not in its values, which readers of its DAG are shown."""
    # Lines that are no text, or hold U+0000, can be no JSON: they stay open.
    sound = sorted((place, raw) for place, raw in mended.items() if raw.strip() and b"\0" not in raw and is_text(raw))
    if not sound:
        raise HTTPException(400, "None of these lines can be right: each is empty, no UTF-8, or holds U+0000.")
    text = b"".join(placed(place, raw) for place, raw in sound)
    if len(text) > MENDED_AT_MOST:
        most = f"{MENDED_AT_MOST >> 20} MB of edited lines"
        raise HTTPException(413, f"These are more than {most}, the most that is sent at once: send some.")
    return keep_mended(pipeline, file_id, text, datetime.now(UTC), by=visitor.name), len(sound)


def _open_lines(row: Mapping[str, Any], code: str, kind: Literal["txt", "csv"]) -> Iterator[bytes]:
    with open_runtime() as pipeline, pipeline.warehouse.published() as published:
        lines = (line for line in published.open_lines(row["file_id"]) if code in ("", *line["codes"]))
        yield from as_text(lines) if kind == "txt" else as_csv(lines, meanings(row["format"]))
