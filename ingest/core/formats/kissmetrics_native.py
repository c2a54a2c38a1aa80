"""Which Kissmetrics lines are beyond doubt, decided by the native core: as `kissmetrics_fast`, in a fifth of its time.

In:     a block of whole lines.
Out:    the rows of those beyond doubt as Arrow arrays, and the places of the others.
It is called without the interpreter's lock, and is held against `kissmetrics_fast` and the judge by tests.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson
import pyarrow as pa

from ingest.core.commands import Rules

_MOST_BYTES: Final = 1 << 30  # of a block: Arrow's offsets have 31 bits
_SPACE, _UNSURE = 1 << 31, 1 << 30  # see native/names.rs
_KINDS: Final = pa.array(["record", "set", "alias"])


class _Column(ctypes.Structure):
    _fields_ = (
        ("ends", ctypes.c_void_p), ("text", ctypes.c_void_p), ("valid", ctypes.c_void_p),
        ("text_bytes", ctypes.c_size_t), ("nulls", ctypes.c_size_t),
    )  # fmt: skip


class _View(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_size_t), ("many", ctypes.c_int64), ("counted", ctypes.c_int64 * 3),
        ("lines", ctypes.c_void_p), ("kinds", ctypes.c_void_p),
        ("times", ctypes.c_void_p), ("ids", ctypes.c_void_p), ("doubtful", ctypes.POINTER(ctypes.c_int64 * 3)),
        ("doubtfuls", ctypes.c_size_t), ("unknown", ctypes.POINTER(ctypes.c_uint32)), ("unknowns", ctypes.c_size_t),
        ("texts", _Column * 7),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Block:
    """What came of a block: arrays by the names of the columns that its rows do not have in common."""

    lines: int
    rows: int
    kinds: dict[str, int]  # rows of each
    columns: dict[str, pa.Array]
    doubtful: list[tuple[int, int, int]]  # place among the lines, offset, length without `\\n`


class Native:
    """The core with the rules of a file."""

    def __init__(self, core: ctypes.CDLL, rules: Rules) -> None:
        self._core = core
        ignored = b"".join(len(text).to_bytes(4, "little") + text for text in _texts(rules.ignored_identities))
        space = orjson.dumps(rules.people_space)
        time_until = min(rules.time_until, 99_999_999_999)
        self._rules = core.landfall_rules(
            rules.match == "exact", rules.time_from, time_until, space, len(space), ignored, len(ignored)
        )

    def __del__(self) -> None:
        self._core.landfall_forget(self._rules)

    def judge(self, data: bytes, first_line: int) -> Block | None:
        """A block of whole lines; None where the core went wrong, or there is too much of it."""
        if len(data) >= _MOST_BYTES:
            return None
        while True:
            view = _View()
            address = self._core.landfall_judge(self._rules, data, len(data), first_line, ctypes.byref(view))
            if address is None:
                return None
            rows = _Rows(self._core, address)
            if not view.unknowns:
                kinds = dict(zip(_KINDS.to_pylist(), view.counted, strict=True))
                doubtful = [tuple(one) for one in view.doubtful[: view.doubtfuls]]
                return Block(view.many, view.rows, kinds, _columns(view, rows), doubtful)
            for page in view.unknown[: view.unknowns]:
                self._core.landfall_page(self._rules, page, (ctypes.c_uint32 * 256)(*_page(page)))


class _Rows:
    """What the core gave, as long as an array has need of it."""

    def __init__(self, core: ctypes.CDLL, address: int) -> None:
        self._core, self._address = core, address

    def __del__(self) -> None:
        self._core.landfall_free(self._address)


def _columns(view: _View, rows: _Rows) -> dict[str, pa.Array]:
    many = int(view.rows)

    def buffer(address: int, size: int) -> pa.Buffer:
        return pa.foreign_buffer(address, size, rows) if size else pa.py_buffer(b"")

    def numbers(address: int, type: pa.DataType, width: int) -> pa.Array:
        return pa.Array.from_buffers(type, many, [None, buffer(address, width * many)])

    def texts(column: Any) -> pa.Array:
        valid = buffer(column.valid, (many + 7) // 8) if column.nulls else None
        ends, text = buffer(column.ends, 4 * (many + 1)), buffer(column.text, column.text_bytes)
        return pa.Array.from_buffers(pa.string(), many, [valid, ends, text], null_count=column.nulls)

    names = ("person", "person_key", "event", "event_key", "alias", "alias_key", "properties")
    return {
        "line": numbers(view.lines, pa.int64(), 8),
        "kind": pa.DictionaryArray.from_arrays(numbers(view.kinds, pa.int8(), 1), _KINDS),
        "occurred_at": numbers(view.times, pa.timestamp("us", "UTC"), 8),
        "command_id": numbers(view.ids, pa.binary(16), 16),
        **{name: texts(column) for name, column in zip(names, view.texts, strict=True)},
    }


def _texts(names: frozenset[str]) -> Iterator[bytes]:
    """Ignored identities that a name in UTF-8 may be."""
    for name in names:
        try:
            yield name.encode()
        except UnicodeEncodeError:
            continue


@cache
def _page(number: int) -> list[int]:
    """How the interpreter takes 256 characters, see names.rs: what becomes several, or depends on others, is unsure."""
    found = []
    for code in range(number << 8, (number + 1) << 8):
        character, lowered = chr(code), chr(code).lower()
        unsure = len(lowered) != 1 or character == "Σ"
        found.append((_UNSURE if unsure else ord(lowered)) | (_SPACE if character.isspace() else 0))
    return found
