"""The formats that can be read. Adding one is a module here and a schema in schemas/."""

from collections.abc import Callable
from importlib import import_module
from typing import Final, Protocol

from ingest.core.commands import Item, Rules
from ingest.core.identity import Match
from ingest.core.rows import Row

FORMATS: Final = ("kissmetrics",)


class Format(Protocol):
    """How the units of one system's files are judged."""

    name: str
    match: Match  # how its persons match unless the source says otherwise

    def judge(self, unit: bytes, rules: Rules) -> list[Item]:
        """Judge one unit (a line, or a document) in full: every item with every broken rule. Never raises."""

    def refusal(self, head: bytes) -> Item | None:
        """Why a file that begins with `head` (64 KiB at most) is refused as a whole; None if it is not."""

    def fast(self, rules: Rules) -> Callable[[bytes, int], Row | None]:
        """A decoder for one unit and its line number, for speed: the row, or None where `judge` must decide.

        It may only accept, without a warning, what `judge` accepts without a warning, and give the same row.
        """


def open_format(name: str) -> Format:
    """The format called `name`, one of FORMATS."""
    module = import_module(f"ingest.core.formats.{name}")
    return module.FORMAT  # type: ignore[no-any-return]
