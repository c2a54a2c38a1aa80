"""Kissmetrics lines: what each asks for, or every rule that it breaks.

In:     the bytes of one line.
Out:    one item: a record, a set, an alias, an alias with what came with it; or failures.
Rules:  schemas/kissmetrics.schema.json. Here is only what a schema cannot say: the bytes, the clock, what is made
        equal before (digits of a time, integer identities), and where a wrong time points to the right one.
Source: "JSON Files as an External Data Source", Kissmetrics support.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from itertools import chain
from typing import TYPE_CHECKING, Final

from ingest.core import schema
from ingest.core.commands import Command, Failure, Item, Rules
from ingest.core.facts import TRANSPORT_NAMES
from ingest.core.filetype import BOM, HEAD_BYTES
from ingest.core.flatten import RepeatedTooMuch, flatten
from ingest.core.formats import guess
from ingest.core.formats.kissmetrics_octal import is_object, read_repaired
from ingest.core.jsontext import (
    JQ_DIGITS,
    Undecodable,
    decode,
    in_range,
    parse,
    parse_plain,
    plain_number,
    pointer,
    short,
    shortened,
)  # fmt: skip
from ingest.core.matching import Match, is_ignored

if TYPE_CHECKING:
    from ingest.core.formats import Fast

NAME: Final = "kissmetrics"
COLUMNS: Final = ("_p", "_t", "_n", "_p2")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EXCEL_EPOCH: Final = 25_569  # 1970-01-01 as an Excel date, which counts days
_EXCEL_LAST: Final = 80_000  # in 2119
_MILLISECONDS_FROM: Final = 10**11  # as in the schema
_NANOSECONDS_UNTIL: Final = 10**20
_PLAIN_NAME: Final = 255  # is told whole
_LONGEST_TIME: Final = 64  # of a text that may be one
_MICROSECOND: Final = Decimal("0.000001")
_ARRAY_IN_OBJECT: Final = re.compile(rb'\{\s*"([A-Za-z_][A-Za-z0-9_]*)"\s*:\s*\[')
_DECIMAL: Final = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")


class Kissmetrics:
    """One JSON object a line. See `Format`."""

    name: str = NAME
    match: Match = "kissmetrics"
    documents: bool = False
    own_names: re.Pattern[bytes] | None = re.compile(rb'"_(p2?|t|n)"[ \t]*:')

    def judge(self, unit: bytes, rules: Rules) -> list[Item]:
        """Exactly one item, whatever the bytes."""
        line = unit.removeprefix(BOM).removesuffix(b"\r")
        if len(line) > rules.max_line_bytes:
            return [Item(failures=(self.too_long(len(line), line[:HEAD_BYTES], rules),))]
        odd: list[Failure] = []
        is_repaired = False
        if (sent := parse_plain(line)) is None:
            try:
                sent, is_repaired = read_repaired(line, parse)
                odd = schema.odd(NAME, sent)
            except Undecodable as error:
                return [Item(failures=(schema.undecodable(NAME, error),))]
        if not isinstance(sent, dict):
            return [Item(failures=(*schema.explain(sent, NAME), *odd))]
        try:
            judged, warnings = _normalised(sent, rules)
        except RepeatedTooMuch as error:
            odd.append(schema.failure(NAME, error.code))
            judged, warnings = _normalised(_without_nested(sent), rules)
        if is_repaired:
            warnings.insert(0, schema.failure(NAME, "repaired"))
        asked, more = _few_nested(judged)
        broken = schema.explain(asked, NAME, time_from=rules.time_from)
        if more:
            broken = schema.first_places(broken, more)
        failures = [_as_sent(failure, sent) for failure in broken] + odd
        if not any(failure.pointer == "/_t" for failure in failures) and _is_late(judged["_t"], rules):
            failures.append(schema.failure(NAME, "time_in_future", "/_t", sent["_t"]))
        if rules.strict:
            failures += warnings
        if failures:
            return [Item(failures=_in_order(failures, (*COLUMNS, *sent, *judged)))]
        return [Item(tuple(_commands(judged)), warnings=tuple(dict.fromkeys(warning.code for warning in warnings)))]

    def judge_item(self, raw: bytes, path: str, context: bytes | None, rules: Rules) -> list[Item]:  # noqa: ARG002
        """A line is one item."""
        return self.judge(raw, rules)

    def too_long(self, length: int, head: bytes, rules: Rules) -> Failure:
        remedy = _remedy(path) if (path := _jq_path(head)) != "." else ""
        return schema.too_long(NAME, "line_too_long", length, rules.max_line_bytes, head, remedy)

    def is_shown_by(self, one: Mapping[str, object], in_array: bool) -> bool:  # noqa: ARG002
        return not one.keys().isdisjoint(COLUMNS)

    def refusal(self, head: bytes) -> Item | None:
        """What is no JSON is refused once, and not once a line; so are a document over lines, and another format."""
        lines = head.removeprefix(BOM).split(b"\n")
        if len(head) >= HEAD_BYTES:
            lines.pop()  # cut, perhaps
        lines = [stripped for line in lines if (stripped := line.strip())]
        if not lines or not _is_cut_off(lines[0]) or any(_objects(lines)):
            return guess.refusal(NAME, head)
        remedy = guess.advice(other) if (other := guess.other_format(NAME, head)) else _remedy(_jq_path(head))
        got = lines[0].decode(errors="replace")
        return Item(failures=(schema.failure(NAME, "document_not_lines", got=got, remedy=remedy),))

    def fast(self, rules: Rules) -> "Fast":
        """See `kissmetrics_fast`."""
        from ingest.core.formats.kissmetrics_fast import decoder

        return decoder(rules)


def _normalised(sent: Mapping[str, object], rules: Rules) -> tuple[dict[str, object], list[Failure]]:
    """The line as it is held against the schema, and its warnings. What is null is absent."""
    judged = {name: value for name, value in sent.items() if value is not None}
    warnings, lengthened = [], list[str]()
    if rules.nested == "flatten":
        columns = {name: judged.pop(name) for name in COLUMNS if name in judged}
        flat, lengthened = flatten(judged)
        judged = columns | flat
    for name in ("_p", "_p2"):
        if isinstance(identity := _identity(judged.get(name)), str):
            judged[name] = identity
            if is_ignored(identity, rules.ignored_identities):
                warnings.append(schema.failure(NAME, "ignored_identity", pointer(name), identity))
    time = _time(judged.get("_t"))
    if isinstance(time, Decimal) or time is not judged.get("_t"):
        warnings.append(schema.failure(NAME, "time_coerced", "/_t", judged["_t"]))
        judged["_t"] = time
    for name, code in (("_n", "event_blank"), ("_p2", "alias_blank")):
        if isinstance(text := judged.get(name), str) and not text.strip():
            warnings.append(schema.failure(NAME, code, pointer(name), text))
    return judged, schema.first_places(chain(warnings, _of_properties(judged, lengthened)))


def _of_properties(judged: Mapping[str, object], lengthened: Iterable[str]) -> Iterator[Failure]:
    """The warnings of properties, of which there may be many; `lengthened` are names that were taken."""
    for name in lengthened:
        yield schema.failure(NAME, "name_collision", pointer(name))
    for name, value in judged.items():
        if name not in COLUMNS:
            if len(name) > schema.limit(NAME, "name_too_long"):
                yield schema.failure(NAME, "name_too_long", pointer(name), name)
            if isinstance(value, str) and len(value) > schema.limit(NAME, "value_too_long"):
                yield schema.failure(NAME, "value_too_long", pointer(name), value)


def _without_nested(sent: Mapping[str, object]) -> dict[str, object]:
    """The line with nothing in what is nested, to be held against the other rules."""
    return {
        name: "" if isinstance(value, (dict, list)) and name not in COLUMNS else value for name, value in sent.items()
    }


def _few_nested(judged: Mapping[str, object]) -> tuple[Mapping[str, object], dict[str, int]]:
    """The line with as many nested properties as are shown, and how many more there are: each takes the schema long."""
    nested = [name for name, value in judged.items() if isinstance(value, (dict, list)) and name not in COLUMNS]
    left = frozenset(nested[schema.PLACES :])
    if not left:
        return judged, {}
    return {name: value for name, value in judged.items() if name not in left}, {"nested_value": len(left)}


def _identity(value: object) -> object:
    """An integer as its decimal text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, Decimal) and in_range(value) and value == value.to_integral_value():
        return str(int(value))
    return value


