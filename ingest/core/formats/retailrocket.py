"""Retail Rocket visitorEvents bodies: what each envelope asks for, or every rule that it breaks.

In:     an array of envelopes, each an object with one name, which says what happened: [{"view": {…}}, {"order": {…}}].
Out:    the items "/0/view", "/1/order" …: a record called as the envelope; of setContact an alias of the visitor and
        the contact, and a set of what else it says. An envelope that is none is the item "/2".
Whole:  anything but an array refuses the body as one item, "". An empty array holds nothing, which is sound.
Person: `sessionExternalId`, else the first `link`, as `name/value` (a colon would be a space where names match as in
        Kissmetrics). Of emailClick and welcomeSequence, whose fields are not published, else the email.
Order:  items are numbered as they stand in the body, and that number is the last part of `position`. Equal ones of one
        visitor are as many facts as there are: the second has 1 in its identity, the third 2. So a fixed item knows
        how often what it says now stands in its body. Of two whose texts differed when they were refused, and which
        say the same once fixed, one counts.
Rules:  schemas/retailrocket.schema.json.
Source: "HTTP Tracking API", "Batch loading events", Retail Rocket documentation.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import orjson

from ingest.core.commands import Command, Item, Rules
from ingest.core.facts import row
from ingest.core.formats.bodies import Body, Documents, Judged, identity_text, normal, without_blank

NAME: Final = "retailrocket"

# What must be in an envelope besides the visitor, and what of it is beyond doubt: accepts only what the schema accepts.
_DIGITS: Final = re.compile(r"-?[0-9]+", re.ASCII)
_REQUIRED: Final[Mapping[str, Mapping[str, str]]] = {
    "view": {"productId": "digits"},
    "groupView": {"groupId": "digits", "productIds": "list"},
    "addToBasket": {"productId": "digits"},
    "order": {"productId": "digits", "price": "number", "quantity": "number", "transaction": "text"},
    "categoryView": {"categoryId": "digits"},
    "search": {"searchPhrase": "phrase"},
    "setContact": {"contactExternalId": "identifier"},
    "impressionContentViewed": {"impressionContentId": "text"},
    "impressionContentClicked": {"impressionContentId": "text"},
    "emailClick": {},
    "welcomeSequence": {},
    "recomBlockViewed": {"recomBlockId": "text"},
    "recomTap": {"recomBlockId": "text"},
    "recomAddToBasket": {"recomBlockId": "text"},
}
ENVELOPES: Final = tuple(_REQUIRED)
_BY_EMAIL: Final = ("emailClick", "welcomeSequence")
_IDENTIFIERS: Final = ("sessionExternalId", "contactExternalId")
_LONGEST: Final = 255
_KNOWN_AT_MOST: Final = 100_000  # what is remembered of the sound items of a body, over all of its refused ones
_TEXTS_AT_MOST: Final = 100_000  # of refused items of a body, that are told from equal ones behind them


class RetailRocket(Documents):
    """One body a document. See `Format`."""

    name: str = NAME

    def judge_body(self, body: Body, rules: Rules) -> Iterator[Item]:
        """From the first refused item on all is judged twice, to know what is sound behind it."""
        if not isinstance(body.value, list):
            yield self.refused_whole(body, body.value, rules)
            return
        known: Counter[str] = Counter()  # of sound items, how often what they say was said
        texts: Counter[tuple[str, bytes]] = Counter()  # of refused ones
        known_at_end: Mapping[str, int] | None = None
        for number, path, one in _judged(body, rules, known):
            context = None
            if one.refusing:
                if known_at_end is None:
                    known_at_end = _known_at_end(body, rules, known, number)
                text = path.partition("/")[2].partition("/")[2], body.raw(path)[0]
                context = orjson.dumps([texts[text], known_at_end])
                if text in texts or len(texts) < _TEXTS_AT_MOST:
                    texts[text] += 1
            yield one.item(path, number, body, context)

    def is_shown_by(self, one: Mapping[str, Any], in_array: bool) -> bool:
        return in_array and (kind := _kind(one)) is not None and isinstance(one[kind], dict)

    def number(self, path: str, context: bytes | None) -> int:  # noqa: ARG002
        return int(path.split("/")[1])

    def judge_fixed(self, judged: Judged, value: Any, path: str, context: bytes | None) -> None:
        _, _, *kinds = path.split("/")
        kind = kinds[0] if kinds else _kind(value)
        _judge(judged, kind, value if kinds or not kind else value[kind])
        if not judged.refusing:
            before, known = orjson.loads(context or b"[0,{}]")
            _count(judged, Counter(known), before)


def _judged(body: Body, rules: Rules, known: "Counter[str]", first: int = 0) -> Iterator[tuple[int, str, Judged]]:
    """The items of a body from a number on, with their paths. What sound ones say is added to `known`."""
    elements: Any = body.value
    for number in range(first, len(elements)):
        element = elements[number]
        kind = _kind(element)
        sent = element[kind] if kind else element
        one = Judged(NAME, rules, body.odd(NAME, sent))
        _judge(one, kind, sent)
        if not one.refusing:
            _count(one, known)
        yield number, f"/{number}/{kind}" if kind else f"/{number}", one


def _known_at_end(body: Body, rules: Rules, known: "Counter[str]", first: int) -> Mapping[str, int]:
    """What all sound items of a body say, given what those before the first refused one do; nothing if it is much."""
    known, refused = Counter(known), 0
    for _, _, one in _judged(body, rules, known, first):
        refused += bool(one.refusing)
        if len(known) * refused > _KNOWN_AT_MOST:
            return {}
    return known


def _kind(element: Any) -> str | None:
    """What an envelope is called; None if it is none."""
    if isinstance(element, dict) and len(element) == 1:
        (name,) = element
        return name if name in _REQUIRED else None
    return None


def _judge(judged: Judged, kind: str | None, sent: Any) -> None:
    """Judge what an envelope holds; of what is no envelope (`kind` None) all of it."""
    if kind is None:
        judged.hold_against(sent, "envelope")
        return
    event = _normal(sent, kind)
    if not _is_plain_event(kind, event) and not judged.hold_against(event, kind):
        return
    person, at_name, left_out = _person(event)
    if len(person) > _LONGEST:  # a link, each part of which is within the limit
        judged.fail("identifier_too_long", at_name, person)
    judged.identity(person, at_name)
    at, source = judged.time(event.get("timestamp"), "/timestamp")
    columns = {*left_out, "timestamp", *(["contactExternalId"] if kind == "setContact" else [])}
    properties = judged.properties({name: value for name, value in event.items() if name not in columns})
    if kind != "setContact":
        judged.commands.append(Command("record", person, at, kind, None, properties, source))
        return
    contact = judged.identity(event["contactExternalId"], "/contactExternalId")
    judged.commands.append(Command("alias", person, at, alias=contact, time_source=source))
    judged.phone(event.get("phone"))
    if properties:
        judged.commands.append(Command("set", person, at, properties=properties, time_source=source))


def _person(event: Mapping[str, Any]) -> tuple[str, str, Sequence[str]]:
    """Who, where that stands, and which names say nothing more than that."""
    if "sessionExternalId" in event:
        return event["sessionExternalId"], "/sessionExternalId", ["sessionExternalId"]
    link = event.get("link")
    first = link[0] if isinstance(link, list) and link else link
    if isinstance(first, dict) and first.get("name") is not None and first.get("value") is not None:
        is_all = first.keys() == {"name", "value"} and (first is link or len(link or ()) == 1)
        return f"{first['name']}/{first['value']}", "/link", ["link"] if is_all else []
    return event["email"], "/email", []


def _count(judged: Judged, known: "Counter[str]", more: int = 0) -> None:
    """Tell a sound item from equal ones in its body. One without a time differs from them by its place."""
    if judged.commands[0].time_source == "received":
        return
    said = b"".join(row(command, 0, 0, "", judged.rules).command_id for command in judged.commands).hex()
    nth = known[said] + more
    known[said] += 1
    if nth:
        judged.commands = [command._replace(identity=("also", nth)) for command in judged.commands]


def _normal(event: Any, kind: str) -> Any:
    """An event as it is held against the schema: ids as text, and only what is there."""
    if isinstance(event, dict) and "link" in event:
        event = event | {"link": _normal_link(event["link"])}
    event = normal(event, (*_IDENTIFIERS, *(["email"] if kind in _BY_EMAIL else [])))
    return without_blank(event, "timestamp")


def _normal_link(link: Any) -> Any:
    if isinstance(link, list):
        return [_normal_link(link[0]), *link[1:]] if link and not isinstance(link[0], list) else link
    if not isinstance(link, dict):
        return link
    return {name: identity_text(value) if name in ("name", "value") else value for name, value in link.items()}


def _is_plain_event(kind: str, event: Any) -> bool:
    """Whether an event is beyond doubt but for its time: judging takes 1.3 times as long with the schema alone."""
    return (
        isinstance(event, dict)
        and _is_identifier(event.get("sessionExternalId"))
        and "link" not in event
        and isinstance(event.get("timestamp"), (str, type(None)))
        and all(_is(what, event.get(name)) for name, what in _REQUIRED[kind].items())
    )


def _is(what: str, value: Any) -> bool:
    match what:
        case "digits":
            return type(value) is int or (type(value) is str and bool(_DIGITS.fullmatch(value)))
        case "list":
            return isinstance(value, list) and all(type(one) is int for one in value)
        case "number":
            return isinstance(value, (int, Decimal)) and type(value) is not bool
        case "text":
            return (type(value) is str and bool(value.strip())) or type(value) is int
        case "phrase":
            return type(value) is str
    return _is_identifier(value)


def _is_identifier(value: Any) -> bool:
    return type(value) is str and len(value) <= _LONGEST


FORMAT: Final = RetailRocket()
