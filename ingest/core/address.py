"""What a person names: an object in a bucket, all that lies below a prefix, or a file on this machine.

In:     s3://bucket/key, s3://bucket/prefix/, a path, `-`. A bucket may be the ARN of an access point (with slashes).
Out:    (bucket, key), as a source file has them; where nothing is there, what may have been meant.
"""

import re
from pathlib import Path
from typing import Final

from ingest.core.source import LOCAL_BUCKET
from ingest.errors import ConfigError

# As boto3 takes them.
ACCESS_POINT: Final = (
    r"arn:aws[^:/]*:(?:s3|s3-object-lambda):[a-z0-9-]*:[0-9]{12}:accesspoint[:/][A-Za-z0-9.-]{1,63}"
    r"|arn:aws[^:/]*:s3-outposts:[a-z0-9-]+:[0-9]{12}:outpost[:/][A-Za-z0-9-]{1,63}[:/]accesspoint[:/][A-Za-z0-9-]{1,63}"
)
_S3: Final = re.compile(rf"s3://(?P<bucket>{ACCESS_POINT}|[^/]+)(?:/(?P<key>.*))?", re.DOTALL)
_WRITE: Final = "Write s3://bucket/key, or s3://bucket/prefix/ for many."


def is_s3(address: str) -> bool:
    return address.startswith("s3://")


def is_file_id(reference: str) -> bool:
    """Whether it is the id of a file of the ledger, or the beginning of one, and not an address."""
    return re.fullmatch(r"[0-9a-f]{1,32}", reference) is not None


def split_address(address: str) -> tuple[str, str]:
    """(bucket, key) of an s3:// URI, a local path or `-`. Raises ConfigError."""
    if is_s3(address):
        found = _S3.fullmatch(address)
        if not found:
            raise ConfigError(f"{address} names no bucket. {_WRITE}")
        return found["bucket"], found["key"] or ""
    if address.startswith(("arn:", "s3:/")):
        raise ConfigError(f"{address} is no address. {_WRITE}")
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", address):
        instead = {"s3a": "s3://bucket/key", "s3n": "s3://bucket/key", "file": "the path alone"}
        remedy = instead.get(found[1].lower(), "s3://bucket/key, or a path")
        raise ConfigError(f"{address} is neither a path nor an s3:// URI. Write {remedy}.")
    return LOCAL_BUCKET, address if address == "-" else str(Path(address).absolute())


def meant(address: str) -> str:
    """What may have been meant by an address under which there is nothing; empty where nothing is known."""
    key = address.rpartition("/")[2]
    if "versionId=" in key:
        return " An address names no version: leave out what begins with ?, and the current version is taken."
    if any(sign in key for sign in "*?["):
        return " Patterns are not read here: write s3://bucket/prefix/ (with a slash) for all below it."
    return ""