def _time(value: object) -> object:
    """A string of digits as its number."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value) if len(value) < 20 else Decimal(value)
    return value


def _microseconds(time: object) -> int:
    """A time that keeps the rules. What is finer is cut off, never rounded: it may not move into the next second."""
    if isinstance(time, Decimal):
        return int(time.quantize(_MICROSECOND, ROUND_DOWN) * 1_000_000)
    assert isinstance(time, int)
    return time * 1_000_000


def _is_late(time: object, rules: Rules) -> bool:
    return _microseconds(time) > rules.received_at + rules.future_seconds * 1_000_000


def _commands(line: Mapping[str, object]) -> Iterator[Command]:
    """What a sound line asks for. Nothing is dropped: transport names alone make no set and stay with the alias."""
    person, event, alias = (str(line.get(name, "")) for name in ("_p", "_n", "_p2"))
    at = _microseconds(line["_t"])
    properties = {name: value for name, value in line.items() if name not in COLUMNS}
    is_record = bool(event.strip())
    is_set = not is_record and not properties.keys() <= TRANSPORT_NAMES
    if alias.strip():
        yield Command("alias", person, at, alias=alias, properties={} if is_record or is_set else properties)
    if is_record:
        yield Command("record", person, at, event=event, properties=properties)
    elif is_set:
        yield Command("set", person, at, properties=properties)


def _in_order(failures: Sequence[Failure], names: Sequence[str]) -> tuple[Failure, ...]:
    """Each failure once, by the names in their order; what concerns the whole line last."""
    if len(failures) == 1:
        return tuple(failures)
    told = {f"/{one.pointer[1:].split('/')[0]}": len(names) for one in failures}
    for place, name in enumerate(names):
        if (at := _pointer(name)) in told:
            told[at] = min(told[at], place)
    ordered = sorted(failures, key=lambda one: told[f"/{one.pointer[1:].split('/')[0]}"])
    return tuple(schema.first_places(ordered))


def _pointer(name: str) -> str:
    """As it is shown, and quickly: there may be many names."""
    plain = len(name) < _PLAIN_NAME and not any(odd in name for odd in "~/\0")
    return f"/{name}" if plain else short(pointer(name))


def _as_sent(failure: Failure, sent: Mapping[str, object]) -> Failure:
    """A broken rule, with what was sent; of a time, also which seconds were meant, where that is known."""
    if failure.pointer == "/_t":
        time = sent.get("_t")
        advice, seconds = _time_meant(time)
        return failure._replace(message=f"{failure.message}{advice}", got=shortened(time), send=seconds)
    return failure._replace(got=shortened(sent)) if failure.pointer == "" else failure


def _time_meant(time: object) -> tuple[str, int | float | None]:
    """What a refused time reads as, in words, and the seconds to send; nothing where that is not known."""
    text = time.strip() if isinstance(time, str) else ""
    number = Decimal(time if isinstance(time, (int, Decimal)) else text if _DECIMAL.fullmatch(text) else 0)
    if _MILLISECONDS_FROM <= number < _NANOSECONDS_UNTIL:
        while number >= _MILLISECONDS_FROM:
            number /= 1000
        return _advice("It reads as", number)
    if _EXCEL_EPOCH < number <= _EXCEL_LAST:  # to whole seconds: an Excel date is a double, noon may be 0.4999999
        return _advice("As an Excel date it is", Decimal(round((number - _EXCEL_EPOCH) * 86_400)))
    if isinstance(time, str) and not time.isdigit() and _EXCEL_LAST < number < _MILLISECONDS_FROM:
        return _advice("A text may hold digits only. It reads as", number)
    try:
        at = datetime.fromisoformat(text if len(text) <= _LONGEST_TIME else "")
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # or its offset carries it out of the calendar
        return "", None
    return _advice("It reads as", Decimal((at - _EPOCH) // timedelta(microseconds=1)) / 1_000_000)


def _advice(opening: str, seconds: Decimal) -> tuple[str, int | float | None]:
    if seconds < 0:
        return "", None
    seconds = seconds.quantize(_MICROSECOND, ROUND_DOWN)
    at = _EPOCH + timedelta(microseconds=_microseconds(seconds))
    return f" {opening} {at:%Y-%m-%d %H:%M:%S} UTC: send {seconds.normalize():f}.", plain_number(seconds)


def _is_cut_off(line: bytes) -> bool:
    """Whether a line begins an object or array and ends before it does."""
    try:
        decode(line)
    except Undecodable as error:
        return error.is_cut and line.lstrip().startswith((b"{", b"["))
    return False


def _objects(lines: Sequence[bytes]) -> Iterator[bytes]:
    """The lines that are objects by themselves: a comma before or behind one makes it an element of an array."""
    for before, line, after in zip((b"", *lines), lines, (*lines[1:], b""), strict=False):
        if not before.endswith(b",") and not after.startswith(b",") and is_object(line):
            yield line


def _jq_path(head: bytes) -> str:
    """Where in the document that begins with `head` its objects stand, as jq says it: `.` where it is no array."""
    text = head.removeprefix(BOM).lstrip()
    named = _ARRAY_IN_OBJECT.match(text)
    return ".[]" if text.startswith(b"[") else f".{named[1].decode()}[]" if named else "."


def _remedy(elements: str) -> str:
    """How a document becomes lines."""
    return (
        f"Write each object on a line of its own: jq -c '{elements}' FILE > FIXED.json does so ({JQ_DIGITS});"
        " or choose the format that the file has."
    )


FORMAT: Final = Kissmetrics()
