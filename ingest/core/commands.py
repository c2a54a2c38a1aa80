"""The facts that judging produces: commands, failures, and the item they belong to.

What there is one of for each line is a named tuple: it is made in a third of the time of a frozen dataclass.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ingest.core.matching import IGNORED_IDENTITIES, Match

Kind = Literal["record", "set", "alias"]
TimeSource = Literal["event", "received"]


class Command(NamedTuple):
    """What one item asks for: `person` did `event` (record), has `properties` (set), or is also `alias`."""

    kind: Kind
    person: str  # the identity, as sent
    at: int  # microseconds since 1970-01-01 UTC
    event: str | None = None  # record only
    alias: str | None = None  # alias only
    properties: Mapping[str, object] = {}  # never changed; str, bool, int, Decimal: every digit kept
    time_source: TimeSource = "event"
    people_space: str | None = None  # None: the source's own
    # What else makes it this fact and no other: ("also", …) beside what it says, ("only", …) instead of that.
    identity: tuple[str | int | None, ...] = ()


class Failure(NamedTuple):
    """One broken rule of one item."""

    code: str  # published, see schemas/
    message: str  # what is wrong and what to do
    pointer: str = ""  # JSON Pointer (RFC 6901) into the item; "" is the item itself
    got: object = None  # the offending value, shortened
    send: int | float | None = None  # what to send in the place of `got`, where that can be said
    more: int = 0  # on the last one that is kept of its code: how many more places of the item break this rule

    def told(self) -> dict[str, object]:
        """As JSON has it: `send` and `more` only where there are any."""
        told = {"code": self.code, "message": self.message, "pointer": self.pointer, "got": self.got}
        if self.send is not None:
            told["send"] = self.send
        if self.more:
            told["more"] = self.more
        return told


class Item(NamedTuple):
    """The outcome of one item: commands, or the failures that refused it. Never both."""

    commands: tuple[Command, ...] = ()
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()  # codes
    path: str = ""  # where it stands in its unit: "/actions/1"; "" is the whole line
    raw: bytes | None = None  # its own text, as sent; None: the unit is the item
    start: int = 0  # where `raw` begins in the unit, in bytes
    number: int | None = None  # where it stands among the items of its unit; None: where it comes in the answer
    context: bytes | None = None  # of a refused item: what of its unit it cannot be judged without, once it is fixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What judging needs to know of a source and of the file at hand. Picklable."""

    people_space: str = "kissmetrics"
    match: Match = "kissmetrics"
    ignored_identities: frozenset[str] = IGNORED_IDENTITIES
    strict: bool = False  # warnings become failures
    native: bool = True  # the native core may judge, where there is one
    nested: Literal["fail", "flatten"] = "fail"
    max_line_bytes: int = 1_048_576
    max_document_bytes: int = 67_108_864
    time_from: int = 1_230_768_000  # seconds; 2009-01-01, what Kissmetrics keeps
    future_seconds: int = 86_400  # how far after `received_at` a time may lie
    received_at: int = 0  # the object's LastModified, microseconds since 1970
    file_id: str = ""  # of the file at hand: an item without a time of its own is known by its place

    @property
    def time_until(self) -> int:
        """The latest second that is not `time_in_future`."""
        return self.received_at // 1_000_000 + self.future_seconds
