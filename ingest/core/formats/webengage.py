"""WebEngage bulk bodies: what each user and event asks for, or every rule that it breaks.

In:     {"users": […]}, {"events": […]}, or both in one.
Out:    the items "/users/0" …: a set; and "/events/0" …: a record. The person is userId, else anonymousId, which is
        ignored where both are there.
Whole:  another shape than these two arrays refuses the body as one item, "". Empty arrays hold nothing, which is sound.
Data:   eventData may be the JSON of an object as a text: the vendor's page types it "String", and shows an object.
Times:  users have none, so a set has the time of its arrival.
Rules:  schemas/webengage.schema.json.
Source: "Bulk User/ Event API", "Tracking Users", "Tracking Events", WebEngage documentation.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ingest.core import schema
from ingest.core.commands import Command, Item, Rules
from ingest.core.formats.bodies import Body, Documents, Judged, first_has, iso_microseconds, normal, without_blank
from ingest.core.jsontext import Undecodable, holds_more, parse, pointer, values_allowed

NAME: Final = "webengage"

_PARTS: Final = {"users": "user", "events": "event"}
_IDENTIFIERS: Final = ("userId", "anonymousId")
_RESERVED: Final = "we_"
_GENDERS: Final = ("male", "female", "other")
_WITHIN_AN_ITEM: Final = re.compile(r"/(users|events)/\d+(/.*)?", re.DOTALL)


class WebEngage(Documents):
    """One body a document. See `Format`."""

    name: str = NAME

    def judge_body(self, body: Body, rules: Rules) -> Iterator[Item]:
        sent: Any = body.value
        is_odd = any(not _WITHIN_AN_ITEM.fullmatch(odd.pointer) for odd in body.oddities(sent))
        if is_odd or not _is_plain_body(sent):
            yield self.refused_whole(body, _normal_body(sent), rules)
        else:
            items = ((f"/{part}/{n}", one) for part, some in sent.items() for n, one in enumerate(some))
            yield from self.judge_each(body, items, rules)

    def is_shown_by(self, one: Mapping[str, Any], in_array: bool) -> bool:
        return not in_array and (
            first_has(one.get("users"), *_IDENTIFIERS) or first_has(one.get("events"), "eventName")
        )

    def number(self, path: str, context: bytes | None) -> int:  # noqa: ARG002
        return int(context or 0)

    def judge_fixed(self, judged: Judged, value: Any, path: str, context: bytes | None) -> None:  # noqa: ARG002
        part = _PARTS[path.split("/")[1]]
        item = normal(value, _IDENTIFIERS)
        if isinstance(item, dict) and "userId" in item and "anonymousId" in item:  # ignored, whatever it is
            del item["anonymousId"]
            if judged.failures:
                judged.failures = schema.odd(NAME, {name: one for name, one in value.items() if name in item})
        if part == "event":
            item = _with_data(judged, without_blank(item, "eventTime"))
        if not _is_plain_item(item, part) and not judged.hold_against(item, part):
            return
        if isinstance(data := item.get("eventData"), str):
            judged.fail("shape_wrong", "/eventData", data, "The text is not the JSON of an object.")
            return
        who = "userId" if "userId" in item else "anonymousId"
        person = judged.identity(item[who], f"/{who}")
        judged.commands.append((_user if part == "user" else _event)(judged, item, person))


def _with_data(judged: Judged, event: Any) -> Any:
    """An event whose eventData is the text of an object, with that object in its place; any other as it is."""
    if not isinstance(event, dict) or not isinstance(text := event.get("eventData"), str):
        return event
    unit = text.encode()
    if holds_more(unit, values_allowed(judged.rules.max_document_bytes)):
        return event
    try:
        data = parse(unit)
        odd = schema.odd(NAME, {"eventData": data})
    except Undecodable:
        return event
    if not isinstance(data, dict):
        return event
    judged.failures += odd
    return event | {"eventData": data}


def _user(judged: Judged, user: Mapping[str, Any], person: str) -> Command:
    properties = _properties(judged, user, "attributes")
    phone, gender, born = (user.get(name) for name in ("phone", "gender", "birthDate"))
    judged.phone(phone)
    if gender is not None and gender not in _GENDERS:
        judged.warn("gender_unknown", "/gender", gender)
    if born is not None and not (isinstance(born, str) and iso_microseconds(born)):
        judged.warn("birth_date_not_iso", "/birthDate", born)
    judged.warn("no_time")
    return Command("set", person, judged.rules.received_at, properties=properties, time_source="received")


def _event(judged: Judged, event: Mapping[str, Any], person: str) -> Command:
    name = event["eventName"]
    judged.length(name, "/eventName")
    properties = _properties(judged, event, "eventData")
    at, source = judged.time(event.get("eventTime"), "/eventTime")
    return Command("record", person, at, name, properties=properties, time_source=source)


def _properties(judged: Judged, item: Mapping[str, Any], own: str) -> dict[str, object]:
    """All but the columns; what stands in the object `own` under its own names, without those of WebEngage itself."""
    columns = (*_IDENTIFIERS, "eventName", "eventTime") if own == "eventData" else _IDENTIFIERS
    flat = judged.properties({name: value for name, value in item.items() if name not in columns and name != own})
    sent = item.get(own) or {}
    reserved = dict.fromkeys(name for name in sent if name.startswith(_RESERVED))  # in their order
    for name in reserved:
        judged.warn("reserved_name", f"/{own}{pointer(name)}", sent[name])
    judged.merge(flat, {name: value for name, value in sent.items() if name not in reserved} if reserved else sent, own)
    return flat


def _normal_body(body: Any) -> Any:
    """A body as it is held against the schema."""
    if not isinstance(body, dict):
        return body
    parts = {name: value for name, value in body.items() if name in _PARTS and isinstance(value, list)}
    return body | {name: [normal(item, _IDENTIFIERS) for item in some] for name, some in parts.items()}


def _is_plain_body(body: Any) -> bool:
    """Whether a body but for its items keeps the schema: with it alone one of one item takes 1.7 times as long."""
    parts = body.items() if isinstance(body, dict) else ()
    return bool(parts) and all(name in _PARTS and isinstance(value, list) for name, value in parts)


def _is_plain_item(item: Any, part: str) -> bool:
    """Whether it is beyond doubt but for its time: judging takes 1.5 times as long with the schema alone."""
    if not isinstance(item, dict):
        return False
    who = item.get("userId", item.get("anonymousId"))
    if type(who) is not str or len(who) > 100:
        return False
    if part == "user":
        return isinstance(item.get("attributes"), (dict, type(None)))
    name = item.get("eventName")
    return (
        type(name) is str
        and bool(name.strip())
        and not name.startswith(_RESERVED)
        and isinstance(item.get("eventData"), (dict, type(None)))
    )


FORMAT: Final = WebEngage()
