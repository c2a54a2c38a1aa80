"""What a person sends: files, pasted lines and fixed lines, into the bucket for uploads; and the report of a check.

In:      pieces of bytes as they arrive, and the name that the file has on the person's disk; or text.
Out:     an object under a key of our own making, whole or not at all. A file is a source file like any other from there
         on; fixed lines wait there for the run that loads them.
Decides: what is refused while it arrives: too large, packed or unpacked; a bomb; empty; packed data that is damaged;
         what is another kind of file.
Raises:  TransientError wherever the store did not answer, or refused.
Memory:  flat. What is packed is unpacked to be counted, and thrown away.
"""

import logging
import re
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any, Final, cast

import orjson

from ingest.core.address import split_address
from ingest.core.filetype import HEAD_BYTES, kind_of
from ingest.core.jsontext import parse
from ingest.core.source import LOCAL_BUCKET, ONE_OFF, SourceFile
from ingest.discovery import MAY_LOAD, MENDED, UPLOADS_OF_SOURCES, owner_of
from ingest.errors import ConfigError, IngestError, ObjectGone, TooLarge, TransientError, UploadRefused
from ingest.pipeline import Pipeline
from ingest.reading import MAGIC_BYTES, Digest, decompressed, is_compressed, peek
from ingest.settings import CHECK_REPORT, Settings

# Bytes of fixed lines that are sent at once: twice what pages hold of a file, since fixed lines may be longer.
MENDED_AT_MOST: Final = 16 << 20
_NAME_LENGTH = 60
_STEP_BYTES = 64 << 10  # what is unpacked at a time: zlib copies what it leaves over, for each of many tiny members
_RATIO_FROM = 64 << 20  # unpacked bytes; smaller files of nothing but spaces are fine
_NOTHING_AT_MOST = 8 << 20  # packed bytes in a row that hold nothing, such as empty gzip members: they wait in memory
_REPORT_AT_MOST = 64 << 20
_EXTENSIONS = re.compile(r"(\.(json|jsonl|ndjson|gz|gzip|zst|zstd))+\Z", re.IGNORECASE)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    bucket: str
    key: str
    size_bytes: int
    sha256: str

    @property
    def uri(self) -> str:
        """What `ingest_one_off` is given for it."""
        return f"s3://{self.bucket}/{self.key}"


def store_upload(
    pipeline: Pipeline, pieces: Iterable[bytes], name: str, *, by: str, at: datetime, source: str = ONE_OFF
) -> Stored:
    """Stream a file into the bucket for uploads; `name` is what the person calls it, `by` who sends it.

    With a `source` it goes into the folder of that source, and so belongs to it (see `ingest.discovery.owner_of`): the
    caller has made sure that the person may run it.

    Whatever goes wrong, also what `pieces` raises when the client goes away, leaves nothing in the bucket.

    Raises:
        UploadRefused: the file cannot be taken as it is; TooLarge: it is over a limit.
        ConfigError: there is no bucket for uploads, or it may not be used.
    """
    settings = pipeline.settings
    head, pieces = peek(pieces, MAGIC_BYTES)
    key = upload_key(settings, name, at, token_hex(6), packed=is_compressed(head), source=source)
    upload = _Upload(settings)
    bucket = _keep(pipeline, key, upload.within_limits(pieces))
    size_bytes, digest = upload.stored.size_bytes, upload.stored.hexdigest()
    _log.info("upload_stored key=%s by=%r size_bytes=%d sha256=%s", key, by, size_bytes, digest)
    return Stored(bucket, key, size_bytes, digest)


def _keep(pipeline: Pipeline, key: str, pieces: Iterable[bytes]) -> str:
    """Put what a person has sent under a key of our own making; the bucket."""
    bucket = pipeline.settings.uploads_bucket
    if bucket is None:
        raise ConfigError("There is no bucket for uploads: let an operator set bucket of [uploads] in ingest.toml.")
    pipeline.store_of(ONE_OFF).receive(bucket, key, pieces)
    return bucket


def upload_key(
    settings: Settings, name: str, at: datetime, token: str, *, packed: bool = False, source: str = ONE_OFF
) -> str:
    """A key of our own making. Of `name` it keeps what is harmless everywhere, for people to know the file again."""
    base = _EXTENSIONS.sub("", re.split(r"[/\\]", name)[-1])
    plain = unicodedata.normalize("NFKD", base).encode("ascii", "ignore").decode()  # é becomes e
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", plain)[:_NAME_LENGTH].strip(".-_") or "upload"
    at = at.astimezone(UTC)
    extension = ".json.gz" if packed else ".json"
    folder = "" if source == ONE_OFF else f"{UPLOADS_OF_SOURCES}{source}/"
    return _dated_key(settings, at, f"{at:%Y%m%dT%H%M%SZ}-{token}-{safe}{extension}", folder)


