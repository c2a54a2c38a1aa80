"""How a store is reached: a boto3 client, and what boto3 leaves open.

Decides: how long the store may take. An answer that does not begin within `read_timeout` is given up, and not asked for
         again at once: the next poll does. One that comes at less than LEAST_RATE bytes a second is given up, too.
         That a request carries a checksum only where the user says so: other stores than AWS refuse the newer trailing
         ones. What we write carries Content-MD5, which every store knows and Object Lock asks for.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from botocore.utils import parse_timestamp
from urllib3 import exceptions as http

from ingest.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

READ_TIMEOUT_SECONDS: Final = 60.0
LEAST_RATE: Final = 1024  # bytes a second, while we wait for them
_PATIENCE_SECONDS: Final = 30.0  # over which the rate is taken
_PIECE_BYTES: Final = 256 * 1024
_CHECKSUMS: Final = "request_checksum_calculation"


class TooSlowError(aws.ReadTimeoutError):
    """An answer comes, but so slowly that it would hold up everybody else."""

    fmt = "{endpoint_url}: the answer comes too slowly"


def make_client(
    profile: str | None = None,
    endpoint_url: str | None = None,
    *,
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
    somebody_waits: bool = False,
) -> "S3Client":
    """A client from boto3's own settings: environment, profiles, roles, AWS_ENDPOINT_URL_S3.

    `somebody_waits`: for an answer, and will ask again, so that a store which does not answer is given up soon.

    Raises ConfigError: those settings cannot be used.
    """
    try:
        session = boto3.Session(profile_name=profile)
        told = session._session.get_config_variable  # the only way to see what the user has set
        mode = told("retry_mode")
        config = Config(
            connect_timeout=3 if somebody_waits else 10,
            read_timeout=min(read_timeout_seconds, 20) if somebody_waits else read_timeout_seconds,
            max_pool_connections=32,
            tcp_keepalive=True,
            retries={
                "mode": "standard" if mode == "legacy" else mode,  # `standard` also retries what `legacy` lets through
                "total_max_attempts": told("max_attempts") or (2 if somebody_waits else 5),
            },
        )
        plain = None if _CHECKSUMS in session._session.get_scoped_config() else plain_checksums()
        return session.client("s3", endpoint_url=endpoint_url, config=config.merge(plain) if plain else config)
    except (aws.BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"The AWS settings cannot be used ({error}): see AWS_PROFILE, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL_S3"
        ) from error


def plain_checksums() -> Config | None:
    """No checksum in requests that need none; None where the user's environment decides that."""
    return None if os.environ.get(f"AWS_{_CHECKSUMS.upper()}") else Config(request_checksum_calculation="when_required")


def settle(client: "S3Client", *, requester_pays: bool = False, patience_seconds: float | None = None) -> None:
    """Make a client keep what this module promises. `patience_seconds`: over how long the least rate is taken."""
    endpoint: Any = getattr(client, "_endpoint", None)
    if endpoint is not None and not isinstance(endpoint.http_session, _PacedSession):
        patience = patience_seconds or min(_PATIENCE_SECONDS, _read_timeout(client))
        pools = endpoint.http_session._pool_classes_by_scheme
        pools |= {scheme: _bounded(pool, _read_timeout(client)) for scheme, pool in pools.items()}
        endpoint.http_session = _PacedSession(endpoint.http_session, patience)
        # The AWS command line sets the reader of times in the same place. botocore's own takes two thirds of the time
        # of a listing, since it has to guess the format of each.
        endpoint._response_parser_factory.set_parser_defaults(timestamp_parser=_timestamp)
    events: Any = client.meta.events
    events.register_first("needs-retry.s3", _give_up)
    if requester_pays:
        events.register("before-call.s3", _pay)


def _read_timeout(client: "S3Client") -> float:
    return float(client.meta.config.read_timeout or READ_TIMEOUT_SECONDS)  # type: ignore[attr-defined]


