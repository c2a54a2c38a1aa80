"""What a disk holds for certain, whether it takes more, and what is ours alone on it.

Room is asked for by trying: a quota, or a file system without inodes, shows in no figure.
A folder may be everybody's, such as the temporary one. A name in it that can be foreseen may then be anybody's file, a
link, or a pipe that nobody writes to. So nothing is opened there but plain files, and what we make there is in a folder
of our own.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import reduce
from operator import or_
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from tempfile import TemporaryDirectory, TemporaryFile
from threading import Lock
from typing import Final

ROOM_BYTES: Final = 4 << 20  # what any small file needs
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

FOLDER_PREFIX: Final = "landfall-"  # of ours in a folder of everybody's
_OWNED: Final = "owned"  # locked for as long as the process that made the folder lives
_OF_OTHERS: Final = 0o022  # who else may write
_guard = Lock()
_masks: list[int] = []  # while `no_more_open_than` holds: that of the process, then those asked for


def has_room(folder: Path) -> bool:
    """Whether a few megabytes can be written in `folder` now, and it is there at all."""
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(ROOM_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError:
        return False
    return True


def free_space(folder: Path) -> str:
    """What is free on the disk of `folder`, in words."""
    try:
        free: float = shutil.disk_usage(folder).free
    except OSError:
        return "nothing"  # it is not there
    for unit in ("bytes", "KB", "MB"):
        if free < 1000:
            return f"{free:.0f} {unit}"
        free /= 1000
    return f"{free:,.0f} GB"


def opened(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666, *, follow: bool = False) -> int:
    """A plain file, opened at once, or not at all. Links are only followed where that was asked for.

    Raises:
        OSError: it cannot be opened, or is a link, a pipe, a socket or a device.
    """
    flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        number = os.open(path, flags, mode)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise OSError(error.errno, "it is a link", str(path)) from error
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(error.errno, "it is no plain file", str(path)) from error
        raise
    if not S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.ENXIO, "it is no plain file", str(path))
    return number


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder that only this user may look into, under a name that nobody can foresee. It is gone afterwards.

    What killed processes of this user left under such names is removed.

    Raises:
        OSError: none can be made in `parent`.
    """
    with suppress(OSError):
        for name in os.listdir(parent):  # noqa: PTH208 - a name that is none of ours is no path yet
            if name.startswith(prefix):
                _remove_left(parent / name)
    with (
        TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name,
        Path(name, "new").open("wb") as owned,
    ):
        flock(owned, LOCK_EX)
        Path(name, "new").rename(Path(name, _OWNED))  # so that only a locked one is ever seen
        yield Path(name)


def _remove_left(folder: Path) -> None:
    with suppress(OSError):
        status = folder.lstat()
        if not S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _OF_OTHERS:
            return
        owned = opened(folder / _OWNED)
        try:
            flock(owned, LOCK_EX | LOCK_NB)  # its owner, if it lived, would have it
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(owned)


@contextmanager
def no_more_open_than(mode: int) -> Iterator[None]:
    """What anything in this process makes in the meantime gives group and others no right that `mode` does not."""
    mask = ~mode & 0o077 & ~((mode & 0o044) >> 2)  # who may read may also enter a folder
    with _guard:
        if not _masks:
            _masks.append(os.umask(0o077))
        _masks.append(mask)
        os.umask(reduce(or_, _masks))
    try:
        yield
    finally:
        with _guard:
            del _masks[-1 - _masks[::-1].index(mask)]
            os.umask(reduce(or_, _masks))
            if len(_masks) == 1:
                _masks.clear()


def flush(path: Path) -> None:
    """To the disk: of a file its bytes, of a folder its names. Until then a cut may leave a name without its bytes."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
