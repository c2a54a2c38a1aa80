"""Woopra visits: what each asks for, or every rule that it breaks.

In:     one visit: {"visitor": {…}, "actions": [{"name", "time", "properties"}, …], and fields of the visit}.
Out:    the item "/visitor" (number 0): an alias of id and email, a set of the visitor's properties; and "/actions/0" …
        (numbers 1 …): a record each, with the fields of the visit as `visit.<name>`. A visitor part that only says who
        acted asks for nothing and is no item. Fields of a visit without actions go with the set.
Whole:  what concerns all of a visit refuses it as one item, "": nobody is named, a wrong shape, a wrong visit time, a
        delete line, nothing asked for. Once fixed, it brings its actions.
Visits: `visit.id` keeps the actions of one visit together: the visit's `id`, else its `pid` (exports have one). Where
        neither was sent it is made from the person and the time of the visit, or of its first action; so a file sent
        twice and two exports that overlap give the same facts, as long as that action stays the first. A visit without
        any time is known by all that it says.
Rules:  schemas/woopra.schema.json.
Source: "The Import API" and "The Export API", Woopra documentation.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from hashlib import blake2b
from typing import Any, Final

from ingest.core import schema
from ingest.core.commands import Command, Failure, Item, Rules, TimeSource
from ingest.core.flatten import REPEATED_AT_MOST, REPEATED_OF_SENT, RepeatedTooMuch, flatten
from ingest.core.formats.bodies import Body, Documents, Judged, first_has, normal, without_blank
from ingest.core.jsontext import decode, dumped, dumps, plain_number, pointer

NAME: Final = "woopra"

_IDENTIFIERS: Final = ("id", "email", "cookie")
_MILLISECONDS_FROM: Final = 10**11  # as in the schema
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Where an oddity refuses one item only: within an action, or the visitor but for who it is.
_WITHIN_AN_ITEM: Final = re.compile(r"/actions/\d+(/.*)?|/visitor(/(?!(id|email|cookie)$).*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Visit:
    """What the items of a visit are judged with."""

    person: str
    at: int | None  # microseconds; None: it has no time
    fields: dict[str, object]  # `visit.<name>`
    has_actions: bool

    @property
    def context(self) -> bytes:
        return dumps(asdict(self)).encode()


class Woopra(Documents):
    """One visit a document. See `Format`."""

    name: str = NAME

    def judge_body(self, body: Body, rules: Rules) -> Iterator[Item]:
        whole = Judged(NAME, rules)
        visit = _visit(body, whole)
        if visit is None or whole.warnings:
            yield whole.item("", 0)
            return
        sent: Any = body.value
        visitor, actions = Judged(NAME, rules, body.odd(NAME, sent["visitor"])), sent.get("actions") or []
        sent = _normal(sent)
        _judge_visitor(visitor, sent["visitor"], visit)
        if not (visitor.commands or visitor.failures or actions):
            whole.fail("no_command", got=body.value)
            yield whole.item("", 0)
            return
        context = None
        for path, number, one in _judged(body, rules, visitor, actions, visit):
            if whole.warned:  # the first item tells them
                one.warnings[:0] = whole.warnings
                one.warned = dict(Counter(whole.warned) + Counter(one.warned))
                whole.warnings, whole.warned = [], {}
            if one.refusing and context is None:
                context = visit.context
            yield one.item(path, number, body, context)

    def is_shown_by(self, one: Mapping[str, Any], in_array: bool) -> bool:
        return not in_array and (isinstance(one.get("visitor"), dict) or first_has(one.get("actions"), "name"))

    def number(self, path: str, context: bytes | None) -> int:  # noqa: ARG002
        return 0 if path == "/visitor" else int(path.rpartition("/")[2]) + 1

    def judge_fixed(self, judged: Judged, value: Any, path: str, context: bytes | None) -> None:
        """A fixed visitor may name another person; the actions loaded before stay with theirs."""
        visit = _Visit(**decode(context or b"{}"))  # type: ignore[arg-type]  # it is ours
        if path != "/visitor":
            _judge_action(judged, value, visit)
            return
        visitor = normal(value, _IDENTIFIERS)
        if _hold_against(judged, visitor, "visitor"):
            _judge_visitor(judged, visitor, visit)
            if not (judged.commands or judged.failures):
                judged.fail("no_command", got=value)


def _judged(
    body: Body, rules: Rules, visitor: Judged, actions: Iterable[Any], visit: _Visit
) -> Iterator[tuple[str, int, Judged]]:
    """The items of a visit, with their paths and numbers."""
    if visitor.commands or visitor.failures:
        yield "/visitor", 0, visitor
    for number, action in enumerate(actions):
        one = Judged(NAME, rules, body.odd(NAME, action))
        _judge_action(one, action, visit)
        yield f"/actions/{number}", number + 1, one


def _visit(body: Body, whole: Judged) -> _Visit | None:
    """What concerns all of a visit; None where it is refused as a whole, and `whole` says why."""
    if isinstance(body.value, dict) and _is_delete(body.value):
        whole.fail("unsupported_delete", got=body.value)
        return None
    sent = _normal(body.value)
    is_odd = any(not _WITHIN_AN_ITEM.fullmatch(odd.pointer) for odd in body.oddities(body.value))
    if is_odd or not _is_plain_head(sent):
        head = sent | {"actions": []} if isinstance(sent, dict) and isinstance(sent.get("actions"), list) else sent
        broken = Judged(NAME, whole.rules)
        _hold_against(broken, head)
        if is_odd or any(failure.code != "no_command" for failure in broken.failures):
            whole.failures += body.odd(NAME, body.value)
            _hold_against(whole, sent)
            return None
    actions = sent.get("actions") or []
    time = _moment(whole, sent.get("time"))
    if whole.failures:
        _hold_against(whole, sent)  # told of every rule that it breaks
        return None
    at = time if time is not None else _first_time(actions, whole.rules)
    who = next(name for name in _IDENTIFIERS if name in sent["visitor"])
    person = whole.identity(sent["visitor"][who], f"/visitor/{who}")
    try:
        flat, longer = flatten({name: value for name, value in sent.items() if name not in ("visitor", "actions")})
        _limit_repeated(flat, len(actions), body)
    except RepeatedTooMuch as error:
        whole.fail(error.code)
        _hold_against(whole, sent)
        return None
    fields = {f"visit.{name}": value for name, value in flat.items()}
    for name in longer:
        whole.warn("name_collision", pointer(name))
    if actions and "visit.id" not in fields:
        made = blake2b(digest_size=16)
        for part in dumped([person, at if at is not None else body.value]):
            made.update(part.encode())
        fields["visit.id"] = fields.get("visit.pid", made.hexdigest())
    return _Visit(person, at, fields, bool(actions))


def _limit_repeated(fields: Mapping[str, object], actions: int, body: Body) -> None:
    """Fields of a visit stand in every action, and beside every one that fails. Raises RepeatedTooMuch."""
    length = sum(len(f'"visit.{name}":,{value}') for name, value in fields.items())
    if length * actions > max(REPEATED_AT_MOST, REPEATED_OF_SENT * len(body.unit)):
        raise RepeatedTooMuch


def _judge_visitor(judged: Judged, visitor: Mapping[str, Any], visit: _Visit) -> None:
    who = next(name for name in _IDENTIFIERS if name in visitor)
    person = visitor[who]
    properties = judged.properties({name: value for name, value in visitor.items() if name != who})
    if not visit.has_actions and visit.fields.keys() - {"visit.time"}:
        judged.merge(properties, visit.fields, "visit")
    at, source = _when(judged, visit.at)
    if "id" in visitor and "email" in visitor:
        email = judged.identity(visitor["email"], "/email")
        judged.commands.append(Command("alias", person, at, alias=email, time_source=source))
    if properties:
        judged.commands.append(Command("set", person, at, properties=properties, time_source=source))
    if judged.commands and visit.at is None:
        judged.warn("no_time", "/time")


def _judge_action(judged: Judged, action: Any, visit: _Visit) -> None:
    action = without_blank(action, "time")
    if not _is_plain_action(action) and not _hold_against(judged, action, "action"):
        return
    at = _moment(judged, action.get("time"))
    if action.get("time") is None:
        judged.warn("no_time", "/time")
    judged.length(action["name"], "/name")
    properties = judged.properties({n: v for n, v in action.items() if n not in ("name", "time", "properties")})
    judged.merge(properties, action.get("properties") or {}, "properties")
    judged.merge(properties, visit.fields, "visit")
    when, source = _when(judged, at)
    judged.commands.append(Command("record", visit.person, when, action["name"], None, properties, source))


def _when(judged: Judged, at: int | None) -> tuple[int, TimeSource]:
    return (judged.rules.received_at, "received") if at is None else (at, "event")


def _normal(body: Any) -> Any:
    """A visit as it is held against the schema: no blank time; the visitor with identifiers as text, if there."""
    body = without_blank(body, "time")
    if not isinstance(body, dict) or "visitor" not in body:
        return body
    if body["visitor"] is None:
        return {name: value for name, value in body.items() if name != "visitor"}
    return body | {"visitor": normal(body["visitor"], _IDENTIFIERS)}


def _is_delete(body: Mapping[str, Any]) -> bool:
    return body.get("type") == "delete" or (body.get("type") == "system" and body.get("method") == "delete")


def _is_plain_head(sent: Any) -> bool:
    """Whether a visit but for its actions is beyond doubt: judging takes 1.2 times as long with the schema alone."""
    if not isinstance(sent, dict) or not isinstance(visitor := sent.get("visitor"), dict):
        return False
    sent_as = [visitor[name] for name in _IDENTIFIERS if name in visitor]
    are_sound = bool(sent_as) and all(type(who) is str and len(who) <= 255 for who in sent_as)
    return are_sound and _is_plain_time(sent.get("time")) and isinstance(sent.get("actions"), (list, type(None)))


def _is_plain_action(action: Any) -> bool:
    """The same of an action: 1.3 times as long with the schema alone."""
    return (
        isinstance(action, dict)
        and type(name := action.get("name")) is str
        and bool(name.strip())
        and _is_plain_time(action.get("time"))
        and isinstance(action.get("properties"), (dict, type(None)))
    )


def _is_plain_time(time: Any) -> bool:
    return time is None or (type(time) is int and time >= _MILLISECONDS_FROM)


def _hold_against(judged: Judged, value: Any, part: str = "") -> bool:
    """As `Judged.hold_against`; of a time in seconds it says which milliseconds were meant."""
    kept = judged.hold_against(value, part)
    judged.failures = [_with_meant(one) if one.code == "time_in_seconds" else one for one in judged.failures]
    return kept


def _with_meant(failure: Failure) -> Failure:
    milliseconds = (Decimal(str(failure.got).rstrip("…")) * 1000).quantize(Decimal("0.001"), ROUND_DOWN)
    if not milliseconds:  # nobody means 1970: it is a default that nobody filled in
        return failure
    at = _EPOCH + timedelta(milliseconds=int(milliseconds))
    advice = f" It reads as {at:%Y-%m-%d %H:%M:%S} UTC: send {milliseconds.normalize():f}."
    return failure._replace(message=failure.message + advice, send=plain_number(milliseconds))


def _moment(judged: Judged, time: Any) -> int | None:
    """Microseconds of a sound time, cut off and never rounded; None where there is none, or it lies in the future."""
    if time is None:
        return None
    if (milliseconds := Decimal(time)) > judged.rules.time_until * 1000:  # of any size: more than this can be reckoned
        judged.fail("time_in_future", "/time", time)
        return None
    micros = int(milliseconds * 1000)
    if not isinstance(time, int):
        judged.warn("time_coerced", "/time", time)
    return micros


def _first_time(actions: Iterable[Any], rules: Rules) -> int | None:
    """When the first action happened that has a sound time."""
    for action in (without_blank(sent, "time") for sent in actions):
        time = action.get("time") if isinstance(action, dict) else None
        if time is not None and (_is_plain_time(time) or not schema.explain(time, NAME, "time")):
            found = _moment(Judged(NAME, rules), time)
            if found is not None:
                return found
    return None


FORMAT: Final = Woopra()
