"""What a refusal of the store means, and what to do about it.

By the error's code or type, never by the text of its message; an unknown code by its HTTP status. The store's own code
and message are always shown: they name what no table here can know.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import S3CopyFailedError
from urllib3.exceptions import HTTPError

from ingest.adapters.s3_client import LEAST_RATE, TooSlowError
from ingest.errors import ConfigError, IngestError, ObjectGone, TransientError

_SETTINGS: Final = {  # what only a person can change, for every object of the store
    "InvalidAccessKeyId": "the AWS access key is unknown to the store: check the AWS credentials",
    "SignatureDoesNotMatch": "the AWS secret key is wrong: check the AWS credentials",
    "InvalidToken": "the AWS session token is not valid: renew the AWS credentials",
    "ExpiredToken": "the AWS session token has expired: renew the AWS credentials",
    "TokenRefreshRequired": "the AWS session token has expired: renew the AWS credentials",
    "InvalidSecurity": "the AWS credentials are not valid: check them",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it",
    "InvalidBucketName": "that is no valid bucket name: correct it",
    "PermanentRedirect": "the bucket is in another region, or at another endpoint: set AWS_DEFAULT_REGION, or that",
    "301": "the bucket is in another region, or at another endpoint: set AWS_DEFAULT_REGION, or that",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_DEFAULT_REGION",
    "IllegalLocationConstraintException": "the bucket is in another region: set AWS_DEFAULT_REGION",
    "AllAccessDisabled": "the store has locked the bucket: ask its owner",
}
_OBJECT: Final = {  # what concerns one object
    "InvalidObjectState": "it lies in an archive storage class: restore it, then it can be read",
    "KMS.DisabledException": "its KMS key is disabled: enable the key, then it can be read",
    "KMS.InvalidStateException": "its KMS key cannot be used now: see the state of the key in KMS",
    "KMS.KMSInvalidStateException": "its KMS key cannot be used now: see the state of the key in KMS",
    "KMS.NotFoundException": "its KMS key does not exist: restore the key, or send the file again",
}
_NO_CREDENTIALS: Final = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.ProfileNotFound,
    aws.CredentialRetrievalError,
    aws.NoAuthTokenError,
    aws.SSOError,
)


class ListingDeniedError(ConfigError):
    """We may not list here; reading an object whose key is known may still be allowed."""


def code_of(error: aws.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: aws.ClientError) -> int:
    """The HTTP status; that of HEAD requests may only stand in the code."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = code_of(error)
    return int(status or (code if code.isdecimal() else 0))


def says_gone(error: aws.ClientError) -> bool:
    """Whether the store claims that there is no such object, or another version: a claim, which may be wrong."""
    return status_of(error) in (404, 410, 412) and code_of(error) != "NoSuchBucket"


def is_refusal(error: aws.ClientError) -> bool:
    """Whether the store does not do such a thing, or not for us: asking again would bring the same."""
    return 400 <= status_of(error) < 500 or status_of(error) == 501


@contextmanager
def explained(where: str, right: str, doing: str = "read", *, listing: bool = False) -> Iterator[None]:
    """Turn what boto3 raises into our errors, each with a sentence on what to do.

    `where`: the address that is worked on. `right`: what AWS calls the right to do so. `doing`: read, write, delete.
    """
    try:
        yield
    except aws.ClientError as error:
        raise _meaning(error, where, right, doing, listing=listing) from error
    except _NO_CREDENTIALS as error:
        raise ConfigError(
            f"{where}: there are no usable AWS credentials ({error}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
            " AWS_PROFILE, or a role"
        ) from error
    except (aws.ParamValidationError, aws.UnsupportedS3ArnError, aws.InvalidEndpointConfigurationError) as error:
        raise ConfigError(f"{where}: this is no valid bucket or key ({_on_one_line(error)}): correct it") from error
    except aws.MissingDependencyException as error:
        raise ConfigError(f"{where}: this address needs another package: {_on_one_line(error)}") from error
    except TooSlowError as error:
        raise TransientError(
            f"{where}: it came at less than {LEAST_RATE:,} bytes a second, so it was given up: trying again can help"
        ) from error
    except (aws.ReadTimeoutError, aws.ConnectTimeoutError) as error:
        raise TransientError(
            f"{where}: the store did not answer in time: trying again can help. If it stays slow, raise read_timeout"
        ) from error
    except aws.IncompleteReadError as error:
        came, all_of_it = error.kwargs["actual_bytes"], error.kwargs["expected_bytes"]
        raise TransientError(
            f"{where}: the answer ended early, after {came:,} of {all_of_it:,} bytes: trying again can help"
        ) from error
    except aws.FlexibleChecksumError as error:
        raise TransientError(
            f"{where}: other bytes came than the store's checksum says: trying again can help"
        ) from error
    except ResponseParserError as error:
        raise not_s3(where) from error
    except S3CopyFailedError as error:  # overwritten between two parts
        raise TransientError(f"{where}: the copy was not finished: trying again can help") from error
    except (aws.BotoCoreError, HTTPError) as error:
        raise _connection(error, where) from error


