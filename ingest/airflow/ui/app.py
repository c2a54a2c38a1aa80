"""The application: every page asks for a login, every answer allows scripts and styles from here only.

In:     requests to Airflow's web server below /landfall.
Out:    HTML. What goes wrong is one sentence on a page, with the status that fits.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException as StarletteHTTPException

from ingest.airflow.ui.access import same_origin, visitor
from ingest.airflow.ui.view import page
from ingest.errors import IngestError, ObjectGone, TransientError

_log = logging.getLogger(__name__)
_STATIC: Final = Path(__file__).parent / "static"
# Nothing from elsewhere, nothing inline: what a producer sends stays text even where we forgot to escape it.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'self'"
)
_AGAIN_SECONDS: Final = 3
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def make_app() -> FastAPI:
    """All pages. Nothing answers without Airflow's login."""
    from ingest.airflow.ui.pages import acting, file, files, fixing, fixing_many, problems, run, run_lines, upload

    app = FastAPI(title="Landfall", docs_url=None, redoc_url=None, openapi_url=None)
    router = APIRouter(dependencies=[Depends(visitor), Depends(same_origin)])
    router.add_api_route("/static/{name}", static)
    for module in (files, problems, file, fixing, fixing_many, acting, run, run_lines, upload):
        router.include_router(module.router)
    app.include_router(router)
    app.middleware("http")(_with_headers)
    app.exception_handler(StarletteHTTPException)(_refused)
    app.exception_handler(RequestValidationError)(_misunderstood)
    app.exception_handler(IngestError)(_went_wrong)
    return app


def static(name: str) -> FileResponse:
    """A style, script or picture of ours. The names are known, so none is ever a path."""
    if name not in {file.name for file in _STATIC.iterdir()}:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(_STATIC / name, headers={"Cache-Control": "private, max-age=300"})


async def _with_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    request.state.begun = datetime.now(UTC)
    try:
        response = await answer(request)
    except OperationalError:  # of Airflow's own database: SQLite is locked while others write, a server is away
        _log.warning("page_waits path=%s", request.url.path, exc_info=True)
        response = _problem(request, 503, "Airflow's database did not answer in time.")
    except Exception:  # noqa: BLE001 - whatever it is, it gets our words and our headers
        _log.exception("page_failed path=%s", request.url.path)
        response = _problem(request, 500, "Something went wrong here that is not your fault. Airflow's own log has it.")
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    told = error.detail if error.detail != HTTPStatus(error.status_code).phrase else "There is no such page."
    return _problem(request, error.status_code, "Log in to Airflow first." if error.status_code == 401 else told)


def _misunderstood(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    wrong = ", ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
    return _problem(request, 400, f"The address of this page is wrong ({wrong}).")


def _went_wrong(request: Request, error: Exception) -> Response:
    statuses: dict[type[Exception], int] = {ObjectGone: 404, TransientError: 503}
    return _problem(request, statuses.get(type(error), 400), str(error))


def _problem(request: Request, status: int, sentence: str | None) -> Response:
    """One sentence: as JSON for a script, else on a page."""
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"error": sentence}, status)
    if status != 401:
        again = status == 503 and request.method == "GET"  # it passes, so the page looks again by itself
        response = page(request, "problem.html", status=status, sentence=sentence or "That did not work.", again=again)
        if again:
            response.headers["Refresh"] = str(_AGAIN_SECONDS)
        return response
    # Without a login there is no style and no script to fetch, so this page brings its own, and says which they are.
    nonce = secrets.token_urlsafe(16)
    own = {f"{kind}_text": (_STATIC / f"landfall.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")}
    response = page(request, "login.html", status=status, sentence=sentence, nonce=nonce, **own)
    response.headers["Content-Security-Policy"] = _POLICY.replace("-src 'self';", f"-src 'nonce-{nonce}';", 2)
    return response
