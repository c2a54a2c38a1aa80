"""Vitally batch bodies: what each message asks for, or every rule that it breaks.

In:     an array of messages; `type` says what each is about.
Out:    the items "/0", "/1" …: user: a set of the person `userId`; organization, account: a set of
        `organization/<id>`, `account/<id>`, in a people space of their own (view `accounts`), so that user 32 and
        account 32 stay apart; track: a record of userId, else the account, else the organization; unlink: a record
        "unlink" of userId, and never an alias: a user may have several accounts. Ids that do not say who are
        properties; `messageId` is none.
Whole:  anything but an array refuses the body as one item, "". An empty array holds nothing, which is sound.
Once:   of messages with equal type, ids, event and messageId one counts, whatever else they say: the vendor's own
        example has one messageId in all its messages. Without one a message is known by what it says.
Open:   by the docs a user needs an accountId or organizationId; programs in use send none, which is accepted.
Rules:  schemas/vitally.schema.json.
Source: "Analytics API - Batch" and the pages of its messages, Vitally documentation.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ingest.core.commands import Command, Item, Kind, Rules
from ingest.core.formats.bodies import Body, Documents, Judged, normal, without_blank

NAME: Final = "vitally"

# Of each type of message, who may be meant by it: the first that is there.
_WHO: Final[Mapping[str, tuple[str, ...]]] = {
    "organization": ("organizationId",),
    "account": ("accountId",),
    "user": ("userId",),
    "track": ("userId", "accountId", "organizationId"),
    "unlink": ("userId",),
}
TYPES: Final = tuple(_WHO)
_IDENTIFIERS: Final = ("userId", "accountId", "organizationId")
_TEXTS: Final = (*_IDENTIFIERS, "messageId")
_LONGEST: Final = 255


class Vitally(Documents):
    """One body a document. See `Format`."""

    name: str = NAME

    def judge_body(self, body: Body, rules: Rules) -> Iterator[Item]:
        if isinstance(body.value, list):
            yield from self.judge_each(body, ((f"/{n}", one) for n, one in enumerate(body.value)), rules)
        else:
            yield self.refused_whole(body, body.value, rules)

    def is_shown_by(self, one: Mapping[str, Any], in_array: bool) -> bool:
        return (
            in_array
            and one.get("type") in (*TYPES, "customobjectinstance")
            and not one.keys().isdisjoint((*_IDENTIFIERS, "messageId", "timestamp"))
        )

    def number(self, path: str, context: bytes | None) -> int:  # noqa: ARG002
        return int(path.removeprefix("/"))

    def judge_fixed(self, judged: Judged, value: Any, path: str, context: bytes | None) -> None:  # noqa: ARG002
        message = without_blank(normal(value, _TEXTS), "timestamp")
        if not _is_plain_message(message) and not judged.hold_against(message, "message"):
            return
        kind: str = message["type"]
        who = next(name for name in _WHO[kind] if name in message)
        is_person = who == "userId"
        person = judged.identity(message[who], f"/{who}") if is_person else f"{who.removesuffix('Id')}/{message[who]}"
        event = message["event"] if kind == "track" else "unlink" if kind == "unlink" else None
        if event is not None:
            judged.length(event, "/event")
        at, source = judged.time(message.get("timestamp"), "/timestamp")
        space = None if is_person else f"{judged.rules.people_space}/accounts"
        identity: tuple[str | int | None, ...] = ()
        if "messageId" in message:
            ids = (message.get(name) for name in _IDENTIFIERS)
            identity = ("only", kind, *ids, message.get("event") if kind == "track" else None, message["messageId"])
        own = _properties(judged, message, who)
        what: Kind = "set" if event is None else "record"
        judged.commands.append(Command(what, person, at, event, None, own, source, space, identity))


def _properties(judged: Judged, message: Mapping[str, Any], who: str) -> dict[str, object]:
    """The other ids, names that the docs do not know, and what the message's own object says, by its own names."""
    own, more = ("properties", ["event"]) if message["type"] == "track" else ("traits", [])
    columns = {"type", "messageId", "timestamp", who, own, *more}
    flat = judged.properties({name: value for name, value in message.items() if name not in columns})
    judged.merge(flat, message.get(own) or {}, own)
    return flat


def _is_plain_message(message: Any) -> bool:
    """Whether a message is beyond doubt but for its time: judging takes 1.9 times as long with the schema alone."""
    if not isinstance(message, dict):
        return False
    kind = message.get("type")
    if type(kind) is not str or kind not in _WHO or message.keys().isdisjoint(_WHO[kind]):
        return False
    for name in _IDENTIFIERS:
        if name in message and (type(message[name]) is not str or len(message[name]) > _LONGEST):
            return False
    return (
        isinstance(message.get("timestamp"), (str, type(None)))
        and isinstance(message.get("messageId"), (str, type(None)))
        and ("timestamp" in message or "messageId" in message)
        and (kind != "unlink" or "accountId" in message)
        and isinstance(message.get("properties" if kind == "track" else "traits"), (dict, type(None)))
        and (kind != "track" or (type(event := message.get("event")) is str and bool(event.strip())))
    )


FORMAT: Final = Vitally()
