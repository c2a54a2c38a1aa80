"""Whose request it is: a source is known by the key that a request carries.

Decides: where a key may stand in a request, how keys are stored (their SHA-256: they are random, so nothing slower is
         needed) and compared (all of them, each in constant time), and whether sources with keys can take what comes.
"""

import base64
import binascii
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from starlette.requests import Request

from ingest.core.source import LOCAL_BUCKET, intake_key
from ingest.discovery import takes
from ingest.errors import ConfigError
from ingest.settings import Settings, Source

_PREFIX: Final = "sha256:"
KeysIn = Callable[[Request], list[bytes]]  # what of a request may be its key


def new_key() -> str:
    """A key that nobody guesses: 256 random bits in letters that every header and query takes."""
    return f"lf_{secrets.token_urlsafe(32)}"


def hashed(key: bytes) -> str:
    """A key as ingest.toml has it."""
    return f"{_PREFIX}{sha256(key).hexdigest()}"


class Keys:
    """The keys of all sources that have any."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._known = [
            (bytes.fromhex(key.removeprefix(_PREFIX)), source) for source in sources for key in source.intake_keys
        ]

    def source(self, given: Iterable[bytes], format: str, name: str | None = None) -> Source | None:
        """The source of this format (and name) that one of the given keys belongs to."""
        found = None
        digests = [sha256(key).digest() for key in given]
        for known, source in self._known:  # to the end, whatever is found: time shall tell nothing
            for digest in digests:
                if compare_digest(digest, known) and source.format == format and name in (None, source.name):
                    found = source
        return found


def keys_of(settings: Settings) -> Keys:
    """The keys of the sources that have an endpoint.

    Raises ConfigError: there is none, a key is shared, or what would be stored for a source is not taken by it alone.
    """
    sources = [source for source in settings.sources.values() if source.intake_keys]
    problems = [] if sources else ["No source has intake_keys, so there is nothing to serve: `ingest serve --new-key`."]
    owners: dict[str, str] = {}
    for source in sources:
        problems += [
            f'source "{source.name}": it has an intake_key of source "{owners[key]}": each needs its own.'
            for key in dict.fromkeys(source.intake_keys)
            if owners.setdefault(key, source.name) != source.name
        ]
        key = object_key(source, int(datetime.now(UTC).timestamp() * 1_000_000), "0" * 8, 0)
        own = settings.own_prefixes(source.bucket)
        if not takes(source, key, own):
            because = f'pattern = "{source.pattern}"' if source.pattern else "a prefix that the program writes to"
            problems.append(
                f'source "{source.name}": with {because} it would not take what the intake stores for it, {key}:'
                " give the intake a source of its own."
            )
        problems += [
            f'source "{other.name}": it would take what the intake stores for source "{source.name}", {key}: give them'
            " prefixes outside each other."
            for other in settings.sources.values()
            if other is not source and other.bucket == source.bucket
            if key.startswith(other.prefix) and takes(other, key, own)
        ]
    if problems:
        raise ConfigError(*problems)
    return Keys(sources)


def object_key(source: Source, received_at: int, instance: str, number: int) -> str:
    """Where the intake puts an object of a source."""
    prefix = f"{source.prefix.rstrip('/')}/" if source.bucket == LOCAL_BUCKET else source.prefix
    return intake_key(prefix, received_at, instance, number)


# --- where a key may stand -------------------------------------------------------------------------------------------


def bearer(request: Request) -> list[bytes]:
    """`Authorization: Bearer KEY`."""
    scheme, credentials = _authorization(request)
    return [credentials] if scheme == b"bearer" else []


def basic_password(request: Request) -> list[bytes]:
    """`Authorization: Basic`, base64 of USER:KEY."""
    scheme, credentials = _authorization(request)
    return _decoded(credentials)[1:] if scheme == b"basic" else []


def token(request: Request) -> list[bytes]:
    """`Authorization: Basic KEY`, as it is or in base64 with a colon before or behind it; `Bearer KEY`."""
    scheme, credentials = _authorization(request)
    return [credentials, *filter(None, _decoded(credentials))] if scheme == b"basic" else bearer(request)


def query(name: str) -> KeysIn:
    """`?NAME=KEY`."""
    return lambda request: [value.encode() for value in request.query_params.getlist(name)]


def _authorization(request: Request) -> tuple[bytes, bytes]:
    """Scheme and credentials; both empty where there are none."""
    scheme, _, credentials = request.headers.get("authorization", "").encode("latin-1").partition(b" ")
    return (scheme.lower(), credentials.strip()) if credentials.strip() else (b"", b"")


def _decoded(credentials: bytes) -> list[bytes]:
    """User and password, where these are base64 of them."""
    try:
        name, _, password = base64.b64decode(credentials, validate=True).partition(b":")
    except binascii.Error:
        return []
    return [name, password]
