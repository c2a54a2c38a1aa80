"""From the bytes of a request to what is stored of it: within the limits, unpacked, of the shape of its call.

Decides: what is refused as a whole (nothing of it is stored), with which status and words. What is wrong with single
         items is not looked at: they are stored, and come up in the report of the file.
Stored:  bodies that are a JSON document on one line each, so that documents of many bodies stand in one object. Line
         feeds in JSON stand outside strings: they become spaces, all else stays as it was sent.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request

from ingest.core.filetype import kind_of
from ingest.core.formats import open_format
from ingest.core.formats.guess import other_format
from ingest.core.formats.kissmetrics_octal import is_object
from ingest.core.jsontext import (
    Undecodable,
    behind_white,
    end_of,
    holds_more,
    parse,
    values_allowed,
    values_at_most,
)  # fmt: skip
from ingest.documents import documents
from ingest.errors import TransientError
from ingest.reading import BOM, HEAD_BYTES, MAGIC_BYTES, gunzipped, is_compressed
from ingest.settings import Settings

_PIECE_BYTES: Final = 1 << 20
_SILENT_SECONDS: Final = 30  # a client that sends nothing for so long in the middle of a body is given up
_BODY_SECONDS: Final = 600  # and one that never falls silent, after this: 10 MiB at 140 kbit a second
_REQUEST_BYTES: Final = 16 << 10  # what a request takes beside its body
_VALUE_BYTES: Final = 128  # what a value of JSON takes when it is decoded, about
_LINE_BYTES: Final = 64  # and a line, when lines are told from each other
_WHITE: Final = b" \t\r\n"
_JOINTS_AT_MOST: Final = 100_000  # of a body: what `curl -d @FILE` joins has some hundred bytes each
_LINES_TRIED: Final = 10_000  # for a first object
_JOINT: Final = re.compile(rb"\}[ \t\r\n]*\{")
_JOINT_IN_LINE: Final = re.compile(rb"\}[ \t\r]*\{")
T = TypeVar("T")
BUSY_SECONDS: Final = 5  # after which a client may come back


class Refused(Exception):
    """Nothing of the body was stored. The text is for the client."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after  # seconds


class Room:
    """How much of bodies the process holds at once, from their first byte to the answer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._lock = threading.Lock()  # large bodies are worked on in threads

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Room for one request: call with the bytes that it takes more, or less (negative). Raises Refused."""
        mine = 0

        def grow(size: int) -> None:
            nonlocal mine
            with self._lock:
                if size > 0 and self._held + size > self._most:
                    raise Refused(503, "Too much is under way at once: send it again.", BUSY_SECONDS)
                self._held += size
                mine += size

        try:
            grow(_REQUEST_BYTES)
            yield grow
        finally:
            with self._lock:
                self._held -= mine


def room_of(settings: Settings) -> Room:
    """Room for many small bodies, or for some of the largest."""
    largest = settings.intake_max_body_bytes + 2 * settings.intake_max_decompressed_bytes
    return Room(max(256 << 20, 2 * largest, largest + _VALUE_BYTES * _values_allowed(settings)))


def _values_allowed(settings: Settings) -> int:
    largest = max(settings.intake_max_body_bytes, settings.intake_max_decompressed_bytes)
    return values_allowed(min(largest, settings.max_document_bytes))


