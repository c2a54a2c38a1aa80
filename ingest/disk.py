"""What a disk holds for certain, and whether it takes more.

Room is asked for by trying: a quota, or a file system without inodes, shows in no figure.
"""

import errno
import os
import shutil
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

ROOM_BYTES: Final = 4 << 20  # what any small file needs
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def flush(path: Path) -> None:
    """To the disk: of a file its bytes, of a folder its names. Until then a cut may leave a name without its bytes."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
