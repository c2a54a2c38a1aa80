"""Source files in S3, or in a store that speaks its language.

Decides: which version of an object is the current one, what pins a read to it, and what each refusal of the store means
         for the caller: by the error's code or type, never by the text of its message. And when an object may be
         deleted: only where the store compares it with the version we mean at that very moment.

A version is known by its version id where the bucket keeps versions and we may ask for them, else by its ETag.
`describe` answers from a listing, as `list` does, so that an object is the same source file on whichever way it is
met: a HEAD tells LastModified in whole seconds, the listings of some stores in milliseconds.
"""

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import exceptions as aws
from botocore.config import Config
from botocore.utils import parse_timestamp
from s3transfer.exceptions import S3CopyFailedError
from urllib3.exceptions import HTTPError

from ingest.core.source import SourceFile
from ingest.errors import ConfigError, IngestError, ObjectGone, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_log = logging.getLogger(__name__)
PIECE_BYTES = 256 * 1024
PART_BYTES = 8 << 20  # of what is received: with those on their way and the one that is gathered 24 MiB
_PARTS_AT_ONCE = 2
PROBE_NAME = ".landfall-probe"
_KEY_BYTES = 1024  # S3's limit, in UTF-8
# S3 copies up to 5 GB at once, but answers only at the end: parts do not outlast the read timeout.
_COPYING = TransferConfig(multipart_threshold=1 << 30, multipart_chunksize=256 << 20, max_concurrency=4)

_GONE = {"NoSuchKey", "NoSuchVersion", "404", "NotFound", "412", "PreconditionFailed"}
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_NOT_KNOWN = {"NotImplemented", "MethodNotAllowed", "501", "405"}
_NO_VERSIONS = _DENIED | _NOT_KNOWN
_NO_CONDITIONS = _NOT_KNOWN | {"InvalidRequest", "InvalidArgument"}
_SETTINGS = {  # what only a person can mend
    "InvalidAccessKeyId": "the AWS access key is unknown to the store: check the AWS credentials",
    "SignatureDoesNotMatch": "the AWS secret key is wrong: check the AWS credentials",
    "InvalidToken": "the AWS session token is not valid: renew the AWS credentials",
    "ExpiredToken": "the AWS session token has expired: renew the AWS credentials",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it",
    "InvalidBucketName": "that is no valid bucket name: correct it",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
}
_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.ProfileNotFound,
    aws.NoAuthTokenError,
    aws.SSOError,
)


def make_client(profile: str | None = None, *, somebody_waits: bool = False) -> "S3Client":
    """A client from boto3's own settings: environment, profiles, roles, AWS_ENDPOINT_URL_S3.

    `somebody_waits`: for an answer, and will ask again, so that a store which does not answer is given up soon.

    Raises:
        ConfigError: those settings cannot be used.
    """
    try:
        session = boto3.Session(profile_name=profile)
        told = session._session.get_config_variable  # the only way to see what the user has set
        mode = told("retry_mode")
        config = Config(
            connect_timeout=3 if somebody_waits else 10,
            read_timeout=20 if somebody_waits else 60,
            max_pool_connections=32 if somebody_waits else 10,
            tcp_keepalive=True,
            retries={
                "mode": "standard" if mode == "legacy" else mode,  # `standard` also retries what `legacy` lets through
                "total_max_attempts": told("max_attempts") or (2 if somebody_waits else 5),
            },
            request_checksum_calculation="when_required",  # other stores than AWS refuse the newer trailing checksums
        )
        return session.client("s3", config=config)
    except (aws.BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"The AWS settings cannot be used ({error}): see AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL_S3"
        ) from error


class _ListingDeniedError(ConfigError):
    """We may not list here; reading an object whose key is known may still be allowed."""


