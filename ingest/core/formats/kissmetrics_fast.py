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


class _Keys(dict[str, tuple[str, bytes]]):
    """Name → (key, key as JSON), remembered; only for names to which no rule objects."""

    def __init__(self, match: Match, ignored: frozenset[str]) -> None:
        super().__init__()
        self.match: Match = match
        self.ignored = ignored

    def __missing__(self, name: object) -> tuple[str, bytes]:
        if type(name) is not str or len(name) > _MAX_NAME or not name.strip() or is_ignored(name, self.ignored):
            raise _Doubt
        if len(self) > _CACHED_NAMES:
            self.clear()
        made = key(name, self.match)
        self[name] = found = (made, orjson.dumps(made))
        return found


def decoder(rules: Rules) -> Callable[[bytes, int], Row | None]:
    """The decoder for lines judged by these rules: called with a line and its number."""
    decode = msgspec.json.Decoder(dict[str, Any], float_hook=_number).decode
    dumps, sort_keys = orjson.dumps, orjson.OPT_SORT_KEYS
    persons = _Keys(rules.match, rules.ignored_identities)
    events = _Keys(rules.match, frozenset())
    time_from, time_until = rules.time_from, min(rules.time_until, 99_999_999_999)
    space = rules.people_space
    begin_record, begin_set, begin_alias = (
        b'["%b",%b,' % (kind, orjson.dumps(space)) for kind in (b"record", b"set", b"alias")
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
            person_key, person_json = persons[person]
            if _BACKSLASH in line and line.find(b"\\u0000") >= 0:
                return None
            if alias is not None:
                if values or event is not None:  # two commands
                    return None
                alias_key, alias_json = persons[alias]
                low, high = (person_json, alias_json) if person_key <= alias_key else (alias_json, person_json)
                fact = b"%b%b,%d,null,%b,{}]" % (begin_alias, low, at, high)
                return (
                    number, "", "alias", space, person, person_key, at, None, None, alias, alias_key, b"{}", "event",
                    blake2b(fact, digest_size=16).digest(),
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
                fact = b"%b%b,%d,null,null,%b]" % (begin_set, person_json, at, fact_json)
                return (
                    number, "", "set", space, person, person_key, at, None, None, None, None, properties, "event",
                    blake2b(fact, digest_size=16).digest(),
                )  # fmt: skip
            event_key, event_json = events[event]
            fact = b"%b%b,%d,%b,null,%b]" % (begin_record, person_json, at, event_json, fact_json)
            return (
                number, "", "record", space, person, person_key, at, event, event_key, None, None, properties, "event",
                blake2b(fact, digest_size=16).digest(),
            )  # fmt: skip
        except (_Doubt, KeyError, TypeError, ValueError, msgspec.MsgspecError, RecursionError):
            return None

    return accept
