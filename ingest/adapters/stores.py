"""All the stores as one: bucket `file` is this machine, every other bucket is S3.

The S3 client is made when it is first needed: importing boto3 takes longer than checking a small file.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from threading import Lock

from ingest.adapters.local import LocalStore
from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.ports import ObjectStore


class Stores:
    """`ingest.ports.ObjectStore` that sends each call to the store of its bucket."""

    def __init__(self, open_s3: Callable[[], ObjectStore], local: ObjectStore | None = None) -> None:
        self._open_s3 = open_s3
        self._s3: ObjectStore | None = None
        self._opening = Lock()
        self._local = local or LocalStore()

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:
        return self._of(bucket).list(bucket, prefix)

    def describe(self, bucket: str, key: str) -> SourceFile:
        return self._of(bucket).describe(bucket, key)

    def read(self, file: SourceFile) -> Iterator[bytes]:
        return self._of(file.bucket).read(file)

    def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:
        return self._of(file.bucket).copy(file, to_keys, sha256)

    def remove(self, file: SourceFile, own_prefix: str) -> bool:
        return self._of(file.bucket).remove(file, own_prefix)

    def write(self, bucket: str, key: str, content: Path) -> None:
        self._of(bucket).write(bucket, key, content)

    def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:
        self._of(bucket).receive(bucket, key, pieces)

    def _of(self, bucket: str) -> ObjectStore:
        if bucket == LOCAL_BUCKET:
            return self._local
        with self._opening:  # several may be read at a time
            self._s3 = self._s3 or self._open_s3()
        return self._s3