class S3Store:
    """`ingest.ports.ObjectStore` over one boto3 client."""

    def __init__(self, client: "S3Client") -> None:
        self._client = client
        # The AWS command line sets the reader of times in the same place. botocore's own takes two thirds of the time
        # of a listing, since it has to guess the format of each.
        factory = getattr(getattr(client, "_endpoint", None), "_response_parser_factory", None)
        if factory is not None:
            factory.set_parser_defaults(timestamp_parser=_timestamp)
        self._compares: dict[str, bool] = {}  # whether a bucket deletes on condition

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        for page in self._pages(bucket, prefix):
            yield from page

    def describe(self, bucket: str, key: str) -> SourceFile:
        try:
            # The smallest key with this prefix is the key itself, if it is there (but not in a directory bucket).
            first = next(self._pages(bucket, key, size=1), ())
            if first and first[0].key == key:
                return first[0]
        except _ListingDeniedError:
            pass
        with _explained(f"s3://{bucket}/{key}", "s3:GetObject"):
            head: Any = self._client.head_object(Bucket=bucket, Key=key)
            entry = head | {"Key": key, "Size": head["ContentLength"]}
            return _source_file(bucket, entry, versioned=self._keeps_versions(bucket, key))

    def read(self, file: SourceFile) -> Iterator[bytes]:
        pin: Any = {"VersionId": file.version_id} if file.version_id else {"IfMatch": f'"{file.etag}"'}
        with _explained(file.uri, "s3:GetObjectVersion" if file.version_id else "s3:GetObject"):
            answer = self._client.get_object(Bucket=file.bucket, Key=file.key, **pin)
            with closing(answer["Body"]) as body:  # raises at its end if it is shorter than was announced
                yield from body.iter_chunks(PIECE_BYTES)

    def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:
        for key in to_keys:
            to = _address(file.bucket, key)
            with _explained(to, "s3:PutObject on it, and s3:GetObject on it and its original", "write"):
                there = self._head(file.bucket, key)
                if there is None:
                    self._copy_version(file, key)
                    if not self._holds(file.bucket, key, file, sha256):
                        raise TransientError(f"{to}: the copy differs from {file.uri}, which stays: it is tried again")
                    return key
                if self._holds(file.bucket, key, file, sha256):
                    return key  # of a former try
        raise ConfigError(f"{file.uri}: {' and '.join(to_keys)} are taken by other objects: it stays where it is")

    def remove(self, file: SourceFile, own_prefix: str) -> bool:
        compares = self._deletes_on_condition(file.bucket, own_prefix)
        if not compares and not file.version_id:
            raise ConfigError(
                f"s3://{file.bucket}: this store can neither delete on condition (If-Match) nor does it keep versions,"
                ' so nothing is deleted: let the bucket keep versions, or set after_load = "keep"'
            )
        with _explained(file.uri, "s3:DeleteObject and s3:GetObject", "delete"):
            if file.version_id:
                # The same bytes sent again have the same ETag, but are another version: a delete marker would hide it.
                now = self._head(file.bucket, file.key)
                if now is None or now.get("VersionId") != file.version_id:
                    return now is None
            try:
                if compares:
                    self._client.delete_object(Bucket=file.bucket, Key=file.key, IfMatch=f'"{file.etag}"')
                else:
                    self._delete_version(file)
            except aws.ClientError as error:
                if _code(error) in _GONE:
                    return self._head(file.bucket, file.key) is None
                raise
        return True

    def write(self, bucket: str, key: str, content: Path) -> None:
        with _explained(_address(bucket, key), "s3:PutObject and s3:GetObject", "write"), content.open("rb") as body:
            there = self._head(bucket, key)
            size = content.stat().st_size
            if there and there["ContentLength"] == size:
                digest = sha256()
                while piece := body.read(PIECE_BYTES):
                    digest.update(piece)
                if self._digest(bucket, key) == digest.hexdigest():
                    return
                body.seek(0)
            self._client.put_object(Bucket=bucket, Key=key, Body=body)

    def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:
        with _explained(_address(bucket, key), "s3:PutObject and s3:AbortMultipartUpload", "write"):
            parts = _parts(pieces)
            first = next(parts, b"")
            if len(first) < PART_BYTES:
                self._client.put_object(Bucket=bucket, Key=key, Body=first)
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
            answer = self._client.upload_part(**upload, PartNumber=number, Body=part)
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
            if _code(error) in _GONE:
                return None
            raise

    def _copy_version(self, file: SourceFile, key: str) -> None:
        origin: Any = {"Bucket": file.bucket, "Key": file.key}
        pin: Any = {"CopySourceIfMatch": f'"{file.etag}"'}
        if file.version_id:
            origin["VersionId"], pin = file.version_id, {}
        try:
            self._client.copy(origin, file.bucket, key, ExtraArgs=pin, Config=_COPYING)
        except aws.ClientError as error:
            if _code(error) in _GONE:
                raise ObjectGone(f"{file.uri}: it was deleted or overwritten before it could be archived") from error
            raise
        except S3CopyFailedError as error:  # overwritten between two parts
            raise TransientError(f"{file.uri}: the copy was not finished: it is safe to try again") from error

    def _holds(self, bucket: str, key: str, file: SourceFile, sha256: str) -> bool:
        """Whether an object has the bytes of a file. ETags that differ prove nothing: they tell parts and keys, too."""
        there = self._head(bucket, key)
        if there is None or there["ContentLength"] != file.size_bytes:
            return False
        return _etag(there) == file.etag or self._digest(bucket, key) == sha256

    def _digest(self, bucket: str, key: str) -> str:
        digest = sha256()
        with closing(self._client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
            for piece in body.iter_chunks(PIECE_BYTES):
                digest.update(piece)
        return digest.hexdigest()

    def _deletes_on_condition(self, bucket: str, own_prefix: str) -> bool:
        """Whether a delete with an ETag that is not the object's is refused: many stores do not even look at it."""
        if bucket not in self._compares:
            key = f"{own_prefix}{PROBE_NAME}"
            with _explained(_address(bucket, key), "s3:PutObject and s3:DeleteObject", "write or delete"):
                made = self._client.put_object(Bucket=bucket, Key=key, Body=b"May be deleted.\n")
                try:
                    self._client.delete_object(Bucket=bucket, Key=key, IfMatch=f'"{"0" * 32}"')
                    self._compares[bucket] = False
                except aws.ClientError as error:
                    # Gone: another process has just removed the probe; who does not look says nothing of that, either.
                    if _code(error) not in _GONE | _NO_CONDITIONS:
                        raise
                    self._compares[bucket] = _code(error) in _GONE
                which: Any = {"VersionId": made["VersionId"]} if "VersionId" in made else {}
                with suppress(aws.ClientError):
                    self._client.delete_object(Bucket=bucket, Key=key, **which)
        return self._compares[bucket]

    def _delete_version(self, file: SourceFile) -> None:
        """Delete this version for good, where the store cannot compare: a delete marker could hide a newer one."""
        assert file.version_id
        found = self._client.list_object_versions(Bucket=file.bucket, Prefix=file.key)
        if any(one["Key"] == file.key and one["VersionId"] != file.version_id for one in found.get("Versions", [])):
            raise ConfigError(
                f"{file.uri}: an older version would come to light in its place, so it is not deleted: delete the older"
                " versions of this key"
            )
        self._client.delete_object(Bucket=file.bucket, Key=file.key, VersionId=file.version_id)

    def _pages(self, bucket: str, prefix: str, size: int = 1000) -> Iterator[Sequence[SourceFile]]:
        """The current objects under a prefix, page by page, with version ids where there are any."""
        what: Any = {"Bucket": bucket, "Prefix": prefix, "PaginationConfig": {"PageSize": size}}
        with _explained(f"s3://{bucket}/{prefix}", "s3:ListBucket", listing=True):
            if self._keeps_versions(bucket, prefix):
                for page in self._client.get_paginator("list_object_versions").paginate(**what):
                    current = (entry for entry in page.get("Versions", []) if entry["IsLatest"])
                    yield [_source_file(bucket, entry, versioned=True) for entry in current]
            else:
                for plain in self._client.get_paginator("list_objects_v2").paginate(**what):
                    yield [_source_file(bucket, entry, versioned=False) for entry in plain.get("Contents", [])]

    def _keeps_versions(self, bucket: str, prefix: str) -> bool:
        """Whether the bucket keeps versions and we may see them: if not, it is as good as one that keeps none."""
        try:
            if "Status" not in self._client.get_bucket_versioning(Bucket=bucket):
                return False
            self._client.list_object_versions(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except aws.ClientError as error:
            if _code(error) in _NO_VERSIONS:
                return False
            raise
        return True


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


def _timestamp(value: Any) -> datetime:
    """A time as S3's listings write it; any other as botocore reads it."""
    if isinstance(value, str) and value[4:5] == "-":
        with suppress(ValueError):
            return datetime.fromisoformat(value)
    parsed: datetime = parse_timestamp(value)
    return parsed


def _source_file(bucket: str, entry: Mapping[str, Any], *, versioned: bool) -> SourceFile:
    version = entry.get("VersionId") if versioned else None
    return SourceFile(
        bucket=bucket,
        key=entry["Key"],
        etag=entry["ETag"].strip('"'),
        last_modified=entry["LastModified"].astimezone(UTC),
        size_bytes=entry["Size"],
        version_id=None if version == "null" else version,  # stored while the bucket kept no versions
        storage_class=entry.get("StorageClass", "STANDARD"),
    )


def _etag(head: Mapping[str, Any]) -> str:
    return str(head["ETag"]).strip('"')


def _address(bucket: str, key: str) -> str:
    """The URI of an object that we are about to make. Raises ConfigError if its key is too long."""
    size = len(key.encode())
    if size > _KEY_BYTES:
        raise ConfigError(
            f"s3://{bucket}/{key}: S3 takes keys of {_KEY_BYTES:,} bytes, this one has {size:,}: shorten it"
        )
    return f"s3://{bucket}/{key}"


@contextmanager
def _explained(where: str, right: str, doing: str = "read", *, listing: bool = False) -> Iterator[None]:
    """Turn what boto3 raises into our errors, each with a sentence on what to do."""
    try:
        yield
    except aws.ClientError as error:
        raise _meaning(error, where, right, doing, listing=listing) from error
    except _NO_CREDENTIALS as error:
        raise ConfigError(
            f"{where}: there are no usable AWS credentials ({error}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
            " AWS_PROFILE, or a role"
        ) from error
    except aws.ParamValidationError as error:
        raise ConfigError(f"{where}: this is no valid bucket or key: correct it") from error
    except (aws.BotoCoreError, HTTPError) as error:
        raise TransientError(
            f"{where}: the connection to the store failed ({type(error).__name__}): it is safe to try again"
        ) from error


def _meaning(error: aws.ClientError, where: str, right: str, doing: str, *, listing: bool) -> IngestError:
    code = _code(error)
    if code == "NoSuchBucket":
        return ConfigError(f"{where}: there is no such bucket: correct its name, or create it")
    if code in _SETTINGS:
        return ConfigError(f"{where}: {_SETTINGS[code]}")
    if code in _DENIED and listing:
        return _ListingDeniedError(f"{where}: we may not list it: grant {right} on this bucket and prefix")
    if code in _DENIED:
        return TransientError(
            f"{where}: we may not {doing} it: grant {right} on it (and kms:Decrypt if it is encrypted)"
        )
    if code in _GONE:
        return ObjectGone(f"{where}: it was deleted or overwritten, or was never there: list again")
    if code == "InvalidObjectState":
        return TransientError(f"{where}: it lies in an archive storage class: restore it, then it can be read")
    return TransientError(f"{where}: the store answered {code}: it is safe to try again")


def _code(error: aws.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
