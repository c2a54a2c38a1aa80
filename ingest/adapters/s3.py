"""Source files in S3, or in a store that speaks its language.

Decides: which version of an object is the current one, what pins a read to it, and what each refusal of the store means
         for the caller: by the error's code or type, never by the text of its message.

A version is known by its version id where the bucket keeps versions and we may ask for them, else by its ETag.
`describe` answers from a listing, as `list` does, so that an object is the same source file on whichever way it is
met: a HEAD tells LastModified in whole seconds, the listings of some stores in milliseconds.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from urllib3.exceptions import HTTPError

from ingest.core.source import SourceFile
from ingest.errors import ConfigError, IngestError, ObjectGone, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PIECE_BYTES = 256 * 1024

_GONE = {"NoSuchKey", "NoSuchVersion", "404", "NotFound", "412", "PreconditionFailed"}
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
_NO_VERSIONS = _DENIED | {"NotImplemented", "MethodNotAllowed", "501", "405"}
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


def make_client(profile: str | None = None) -> "S3Client":
    """A client from boto3's own settings: environment, profiles, roles, AWS_ENDPOINT_URL_S3.

    Raises:
        ConfigError: those settings cannot be used.
    """
    try:
        session = boto3.Session(profile_name=profile)
        told = session._session.get_config_variable  # the only way to see what the user has set
        mode = told("retry_mode")
        config = Config(
            connect_timeout=10,
            read_timeout=60,
            tcp_keepalive=True,
            retries={
                "mode": "standard" if mode == "legacy" else mode,  # `standard` also retries what `legacy` lets through
                "total_max_attempts": told("max_attempts") or 5,
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


@contextmanager
def _explained(where: str, right: str, *, listing: bool = False) -> Iterator[None]:
    """Turn what boto3 raises into our errors, each with a sentence on what to do."""
    try:
        yield
    except aws.ClientError as error:
        raise _meaning(error, where, right, listing=listing) from error
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


def _meaning(error: aws.ClientError, where: str, right: str, *, listing: bool) -> IngestError:
    code = _code(error)
    if code == "NoSuchBucket":
        return ConfigError(f"{where}: there is no such bucket: correct its name, or create it")
    if code in _SETTINGS:
        return ConfigError(f"{where}: {_SETTINGS[code]}")
    if code in _DENIED and listing:
        return _ListingDeniedError(f"{where}: we may not list it: grant {right} on this bucket and prefix")
    if code in _DENIED:
        return TransientError(f"{where}: we may not read it: grant {right} on it (and kms:Decrypt if it is encrypted)")
    if code in _GONE:
        return ObjectGone(f"{where}: it was deleted or overwritten, or was never there: list again")
    if code == "InvalidObjectState":
        return TransientError(f"{where}: it lies in an archive storage class: restore it, then it can be read")
    return TransientError(f"{where}: the store answered {code}: it is safe to try again")


def _code(error: aws.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
