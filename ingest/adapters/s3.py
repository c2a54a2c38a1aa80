"""Source files in S3, or in a store that speaks its language.

Decides: what pins a read to the version that was listed, and when its bytes are those: as many as were listed, with the
         checksum that the store gives. That "gone" is a claim: what a listing still shows is not gone. And when an
         object may be deleted: only where the store compares it with the version we mean at that very moment.

A version is known by its version id where the bucket keeps versions and we may ask for them, else by its ETag, else by
its size and time. `describe` answers from a listing, as `list` does, so that an object is the same source file on
whichever way it is met: a HEAD gives LastModified in whole seconds, the listings of some stores in milliseconds.
"""

import logging
import re
import threading
from base64 import b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from hashlib import file_digest, md5, sha256
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from boto3.s3.transfer import TransferConfig
from botocore import exceptions as aws
from urllib3.exceptions import HTTPError

from ingest.adapters.s3_client import make_client, settle
from ingest.adapters.s3_errors import explained, is_refusal, not_s3, says_gone, status_of
from ingest.adapters.s3_listing import Listing, etag_of
from ingest.core.source import SourceFile
from ingest.errors import ConfigError, IngestError, ObjectGone, TransientError
from ingest.reading import peek

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["PIECE_BYTES", "PROBE_NAME", "S3Store", "make_client"]

_log = logging.getLogger(__name__)
PIECE_BYTES = 256 * 1024
PART_BYTES = 8 << 20  # of what is received: with those on their way and the one that is gathered 24 MiB
_PARTS_AT_ONCE = 2
PROBE_NAME = ".landfall-probe"
_PROBES = 3
_KEY_BYTES = 1024  # S3's limit, in UTF-8
# S3 copies up to 5 GB at once, but answers only at the end: parts do not outlast the read timeout.
_COPYING = TransferConfig(multipart_threshold=1 << 30, multipart_chunksize=256 << 20, max_concurrency=4)
_ERROR_PAGE = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*<Error\b")
_PART_OF_ERROR = re.compile(rb"<(Code|Message)>(.*?)</", re.DOTALL)


