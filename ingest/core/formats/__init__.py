"""The formats that can be read. Adding one is a module here and a schema in schemas/."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol

from ingest.core.commands import Failure, Item, Rules
from ingest.core.facts import Columns
from ingest.core.matching import Match

FORMATS: Final = ("kissmetrics", "woopra", "webengage", "retailrocket", "vitally")

# Called with some units and the number of the first: the rows of those beyond doubt, and the places of the others.
Fast = Callable[[Sequence[bytes], int], tuple[Columns, list[int]]]


class Format(Protocol):
    """How the units of one system's files are judged."""

    name: str
    match: Match  # how its persons match unless the source says otherwise
    documents: bool  # a unit is a JSON document, which may span lines; else it is a line
    own_names: re.Pattern[bytes] | None  # what looks like this is read, whatever else the file looks like

    def judge(self, unit: bytes, rules: Rules) -> Iterable[Item]:
        """Judge one unit (a line, or a document) in full: every item with every broken rule. Never raises.

        To be gone through once: the items of a document, which may be millions, are judged as they are taken.
        """

    def judge_item(self, raw: bytes, path: str, context: bytes | None, rules: Rules) -> list[Item]:
        """Judge one fixed item of a document by itself. `path` and `context` are those of the item that it fixes."""

    def too_long(self, length: int, head: bytes, rules: Rules) -> Failure:
        """The failure of a unit of `length` bytes, which is over the limit and begins with `head`."""

    def is_shown_by(self, one: Mapping[str, Any], in_array: bool) -> bool:
        """Whether an object, which may be cut off, is surely of this format; `in_array`: within an array."""

    def refusal(self, head: bytes) -> Item | None:
        """Why a file that begins with `head` (64 KiB at most) is refused as a whole; None if it is not."""

    def fast(self, rules: Rules) -> Fast:
        """Of a format of lines: a decoder that leaves to `judge` what is not plain, for speed.

        It may only accept what `judge` accepts as one command without a warning, and must give the same row.
        """


@cache
def open_format(name: str) -> Format:
    """The format called `name`, one of FORMATS."""
    module = import_module(f"ingest.core.formats.{name}")
    return module.FORMAT  # type: ignore[no-any-return]