def _give_up(operation: Any, response: Any = None, caught_exception: Exception | None = None, **_: object) -> None:
    """What must not be tried again at once."""
    # Time-outs are what they say: five attempts would make five minutes of one.
    if isinstance(caught_exception, (aws.ReadTimeoutError, aws.ConnectTimeoutError)):
        raise caught_exception
    # boto3 itself asks so where it was redirected. Redirected again, it would ask for ever.
    if operation.name == "HeadBucket" and response is not None and response[0].status_code >= 300:
        raise aws.ClientError(response[1], operation.name)


def _pay(params: dict[str, Any], **_: object) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def _bounded(pool: Any, seconds: float) -> Any:
    """A pool of connections on which the beginning of an answer, its headers, may take so long; not each byte of it."""

    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        def getresponse(self, *args: Any, **more: Any) -> Any:
            is_over = threading.Event()

            def end() -> None:
                is_over.set()
                with suppress(OSError, AttributeError):
                    self.sock.shutdown(socket.SHUT_RDWR)

            timer = threading.Timer(seconds, end)
            timer.daemon = True
            timer.start()
            try:
                response = super().getresponse(*args, **more)
            except Exception as error:
                if is_over.is_set():
                    raise TimeoutError("the headers came too slowly") from error
                raise
            finally:
                timer.cancel()
            if is_over.is_set():  # headers that are cut off look like whole ones
                response.close()
                raise TimeoutError("the headers came too slowly")
            return response

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


class _PacedSession:
    """botocore's HTTP session, whose answers are read at a least rate: of objects and of listings alike."""

    def __init__(self, session: Any, patience_seconds: float) -> None:
        self._session = session
        self._patience_seconds = patience_seconds

    def send(self, request: Any) -> Any:
        if request.method != "GET":  # while it copies or puts parts together, a store sends a blank now and then
            return self._session.send(request)
        streamed, request.stream_output = request.stream_output, True
        response = self._session.send(request)
        response.raw = _PacedBody(response.raw, request, self._patience_seconds)
        if not streamed:
            _ = response.content  # as botocore would have read it
        return response

    def close(self) -> None:
        self._session.close()


class _PacedBody:
    """The body of an answer. Only waiting for bytes counts, not what is done between two reads."""

    def __init__(self, raw: Any, request: Any, patience_seconds: float) -> None:
        self._raw = raw
        self._request = request
        self._patience_seconds = patience_seconds
        self._waited_seconds = 0.0
        self._received_bytes = 0

    def read(self, size: int | None = None) -> bytes:
        pieces: list[bytes] = []
        left = size
        while left is None or left > 0:
            piece = self._receive(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
            if not piece:
                break
            pieces.append(piece)
            left = None if left is None else left - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def stream(self, size: int = _PIECE_BYTES) -> Iterator[bytes]:
        while piece := self.read(size):
            yield piece

    def _receive(self, most: int) -> bytes:
        """What is there, after waiting for it at most once."""
        begun = time.monotonic()
        url = self._request.url
        try:
            piece: bytes = self._raw.read1(most)
        except http.ReadTimeoutError as error:
            raise aws.ReadTimeoutError(endpoint_url=url, error=error) from error
        except http.ProtocolError as error:
            raise aws.ConnectionClosedError(endpoint_url=url, request=self._request, error=error) from error
        self._waited_seconds += time.monotonic() - begun
        self._received_bytes += len(piece)
        if self._waited_seconds >= self._patience_seconds:
            if self._received_bytes < LEAST_RATE * self._waited_seconds and piece:
                self._raw.close()
                raise TooSlowError(endpoint_url=url, error=None)
            self._waited_seconds, self._received_bytes = 0.0, 0
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


def _timestamp(value: Any) -> datetime | None:
    """A time as S3's listings and headers write it; any other as botocore reads it.

    None: it is none, and one object's oddity.
    """
    with suppress(ValueError, OverflowError):
        if isinstance(value, str) and value[4:5] == "-":
            with suppress(ValueError):
                return datetime.fromisoformat(value)
        if isinstance(value, str) and value.endswith(" GMT"):
            with suppress(ValueError):
                return parsedate_to_datetime(value)
        return parse_timestamp(value)
    return None
