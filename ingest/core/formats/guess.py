"""Which format a file surely has, by what it begins with.

In:     the first bytes of a file, decompressed: lines, or documents of which the last is cut off, or broken.
Out:    the name of a format; None where nothing in them shows it, or two things disagree.
Cheap:  at most a hundred values are looked at, within 64 KiB. Never raises.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from ingest.core import schema
from ingest.core.commands import Item
from ingest.core.filetype import BOM, HEAD_BYTES, kind_of
from ingest.core.formats import FORMATS, open_format
from ingest.core.jsontext import behind_white

AUTO: Final = "auto"  # in place of a format's name: the guess, file by file

_VALUES_AT_MOST: Final = 100
_DEPTH: Final = 4  # how far into a value that is not whole
_NEXT: Final = re.compile(r"\n(?=[\[{])")  # where a document may begin behind one that is broken
_BROKEN: Final = object()  # in place of a value that is none
_DECODER: Final = json.JSONDecoder()


def guess(head: bytes) -> str | None:
    """The format that a file beginning with `head` surely has."""
    text = head[:HEAD_BYTES].removeprefix(BOM).decode(errors="replace")
    told = {format for value in _values(text) if (format := _format_of(value))}
    return told.pop() if len(told) == 1 else None


def other_format(name: str, head: bytes) -> str | None:
    """The format that a file given as `name` surely has instead: nothing in it looks like a line of `name`."""
    if (own := open_format(name).own_names) and own.search(head):
        return None
    found = guess(head)
    return None if found == name else found


def refusal(name: str, head: bytes) -> Item | None:
    """The refusal of a file given as `name` that holds no JSON at all, or surely has another format."""
    if kind := kind_of(head):
        remedy = f"It is {kind.name}: {kind.remedy}."
    elif found := other_format(name, head):
        remedy = advice(found)
    else:
        return None
    return Item(failures=(schema.failure(name, "wrong_format", remedy=remedy),))


def advice(format: str) -> str:
    """What to say of a file that surely is of this format. Once it was rejected, only force takes it."""
    return (
        f"It seems to be {format}. Choose that format where you upload it, or load it with --format {format} --force;"
        f' for all files of a source set format = "{format}" in ingest.toml, and force those that were refused.'
    )


def _values(text: str) -> Iterator[Any]:
    """The JSON values one after the other; of one that is cut off or broken, what is there."""
    at = 0
    for _ in range(_VALUES_AT_MOST):
        at = behind_white(text, at)
        if at == len(text):
            return
        value, end = _value(text, at, _DEPTH)
        if value is not _BROKEN:
            yield value
        if end is None:
            after = _NEXT.search(text, at)
            if not after:
                return
            end = after.end()
        at = end


def _value(text: str, at: int, depth: int) -> tuple[Any, int | None]:
    """The value that begins at `at`, and where it ends; None: it is not whole."""
    try:
        return _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        pass
    if not depth:
        return _BROKEN, None
    read: dict[str, Callable[[str, int, int], Any]] = {"{": _some_members, "[": _some_elements}
    begin = text[at : at + 1]
    return (read[begin](text, at + 1, depth - 1) if begin in read else _BROKEN), None


def _some_elements(text: str, at: int, depth: int) -> list[Any]:
    """Those that are whole; if there is none, what is there of the first: too little of one would show nothing."""
    found: list[Any] = []
    end: int | None = at
    while end is not None and (at := behind_white(text, end)) < len(text):
        value, end = _value(text, at, depth)
        if value is not _BROKEN and (end is not None or not found):
            found.append(value)
        end = None if end is None else _behind(",", text, end)
    return found


def _some_members(text: str, at: int, depth: int) -> dict[str, Any]:
    found = {}
    end: int | None = at
    while end is not None and (at := behind_white(text, end)) < len(text):
        name, end = _value(text, at, 0)
        end = None if end is None or not isinstance(name, str) else _behind(":", text, end)
        if end is not None:
            value, end = _value(text, behind_white(text, end), depth)
            if value is not _BROKEN:
                found[name] = value
            end = None if end is None else _behind(",", text, end)
    return found


def _behind(sign: str, text: str, at: int) -> int | None:
    at = behind_white(text, at)
    return at + 1 if text.startswith(sign, at) else None


def _format_of(value: Any) -> str | None:
    """The format of one line or document, as far as it is there."""
    in_array = isinstance(value, list)
    told = {_format_of_object(one, in_array) for one in (value if in_array else [value])}
    return told.pop() if len(told) == 1 else None


def _format_of_object(one: Any, in_array: bool) -> str | None:
    """The first format that it shows."""
    if not isinstance(one, dict):
        return None
    return next((name for name in FORMATS if open_format(name).is_shown_by(one, in_array)), None)
