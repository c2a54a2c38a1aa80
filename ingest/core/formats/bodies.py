"""What the formats of bodies share: a document is decoded once, and each of its items is judged alone.

A module of a format says which parts of a document are items, holds each against its part of the schema, and makes
commands of it. Here is the rest.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from ingest.core import schema
from ingest.core.commands import Command, Failure, Item, Rules, TimeSource
from ingest.core.filetype import BOM
from ingest.core.flatten import RepeatedTooMuch, flatten
from ingest.core.formats import guess
from ingest.core.jsontext import (
    Oddity,
    Undecodable,
    holds_more,
    in_range,
    members,
    oddities,
    parse,
    parse_plain,
    pointer,
    values_allowed,
)  # fmt: skip
from ingest.core.matching import Match, is_ignored

if TYPE_CHECKING:
    from ingest.core.formats import Fast

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Seconds and the colon of the offset may be missing, a fraction may be there: all of it is met in the wild.
_ISO: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(?P<seconds>:\d{2}([.,]\d{1,18})?)?(?P<zone>[Zz]|[+-]\d{2}:?\d{2}|[+-]\d{2})?"
)
_OUT_OF_RANGE_LENGTH: Final = 100  # no format allows shorter identifiers only
_E164: Final = re.compile(r"\+[1-9][0-9]{1,14}")  # a telephone number


class Documents(ABC):
    """What the formats of documents have in common. See `Format`."""

    name: str
    match: Match = "exact"
    documents: bool = True
    own_names: re.Pattern[bytes] | None = None

    def judge(self, unit: bytes, rules: Rules) -> Iterator[Item]:
        if holds_more(unit, allowed := values_allowed(rules.max_document_bytes)):
            detail = f"It holds more than {allowed:,} values, the most that one of that size may."
            yield Item(failures=(schema.failure(self.name, "document_too_large", detail=detail),))
            return
        body = read(self.name, unit)
        if isinstance(body, Item):
            yield body
        else:
            yield from self.judge_body(body, rules)

    def judge_item(self, raw: bytes, path: str, context: bytes | None, rules: Rules) -> list[Item]:
        """Sent again by itself it is over no limit of a body."""
        number = self.number(path, context)
        body = read(self.name, raw)
        if isinstance(body, Item):
            return [body._replace(path=path, number=number, context=context)]
        one = Judged(self.name, rules, body.odd(self.name, body.value))
        self.judge_fixed(one, body.value, path, context)
        return [one.item(path, number, context=context)]

    def judge_each(self, body: "Body", items: Iterable[tuple[str, Any]], rules: Rules) -> Iterator[Item]:
        """Judge items by themselves, each known by its number in the body, of which a request may have so many."""
        most = schema.limit(self.name, "over_request_limit")
        for number, (path, value) in enumerate(items):
            one = Judged(self.name, rules, body.odd(self.name, value))
            if number >= most:
                one.warn("over_request_limit")
            context = b"%d" % number
            self.judge_fixed(one, value, path, context)
            yield one.item(path, number, body, context)

    @abstractmethod
    def judge_body(self, body: "Body", rules: Rules) -> Iterator[Item]:
        """Judge a document that is JSON, item by item as they stand in it."""

    @abstractmethod
    def number(self, path: str, context: bytes | None) -> int:
        """Where the item stands in its document."""

    @abstractmethod
    def judge_fixed(self, judged: "Judged", value: Any, path: str, context: bytes | None) -> None:
        """Judge an item by itself: what it breaks or asks for goes into `judged`."""

    def refused_whole(self, body: "Body", value: object, rules: Rules) -> Item:
        """The refusal of a document as one item: `value` is what is held against the schema."""
        whole = Judged(self.name, rules, body.odd(self.name, body.value))
        whole.hold_against(value, "")
        return whole.item("", 0)

    def too_long(self, length: int, head: bytes, rules: Rules) -> Failure:
        return schema.too_long(self.name, "document_too_large", length, rules.max_document_bytes, head)

    def refusal(self, head: bytes) -> Item | None:
        """A file that holds no JSON, or surely has another format, is refused once; else each document is judged."""
        return guess.refusal(self.name, head)

    def fast(self, rules: Rules) -> "Fast":  # noqa: ARG002
        """Only lines have one."""
        raise AssertionError(f"{self.name} has no lines")


class Body:
    """A decoded document. `is_odd`: whether anything in it is what JSON allows and a warehouse cannot keep."""

    def __init__(self, unit: bytes, value: object, is_odd: bool) -> None:
        self.unit, self.value, self.is_odd = unit, value, is_odd
        self._text = ""  # when it is needed
        self._asked: tuple[str | None, tuple[int, int]] = None, (0, 0)  # the last path, and its place
        self._arrays: dict[str, Iterator[tuple[str, int, int]]] = {}  # how far each was gone through
        self._counted = 0, 0  # the last character asked for, and how many bytes stand before it

    def raw(self, path: str) -> tuple[bytes, int]:
        """The text at a JSON Pointer, and the place of its first byte. Parts of an array: to be asked for in order."""
        self._text = self._text or self.unit.decode()
        if self._asked[0] != path:
            self._asked = path, self._place(path)
        start, end = self._asked[1]
        seen, before = self._counted if self._counted[0] <= start else (0, 0)  # on from the last: most come in order
        self._counted = start, before + len(self._text[seen:start].encode())
        return self._text[start:end].encode(), self._counted[1]

    def _place(self, path: str) -> tuple[int, int]:
        """The first character of the part at a JSON Pointer, and the one after it."""
        if not path:
            return 0, len(self._text)
        parent, _, name = path.rpartition("/")
        name = name.replace("~1", "/").replace("~0", "~")
        if parent not in self._arrays:
            start, _ = self._place(parent)
            found = members(self._text, start)
            if self._text[start] == "{":
                return [(first, last) for each, first, last in found if each == name][-1]
            self._arrays[parent] = found
        return next((first, last) for each, first, last in self._arrays[parent] if each == name)

    def oddities(self, value: object) -> Iterator[Oddity]:
        """What JSON allows and a warehouse cannot keep, in a part of the document; pointers begin there."""
        return oddities(value) if self.is_odd else iter(())

    def odd(self, name: str, value: object) -> list[Failure]:
        """The failures that these are."""
        return schema.odd(name, value) if self.is_odd else []


def read(name: str, unit: bytes) -> Body | Item:
    """A document, decoded; or the one failed item that it is where that cannot be done."""
    text = unit.removeprefix(BOM).strip(b" \t\r\n")
    if (plain := parse_plain(text)) is not None:
        return Body(text, plain, False)
    try:
        value = parse(text)
        is_odd = sum(1 for _ in oddities(value)) > 0  # to the end: it tells of what is too deep, too
    except Undecodable as error:
        return Item(failures=(schema.undecodable(name, error),))
    return Body(text, value, is_odd)


@dataclass(slots=True)
class Judged:
    """One item on its way: what is wrong with it, and what is only to be said."""

    name: str  # of the format
    rules: Rules
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Failure] = field(default_factory=list)  # the first of each code, where they refuse the item
    commands: list[Command] = field(default_factory=list)
    warned: dict[str, int] = field(default_factory=dict)  # how often, by code

    def fail(self, code: str, at: str = "", got: object = None, detail: str = "") -> None:
        self.failures.append(schema.failure(self.name, code, at, got, detail))

    def warn(self, code: str, at: str = "", got: object = None, detail: str = "") -> None:
        self.warned[code] = self.warned.get(code, 0) + 1
        if self.rules.strict and self.warned[code] <= schema.PLACES:  # there may be 100,000
            self.warnings.append(schema.failure(self.name, code, at, got, detail))

    def hold_against(self, value: object, part: str) -> bool:
        """Add every rule of a part of the schema that `value` breaks; whether it keeps them all."""
        broken = schema.explain(value, self.name, part)
        self.failures += broken
        return not broken

    def identity(self, who: str, at: str) -> str:
        """An identity as it is; with a warning where it stands for nobody."""
        if is_ignored(who, self.rules.ignored_identities):
            self.warn("ignored_identity", at, who)
        return who

    def length(self, name: str, at: str) -> None:
        """Warn of the name of an event or a property that is too long."""
        if len(name) > schema.limit(self.name, "name_too_long"):
            self.warn("name_too_long", at, name)

    def phone(self, number: object) -> None:
        """Warn of a telephone number, if there is one, that is not in the form of E.164."""
        if number is not None and not (isinstance(number, str) and _E164.fullmatch(number)):
            self.warn("phone_not_e164", "/phone", number)

    def properties(self, sent: Mapping[str, object], at: str = "") -> dict[str, object]:
        """What was sent, made flat: null is absent."""
        if not sent:  # as it mostly is where what is known has its place
            return {}
        try:
            flat, lengthened = flatten(sent)
        except RepeatedTooMuch as error:
            self.fail(error.code, at)
            return {}
        for longer in lengthened:
            self.warn("name_collision", at + pointer(longer))
        longest_name, longest_value = _limits(self.name)
        for name, value in flat.items():
            if len(name) > longest_name:
                self.warn("name_too_long", at + pointer(name), name)
            if type(value) is str and len(value) > longest_value:
                self.warn("value_too_long", at + pointer(name), value)
        return flat

    def merge(self, flat: dict[str, object], sent: Mapping[str, object], parent: str) -> None:
        """Add what was sent under `parent`, made flat, by its own names; by longer ones where `flat` has them."""
        more = self.properties(sent, f"/{parent}")
        if flat.keys().isdisjoint(more):
            flat.update(more)
            return
        for name, value in more.items():
            own = name
            while own in flat:
                own = f"{parent}.{own}"
            if own != name:
                self.warn("name_collision", pointer(parent, name))
            flat[own] = value

    def time(self, text: object, at: str) -> tuple[int, TimeSource]:
        """Microseconds of an ISO 8601 time; where there is none, of its arrival. Any other text is a failure."""
        found = iso_microseconds(text) if isinstance(text, str) else None
        if found is None:
            if text is None:
                self.warn("no_time", at)
            else:
                self.fail("date_not_iso", at, text)
            return self.rules.received_at, "received"
        micros, assumed = found
        if assumed:
            self.warn("time_zone_assumed", at, text)
        return micros, "event"

    @property
    def refusing(self) -> list[Failure]:
        """Why the item is refused, as far as it was judged."""
        return self.failures + self.warnings

    def item(self, path: str, number: int, body: Body | None = None, context: bytes | None = None) -> Item:
        """The outcome. `path` and `number` say where it stands in `body`; None: it was fixed, and is judged alone."""
        if not (self.failures or self.warnings):
            return Item(tuple(self.commands), (), tuple(self.warned), path, number=number)
        more = {code: number - schema.PLACES for code, number in self.warned.items() if number > schema.PLACES}
        told = tuple(schema.first_places(self.refusing, more if self.rules.strict else None))
        raw, start = body.raw(path) if body and path else (None, 0)
        return Item(failures=told, path=path, number=number, raw=raw, start=start, context=context)


@cache
def _limits(name: str) -> tuple[int, int]:
    """The longest name, and the longest value, of which nothing is said."""
    return schema.limit(name, "name_too_long"), schema.limit(name, "value_too_long")


def iso_microseconds(text: str) -> tuple[int, bool] | None:
    """(microseconds since 1970, whether UTC was assumed) of a time; None if it is none, or outside of the calendar."""
    found = _ISO.fullmatch(text.strip())
    if not found:
        return None
    try:
        at = datetime.fromisoformat(found[0].replace(",", ".").upper())
        assumed = found["zone"] is None
        at = at.replace(tzinfo=UTC) if assumed else at.astimezone(UTC)
        return (at - _EPOCH) // _MICROSECOND, assumed
    except (ValueError, OverflowError):
        return None


def identity_text(value: object) -> object:
    """An integer as its decimal text, of no length that breaks a rule; blank text as absent; all else as it is."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value != Decimal(value).to_integral_value():
        return value
    return str(int(value)) if in_range(value) else str(value)[:_OUT_OF_RANGE_LENGTH]


def first_has(some: Any, *names: str) -> bool:
    """Whether it is an array of objects, and the first has one of these names."""
    return isinstance(some, list) and bool(some) and isinstance(some[0], dict) and not some[0].keys().isdisjoint(names)


def normal(sent: Any, ids: Collection[str]) -> Any:
    """An object as it is held against its schema: ids as text, and only what is there. Anything else as it is."""
    if not isinstance(sent, dict):
        return sent
    found = {name: value for name, value in sent.items() if value is not None}
    for name in ids:
        if name in found and (text := identity_text(found[name])) is not found[name]:
            found[name] = text
            if text is None:
                del found[name]
    return found


def without_blank(sent: Any, name: str) -> Any:
    """An object as it is without a text of that name that is blank, which is the same as none."""
    if isinstance(sent, dict) and isinstance(text := sent.get(name), str) and not text.strip():
        return {other: value for other, value in sent.items() if other != name}
    return sent
