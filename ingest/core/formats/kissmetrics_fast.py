"""Which Kissmetrics lines are beyond doubt, decided in about two microseconds each.

In:     some lines, without their line ends.
Out:    the rows of those to which no rule and no warning applies, and the places of the others: `judge` decides those.
Only flat objects of the plainest kind are beyond doubt. The lines are taken through one step after the other together:
what most of them need not be asked (has it a bracket, a transport name?) is asked of all of them at once.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate, compress
from operator import not_
from typing import Any, NamedTuple

import msgspec
import orjson

from ingest.core.commands import Rules
from ingest.core.facts import TRANSPORT_NAMES, Columns, compact, differing
from ingest.core.formats import Fast
from ingest.core.matching import Match, is_ignored, key

_MAX_NAME = 255
_MAX_VALUE = 8192
_CACHED_NAMES = 1 << 16
_SORTED = orjson.OPT_SORT_KEYS


class _Doubt(Exception):
    """Not plain enough: leave the line to the judge."""


_UNDECODABLE = (_Doubt, msgspec.MsgspecError, ValueError, RecursionError)


def _number(text: str) -> orjson.Fragment:
    """A number that is no integer, with its digits as sent. Short and without exponent, it is surely in range."""
    if len(text) > 20 or "e" in text or "E" in text:
        raise _Doubt
    return orjson.Fragment(text)


class _Name(NamedTuple):
    """A person, an event or an alias."""

    text: str | None  # None: absent
    key: str
    json: bytes  # the key as JSON, with a comma
    row_key: str | None  # the key as a row has it


_ABSENT = _Name(None, "", b"null,", None)


class _Names(dict[object, _Name | None]):
    """Names as sent → what they stand for, or None where a rule may object."""

    def __init__(self, match: Match, ignored: frozenset[str], absent: _Name | None, *, integers: bool) -> None:
        self.match: Match = match
        self.ignored = ignored
        self.absent = absent
        self.integers = integers  # whether they stand for their digits

    def __missing__(self, name: object) -> _Name | None:
        if name is None:
            return self.setdefault(None, self.absent)
        if self.integers and type(name) is int:  # not remembered as what it is: 1 == True
            return self[str(name)]
        if type(name) is not str or len(name) > _MAX_NAME or "\0" in name:
            return None
        if not name.strip() or is_ignored(name, self.ignored):
            return None
        if len(self) > _CACHED_NAMES:
            self.clear()
        made = key(name, self.match)
        return self.setdefault(name, _Name(name, made, orjson.dumps(made) + b",", differing(made, name)))

    def find(self, names: Sequence[object]) -> list[Any]:  # each a _Name or None
        try:
            return [self[name] for name in names]
        except TypeError:  # an object or an array
            return [None if isinstance(name, (dict, list)) else self[name] for name in names]


def decoder(rules: Rules) -> Fast:
    """The decoder for lines judged by these rules. See `Format.fast`."""
    decode = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
    persons = _Names(rules.match, rules.ignored_identities, absent=None, integers=True)
    aliases = _Names(rules.match, rules.ignored_identities, absent=_ABSENT, integers=True)
    events = _Names(rules.match, frozenset(), absent=_ABSENT, integers=False)
    time_from, time_until = rules.time_from, min(rules.time_until, 99_999_999_999)
    # The canonical JSON of a fact begins alike for each kind: hashed once, and gone on from there.
    begin = {
        kind: blake2b(b'["%b",%b,' % (kind.encode(), orjson.dumps(rules.people_space)), digest_size=16).copy
        for kind in ("record", "set", "alias")
    }

    def accept(lines: Sequence[bytes], first_line: int) -> tuple[Columns, list[int]]:
        values = []
        for line in lines:
            try:
                values.append(decode(line))
            except _UNDECODABLE:
                values.append({})  # names no person
        person = persons.find([value.pop("_p", None) for value in values])
        at = [value.pop("_t", None) for value in values]
        event = events.find([value.pop("_n", None) for value in values])
        alias = aliases.find([value.pop("_p2", None) for value in values])
        properties, facts = _as_json(values)
        sure = [
            who is not None and what is not None and other is not None and fact
            # bool is an int in Python: {"_t": true} must not become the first second of 1970.
            and type(when) is int and time_from <= when <= time_until
            # An alias comes alone, or it is two commands. A set without properties is none.
            and ((what is not _ABSENT or fact != b"{}") if other is _ABSENT else (what is _ABSENT and not value))
            for who, when, what, other, fact, value in zip(person, at, event, alias, facts, values, strict=True)
        ]  # fmt: skip
        for place in _odd(lines, values, properties):
            sure[place] = False
        numbers: Sequence[int] = range(first_line, first_line + len(lines))
        doubtful: list[int] = []
        if not all(sure):
            doubtful = list(compress(range(len(lines)), map(not_, sure)))
            numbers, person, at, event, alias, properties, facts = (
                list(compress(column, sure)) for column in (numbers, person, at, event, alias, properties, facts)
            )
        kinds = [
            "record" if what is not _ABSENT else "set" if other is _ABSENT else "alias"
            for what, other in zip(event, alias, strict=True)
        ]
        ids = []
        for kind, who, when, what, other, fact in zip(kinds, person, at, event, alias, facts, strict=True):
            one, two = who.json, other.json
            if other is not _ABSENT and other.key < who.key:  # an alias has no direction
                one, two = two, one
            identity = begin[kind]()
            identity.update(b"%b%d000000,%b%b%b]" % (one, when, what.json, two, fact))
            ids.append(identity.digest())
        count = len(ids)
        columns = (
            numbers, [0] * count, [""] * count, kinds, [None] * count, [name.text for name in person],
            [name.row_key for name in person], [when * 1_000_000 for when in at], [name.text for name in event],
            [name.row_key for name in event], [name.text for name in alias], [name.row_key for name in alias],
            properties, ["event"] * count, [None] * count, ids,
        )  # fmt: skip
        return columns, doubtful

    return accept


def _as_json(values: Sequence[dict[str, Any]]) -> tuple[list[bytes], list[bytes]]:
    """Properties as canonical JSON, and the same without transport names; empty where there is no such form."""
    try:
        properties = [compact(orjson.dumps(value, None, _SORTED)) for value in values]
        facts = properties.copy()
    except TypeError:  # an integer over 64 bits
        facts = list(map(_dumped, values))
        properties = [text or b"{" for text in facts]  # so that each opens a bracket, which `_odd` counts on
    for place in _holding(b'"_', properties):
        facts[place] = _dumped({name: value for name, value in values[place].items() if name not in TRANSPORT_NAMES})
    return properties, facts


def _dumped(value: object) -> bytes:
    try:
        return orjson.dumps(value, option=_SORTED)
    except TypeError:
        return b""


def _odd(lines: Sequence[bytes], values: Sequence[dict[str, Any]], properties: Sequence[bytes]) -> Iterator[int]:
    """The places of lines with a NUL, a nested or null property, or one that is too long."""
    yield from _holding(b"\\u0000", properties)
    perhaps = [*_holding(b"[", properties), *_holding(b":null", properties)]  # or it is within a text
    if b"".join(properties).count(b"{") > len(properties):
        perhaps += _holding(b":{", properties)
    for place in perhaps:
        if any(value is None or isinstance(value, (dict, list)) for value in values[place].values()):
            yield place
    if max(map(len, lines), default=0) > _MAX_NAME:
        for place, (line, value) in enumerate(zip(lines, values, strict=True)):
            if len(line) > _MAX_VALUE or (len(line) > _MAX_NAME and any(len(name) > _MAX_NAME for name in value)):
                yield place


def _holding(needle: bytes, texts: Sequence[bytes]) -> Iterator[int]:
    """The places of the texts that hold `needle`, found by looking through all of them at once."""
    joined = b"".join(texts)
    if not all(byte in joined for byte in needle):  # to miss one byte takes a twentieth of the time to miss two
        return
    at = joined.find(needle)
    ends = list(accumulate(map(len, texts))) if at >= 0 else []
    while at >= 0:
        place = bisect_right(ends, at)
        yield place
        at = joined.find(needle, ends[place])
