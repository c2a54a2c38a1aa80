"""The vendors' calls: paths, methods, where the key is, what a body must be, what is answered.

What a vendor documents is as it says; what it does not is our choice, written in docs/formats/.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ingest.intake.bodies import Shape, array, lines, object_with, visits
from ingest.intake.keys import KeysIn, basic_password, bearer, query, token

JsonSchema = Mapping[str, Any]
_ANY_ARRAY: Final[JsonSchema] = {"type": "array", "items": {}}


def plain_error(message: str) -> Mapping[str, Any]:
    """Vitally's envelope, as its REST API has it; ours where a vendor documents none."""
    return {"error": message}


PLAIN_ERROR: Final[JsonSchema] = {
    "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}, "additionalProperties": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of one vendor."""

    format: str
    path: str  # {source}: the name of the source
    methods: tuple[str, ...] = ("POST",)
    title: str
    tells: str  # for the API description
    keys_in: KeysIn
    scheme: str  # one of SCHEMES: the same for the API description
    shape: Shape
    media_type: str = "application/json"
    schema: JsonSchema  # of the body, as far as `shape` looks at it
    example: Any  # a body; of lines the text
    success: Mapping[str, Any] | None  # None: an empty body
    error: Callable[[str], Mapping[str, Any]] = plain_error
    error_schema: JsonSchema = field(default_factory=lambda: PLAIN_ERROR)
    parameters: Mapping[str, str] = field(default_factory=dict)  # of the query, without effect: what they are
    most_items: int | None = None  # a call, with vendor_limits
    rates: tuple[tuple[int, int], ...] = ()  # (calls, seconds), with vendor_limits


SCHEMES: Final[Mapping[str, JsonSchema]] = {
    "password": {"type": "http", "scheme": "basic", "description": "The password is the key, the user is anything."},
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "query", "name": "apiKey"},
    "token": {
        "type": "apiKey", "in": "header", "name": "Authorization",
        "description": "`Basic KEY`, KEY as it is or as base64 of `KEY:`; or `Bearer KEY`.",
    },
}  # fmt: skip


def _webengage_error(message: str) -> Mapping[str, Any]:
    return {"response": {"status": "error", "message": message}}


_WEBENGAGE_RESPONSE: Final[JsonSchema] = {
    "type": "object", "required": ["status", "message"],
    "properties": {"status": {"const": "error"}, "message": {"type": "string"}},
}  # fmt: skip
_WEBENGAGE_ERROR: Final[JsonSchema] = {
    "type": "object", "required": ["response"], "properties": {"response": _WEBENGAGE_RESPONSE},
}  # fmt: skip

_VISITS: Final = (
    '{"visitor":{"email":"ann@example.com"},"actions":[{"time":1444077951001,"name":"purchase","properties":'
    '{"price":20,"currency":"$"}}]}\n'
    '{"visitor":{"email":"bob@example.com","username":"test2"},"actions":[{"time":1444077951891,"name":"signup",'
    '"properties":{"campaign":true}}]}\n'
)
_USER: Final = {
    "userId": "johndoe", "firstName": "John", "lastName": "Doe", "birthDate": "1986-08-19T15:45:00-0800",
    "gender": "male", "email": "john@example.com", "phone": "+551155256325", "company": "Alphabet Inc.",
    "attributes": {"Age": "31", "Dollars spent": 461.93},
}  # fmt: skip
_EVENT: Final = {
    "userId": "johndoe", "eventName": "Added to Cart", "eventTime": "2018-09-15T18:29:00-0800",
    "eventData": {"Product ID": 1337, "Price": 39.8, "Quantity": 1},
}  # fmt: skip
_AT: Final = "2026-01-05T10:00:00Z"
_VISITOR_EVENTS: Final = [
    {"view": {"sessionExternalId": "5e8c1f", "productId": 41, "timestamp": _AT}},
    {"addToBasket": {"sessionExternalId": "5e8c1f", "productId": 41, "timestamp": _AT}},
]
_MESSAGES: Final = [
    {
        "type": "account", "accountId": "123456", "traits": {"name": "Argentina"},
        "messageId": "7ac1c682-a54b-4d0d-9f56-d6d3618f4915", "timestamp": "2018-05-15T12:31:12.123Z",
    },
    {
        "type": "track", "userId": "32", "event": "scored-goal", "properties": {"minute": 14},
        "messageId": "7ac1c682-a54b-4d0d-9f56-d6d3618f4915", "timestamp": "2018-05-15T12:31:12.123Z",
    },
]  # fmt: skip


