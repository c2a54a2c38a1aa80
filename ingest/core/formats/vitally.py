"""Vitally batch bodies: what each message asks for, or every rule that it breaks.

In:     an array of messages; `type` says what each is about.
Out:    the items "/0", "/1" …: user: a set of the person `userId`; organization, account: a set of
        `organization/<id>`, `account/<id>`, in a people space of their own (view `accounts`), so that user 32 and
        account 32 stay apart; track: a record of userId, else the account, else the organization; unlink: a record
        "unlink" of userId, and never an alias: a user may have several accounts. Ids that do not say who are
        properties; `messageId` is none.
Whole:  anything but an array refuses the body as one item, "". An empty array holds nothing, which is sound.
Once:   of messages with equal type, ids, event and messageId one counts, whatever else they say: the vendor's own
        example has one messageId in all its messages. Without a messageId a message is known by what it says.
Open:   a user needs an accountId or organizationId by the docs, but is sent without by programs in use, and accepted.
Rules:  schemas/vitally.schema.json.
Source: "Analytics API - Batch" and the pages of its messages, Vitally documentation.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from ingest.core import schema
from ingest.core.commands import Command, Item, Rules, TimeSource
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
_LONGEST: Final = 255


class Vitally(Documents):
    """One body a document. See `Format`."""

    name: str = NAME

    def judge_body(self, body: Body, rules: Rules) -> Iterator[Item]:
        """See `Documents`."""
        if not isinstance(body.value, list):
            yield self.refused_whole(body, body.value, rules)
            return
        for number, message in enumerate(body.value):
            path = f"/{number}"
            one = Judged(NAME, rules, body.odd(NAME, message))
            if number >= schema.limit(NAME, "over_request_limit"):
                one.warn("over_request_limit")
            _judge(one, message)
            yield one.item(path, number, body, b"%d" % number)

    def is_shown_by(self, one: Mapping[str, Any], in_array: bool) -> bool:
        """See `Format`."""
        return (
            in_array
            and one.get("type") in (*TYPES, "customobjectinstance")
            and not one.keys().isdisjoint((*_IDENTIFIERS, "messageId", "timestamp"))
        )

    def number(self, path: str, context: bytes | None) -> int:  # noqa: ARG002
        """See `Documents`."""
        return int(path.removeprefix("/"))

    def judge_fixed(self, judged: Judged, value: Any, path: str, context: bytes | None) -> None:  # noqa: ARG002
        """See `Documents`."""
        _judge(judged, value)


def _judge(judged: Judged, sent: Any) -> None:
    message = without_blank(normal(sent, (*_IDENTIFIERS, "messageId")), "timestamp")
    if not _is_plain_message(message) and not judged.hold_against(message, "message"):
        return
    kind: str = message["type"]
    who = next(name for name in _WHO[kind] if name in message)
    is_person = who == "userId"
    person = judged.identity(message[who], f"/{who}") if is_person else f"{who.removesuffix('Id')}/{message[who]}"
    event = {"track": message.get("event"), "unlink": "unlink"}.get(kind)
    if event is not None:
        judged.length(event, "/event")
    at, is_timed = judged.time(message.get("timestamp"), "/timestamp")
    source: TimeSource = "event" if is_timed else "received"
    identity: tuple[str | int | None, ...] = ()
    if "messageId" in message:
        ids = (message.get(name) for name in _IDENTIFIERS)
        identity = ("only", kind, *ids, message.get("event") if kind == "track" else None, message["messageId"])
    judged.commands.append(
        Command(
            "set" if event is None else "record", person, at, event,
            properties=_properties(judged, message, who), time_source=source,
            people_space=None if is_person else f"{judged.rules.people_space}/accounts", identity=identity,
        )
    )  # fmt: skip


def _properties(judged: Judged, message: Mapping[str, Any], who: str) -> dict[str, object]:
    """The other ids, names that the docs do not know, and what the message's own object says, by its own names."""
    own, more = ("properties", ["event"]) if message["type"] == "track" else ("traits", [])
    columns = {"type", "messageId", "timestamp", who, own, *more}
    flat = judged.properties({name: value for name, value in message.items() if name not in columns})
    judged.merge(flat, message.get(own) or {}, own)
    return flat


def _is_plain_message(message: Any) -> bool:
    """Whether a message is beyond doubt but for its time: judging takes 9.2 times as long with the schema alone."""
    if not isinstance(message, dict):
        return False
    kind = message.get("type")
    if type(kind) is not str or kind not in _WHO or not any(name in message for name in _WHO[kind]):
        return False
    ids = [message[name] for name in _IDENTIFIERS if name in message]
    return (
        all(type(one) is str and len(one) <= _LONGEST for one in ids)
        and isinstance(message.get("timestamp"), (str, type(None)))
        and isinstance(message.get("messageId"), (str, type(None)))
        and ("timestamp" in message or "messageId" in message)
        and (kind != "unlink" or "accountId" in message)
        and isinstance(message.get("properties" if kind == "track" else "traits"), (dict, type(None)))
        and (kind != "track" or (type(event := message.get("event")) is str and bool(event.strip())))
    )


FORMAT: Final = Vitally()