async def read(request: Request, settings: Settings, grow: Callable[[int], None]) -> bytes:
    """The body of a request, unpacked, without a byte order mark. Raises Refused."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip"):
        raise Refused(415, "Content-Encoding may be gzip, or be left out.")
    most = settings.intake_max_body_bytes
    too_large = f"The body is larger than {most:,} bytes (max_body_bytes): send it in parts."
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise Refused(413, too_large)
    pieces, size = [], 0
    stream = request.stream()
    clock = asyncio.get_running_loop().time
    until = clock() + _BODY_SECONDS
    try:
        while True:
            async with asyncio.timeout_at(min(clock() + _SILENT_SECONDS, until)):
                piece = await anext(stream, None)
            if piece is None:
                break
            size += len(piece)
            if size > most:
                raise Refused(413, too_large)
            grow(len(piece))
            pieces.append(piece)
    except TimeoutError:
        if clock() >= until:
            raise Refused(408, f"The body was not whole after {_BODY_SECONDS} seconds: send it in parts.") from None
        raise Refused(408, f"Nothing came for {_SILENT_SECONDS} seconds.") from None
    except ClientDisconnect:
        raise Refused(400, "The body ended too early.") from None
    body = b"".join(pieces)
    if encoding.endswith("gzip"):
        # What is judged as one document may not be larger than one.
        limit = min(settings.intake_max_decompressed_bytes, settings.max_document_bytes)
        body = await aside(len(body), lambda: unpacked(body, limit, settings.intake_max_ratio, grow))
    return body.removeprefix(BOM)


async def aside(size: int, work: Callable[[], T]) -> T:
    """Do what takes long for large bodies in another thread, so that nobody else waits for it."""
    return await asyncio.to_thread(work) if size > 64 << 10 else work()


def unpacked(body: bytes, most: int, ratio: float, grow: Callable[[int], None]) -> bytes:
    """What a gzip holds. Raises Refused, for a bomb before it has grown."""
    content = bytearray()
    most = min(most, max(_PIECE_BYTES, int(ratio * len(body))))
    try:
        for piece in gunzipped([body]):
            if len(content) + len(piece) > most:
                raise Refused(
                    413, "The body unpacks to more than is taken (max_decompressed_bytes, max_ratio): send it in parts."
                )
            grow(len(piece))
            content += piece
    except TransientError:
        raise Refused(400, "The body is not gzip, as its Content-Encoding says, or it ends too early.") from None
    return bytes(content)


# --- shapes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Body:
    """What is stored of a request: whole lines."""

    content: bytes
    items: int  # as the vendor counts them
    alone: bool = False  # it holds broken documents, which might swallow what stands behind them in an object


Shape = Callable[[bytes], Body]


def array(body: bytes) -> Body:
    """A JSON array."""
    value = _json(body)
    if not isinstance(value, list):
        raise Refused(400, "The body has to be a JSON array.")
    return Body(_one_line(body), len(value))


def object_with(name: str) -> Shape:
    """An object of one array, called `name`."""

    def shape(body: bytes) -> Body:
        value = _json(body)
        items = value.get(name) if isinstance(value, dict) and len(value) == 1 else None
        if not isinstance(items, list):
            raise Refused(400, f'The body has to be a JSON object with an array "{name}", and nothing else.')
        return Body(_one_line(body), len(items))

    return shape


def visits(body: bytes) -> Body:
    """JSON objects, each on a line or spread over some, or one behind the other. One at least has to be whole."""
    lines = [line for line in body.split(b"\n") if line.strip()]
    if all(map(_is_object, lines)) and lines:
        return Body(b"".join(line + b"\n" for line in lines), len(lines))
    blocks = [block.data for block in documents([body], len(body))]
    parts = [(part, _is_object(part)) for block in blocks for part in apart(block)]
    sound = sum(is_sound for _, is_sound in parts)
    if not sound:
        raise _unread(body, "The body has to be JSON objects, one a line.")
    if sound < len(parts) == len(blocks):
        return Body(body.strip(_WHITE) + b"\n", len(parts), alone=True)
    content = b"".join(_one_line(part) if is_sound else part + b"\n" for part, is_sound in parts)
    return Body(content, len(parts), alone=sound < len(parts))


def lines(body: bytes) -> Body:
    """JSON objects, one a line, as Kissmetrics takes and exports them. One at least has to be there."""
    if _JOINT_IN_LINE.search(body):
        body = b"\n".join(map(_sorted_out, body.split(b"\n")))
    some = islice((line for line in body.split(b"\n") if line.strip()), _LINES_TRIED)
    if not any(_is_object(line) or (_is_closed(line) and is_object(line)) for line in some):
        raise _unread(body, "The body has to be JSON objects, one a line.")
    return Body(body if body.endswith(b"\n") else body + b"\n", body.count(b"\n"))


def _sorted_out(line: bytes) -> bytes:
    """A line as it is; or, where it is nothing but objects one behind the other, each of them on a line."""
    parts = apart(line)
    return b"\n".join(parts) if len(parts) > 1 and all(map(_is_object, parts)) else line


def apart(text: bytes) -> list[bytes]:
    """What stands one behind the other in a text: `curl -d @FILE` leaves out the ends of lines. Mostly it is one thing.

    A broken part goes up to where one that is whole begins behind a closing brace. All is read three times at most.
    """
    if not _JOINT.search(text) or _is_object(text):
        return [text]
    chars = text.decode("latin-1")  # a character a byte, and no other braces or quotes than in UTF-8
    parts = []
    begin = 0  # of what is not in parts yet
    at: int | None = 0  # where the next object may begin
    while at is not None:
        start = behind_white(chars, at)
        end, _ = end_of(chars, start) if chars.startswith("{", start) else (None, start)
        if end is None:
            joint = _JOINT.search(text, start)
            at = joint.end() - 1 if joint else None
        else:
            parts += [text[begin:start], text[start:end]]
            begin = at = end
    parts.append(text[begin:])
    return [stripped for part in parts if (stripped := part.strip(_WHITE))]


def check(body: bytes, shape: Shape, format: str) -> Body:
    """What is stored of a body. Raises Refused: it has not the shape of its call, or is clearly of another format."""
    if not body.strip(_WHITE):
        raise Refused(400, "The body is empty.")
    if is_compressed(body[:MAGIC_BYTES]):
        raise Refused(400, "The body is packed: pack it once, as gzip, and say so with Content-Encoding: gzip.")
    if kind := kind_of(body[:HEAD_BYTES]):
        raise Refused(400, f"The body is {kind.name}: {kind.remedy}.")
    if next(islice(_JOINT_IN_LINE.finditer(body), _JOINTS_AT_MOST, None), None):
        raise Refused(413, f"More than {_JOINTS_AT_MOST:,} objects stand one behind the other: put each on a line.")
    found = shape(body)
    # A file that begins with it would be refused as a whole, and with it what others sent.
    head = found.content[:HEAD_BYTES]
    if refusal := open_format(format).refusal(head):
        if other := other_format(format, head):  # the refusal's own words are for whoever loads a file
            raise Refused(400, f"The body seems to be {other}, and this address takes {format}.")
        raise Refused(400, " ".join(failure.message for failure in refusal.failures))
    return found


def check_within(body: bytes, shape: Shape, format: str, settings: Settings, grow: Callable[[int], None]) -> Body:
    """As `check`, with room for what the body is while it is looked at. Raises Refused."""
    if open_format(format).documents:
        allowed = _values_allowed(settings)
        if holds_more(body, allowed):
            raise Refused(413, f"The body holds more than {allowed:,} values: send it in parts.")
        takes = _VALUE_BYTES * min(allowed, values_at_most(body))
    else:
        takes = _LINE_BYTES * body.count(b"\n")
    grow(takes)
    try:
        return check(body, shape, format)
    finally:
        grow(-takes)


def _json(body: bytes) -> object:
    try:
        return _decoded(body)
    except orjson.JSONDecodeError as error:
        where = f" (line {error.lineno}, column {error.colno})" if error.lineno else ""
        raise _unread(body, f"The body is not JSON{where}.") from None


def _unread(body: bytes, otherwise: str) -> Refused:
    """Why a body cannot be read: that it is not UTF-8, where it is not; else as given."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return Refused(400, f"The body is not UTF-8: byte {error.start + 1:,} does not belong there.")
    return Refused(400, otherwise)


def _decoded(text: bytes) -> object:
    """What a text says. Raises orjson's error where it is not JSON to the judge either."""
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        # Numbers that no double can hold are JSON: the judge refuses their items alone.
        try:
            return parse(text)
        except Undecodable:
            raise error from None
    return value


def _is_closed(text: bytes) -> bool:
    """Whether it may be an object. Of many broken lines most are known by that, for a hundredth of the time."""
    text = text.strip(_WHITE)
    return text.startswith(b"{") and text.endswith(b"}")


def _is_object(text: bytes) -> bool:
    if not _is_closed(text):
        return False
    try:
        return isinstance(_decoded(text), dict)
    except orjson.JSONDecodeError:
        return False


def _one_line(text: bytes) -> bytes:
    return text.strip(_WHITE).replace(b"\n", b" ") + b"\n"