def not_s3(where: str) -> TransientError:
    """What is said of an answer that no S3 API gives."""
    return TransientError(
        f"{where}: what answers is no S3 API, its answer cannot be read: check the endpoint (AWS_ENDPOINT_URL_S3,"
        " endpoint_url). It may be a web console, whose port is another one, or a proxy's page"
    )


def _connection(error: Exception, where: str) -> IngestError:
    if cause := _certificate(error):
        return ConfigError(
            f"{where}: the certificate of the store is not trusted ({cause.verify_message}): set AWS_CA_BUNDLE to the"
            " file of the authority that signed it, or correct the endpoint (AWS_ENDPOINT_URL_S3, endpoint_url)"
        )
    if isinstance(error, aws.SSLError):
        return TransientError(
            f"{where}: the store does not speak TLS as it should. If it speaks plain HTTP, write http:// in the"
            " endpoint (AWS_ENDPOINT_URL_S3, endpoint_url); otherwise trying again can help"
        )
    url = urlsplit(getattr(error, "kwargs", {}).get("endpoint_url") or "")
    place = f"{url.scheme}://{url.netloc}" if url.netloc else "the store"
    happened = (
        f"nothing answers at {place}"
        if isinstance(error, aws.EndpointConnectionError)
        else f"the connection to {place} broke ({type(error).__name__})"
    )
    return TransientError(
        f"{where}: {happened}: trying again can help. If it stays so, check the network and the endpoint"
        " (AWS_ENDPOINT_URL_S3, endpoint_url)"
    )


def _certificate(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """The refused certificate behind an error, if that is what it is."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ssl.SSLCertVerificationError):
            return one
        inner = [part for part in (*one.args, getattr(one, "reason", None)) if isinstance(part, BaseException)]
        waiting += [one.__cause__, one.__context__, *inner]
    return None


def _meaning(error: aws.ClientError, where: str, right: str, doing: str, *, listing: bool) -> IngestError:
    code, status = code_of(error), status_of(error)
    said = _said(error)
    if code == "NoSuchBucket":
        return ConfigError(f"{where}: there is no such bucket: correct its name, or create it")
    if code in _SETTINGS:
        return ConfigError(f"{where}: {_SETTINGS[code]} (the store says {said})")
    if code in _OBJECT:
        return TransientError(f"{where}: {_OBJECT[code]} (the store says {said})")
    if status == 403 and listing:
        return ListingDeniedError(
            f"{where}: we may not list it: grant {right} on this bucket and prefix (the store says {said})"
        )
    if status == 403:
        return TransientError(
            f"{where}: we may not {doing} it: grant {right} on it, and the use of its key if it is encrypted"
            f" (kms:Decrypt, kms:GenerateDataKey). The store says {said}"
        )
    if says_gone(error) and not listing:
        return ObjectGone(f"{where}: there is no such object now: it was deleted or overwritten, or the key is wrong")
    if says_gone(error):
        return TransientError(
            f"{where}: the store has nothing to list there ({said}): check the bucket, and the endpoint"
            " (AWS_ENDPOINT_URL_S3, endpoint_url), which must not hold the bucket's name"
        )
    if code.isdecimal() and not error.operation_name.startswith("Head"):  # of HEAD there is no more than a status
        return TransientError(
            f"{where}: what answers {said} does not speak like an S3 API: trying again can help. If it stays so, check"
            " the endpoint (AWS_ENDPOINT_URL_S3, endpoint_url): it may be a web console (on another port) or a proxy"
        )
    if is_refusal(error) and status not in (408, 429):
        encrypted = " An object that was encrypted with a key of the sender's own (SSE-C) cannot be read." * (
            status == 400 and doing == "read" and not listing
        )
        return TransientError(
            f"{where}: the store refuses with {said}. Trying again does not help until that is changed.{encrypted}"
        )
    return TransientError(f"{where}: the store answered {said}: trying again can help")


def _said(error: aws.ClientError) -> str:
    """The store's code and message, on one line."""
    code = code_of(error) or str(status_of(error))
    message = _on_one_line(error.response.get("Error", {}).get("Message") or "")
    if not message or message == code:
        return code
    return f"{code}: {message.rstrip('. ')}"


def _on_one_line(words: object) -> str:
    return " ".join(str(words).split())[:300]
