"""What is on the disk for certain, also after the power was cut."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """To the disk: of a file its bytes, of a folder its names. Until then a cut may leave a name without its bytes."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