class S3Store:
    """`ingest.ports.ObjectStore` over one boto3 client."""

    def __init__(
        self, client: "S3Client", *, requester_pays: bool = False, patience_seconds: float | None = None
    ) -> None:
        settle(client, requester_pays=requester_pays, patience_seconds=patience_seconds)
        self._client = client
        self._listing = Listing(client)
        self._compares: dict[str, bool] = {}  # whether a bucket deletes on condition
        self._probing = threading.Lock()

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        yield from self._listing.files(bucket, prefix)

    def describe(self, bucket: str, key: str) -> SourceFile:
        return self._listing.find(bucket, key)

    def read(self, file: SourceFile) -> Iterator[bytes]:
        right = "s3:GetObjectVersion" if file.version_id else "s3:GetObject"
        with explained(file.uri, right):
            try:
                answer = self._get(file)
            except aws.ClientError as error:
                if not says_gone(error):
                    raise
                answer = self._by_its_time(file)
                if answer is None:
                    raise self._proven(file, error) from error
            # Stores that unpack on the way do not know how much it will be, or name the encoding that they took off.
            unpacks = answer.get("ContentLength") is None or bool(answer.get("ContentEncoding"))
            with closing(answer["Body"]) as body:  # raises at its end if it is shorter than was announced
                head, pieces = peek(body.iter_chunks(PIECE_BYTES), 4096)
                if not unpacks and answer["ContentLength"] != file.size_bytes:
                    raise self._other_bytes(file, answer["ContentLength"], head)
                if not unpacks and file.etag and etag_of(answer) not in ("", file.etag):
                    raise self._proven(file, None)
                read_bytes = 0
                for piece in pieces:
                    read_bytes += len(piece)
                    yield piece
            if read_bytes < file.size_bytes or (read_bytes != file.size_bytes and _ERROR_PAGE.match(head)):
                raise self._other_bytes(file, read_bytes, head)

    def _get(self, file: SourceFile) -> Any:
        where: Any = {"Bucket": file.bucket, "Key": file.key, "ChecksumMode": "ENABLED"}
        try:
            return self._client.get_object(**where, **_pin(file))
        except aws.ClientError as error:
            # The right to see versions may have gone since it was listed: the current one may still be this one.
            if not (file.version_id and file.etag) or says_gone(error) or not is_refusal(error):
                raise
            with suppress(aws.ClientError):
                return self._client.get_object(**where, **_pin(replace(file, version_id=None)))
            raise

    def _by_its_time(self, file: SourceFile) -> Any:
        """The object with the ETag that was listed, where the store does not compare its own (weak) ETags; or None."""
        if file.version_id or not file.etag:
            return None
        with suppress(aws.ClientError):
            answer: Any = self._client.get_object(
                Bucket=file.bucket, Key=file.key, ChecksumMode="ENABLED", IfUnmodifiedSince=file.last_modified
            )
            if etag_of(answer) == file.etag:
                return answer
            answer["Body"].close()
        return None

    def _other_bytes(self, file: SourceFile, read_bytes: int, head: bytes) -> IngestError:
        """What is said of an answer that cannot be the object that was listed."""
        if _ERROR_PAGE.match(head):
            said = ": ".join(found.decode(errors="replace") for _, found in _PART_OF_ERROR.findall(head))
            return TransientError(
                f"{file.uri}: the store answered with a page: {said or 'Error'}: trying again can help"
            )
        return TransientError(
            f"{file.uri}: {read_bytes:,} bytes came, and {file.size_bytes:,} were listed: nothing of it is loaded, and"
            " trying again can help. If it stays so, send the file again"
        )

    def _proven(self, file: SourceFile, error: aws.ClientError | None) -> IngestError:
        """What is said where the store claims that this version is gone: whether its listing says so, too."""
        try:
            if file.version_id and self._listing.keeps_versions(file.bucket, file.key):
                is_there = self._listing.has_version(file)
            else:
                is_there = self._listing.find(file.bucket, file.key).is_same(file)
        except ObjectGone as gone:
            return gone
        if not is_there:
            return ObjectGone(f"{file.uri}: it was deleted or overwritten since it was listed: list again")
        answered = f"answers {status_of(error)} when it is read" if error else "gives another version when it is read"
        return TransientError(
            f"{file.uri}: the store lists it, and {answered}. Trying again can help; if it stays so, send the file"
            " again, or ask the people who run the store"
        )

    def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:
        for key in to_keys:
            to = _address(file.bucket, key)
            with explained(to, "s3:PutObject and s3:GetObject", "write"):
                there = self._head(file.bucket, key)
                if there is None:
                    self._copy_version(file, key)
                    if not self._holds(file.bucket, key, file, sha256):
                        self._client.delete_object(Bucket=file.bucket, Key=key)  # ours, and nobody's copy
                        raise TransientError(f"{to}: the copy differs from {file.uri}, which stays: try again")
                    return key
                if self._holds(file.bucket, key, file, sha256):
                    return key  # of a former try
        raise ConfigError(f"{file.uri}: {' and '.join(to_keys)} are taken by other objects: it stays where it is")

    def remove(self, file: SourceFile, own_prefix: str) -> bool:
        compares = bool(file.etag) and self._deletes_on_condition(file.bucket, own_prefix)
        if not compares and not file.version_id:
            raise ConfigError(
                f"s3://{file.bucket}: this store can neither delete on condition (If-Match) nor does it keep versions,"
                ' so nothing is deleted: let the bucket keep versions, or set after_load = "keep"'
            )
        with explained(file.uri, "s3:DeleteObject and s3:GetObject", "delete"):
            now = self._head(file.bucket, file.key)
            if now is None:
                return self._is_unlisted(file)
            # The same bytes sent again have the same ETag, but are another version: a delete marker would hide it.
            if file.version_id and now.get("VersionId", file.version_id) != file.version_id:
                return False
            if file.etag and etag_of(now) not in ("", file.etag):
                return False
            try:
                if compares:
                    self._client.delete_object(Bucket=file.bucket, Key=file.key, IfMatch=f'"{file.etag}"')
                else:
                    self._delete_version(file)
            except aws.ClientError as error:
                if not says_gone(error):
                    raise
                return self._is_gone(file, error)
        return True

    def _is_gone(self, file: SourceFile, error: aws.ClientError) -> bool:
        """After a delete that was refused as being of another object: whether it is gone; False: another is there."""
        now = self._head(file.bucket, file.key)
        version = now and now.get("VersionId")
        if now is not None and etag_of(now) == file.etag and (version in (None, "null") or version == file.version_id):
            raise TransientError(
                f"{file.uri}: the store shows this version, and answers {status_of(error)} when it is to be deleted: it"
                " stays, and that is tried again"
            ) from error
        return now is None and self._is_unlisted(file)

    def _is_unlisted(self, file: SourceFile) -> bool:
        """True: what HEAD does not find is not listed, either. Raises TransientError where it is."""
        try:
            found = self._listing.find(file.bucket, file.key)
        except ObjectGone:
            return True
        if found.is_same(file):
            raise TransientError(f"{file.uri}: the store lists it, and does not find it: trying again can help")
        return False

    def write(self, bucket: str, key: str, content: Path) -> None:
        with explained(_address(bucket, key), "s3:PutObject and s3:GetObject", "write"), content.open("rb") as body:
            there = self._head(bucket, key)
            if there and there.get("ContentLength") == content.stat().st_size:
                if self._digest(bucket, key) == file_digest(body, "sha256").hexdigest():
                    return
                body.seek(0)
            self._put(bucket, key, body)

    def _put(self, bucket: str, key: str, body: Any) -> Mapping[str, Any]:
        answer: Any = self._client.put_object(Bucket=bucket, Key=key, Body=body, **self._checksum(body))
        if not etag_of(answer):  # each S3 gives one: a proxy's page, say, took it for the store
            raise not_s3(f"s3://{bucket}/{key}")
        return answer  # type: ignore[no-any-return]

    def _checksum(self, body: bytes | bytearray | IO[bytes]) -> dict[str, Any]:
        """Of what is sent, where boto3 adds none: a bucket with Object Lock takes nothing without, and all know it."""
        if self._client.meta.config.request_checksum_calculation == "when_supported":  # type: ignore[attr-defined]
            return {}
        if isinstance(body, (bytes, bytearray)):
            digest = md5(body, usedforsecurity=False)
        else:
            digest = file_digest(body, lambda: md5(usedforsecurity=False))  # type: ignore[arg-type]
            body.seek(0)
        return {"ContentMD5": b64encode(digest.digest()).decode()}

    def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:
        with explained(_address(bucket, key), "s3:PutObject and s3:AbortMultipartUpload", "write"):
            parts = _parts(pieces)
            first = next(parts, b"")
            if len(first) < PART_BYTES:
                self._put(bucket, key, first)
                return
            upload_id = self._client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
            upload: Any = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
            try:
                parts = chain([first], parts)
                del first  # so that it goes when it was sent
                done = self._send_parts(upload, parts)
                self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
            except BaseException:  # also when we are told to stop: parts that nobody sees would be paid for
                try:
                    self._client.abort_multipart_upload(**upload)
                except (aws.ClientError, aws.BotoCoreError, HTTPError) as error:
                    _log.warning("not_aborted bucket=%s key=%s upload_id=%s: %s", bucket, key, upload_id, error)
                raise

    def _send_parts(self, upload: Any, parts: Iterable[Any]) -> Sequence[Any]:
        """The parts as S3 wants them named at the end. When it raises, no part is on its way any more."""

        def send(number: int, part: Any) -> Any:
            answer = self._client.upload_part(**upload, PartNumber=number, Body=part, **self._checksum(part))
            return {"PartNumber": number, "ETag": answer["ETag"]}

        done: list[Any] = []
        waiting: deque[Future[Any]] = deque()
        with ThreadPoolExecutor(_PARTS_AT_ONCE) as pool:
            for number, part in enumerate(parts, 1):
                if len(waiting) == _PARTS_AT_ONCE:
                    done.append(waiting.popleft().result())
                waiting.append(pool.submit(send, number, part))
            done += [sent.result() for sent in waiting]
        return done

    def _head(self, bucket: str, key: str) -> Mapping[str, Any] | None:
        try:
            return self._client.head_object(Bucket=bucket, Key=key)
        except aws.ClientError as error:
            if says_gone(error):
                return None
            raise

    def _copy_version(self, file: SourceFile, key: str) -> None:
        origin: Any = {"Bucket": file.bucket, "Key": file.key}
        pin: Any = {f"CopySource{name}": value for name, value in _pin(file).items()}
        if file.version_id:
            origin["VersionId"], pin = file.version_id, {}
        try:
            self._client.copy(origin, file.bucket, key, ExtraArgs=pin, Config=_COPYING)
        except aws.ClientError as error:
            if not says_gone(error):
                raise
            found = self._proven(file, error)
            if isinstance(found, ObjectGone):
                found = ObjectGone(f"{file.uri}: it was deleted or overwritten before it could be archived")
            raise found from error

    def _holds(self, bucket: str, key: str, file: SourceFile, sha256: str) -> bool:
        """Whether an object has the bytes of a file. It is read: the original goes on the strength of it."""
        there = self._head(bucket, key)
        if there is None or there.get("ContentLength") != file.size_bytes:
            return False
        return self._digest(bucket, key) == sha256

    def _digest(self, bucket: str, key: str) -> str:
        digest = sha256()
        with closing(self._client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
            for piece in body.iter_chunks(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def _deletes_on_condition(self, bucket: str, own_prefix: str) -> bool:
        """Whether a delete with an ETag that is not the object's is refused: many stores do not even look at it."""
        with self._probing:  # files are tidied side by side
            if bucket not in self._compares:
                key = f"{own_prefix}{PROBE_NAME}"
                with explained(_address(bucket, key), "s3:PutObject and s3:DeleteObject", "write or delete"):
                    tries = (self._refuses_other_etags(bucket, key) for _ in range(_PROBES))
                    told = next((one for one in tries if one is not None), None)
                if told is None:
                    raise TransientError(
                        f"{_address(bucket, key)}: other processes keep removing it: trying again can help"
                    )
                self._compares[bucket] = told
            return self._compares[bucket]

    def _refuses_other_etags(self, bucket: str, key: str) -> bool | None:
        """Tried with an object of our own. None: another process removed it in the meantime, so nothing is known."""
        made = self._put(bucket, key, b"May be deleted.\n")
        told: bool | None = False
        try:
            self._client.delete_object(Bucket=bucket, Key=key, IfMatch=f'"{"0" * 32}"')
        except aws.ClientError as error:
            if status_of(error) == 403 or not is_refusal(error):
                raise
            told = status_of(error) == 412
            if status_of(error) == 404 and self._head(bucket, key) is None:
                told = None
        which: Any = {"VersionId": made["VersionId"]} if "VersionId" in made else {}
        with suppress(aws.ClientError):
            self._client.delete_object(Bucket=bucket, Key=key, **which)
        return told

    def _delete_version(self, file: SourceFile) -> None:
        """Delete this version for good, where the store cannot compare: a delete marker could hide a newer one."""
        assert file.version_id
        if self._listing.other_versions(file):
            raise ConfigError(
                f"{file.uri}: an older version would come to light in its place, so it is not deleted: delete the older"
                " versions of this key"
            )
        self._client.delete_object(Bucket=file.bucket, Key=file.key, VersionId=file.version_id)


def _parts(pieces: Iterable[bytes]) -> Iterator[Any]:
    """The same bytes in parts of PART_BYTES, the last may be shorter: bytearrays, which the stubs of boto3 forgot."""
    part, filled = bytearray(PART_BYTES), 0  # whole at once: one that grows is moved about, and leaves gaps in memory
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            taken = min(len(rest), PART_BYTES - filled)
            part[filled : filled + taken] = rest[:taken]
            rest, filled = rest[taken:], filled + taken
            if filled == PART_BYTES:
                yield part
                part, filled = bytearray(PART_BYTES), 0
    if filled:
        del part[filled:]
        yield part


def _address(bucket: str, key: str) -> str:
    """The URI of an object that we are about to make. Raises ConfigError if its key is too long."""
    size = len(key.encode())
    if size > _KEY_BYTES:
        raise ConfigError(
            f"s3://{bucket}/{key}: S3 takes keys of {_KEY_BYTES:,} bytes, this one has {size:,}: shorten it"
        )
    return f"s3://{bucket}/{key}"


def _pin(file: SourceFile) -> dict[str, Any]:
    """What makes a read one of this version, as far as the store gave anything that can."""
    if file.version_id:
        return {"VersionId": file.version_id}
    if file.etag:
        return {"IfMatch": f'"{file.etag}"'}
    return {"IfUnmodifiedSince": file.last_modified}
