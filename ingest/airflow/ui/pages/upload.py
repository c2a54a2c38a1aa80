"""Files from a person's disk: streamed into the bucket for uploads, then checked or loaded by a run.

The bytes come first, with keys of our own making; the form that starts the run names only these keys. How much of a
file is on its way never depends on its size: a store that is slow slows the browser.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from anyio import CapacityLimiter, fail_after, from_thread, to_thread
from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from ingest.airflow.names import ONE_OFF_DAG
from ingest.airflow.ui import runs
from ingest.airflow.ui.access import Visitor, VisitorDep
from ingest.airflow.ui.runtime import known_sources, loaded_copy, open_runtime, settings
from ingest.airflow.ui.view import page
from ingest.core.formats import FORMATS
from ingest.core.formats.guess import AUTO
from ingest.core.source import ONE_OFF
from ingest.discovery import own_object, owner_of
from ingest.errors import ConfigError, IngestError, TooLarge, TransientError
from ingest.settings import Settings
from ingest.uploads import allow_load, store_upload, too_large

router = APIRouter()

# Each has a few parts of some MB in memory. Others wait before their first byte is read.
_at_once: Final = CapacityLimiter(3)
_FILES_AT_ONCE: Final = 100  # for one run
_NAME_AT_MOST: Final = 1_000  # characters that are looked at of a file's name
_OUR_NAME: Final = re.compile(
    r"(sources/[a-z0-9_]+/)?\d{4}/\d\d/\d\d/\d{8}T\d{6}Z-[0-9a-f]{12}-[A-Za-z0-9._-]{1,60}\.json(\.gz)?"
)
_SILENT_SECONDS: Final = 30  # a browser that sends nothing for so long would hold up those that wait
_GONE: Final = 499  # nobody reads the answer


def _limits(visitor: VisitorDep) -> Settings:
    """The settings, for those who may send files. Raises HTTPException 403, 409 where there is no bucket for them."""
    visitor.demand_run(ONE_OFF_DAG)
    found = settings()
    if found.uploads_bucket is None:
        raise HTTPException(409, "No bucket for uploads is set: [uploads] is missing in ingest.toml.")
    return found


LimitsDep = Annotated[Settings, Depends(_limits)]


@router.get("/upload")
def upload(request: Request, visitor: VisitorDep, source: str = "") -> Response:
    """The form; `source` is chosen in it beforehand."""
    visitor.demand_run(ONE_OFF_DAG)
    found = settings()
    sources = [name for name in sorted(found.sources) if visitor.runs(name)]
    return page(
        request, "upload.html", settings=found, sources=sources, chosen=source, formats=FORMATS, auto=AUTO,
        one_off=ONE_OFF, at_once=_FILES_AT_ONCE,
    )  # fmt: skip


@router.put("/upload/file")
async def store(
    request: Request, visitor: VisitorDep, limits: LimitsDep, name: str = "", source: str = ONE_OFF
) -> Response:
    """Store the body of the request, for a source or for none. Whatever goes wrong leaves nothing in the bucket."""
    await to_thread.run_sync(_demand_source, visitor, limits, source)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.uploads_max_bytes:  # else it is counted as it comes
        return JSONResponse({"error": too_large(limits.uploads_max_bytes)}, 413)
    try:
        told = await to_thread.run_sync(
            _store, visitor, request.stream(), name[:_NAME_AT_MOST], source, limiter=_at_once, abandon_on_cancel=False
        )
    except ClientDisconnect:
        return Response(status_code=_GONE)
    except IngestError as error:
        statuses: dict[type[IngestError], int] = {TooLarge: 413, TransientError: 503, ConfigError: 409}
        return JSONResponse({"error": str(error)}, statuses.get(type(error), 400))
    return JSONResponse(told)


@router.post("/upload/{action}")
def begin(
    request: Request, visitor: VisitorDep, limits: LimitsDep, action: Literal["check", "load"],
    key: Annotated[list[str], Form(max_length=_FILES_AT_ONCE)], source: Annotated[str, Form()] = ONE_OFF,
    format: Annotated[str, Form()] = AUTO,
) -> Response:  # fmt: skip
    """Start the run over uploads, and lead to the page that waits for it."""
    bucket = str(limits.uploads_bucket)
    owners = {_owner(limits, bucket, one) for one in key}
    for owner in (*owners, source):
        _demand_source(visitor, limits, owner)
    if owners != {source}:
        raise HTTPException(400, f"This file was sent for another source than {source}: send it again.")
    if format not in (AUTO, *FORMATS):
        raise HTTPException(400, "There is no such format.")
    if source != ONE_OFF and format not in (AUTO, its := limits.sources[source].format):
        raise HTTPException(400, f"Files of the source {source} have the format {its}: leave the choice of the format.")
    if source != ONE_OFF and action == "load":
        with open_runtime() as pipeline:
            for one in key:
                allow_load(pipeline, bucket, one, by=visitor.name)
    conf = {"lines": None, "action": action, "format": format, "force": False}
    return runs.start(request, visitor, ONE_OFF_DAG, {"files": [f"s3://{bucket}/{one}" for one in key]} | conf)


def _owner(limits: Settings, bucket: str, key: str) -> str:
    """The source that an upload was sent for. Raises HTTPException 400 for what is none."""
    ours = limits.is_upload(bucket, key) and _OUR_NAME.fullmatch(key.removeprefix(limits.uploads_prefix))
    if not ours or own_object(limits, bucket, key):
        raise HTTPException(400, "This is no file that was uploaded here: choose it again.")
    return owner_of(limits, bucket, key) or ONE_OFF


def _demand_source(visitor: Visitor, limits: Settings, source: str) -> None:
    """Raises HTTPException 403 unless the visitor may put files into a source: one that is not there is not told."""
    if source != ONE_OFF and (source not in limits.sources or not visitor.runs(source)):
        raise HTTPException(403, "There is no such source, or you may not run its DAG.")


def _store(visitor: Visitor, stream: AsyncIterator[bytes], name: str, source: str) -> dict[str, Any]:
    """In a thread of its own, which asks the browser for more only when the store has room."""
    with open_runtime() as pipeline:
        stored = store_upload(pipeline, _pieces(stream), name, by=visitor.name, at=datetime.now(UTC), source=source)
        twin = None
        with suppress(TransientError):  # the upload is there all the same
            twin = loaded_copy(pipeline, stored.sha256, visitor.seen(known_sources(pipeline)))
    shown = ("file_id", "source", "key", "state", "loaded_at")
    return asdict(stored) | {"twin": twin and jsonable_encoder({name: twin[name] for name in shown})}


def _pieces(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """What arrives, piece by piece: nothing is read ahead, so the browser waits. Raises ClientDisconnect if it left."""
    while (piece := from_thread.run(_next, stream)) is not None:
        yield piece


async def _next(stream: AsyncIterator[bytes]) -> bytes | None:
    try:
        with fail_after(_SILENT_SECONDS):
            return await anext(stream, None)
    except TimeoutError:
        raise TransientError(f"Nothing came for {_SILENT_SECONDS} seconds: send the file again.") from None