def _woopra(path: str) -> Call:
    return Call(
        format="woopra", path=path, methods=("PUT", "POST"),
        title="Woopra: import visits",
        tells="A visit a line. `website` and `project` have no effect: the key says which source it is.",
        keys_in=basic_password, scheme="password", shape=visits, media_type="application/x-ndjson",
        schema={"type": "string"}, example=_VISITS, success={"success": True},
        parameters={"website": "Woopra's project, up to version 2", "project": "Woopra's project, from version 3"},
        rates=((300, 60), (600, 3600), (3000, 86_400)),
    )  # fmt: skip


def _webengage(what: str, item: Mapping[str, Any]) -> Call:
    return Call(
        format="webengage", path=f"/v1/accounts/{{licence}}/bulk-{what}",
        title=f"WebEngage: bulk {what}",
        tells=f"An object with an array `{what}`. The licence code has no effect: the key says which source it is.",
        keys_in=bearer, scheme="bearer", shape=object_with(what),
        schema={"type": "object", "required": [what], "properties": {what: _ANY_ARRAY}, "additionalProperties": False},
        example={what: [item]},
        success={"response": {"status": "queued"}}, error=_webengage_error, error_schema=_WEBENGAGE_ERROR,
        most_items=25, rates=((500, 60),),
    )  # fmt: skip


CALLS: Final = (
    Call(
        format="kissmetrics", path="/kissmetrics/{source}",
        title="Kissmetrics lines",
        tells="JSON objects, one a line, as in a file.",
        keys_in=bearer, scheme="bearer", shape=lines, media_type="application/x-ndjson",
        schema={"type": "string"},
        example='{"_p":"ann@example.com","_t":1393344604,"_n":"Signed Up","plan":"pro"}\n',
        success={"stored": True},
    ),
    _woopra("/rest/{version}/logs/import"),
    _woopra("/rest/{version}/import"),
    _webengage("users", _USER),
    _webengage("events", _EVENT),
    Call(
        format="retailrocket", path="/1.0/visitorEvents",
        title="Retail Rocket: batch of visitor events",
        tells="An array of events, each an object with one name: the kind of event. Their order is kept.",
        keys_in=query("apiKey"), scheme="apiKey", shape=array, schema=_ANY_ARRAY, example=_VISITOR_EVENTS,
        success=None, parameters={"partnerId": "Retail Rocket's name of the shop"}, rates=((50, 1),),
    ),
    Call(
        format="vitally", path="/analytics/v1/batch",
        title="Vitally: batch of messages",
        tells="An array of messages: organization, account, user, track or unlink.",
        keys_in=token, scheme="token", shape=array, schema=_ANY_ARRAY, example=_MESSAGES,
        success={"message": "Success."}, most_items=100, rates=((1000, 60),),
    ),
)  # fmt: skip


def error_at(path: str) -> tuple[Callable[[str], Mapping[str, Any]], JsonSchema]:
    """How the vendor to whom a path belongs, whether or not it is one of its calls, says what is wrong; as a schema."""
    own = (call for call in CALLS if path.startswith(call.path.partition("{")[0]))
    return next(((call.error, call.error_schema) for call in own), (plain_error, PLAIN_ERROR))
