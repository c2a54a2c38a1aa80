"""Source files on this machine: bucket `file`, the key an absolute path, the ETag the SHA-256 of the bytes.

Decides: when a file is still the one that was listed (its size and time of change are the same), and that what can be
         read only once (standard input, `<(zcat …)`) is first copied to a temporary file, which nobody else sees.
         What we write appears under its name whole, or not at all.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import IO, BinaryIO
from uuid import uuid4

from ingest.core.source import LOCAL_BUCKET, SourceFile
from ingest.disk import flush, opened
from ingest.errors import ConfigError, IngestError, ListingDoubted, ObjectGone, TransientError

STANDARD_INPUT = "-"
PIECE_BYTES = 256 * 1024
_HANDED_IN = ("/dev/fd", "/proc/self/fd")  # what was opened for us, such as <(zcat …)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LocalStore:
    """`ingest.ports.ObjectStore` over the local disk. A prefix is a folder, or one file."""

    def __init__(self, standard_input: BinaryIO | None = None) -> None:
        self._standard_input = standard_input
        self._kept: set[Path] = set()  # folders that a power cut leaves where they are
        self._copies: dict[str, tuple[SourceFile, IO[bytes]]] = {}  # of what can be read only once, by key

    def list(self, bucket: str, prefix: str) -> Iterator[SourceFile]:  # noqa: ARG002 - the bucket is always `file`
        folder = Path(os.path.abspath(prefix or "/"))  # noqa: PTH100 - Path.resolve follows links
        if not folder.is_dir():
            if folder.exists():
                yield self.describe(LOCAL_BUCKET, str(folder))
                return
            raise ConfigError(f"{folder}: there is no such file or folder: correct the path")

        def refuse(error: OSError) -> None:
            raise ConfigError(f"{error.filename}: this folder may not be read: change its permissions") from error

        unnamed = ""
        for path, folders, names in os.walk(folder, onerror=refuse):
            folders.sort()
            for name in sorted(names):
                found = Path(path, name)
                if found.is_file():
                    try:
                        _text(found)
                    except IngestError as error:
                        unnamed = unnamed or str(error)
                        continue
                    try:
                        yield self.describe(LOCAL_BUCKET, str(found))
                    except ObjectGone:
                        continue  # deleted since we read the folder
                    except TransientError:
                        yield _source_file(_text(found), "unreadable", found.stat())  # reading it will say why
        if unnamed:  # its neighbours can be loaded
            raise ListingDoubted(unnamed, cut=True)

    def describe(self, bucket: str, key: str) -> SourceFile:  # noqa: ARG002 - as above
        """The file as it is now. Raises ObjectGone; TransientError: it may not be read; IngestError: it is no file."""
        path = Path(key if key == STANDARD_INPUT else os.path.abspath(key))  # noqa: PTH100 - Path.resolve follows links
        if str(path) in self._copies:
            return self._copies[str(path)][0]
        if key == STANDARD_INPUT:
            return self._copy(key, self._standard_input or sys.stdin.buffer)
        with _explained(path):
            status = path.stat()
            if S_ISDIR(status.st_mode):
                raise IngestError(f"{path}: this is a folder: name a file in it")
            if S_ISREG(status.st_mode):
                with _content(path) as content:
                    # The status is from before: whoever changes the file from now on makes it another one.
                    return _source_file(_text(path), _sha256(content), status)
            if str(path.parent) not in _HANDED_IN and str(path) != "/dev/stdin":
                raise IngestError(
                    f"{path}: this is a pipe, a socket or a device, and no file: send what it gives to `ingest load -`"
                )
            with path.open("rb") as content:
                return self._copy(_text(path), content)

    def read(self, file: SourceFile) -> Iterator[bytes]:
        if file.key in self._copies:
            copy = self._copies[file.key][1]
            at = 0
            while piece := os.pread(copy.fileno(), PIECE_BYTES, at):
                yield piece
                at += len(piece)
            return
        path = Path(file.key)
        with _explained(path), _content(path) as content:
            _check_unchanged(file, os.fstat(content.fileno()))
            while piece := content.read(PIECE_BYTES):
                yield piece
            _check_unchanged(file, os.fstat(content.fileno()))

    def copy(self, file: SourceFile, to_keys: Sequence[str], sha256: str) -> str:
        for key in to_keys:
            path = Path(key)
            with _written(path):
                if os.path.lexists(path):
                    if path.is_file() and _digest(path) == sha256:
                        self._keep(path.parent)
                        return key  # of a former try
                    continue
                with _beside(path, self.read(file)) as copy:
                    if _digest(copy) != sha256:
                        raise ObjectGone(f"{file.key}: it was overwritten before it could be archived")
                    shutil.copymode(file.key, copy)
                    os.link(copy, path)  # unlike a rename, it never takes the place of another file
                    self._keep(path.parent)
                    return key
        raise ConfigError(f"{file.key}: {' and '.join(to_keys)} are taken by other files: it stays where it is")

    def remove(self, file: SourceFile, own_prefix: str) -> bool:  # noqa: ARG002 - nothing has to be tried here
        path = Path(file.key)
        try:
            # No system deletes a file on condition: whoever renames another one here in this very moment loses it.
            with _explained(path, "deleted"):
                _check_unchanged(file, path.stat())
                path.unlink()
        except ObjectGone:
            return not path.exists()
        return True

    def write(self, bucket: str, key: str, content: Path) -> None:
        path = Path(key)
        with _written(path):
            if not path.is_file() or _digest(path) != _digest(content):
                with content.open("rb") as body:
                    self.receive(bucket, key, iter(lambda: body.read(PIECE_BYTES), b""))

    def receive(self, bucket: str, key: str, pieces: Iterable[bytes]) -> None:  # noqa: ARG002 - as above
        path = Path(key)
        with _written(path), _beside(path, pieces) as copy:
            copy.replace(path)
            self._keep(path.parent)

    def _keep(self, folder: Path) -> None:
        """See to it that a power cut takes back no name that was just given in a folder."""
        flush(folder)
        if folder not in self._kept:
            for above in folder.parents:  # some of which may be as new
                with suppress(OSError):  # the others are not ours
                    flush(above)
            self._kept.add(folder)

    def _copy(self, key: str, stream: IO[bytes]) -> SourceFile:
        copy = tempfile.TemporaryFile(prefix="ingest-")  # noqa: SIM115 - kept open, it has no name
        digest = hashlib.sha256()
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
            copy.write(piece)
        copy.flush()
        file = _source_file(key, digest.hexdigest(), os.fstat(copy.fileno()))
        self._copies[key] = file, copy
        return file


def _source_file(key: str, etag: str, status: os.stat_result) -> SourceFile:
    changed_at = _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
    return SourceFile(bucket=LOCAL_BUCKET, key=key, etag=etag, last_modified=changed_at, size_bytes=status.st_size)


def _check_unchanged(file: SourceFile, status: os.stat_result) -> None:
    now = _source_file(file.key, file.etag, status)
    if (now.size_bytes, now.last_modified) != (file.size_bytes, file.last_modified):
        raise ObjectGone(f"{file.key}: it has changed since it was listed: list again")


def _text(path: Path) -> str:
    """The path as a key, which has to be text."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise IngestError(f"{os.fsencode(path)!r}: this file name is not UTF-8: rename the file") from error
    return str(path)


def _content(path: Path) -> BufferedReader:
    return os.fdopen(opened(path, follow=True), "rb")


def _digest(path: Path) -> str:
    with _content(path) as content:
        return _sha256(content)


def _sha256(content: BufferedReader) -> str:
    """Not by hashlib's own, which fills 256 KiB with zeros for each file, however small."""
    digest = hashlib.sha256()
    while piece := content.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _beside(path: Path, pieces: Iterable[bytes]) -> Iterator[Path]:
    """A file of these bytes in the folder of `path`, on the disk for certain, for as long as it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".landfall-{uuid4().hex}")
    try:
        with made.open("xb") as temporary:
            for piece in pieces:
                temporary.write(piece)
            temporary.flush()
            os.fsync(temporary.fileno())
        yield made
    finally:
        made.unlink(missing_ok=True)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(f"{path}: it cannot be written ({error.strerror}): fix that, then it is done") from error


@contextmanager
def _explained(path: Path, done: str = "read") -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ObjectGone(f"{path}: there is no such file: correct the path") from error
    except PermissionError as error:
        raise TransientError(f"{path}: it may not be {done}: change its permissions") from error
    except OSError as error:
        raise TransientError(f"{path}: it cannot be {done} ({error.strerror}): it is safe to try again") from error
