"""The HTTP application: a request becomes a body in the landing bucket, or is refused in the vendor's own words.

Nothing of a request is logged but its call, its status and the address it came from: keys stand in headers and queries.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import product
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from ingest import __version__
from ingest.errors import IngestError
from ingest.intake import bodies
from ingest.intake.bodies import BUSY_SECONDS, Refused
from ingest.intake.keys import keys_of
from ingest.intake.lately import Notices, Rates, shown
from ingest.intake.spool import Spool
from ingest.intake.vendors import CALLS, SCHEMES, Call, error_at
from ingest.ports import ObjectStore
from ingest.settings import Settings

_log = logging.getLogger(__name__)
_REFUSALS: Final = {
    400: "Not JSON, not of the shape of this call, or too many items (`vendor_limits`). Nothing was stored.",
    401: "No key, or none of a source of this format.",
    408: "The body stopped coming, or came too slowly.",
    413: "The body is too large, as sent or unpacked.",
    415: "The body is encoded otherwise than with gzip.",
    429: "More calls than the vendor allows (`vendor_limits`).",
    503: "The store did not take it, or too much is under way. Nothing was accepted: send it again.",
}
_ABOUT: Final = (
    "The import calls of Woopra, WebEngage, Retail Rocket and Vitally, and Kissmetrics lines. Success means that the"
    " body is durably stored; single bad items are stored too, and come up in the report of the load."
)


def make_app(settings: Settings, store_of: Callable[[str], ObjectStore]) -> FastAPI:
    """The application for these settings; `store_of`: by the name of a source. Raises ConfigError as `keys_of` does."""
    intake = _Intake(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        intake.spool = Spool(store_of)
        yield
        intake.spool.close()

    app = FastAPI(
        lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False,
        exception_handlers={HTTPException: intake.no_such_call},
    )  # fmt: skip
    for call in CALLS:
        for method, path in product(call.methods, (call.path, f"{call.path}/")):  # as some clients end it
            app.add_api_route(
                path, intake.endpoint(call), methods=[method], include_in_schema=path == call.path,
                operation_id="_".join([method.lower(), *re.findall(r"[\w.-]+", call.path)]),
                summary=call.title, description=call.tells, tags=[call.format],
                response_class=Response, responses=_answers(call), openapi_extra=_request(call),
            )  # fmt: skip
    app.add_api_route("/health", _health, methods=["GET"], summary="Whether the process answers", tags=["health"])
    app.add_api_route("/health", _health, methods=["HEAD"], include_in_schema=False)
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]  # as FastAPI's documentation has it
    return app


class _Intake:
    """What the calls share."""

    spool: Spool  # made when the event loop is there

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = keys_of(settings)
        self.room = bodies.room_of(settings)
        self.rates = Rates()
        self.notices = Notices()

    def endpoint(self, call: Call) -> Any:
        async def answer(request: Request) -> Response:
            try:
                await self._take(call, request)
            except Refused as refused:
                self._log_refusal(request, call, refused)
                return _refusal(call, refused)
            except asyncio.CancelledError:  # which only the end of the process does
                return _refusal(call, Refused(503, "It is stopping: send it again.", BUSY_SECONDS))
            except Exception:  # noqa: BLE001 - whatever it is, the client gets the words that it knows
                _log.exception("unforeseen call=%s from=%s", call.path, _address(request))
                return _refusal(call, Refused(503, "Something went wrong here: send it again.", BUSY_SECONDS))
            return Response() if call.success is None else _json(call.success)

        return answer

    async def no_such_call(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path, status = request.scope["path"], error.status_code
        headers = dict(error.headers or {})
        if status == 405:  # of which the first route that has the path tells its own methods only
            routes = [one for one in request.app.routes if one.matches(request.scope)[0] is not Match.NONE]
            headers["Allow"] = ", ".join(sorted({method for one in routes for method in one.methods}))
        place = shown(path)
        if times := self.notices.tell(f"{status} {place}"):
            _log.info("no_such_call status=%d path=%s from=%s times=%d", status, place, _address(request), times)
        return _json(error_at(path)[0](f"There is no such call ({error.detail})."), status, headers)

    def _log_refusal(self, request: Request, call: Call, refused: Refused) -> None:
        address = _address(request)
        if refused.status != 401:
            _log.info("refused call=%s status=%d from=%s", call.path, refused.status, address)
        elif times := self.notices.tell(f"{call.path} {address}"):
            _log.info("refused call=%s status=401 from=%s times=%d", call.path, address, times)

    async def _take(self, call: Call, request: Request) -> None:
        """Returns when the body is stored. Raises Refused."""
        source = self.keys.source(call.keys_in(request), call.format, request.path_params.get("source"))
        if source is None:
            raise Refused(401, "The key is missing or not known here.")
        if self.settings.intake_vendor_limits and (seconds := self.rates.wait(source.name, call.rates)):
            raise too_many_calls(seconds)
        with self.room.share() as grow:
            raw = await bodies.read(request, self.settings, grow)
            body = await bodies.aside(
                len(raw), lambda: bodies.check_within(raw, call.shape, call.format, self.settings, grow)
            )
            if self.settings.intake_vendor_limits and call.most_items and body.items > call.most_items:
                raise Refused(400, f"{body.items} items in one call; {call.most_items} are allowed.")
            grow(len(body.content))
            try:
                await self.spool.store(source, body)
            except IngestError as error:
                raise Refused(503, "It could not be stored: send it again.", BUSY_SECONDS) from error


def too_many_calls(seconds: int) -> Refused:
    """The refusal of a call that may come again after so many seconds."""
    return Refused(429, f"Too many calls: wait {seconds} second{'s' * (seconds != 1)}.", seconds)


async def _health() -> dict[str, str]:
    return {"status": "ok"}


def _refusal(call: Call, refused: Refused) -> Response:
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status == 401 and call.scheme != "apiKey":
        headers["WWW-Authenticate"] = 'Bearer realm="ingest"' if call.scheme == "bearer" else 'Basic realm="ingest"'
    return _json(call.error(str(refused)), refused.status, headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, "application/json")


def _address(request: Request) -> str:
    return request.client.host if request.client else "?"


# --- the description -------------------------------------------------------------------------------------------------


def _request(call: Call) -> dict[str, Any]:
    """Of the API description what FastAPI cannot know: it sees raw bytes."""
    in_path = [part[1:-1] for part in call.path.split("/") if part.startswith("{")]
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in in_path
    ]
    parameters += [
        {"name": name, "in": "query", "description": f"{tells}; without effect.", "schema": {"type": "string"}}
        for name, tells in call.parameters.items()
    ]
    body = {"required": True, "content": {call.media_type: {"schema": call.schema, "example": call.example}}}
    return {"parameters": parameters, "requestBody": body, "security": [{call.scheme: []}]}


def _answers(call: Call) -> dict[int | str, dict[str, Any]]:
    success: dict[str, Any] = {"description": "Durably stored."}
    if call.success is not None:
        success["content"] = {"application/json": {"schema": {"const": call.success}, "example": call.success}}
    told = {"application/json": {"schema": call.error_schema, "example": call.error("What is wrong.")}}
    answers: dict[int | str, dict[str, Any]] = {200: success}
    for status, description in _REFUSALS.items():
        answers[status] = {"description": description, "content": told}
        if status in {429, 503}:
            seconds = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
            answers[status]["headers"] = {"Retry-After": seconds}
    return answers


def _description(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        found = get_openapi(title="Landfall's HTTP intake", version=__version__, description=_ABOUT, routes=app.routes)
        found.setdefault("components", {})["securitySchemes"] = dict(SCHEMES)
        for path, item in found["paths"].items():
            told = {"application/json": {"schema": error_at(path)[1]}}
            for operation in item.values():
                operation["responses"] |= {
                    "404": {"description": "There is no such path.", "content": told},
                    "405": {"description": "Not with this method.", "content": told},
                }
        app.openapi_schema = found
    return app.openapi_schema
