"""The native core: whether one was built for this machine, and may be used.

It takes blocks of lines as `ingest.core.formats.kissmetrics_native` hands them over. Where there is none, or it goes
wrong, Python does the same.
Source: native/, built by `make setup` and into the wheels of `make wheel`.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Final

LIBRARY: Final = Path(__file__).parent / "_native.so"


@cache
def library(built: Path = LIBRARY) -> ctypes.CDLL | None:
    """The core, or None where none was built for this machine."""
    try:
        core = ctypes.CDLL(str(built))
    except OSError:
        return None
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    core.landfall_rules.argtypes = [ctypes.c_bool, number, number, ctypes.c_char_p, size, ctypes.c_char_p, size]
    core.landfall_rules.restype = address
    core.landfall_page.argtypes = [address, ctypes.c_uint32, address]
    core.landfall_page.restype = None
    core.landfall_judge.argtypes = [address, ctypes.c_char_p, size, number, address]
    core.landfall_judge.restype = address
    core.landfall_line_ends.argtypes = [ctypes.c_char_p, size]
    core.landfall_line_ends.restype = size
    core.landfall_free.argtypes = core.landfall_forget.argtypes = [address]
    core.landfall_free.restype = core.landfall_forget.restype = None
    return core


def line_ends(data: bytes, native: bool) -> int:
    """How many lines end in `data`; `native`: the core may be asked, which takes a tenth of the time."""
    core = library() if native else None
    return int(core.landfall_line_ends(data, len(data))) if core else data.count(b"\n")


def told(allowed: bool = True) -> str:
    """Which core judges lines, for a person. `allowed`: the setting `native`."""
    if library() and allowed:
        return "native core"
    return f"{'native core turned off' if library() else 'no native core'}: Python judges every line"
