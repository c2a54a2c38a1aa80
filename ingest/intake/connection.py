"""A connection: what it may hold before anybody knows whose it is, and how it ends.

Decides: how long a request may be before its body, and how slow; which connections go when there are too many; that
         who is refused early gets the answer. All of it before a key is looked at.
Answer:  a client that sends while it is refused would be reset when the connection is closed, and lose the answer. So
         only our side is closed, and what still comes is read and thrown away, up to a limit and for a while.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast

import httptools
import orjson
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ingest.intake.lately import Notices
from ingest.intake.vendors import error_at

_log = logging.getLogger(__name__)

HEAD_BYTES: Final = 32 << 10  # of a request before its body, and of what stands between the parts of one
_URL_BYTES: Final = 8 << 10
_FIELDS: Final = 100
_HEAD_SECONDS: Final = 20  # from the first byte of a request to the first of its body
_PIPELINED: Final = 16  # requests that wait for the answer to one before them
_DRAINED_BYTES: Final = 256 << 20  # what is thrown away of a request that was refused
_DRAIN_SECONDS: Final = 30
# What comes beyond them gets 503 at once, where else the open files of the process would run out (1,024, mostly).
CONNECTIONS: Final = 900
_CROWDED: Final = 800  # from here on, those that are slowest to say what they want have to go
_SLOW_SECONDS: Final = 1
_MOST: Final = 980


class TooMuch(Exception):
    """A request is longer than allowed before its body begins."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection(HttpToolsProtocol):
    """One connection, as uvicorn has it, within limits."""

    _notices: ClassVar = Notices()
    # Those in the middle of a head, or refused and still sending, and since when: the oldest first.
    _idlers: ClassVar[dict["Connection", float]] = {}

    _open: asyncio.Transport  # the connection itself; `transport` is what uvicorn writes to and closes
    _timer: asyncio.TimerHandle | None = None
    _held = 0  # bytes since the last that were of a body, or ended a head
    _head = 0  # bytes of the head that the parser has found
    _in_body = False
    _in_head = False  # it has begun
    _is_deaf = False  # what comes is thrown away
    _drained = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._open = transport
        self.transport = cast("asyncio.Transport", _Ending(self))
        if len(self.connections) > _CROWDED and self._idlers:
            oldest, since = next(iter(self._idlers.items()))
            if self.loop.time() - since > _SLOW_SECONDS:
                oldest.leave()
        if len(self.connections) > _MOST:
            self.leave()
        else:
            self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        self.transport = self._open
        super().connection_lost(exc)

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._open.close()
        else:
            super().shutdown()

    def leave(self) -> None:
        """End it without a word."""
        self._wait_no_more()
        self._open.abort()

    def end(self) -> None:
        """Close it, so that what was written is read."""
        if not (self._in_body or self._in_head or self._is_deaf) or len(self.connections) > CONNECTIONS:
            self._open.close()
            return
        self._is_deaf = True
        self._wait_no_more()
        try:
            self._open.write_eof()
        except OSError:
            self._open.abort()
            return
        self.flow.resume_reading()
        self._wait(_DRAIN_SECONDS, self._open.abort)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        for start in range(0, len(data), HEAD_BYTES):  # so that little of what is too much is looked at
            if self._is_deaf:
                self._drained += len(data) - start
                if self._drained > _DRAINED_BYTES:
                    self._open.abort()
                return
            if self._open.is_closing():
                return
            part = data[start : start + HEAD_BYTES]
            self._held += len(part)
            try:
                while part:
                    try:
                        self.parser.feed_data(part)
                        break
                    except httptools.HttpParserUpgrade as upgrade:
                        part = self._stay(part[upgrade.args[0] :])
                if self._held > HEAD_BYTES:
                    raise _too_long()
            except TooMuch as error:
                self._refuse(error.status, str(error))
            except httptools.HttpParserError as error:
                cause = error.__context__
                if isinstance(cause, TooMuch):
                    self._refuse(cause.status, str(cause))
                else:
                    self._refuse(400, "This is no HTTP request.")
        if not (self._is_deaf or self._in_body) and (self._in_head or self._held):
            self._begin_head()

    def _stay(self, rest: bytes) -> bytes:
        """What to read where a request offers another protocol (Java does), as if it did not: else its body is lost."""
        if self.parser.get_method() == b"CONNECT":
            raise httptools.HttpParserError
        fields = [field for field in self.headers if field[0] not in (b"connection", b"upgrade", b"http2-settings")]
        lines = [b"%b %b HTTP/1.1" % (self.parser.get_method(), self.url), *map(b": ".join, fields), b"", b""]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"\r\n".join(lines) + rest

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head = True, 0
        self.scope["state"]["is_whole"] = False  # it is there: a copy for each request

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _URL_BYTES:
            raise TooMuch(414, f"The address is longer than {_URL_BYTES:,} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # what comes behind a body is not believed: a proxy did not look there
            super().on_header(name, value)
        self._head += len(name) + len(value)
        if self._head > HEAD_BYTES or len(self.headers) > _FIELDS:
            raise _too_long()

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        if len(self.pipeline) >= _PIPELINED:
            raise TooMuch(429, "Wait for the answers to the requests before this one.")
        self._wait_no_more()
        self._in_head, self._in_body, self._held = False, True, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._held = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._in_body, self._held = False, 0
        self.scope["state"]["is_whole"] = True
        super().on_message_complete()

    # --- heads --------------------------------------------------------------------------------------------------------

    def _begin_head(self) -> None:
        if self._timer is None and not self._open.is_closing():
            self._wait(_HEAD_SECONDS, self._head_is_late)

    def _wait(self, seconds: float, late: Callable[[], object]) -> None:
        self._idlers[self] = self.loop.time()
        self._timer = self.loop.call_later(seconds, late)

    def _wait_no_more(self) -> None:
        self._idlers.pop(self, None)
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._wait_no_more()
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self._in_head:
            self._refuse(408, f"The head of the request was not whole after {_HEAD_SECONDS} seconds.")
        if not is_answering:
            self._open.close()  # what did not come needs not be thrown away

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request, or too much of one, and end the connection."""
        if self._is_deaf:
            return
        if self.cycle and not self.cycle.response_complete:
            if not self._in_body:  # what came before is answered; then the connection ends
                self._is_deaf, self.cycle.keep_alive = True, False
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        path = getattr(self, "url", b"").partition(b"?")[0].decode("latin-1")  # none where nothing of it came
        if since := self._notices.tell(f"{status}"):
            address = self.client[0] if self.client else "?"
            _log.info("refused status=%d from=%s times=%d: %s", status, address, since, message)
        body = orjson.dumps(error_at(path)[0](message))
        self._open.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        self._in_head = True  # more of it may come
        self.end()


class _Ending:
    """A transport as uvicorn uses it, which is closed as `Connection.end` does it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open = connection._open
        self._is_ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._open, name)

    def write(self, data: bytes) -> None:
        if not self._is_ended:
            self._open.write(data)

    def is_closing(self) -> bool:
        return self._is_ended or self._open.is_closing()

    def close(self) -> None:
        if not self._is_ended:
            self._is_ended = True
            self._connection.end()


def _too_long() -> TooMuch:
    return TooMuch(431, f"The head of the request is longer than {HEAD_BYTES:,} bytes, or has over {_FIELDS} fields.")


def ending(app: Any) -> ASGI3Application:
    """The application; where it answers before a request is whole, it says that the connection ends."""

    async def answering(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def say(message: ASGISendEvent) -> None:
            if message["type"] == "http.response.start" and not scope["state"]["is_whole"]:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await app(scope, receive, say if scope["type"] == "http" else send)

    return answering
