"""A source file: one version of one object, and the names that follow from it."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Self

from ingest.core.matching import natural

LOCAL_BUCKET = "file"
ONE_OFF = "one_off"  # the source of a load that names none
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What `ingest serve` calls an object: microseconds of the receipt, the instance, its number. See `intake_key`.
_INTAKE_NAME = re.compile(r"intake-([0-9]{16})-[0-9a-f]{8}-[0-9]{8}\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """What a listing says of an object, and the source it was found for.

    `etag` is without quotes; `version_id` is None where the bucket keeps no versions. `last_modified` is aware, UTC.
    """

    bucket: str
    key: str
    etag: str
    last_modified: datetime
    size_bytes: int
    version_id: str | None = None
    storage_class: str = "STANDARD"
    source: str = ONE_OFF
    format: str = "kissmetrics"
    mends: str | None = None  # of a redrive: the key of the file whose lines it mends, in whose places they stand
    known_as: str | None = None  # its file_id in the ledger, where it was first met under another one: see `is_same`

    @property
    def file_id(self) -> str:
        """32 hex digits, the same wherever and whenever this source file is met."""
        if self.known_as:
            return self.known_as
        if self.version_id:
            version = f"version:{self.version_id}"
        elif self.etag or self.bucket == LOCAL_BUCKET:
            version = f"etag:{self.etag}"
        else:  # a store that gives neither
            version = f"size:{self.size_bytes} modified:{self.last_modified.astimezone(UTC).isoformat()}"
        return blake2b(f"{self.bucket}\0{self.key}\0{version}".encode(), digest_size=16).hexdigest()

    @property
    def uri(self) -> str:
        """How a person names it."""
        return self.key if self.bucket == LOCAL_BUCKET else f"s3://{self.bucket}/{self.key}"

    @property
    def received_at(self) -> int:
        """When it came, in microseconds since 1970-01-01 UTC: LastModified; over HTTP the receipt, from its key."""
        over_http = self._intake_name
        return int(over_http[1]) if over_http else (self.last_modified - _EPOCH) // timedelta(microseconds=1)

    @property
    def is_from_intake(self) -> bool:
        """Whether the HTTP intake wrote it (or what it fixes): then equal bytes are no second copy, but came twice."""
        return self._intake_name is not None

    @property
    def _intake_name(self) -> re.Match[str] | None:
        return _INTAKE_NAME.fullmatch((self.mends or self.key).rpartition("/")[2])

    @property
    def position(self) -> str:
        """What the positions of its rows begin with: sorts as text by arrival, then by key in natural order."""
        return f"{self.received_at:017d}|{natural(self.mends or self.key)}|"

    def is_same(self, other: "SourceFile") -> bool:
        """Whether two looks at a key saw the same source file.

        What is seen of versions may change between them (a right that is granted, versions that are switched on, a
        store that answers an error): then the ETag and the size decide; where one of the two has no ETag, the time.
        """
        if (self.bucket, self.key, self.size_bytes) != (other.bucket, other.key, other.size_bytes):
            return False
        if self.version_id and other.version_id and self.version_id != other.version_id:
            return False
        if self.etag and other.etag:
            return self.etag == other.etag
        return self.last_modified == other.last_modified

    def for_source(self, source: str, format: str) -> Self:
        """The same object as met through another source."""
        return replace(self, source=source, format=format)

    def to_dict(self) -> dict[str, object]:
        """Plain values that JSON keeps: what XCom carries."""
        return asdict(self) | {"last_modified": self.last_modified.isoformat()}

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Self:
        """The source file of a ledger row, under the id that it has there."""
        names = ("bucket", "key", "etag", "last_modified", "size_bytes", "version_id", "source", "format")
        return cls(**{name: row[name] for name in names}, known_as=row["file_id"])

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**values | {"last_modified": datetime.fromisoformat(values["last_modified"])})


def intake_folder(prefix: str) -> str:
    """Where below a source's prefix the HTTP intake puts its objects."""
    return f"{prefix}/intake/" if prefix and not prefix.endswith("/") else f"{prefix}intake/"


def intake_key(prefix: str, received_at: int, instance: str, number: int) -> str:
    """What the HTTP intake calls an object below a source's prefix. Keys of one instance sort by receipt.

    `received_at`: microseconds since 1970 of the last body in it. `instance`: 8 hex digits. `number`: of the object.
    """
    day = _EPOCH + timedelta(microseconds=received_at)
    return f"{intake_folder(prefix)}{day:%Y/%m/%d}/intake-{received_at:016d}-{instance}-{number:08d}.json"
