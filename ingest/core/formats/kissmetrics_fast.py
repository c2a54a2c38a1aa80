"""Which Kissmetrics lines are beyond doubt, decided in about three microseconds.

In:     one line, without its line end.
Out:    its row, or None: then `judge` decides.
It says yes only to a flat object of the plainest kind, to which no rule and no warning applies.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec
import orjson

from ingest.core.commands import Rules
from ingest.core.identity import Match, is_ignored, key
from ingest.core.rows import TRANSPORT_NAMES, Row

_MAX_NAME = 255
_MAX_VALUE = 8192
_CACHED_NAMES = 1 << 16
# As numbers: `b"[" in text` first tries whether b"[" is one, and that costs more than all the rest of the test.
_BACKSLASH, _BRACKET, _UNDERSCORE = b"\\[_"


class _Doubt(Exception):
    """Not plain enough: leave the line to the judge."""


def _number(text: str) -> orjson.Fragment:
    """A number that is no integer, with its digits as sent. Short and without exponent, it is surely in range."""
    if len(text) > 20 or "e" in text or "E" in text:
        raise _Doubt
    return orjson.Fragment(text)


class _Keys:
    """Name → (key, key as JSON, with a comma), remembered; only for names to which no rule objects."""

    def __init__(self, match: Match, ignored: frozenset[str]) -> None:
        self.match: Match = match
        self.ignored = ignored
        self.known: dict[object, tuple[str, bytes]] = {}

    def learn(self, name: object) -> tuple[str, bytes]:
        if type(name) is not str or len(name) > _MAX_NAME or not name.strip() or is_ignored(name, self.ignored):
            raise _Doubt
        if len(self.known) > _CACHED_NAMES:
            self.known.clear()
        made = key(name, self.match)
        self.known[name] = found = (made, orjson.dumps(made) + b",")
        return found


def decoder(rules: Rules) -> Callable[[bytes, int], Row | None]:
    """The decoder for lines judged by these rules: called with a line and its number."""
    decode = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
    dumps, sort_keys = orjson.dumps, orjson.OPT_SORT_KEYS
    persons = _Keys(rules.match, rules.ignored_identities)
    events = _Keys(rules.match, frozenset())
    person_of, event_of = persons.known.get, events.known.get
    time_from, time_until = rules.time_from, min(rules.time_until, 99_999_999_999)
    space = rules.people_space
    # The canonical JSON of a fact begins alike for each kind: hashed once, and gone on from there.
    record, set_, alias_ = (
        blake2b(b'["%b",%b,' % (kind, orjson.dumps(space)), digest_size=16).copy
        for kind in (b"record", b"set", b"alias")
    )

    def accept(line: bytes, number: int) -> Row | None:
        try:
            values = decode(line)
            person = values.pop("_p")
            at = values.pop("_t")
            # bool is an int in Python: {"_t": true} must not become the first second of 1970.
            if type(at) is not int or not time_from <= at <= time_until:
                return None
            at *= 1_000_000
            event = values.pop("_n", None)
            alias = values.pop("_p2", None)
            person_key, person_json = person_of(person) or persons.learn(person)
            if _BACKSLASH in line and line.find(b"\\u0000") >= 0:
                return None
            if alias is not None:
                if values or event is not None:  # two commands
                    return None
                alias_key, alias_json = person_of(alias) or persons.learn(alias)
                low, high = (person_json, alias_json) if person_key <= alias_key else (alias_json, person_json)
                fact = alias_()
                fact.update(b"%b%d,null,%b{}]" % (low, at, high))
                return (
                    number, "", "alias", space, person, person_key, at, None, None, alias, alias_key, b"{}", "event",
                    fact.digest(),
                )  # fmt: skip
            fact_json = properties = dumps(values, option=sort_keys)
            if properties.find(b"{", 1) >= 0 or _BRACKET in properties or None in values.values():
                return None
            if len(line) > _MAX_NAME and (len(line) > _MAX_VALUE or any(len(name) > _MAX_NAME for name in values)):
                return None
            if _UNDERSCORE in properties and not TRANSPORT_NAMES.isdisjoint(values):
                fact_json = dumps({n: v for n, v in values.items() if n not in TRANSPORT_NAMES}, option=sort_keys)
            if event is None:
                if fact_json == b"{}":  # nothing that makes a set
                    return None
                fact = set_()
                fact.update(b"%b%d,null,null,%b]" % (person_json, at, fact_json))
                return (
                    number, "", "set", space, person, person_key, at, None, None, None, None, properties, "event",
                    fact.digest(),
                )  # fmt: skip
            event_key, event_json = event_of(event) or events.learn(event)
            fact = record()
            fact.update(b"%b%d,%bnull,%b]" % (person_json, at, event_json, fact_json))
            return (
                number, "", "record", space, person, person_key, at, event, event_key, None, None, properties, "event",
                fact.digest(),
            )  # fmt: skip
        except (_Doubt, KeyError, TypeError, ValueError, msgspec.MsgspecError, RecursionError):
            return None

    return accept
