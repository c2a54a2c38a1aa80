"""What lies in a bucket, page by page, with nothing taken on trust.

Decides: which version of a key is the current one, and what a listing proves. Each mark that S3 declares optional may
         be missing: then a page is continued after its last key. A page or a key that comes twice is reported
         (`ListingDoubted`) after what could be read. Where versions cannot be seen, the plain listing is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from ingest.adapters.s3_errors import ListingDeniedError, code_of, explained, is_refusal, not_s3
from ingest.core.source import SourceFile
from ingest.errors import ConfigError, IngestError, ListingDoubted, TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Entry = Mapping[str, Any]
_PAGE: Final = 1000
_EMPTY_AT_MOST: Final = 100  # pages in a row, in which a store may have looked for something
_MARKS: Final = {"Name", "Prefix", "MaxKeys", "KeyCount", "IsTruncated", "Contents", "Versions", "DeleteMarkers"}


class Listing:
    """The listings of one client."""

    def __init__(self, client: "S3Client") -> None:
        self._client = client

    def files(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        """Every current object under a prefix, in the store's order. Raises ListingDoubted at the end, if in doubt."""
        for page in self._pages(bucket, prefix, _PAGE):
            yield from page

    def find(self, bucket: str, key: str) -> SourceFile:
        """The current version of one object: from a listing, else by HEAD. Raises ObjectGone if the store says so."""
        try:
            # The smallest key with this prefix is the key itself, if it is there (but not in a directory bucket).
            first = next(self._pages(bucket, key, 1), ())
            if first and first[0].key == key:
                return first[0]
        except ConfigError as error:
            if not isinstance(error, ListingDeniedError):
                raise
            unlisted: IngestError | None = error
        except TransientError as error:  # HEAD may be answered all the same
            unlisted = error
        else:
            unlisted = None
        with explained(f"s3://{bucket}/{key}", "s3:GetObject"):
            head: Any = self._client.head_object(Bucket=bucket, Key=key)
        if unlisted and head.get("LastModified") is None:  # no S3 API answers so: what was said before is the reason
            raise unlisted
        entry = head | {"Key": key, "Size": head.get("ContentLength")}
        return self._file(bucket, entry, versioned=self.keeps_versions(bucket, key))

    def has_version(self, file: SourceFile) -> bool:
        """Whether the store still lists this version of a key, current or not."""
        with explained(file.uri, "s3:ListBucketVersions", listing=True):
            return file.version_id in self._versions_of(file)

    def other_versions(self, file: SourceFile) -> bool:
        """Whether the key has another version than this one."""
        return any(version != file.version_id for version in self._versions_of(file))

    def _versions_of(self, file: SourceFile) -> Iterator[str | None]:
        for page in self._entries(file.bucket, file.key, _PAGE, versioned=True):
            yield from (one.get("VersionId") for one in page if one["Key"] == file.key)

    def keeps_versions(self, bucket: str, prefix: str) -> bool:
        """Whether the bucket keeps versions and we may see them: if not, it is read as one that keeps none."""
        try:
            versioning: Any = self._client.get_bucket_versioning(Bucket=bucket)
            if not versioning.get("Status"):
                return False
            page: Any = self._client.list_object_versions(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except aws.ClientError as error:
            if code_of(error) == "NoSuchBucket":
                raise
            return False
        except ResponseParserError:
            return False
        # Without the mark nobody can say which version is the current one.
        return all("IsLatest" in one for one in page.get("Versions", ()))

    def _pages(self, bucket: str, prefix: str, size: int) -> Iterator[Sequence[SourceFile]]:
        with explained(f"s3://{bucket}/{prefix}", "s3:ListBucket", listing=True):
            versioned = self.keeps_versions(bucket, prefix)
            versions = self._entries(bucket, prefix, size, versioned=True)
            odd = ""
            for entries in versions if versioned else self._plain(bucket, prefix, size):
                if versioned and not all("IsLatest" in one for one in entries):
                    where = f"s3://{bucket}/{prefix}"
                    raise ListingDoubted(f"{where}: the listing does not say which version is current", cut=True)
                files = []
                for one in entries:
                    if one.get("IsLatest", not versioned):
                        try:
                            files.append(self._file(bucket, one, versioned=versioned))
                        except (aws.ClientError, TransientError) as error:  # its neighbours can be loaded
                            odd = odd or _untold(bucket, one, error)
                yield files
            if odd:
                raise ListingDoubted(odd, cut=True)

    def _plain(self, bucket: str, prefix: str, size: int) -> Iterator[Sequence[Entry]]:
        """The plain listing. A directory bucket lists folders only: of those what begins with the prefix."""
        pages = self._entries(bucket, prefix, size, versioned=False)
        folder = prefix[: prefix.rfind("/") + 1]
        try:
            first = next(pages)
        except aws.ClientError as error:
            if folder == prefix or not is_refusal(error) or error.response["ResponseMetadata"]["HTTPStatusCode"] != 400:
                raise
            for page in self._entries(bucket, folder, _PAGE, versioned=False):
                yield [one for one in page if one["Key"].startswith(prefix)]
            return
        yield first
        yield from pages

    def _entries(self, bucket: str, prefix: str, size: int, *, versioned: bool) -> Iterator[Sequence[Entry]]:
        """The entries of each page, of the listing of versions or of the plain one."""
        ask: Any = self._client.list_object_versions if versioned else self._client.list_objects_v2
        turns = _Turns(f"s3://{bucket}/{prefix}")
        more: dict[str, Any] = {}
        while True:
            page = ask(Bucket=bucket, Prefix=prefix, MaxKeys=size, **more)
            entries = turns.take(page)
            yield entries
            key, version = page.get("NextKeyMarker"), page.get("NextVersionIdMarker")
            token = (key and f"{key}\0{version}") if versioned else page.get("NextContinuationToken")
            if not turns.goes_on(page, token):
                break
            if not versioned:
                more = {"ContinuationToken": token} if token else {"StartAfter": entries[-1]["Key"]}
                continue
            if not key:
                last = max((*entries, *page.get("DeleteMarkers", ())), key=lambda one: one["Key"].encode())
                key, version = last["Key"], None  # the current version of a key is its first
            more = {"KeyMarker": key} | ({"VersionIdMarker": version} if version else {})
        turns.close()

    def _file(self, bucket: str, entry: Entry, *, versioned: bool) -> SourceFile:
        """What is listed, as a source file. What a listing leaves out, HEAD may give."""
        if entry.get("Size") is None or entry.get("LastModified") is None:
            head: Any = self._client.head_object(Bucket=bucket, Key=entry["Key"])
            entry = {"Size": head.get("ContentLength"), "LastModified": head.get("LastModified")} | {
                name: value for name, value in entry.items() if value is not None
            }
        if entry["Size"] is None or entry["LastModified"] is None:
            missing = "size" if entry["Size"] is None else "time (LastModified)"
            raise TransientError(
                f"s3://{bucket}/{entry['Key']}: the store does not give its {missing}: it cannot be loaded"
            )
        version = entry.get("VersionId") if versioned else None
        return SourceFile(
            bucket=bucket, key=entry["Key"], etag=etag_of(entry), size_bytes=entry["Size"],
            last_modified=entry["LastModified"].astimezone(UTC),
            version_id=None if version == "null" else version or None,  # stored while the bucket kept no versions
            storage_class=entry.get("StorageClass", "STANDARD"),
        )  # fmt: skip


def _untold(bucket: str, entry: Entry, error: Exception) -> str:
    if isinstance(error, TransientError):
        return str(error)
    return (
        f"s3://{bucket}/{entry['Key']}: the listing does not give its size and time (LastModified), nor does HEAD"
        f" ({error}): it cannot be loaded"
    )


class _Turns:
    """Whether a listing goes forward: what its pages said, as far as that shows a mistake."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._seen: set[object] = set()
        self._tokens: set[str] = set()
        self._last: object = None
        self._repeated: str | None = None
        self._empty = 0  # pages in a row
        self._is_guess = False  # the next page is asked for since nothing says that there is none

    def take(self, page: Entry) -> list[Any]:
        """The entries of a page, each once. Raises if they were there before, or if it is no page of a listing."""
        if not _MARKS & page.keys():
            raise not_s3(self._where)
        taken = []
        for entry in (*page.get("Contents", ()), *page.get("Versions", ())):
            name = (entry["Key"], entry.get("VersionId"))
            if name == self._last:
                self._repeated = entry["Key"]
                continue
            self._last = name
            taken.append(entry)
        if some := taken or page.get("DeleteMarkers", ()):
            ends = [(one["Key"], one.get("VersionId")) for one in (some[0], some[-1])]
            if (turn := (ends[0], ends[-1])) in self._seen:
                if self._is_guess:
                    return []  # nothing said that there was more
                raise ListingDoubted(
                    f"{self._where}: the listing runs in circles: a page came again, so it was given up after"
                    f" {len(self._seen):,} pages. The rest is not seen: ask the people who run the store",
                    cut=True,
                )
            self._seen.add(turn)
        return taken

    def goes_on(self, page: Entry, token: str | None) -> bool:
        """Whether there is another page. Raises if there is one, and nothing says how to get to it."""
        entries = (*page.get("Contents", ()), *page.get("Versions", ()), *page.get("DeleteMarkers", ()))
        self._empty = 0 if entries else self._empty + 1
        if self._empty > _EMPTY_AT_MOST:
            raise ListingDoubted(
                f"{self._where}: the listing goes on with page after page of nothing, so it was given up. What lies"
                " behind is not seen: ask whoever runs the store",
                cut=True,
            )
        self._is_guess = not token and "IsTruncated" not in page
        if not (token or page.get("IsTruncated", bool(entries))):
            return False
        if token in self._tokens or not (token or entries):
            raise ListingDoubted(
                f"{self._where}: the listing is cut: there is more of it, and the store does not say how to go on."
                " The rest is not seen: ask the people who run the store",
                cut=True,
            )
        if token:
            self._tokens.add(token)
        return True

    def close(self) -> None:
        """Call at the end of the listing."""
        if self._repeated is not None:
            raise ListingDoubted(
                f"{self._where}: the listing repeats itself ({self._repeated} came twice), so what it does not show may"
                " be there all the same",
                cut=False,
            )


def etag_of(entry: Entry) -> str:
    """The ETag without quotes, and without the mark of a weak one; empty where there is none."""
    return str(entry.get("ETag") or "").strip().removeprefix("W/").strip('"')