def _dated_key(settings: Settings, at: datetime, name: str, folder: str = "") -> str:
    return f"{settings.uploads_prefix}{folder}{at:%Y/%m/%d}/{name}"


def too_large(limit: int) -> str:
    return (
        f"The file is larger than {limit:,} bytes, the most that may be sent here: put it into the bucket of a source,"
        " or let an operator raise max_bytes of [uploads]."
    )


class _Upload:
    """Leads the pieces of one upload on for as long as they are within the limits."""

    def __init__(self, settings: Settings) -> None:
        self.stored = Digest()
        self._settings = settings
        self._unpacked_bytes = 0
        self._waiting: deque[bytes] = deque()  # taken by the unpacking, not yet led on
        self._waiting_bytes = 0
        self._gone: BaseException | None = None  # what the giver of the pieces raised

    def within_limits(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces, each once what it holds was counted.

        Raises:
            UploadRefused: too much, nothing, or what cannot be unpacked. Pieces given out before are worth nothing.
        """
        try:
            head, content = peek(decompressed(self._taken(pieces)), HEAD_BYTES)
            if kind := kind_of(head):
                raise UploadRefused(f"The file is {kind.name}: {kind.remedy}.")
            for piece in content:
                self._count(piece)
                yield from self._release()
        except TransientError as error:
            if self._gone:  # which the unpacking may have taken for damaged data
                raise self._gone from None
            raise UploadRefused(str(error)) from error
        if not self._unpacked_bytes:
            raise UploadRefused("The file is empty: choose another one.")
        yield from self._release()

    def _taken(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        limit = self._settings.uploads_max_bytes
        try:
            for piece in self.stored.over(pieces):
                if self.stored.size_bytes > limit:
                    raise TooLarge(too_large(limit))
                if self._waiting_bytes > _NOTHING_AT_MOST:
                    raise UploadRefused("The packed file holds long stretches of nothing: pack it again and send that.")
                self._waiting.append(piece)
                self._waiting_bytes += len(piece)
                for start in range(0, len(piece), _STEP_BYTES):
                    yield piece[start : start + _STEP_BYTES]
        except BaseException as error:
            self._gone = error
            raise

    def _release(self) -> Iterator[bytes]:
        while self._waiting:
            yield self._waiting.popleft()
        self._waiting_bytes = 0

    def _count(self, content: bytes) -> None:
        limit, ratio = self._settings.uploads_max_decompressed_bytes, self._settings.uploads_max_ratio
        self._unpacked_bytes += len(content)
        if self._unpacked_bytes > limit:
            raise TooLarge(
                f"Unpacked, the file is larger than {limit:,} bytes, the most that may be sent here: split it, or let"
                " an operator raise max_decompressed_bytes of [uploads]."
            )
        if self._unpacked_bytes > max(_RATIO_FROM, ratio * self.stored.size_bytes):
            raise TooLarge(
                f"The file unpacks to more than {ratio:g} times its size, as events rarely do: send it unpacked, or"
                " let an operator raise max_ratio of [uploads]."
            )


def keep_pasted(pipeline: Pipeline, lines: str, run_id: str, at: datetime, folder: Path) -> str:
    """Store pasted lines under a name of our own making; its address. The same run always gives the same file.

    Without a bucket for uploads they become a file in `folder`. A browser's form sends CRLF; that is left as it is,
    since a line's end is not part of it.
    """
    content = lines.encode("utf-8", "surrogatepass")
    name = f"pasted-{at:%Y-%m-%dT%H%M%S}-{sha256(run_id.encode() + content).hexdigest()[:12]}.json"
    if bucket := pipeline.settings.uploads_bucket:
        key = _dated_key(pipeline.settings, at, name)
        try:
            pipeline.store_of(ONE_OFF).describe(bucket, key)  # a second version of it would be another source file
        except ObjectGone:
            _keep(pipeline, key, [content])
        return f"s3://{bucket}/{key}"
    path = folder / name
    if not path.exists():  # written again it would have arrived later: another time for untimed lines
        folder.mkdir(parents=True, exist_ok=True)
        written = path.with_suffix(".part")
        written.write_bytes(content)
        written.rename(path)
    return str(path.resolve())


def keep_mended(pipeline: Pipeline, file_id: str, text: bytes, at: datetime, *, by: str) -> str:
    """Put mended lines into the bucket for uploads, under a key of our own making; its address.

    It is what a run of `ingest_action` is told, since its values are shown to whoever may read that DAG. The name says
    who has sent the lines, which file they are for and what they are: see `read_mended` and `kept_mended`. Raises
    ConfigError if there is no bucket for uploads.
    """
    at = at.astimezone(UTC)
    name = f"{at:%Y%m%dT%H%M%SZ}-{token_hex(6)}-{_whose(by)}-{file_id}-{sha256(text).hexdigest()}{MENDED}"
    key = _dated_key(pipeline.settings, at, name)
    return f"s3://{_keep(pipeline, key, [text])}/{key}"


def read_mended(pipeline: Pipeline, file_id: str, address: str) -> bytes:
    """What `keep_mended` has put there for this file.

    Raises:
        ConfigError: any other address, lines that were kept for another file, or other lines than were kept.
        ObjectGone: nothing is there.
    """
    bucket, key = split_address(address)
    if not pipeline.settings.is_upload(bucket, key) or not key.endswith(MENDED):
        raise ConfigError(f"{address} does not hold fixed lines: they are read from the prefix of [uploads] only.")
    of, _, digest = key.removesuffix(MENDED).rpartition("-")
    if not of.endswith(f"-{file_id}"):
        raise ConfigError(
            f"{address} does not hold fixed lines of the file {file_id}. Send them on the page of the file."
        )
    store = pipeline.store_of(ONE_OFF)
    file = store.describe(bucket, key)
    if file.size_bytes > MENDED_AT_MOST:
        raise ConfigError(f"{address} holds more than {MENDED_AT_MOST:,} bytes: send fewer lines at a time.")
    text = b"".join(store.read(file))
    if sha256(text).hexdigest() != digest:
        raise ConfigError(f"{address} was changed since the lines were sent. Send them again on the page of the file.")
    return text


def kept_mended(pipeline: Pipeline, file_id: str, address: str, *, by: str) -> int:
    """How many lines `keep_mended` has put there for this file. Raises as `read_mended`, also for another's lines."""
    if f"-{_whose(by)}-{file_id}-" not in address.rpartition("/")[2]:
        raise ConfigError("These are no fixed lines that you have checked for this file: choose the file again.")
    return read_mended(pipeline, file_id, address).count(b"\n")


def _whose(by: str) -> str:
    return sha256(by.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def allow_load(pipeline: Pipeline, bucket: str, key: str, *, by: str) -> None:
    """Leave word beside an upload for a source that it may be loaded: of somebody who may run that source.

    A task does not know the rights of who triggered it. Without this word, whoever may run `ingest_one_off` could load
    what somebody else has sent for a source and only checked.
    """
    pipeline.store_of(ONE_OFF).receive(bucket, key + MAY_LOAD, [by.encode("utf-8", "surrogatepass")])


def demand_load(pipeline: Pipeline, file: SourceFile) -> None:
    """Raises ConfigError for an upload for a source, if nobody who may run the source has asked to load it."""
    settings = pipeline.settings
    if settings.is_upload(file.bucket, file.key) and owner_of(settings, file.bucket, file.key):
        try:
            pipeline.store_of(ONE_OFF).describe(file.bucket, file.key + MAY_LOAD)
        except ObjectGone:
            raise ConfigError(
                f"{file.uri} was sent for the source {file.source}, and not to be loaded: choose to load it on the page"
                " that shows its check, or send it again."
            ) from None


def keep_check_report(pipeline: Pipeline, file: SourceFile, report: Mapping[str, Any], folder: Path) -> None:
    """Put the report of a check beside the file if that is an upload, else nowhere. `folder`: where it is made."""
    if pipeline.settings.is_upload(file.bucket, file.key):
        made = folder / CHECK_REPORT
        made.write_bytes(orjson.dumps(report))
        pipeline.store_of(ONE_OFF).write(file.bucket, file.key + CHECK_REPORT, made)


def read_check_report(pipeline: Pipeline, bucket: str, key: str) -> dict[str, Any] | None:
    """What the last check of an upload found (see `ingest.report.check_report`); None if there was none.

    Numbers keep their digits: those with a fraction are Decimal. Raises IngestError if it is no report of ours.
    """
    if bucket == LOCAL_BUCKET or not pipeline.settings.is_upload(bucket, key):
        return None
    store = pipeline.store_of(ONE_OFF)
    try:
        file = store.describe(bucket, key + CHECK_REPORT)
        body = b"".join(store.read(file)) if file.size_bytes <= _REPORT_AT_MOST else b""
    except ObjectGone:
        return None
    try:
        return dict(cast("dict[str, Any]", parse(body)))
    except (ValueError, TypeError) as error:
        raise IngestError(f"{file.uri}: this is no report of a check: check the file again.") from error
