"""Hypothesis strategies: bodies as vendors document them, and as somebody's program sends them."""

import json
from collections.abc import Mapping

from hypothesis import strategies as st

from ingest.core.formats.retailrocket import ENVELOPES
from ingest.core.formats.vitally import TYPES
from tests.core.lines import any_json

# What a double cannot hold, and what only just; the exponents are more than can be written out.
_HUGE_AND_TINY = ["1e400", "-1e400", "9" * 400, "9" * 401, "9" * 400 + ".5", "1e99999999999", "1e-400",
                  "1e-99999999999", "1e307"]  # fmt: skip
_TIMES = ["1444077951001", "1444077951001", "1444077951", '"1444077951001"', "1444077951001.5", "0", "-1", "null",
          "9999999999999999", "true", '"soon"', "99999999999", "100000000000", "1444077951." + "1" * 120,
          *_HUGE_AND_TINY]  # fmt: skip
_DATES = ['"2018-09-15T18:29:00-0800"', '"2018-09-15T18:29:00Z"', '"2018-09-15T18:29"', '"2018-13-15T18:29:00Z"',
          '"soon"', "7", "null", '"9999-12-31T23:59:59-0800"', '"0001-01-01T00:00:00+0800"',
          *_HUGE_AND_TINY]  # fmt: skip
_PERSONS = ['"ann"', '"ann"', '"null"', "7", "7.5", '""', "null", "[]", '"' + "x" * 101 + '"', '"' + "x" * 256 + '"',
            '"\\u0000"', *_HUGE_AND_TINY]  # fmt: skip
_NAMES = ['"signup"', '"signup"', '" "', "null", "7", '"we_x"', '"' + "x" * 256 + '"', *_HUGE_AND_TINY]
_PHONES = ['"+551155256325"', '"12"', "12", *_HUGE_AND_TINY]
_GENDERS = ['"male"', '"x"', "null", *_HUGE_AND_TINY]
_OTHERS = ["a", "a.b", "b", "visit", "visit.a", "we_a", "properties.a", "", "é", "type", "x" * 256]


def _object(members: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members.items()) + "}"


_OBJECTS = any_json() | st.dictionaries(st.sampled_from(_OTHERS), any_json(), max_size=3).map(_object)


def _some(**members: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects with some of these members, and others."""
    named = st.fixed_dictionaries({}, optional={name.rstrip("_"): value for name, value in members.items()})
    others = st.dictionaries(st.sampled_from(_OTHERS), any_json(), max_size=2)
    return st.tuples(others, named).map(lambda both: _object({**both[0], **both[1]}))


def _list(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, max_size=3).map(lambda some: f"[{','.join(some)}]")


def _mostly(values: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(values[:1]) | st.sampled_from(values)


def woopra_visits() -> st.SearchStrategy[str]:
    who = _mostly(_PERSONS)
    visitor = _some(id=who, email=who, cookie=who) | st.just('{"id":"ann"}')
    action = _some(name=_mostly(_NAMES), time=_mostly(_TIMES), properties=_OBJECTS) | any_json()
    visit = _some(visitor=visitor, actions=_list(action), time=_mostly(_TIMES), id=any_json())
    return visit | st.tuples(visitor, _list(action)).map(lambda both: f'{{"visitor":{both[0]},"actions":{both[1]}}}')


def webengage_bodies() -> st.SearchStrategy[str]:
    who = _mostly(_PERSONS)
    user = _some(
        userId=who, anonymousId=who, attributes=_OBJECTS, phone=_mostly(_PHONES), gender=_mostly(_GENDERS),
        birthDate=_mostly(_DATES),
    )  # fmt: skip
    event = _some(userId=who, anonymousId=who, eventName=_mostly(_NAMES), eventTime=_mostly(_DATES), eventData=_OBJECTS)
    some = st.fixed_dictionaries({}, optional={"users": _list(user), "events": _list(event)}).map(_object)
    return some | _some(users=_list(user) | any_json(), events=_list(event) | any_json())


_NUMBERS = ["41", "41", '"41"', '"x"', "1.5", '"1.50"', "true", "null", "1e999", *_HUGE_AND_TINY]
_TEXTS = ['"x"', '"x"', "7", '" "', "7.5", "null", "[]", *_HUGE_AND_TINY]
_LINKS = ['{"name":"n","value":"v"}', '{"name":"n","value":7}', '[{"name":"n","value":"v"},7]', "[]", "[[]]", '"x"',
          '{"name":"n"}', '{"name":" ","value":"v"}', '[{"name":{},"value":"v"}]', "null",
          *(f'{{"name":"n","value":{number}}}' for number in _HUGE_AND_TINY)]  # fmt: skip


def retailrocket_bodies() -> st.SearchStrategy[str]:
    who, number, text = _mostly(_PERSONS), _mostly(_NUMBERS), _mostly(_TEXTS)
    event = _some(
        sessionExternalId=who, link=_mostly(_LINKS), timestamp=_mostly(_DATES), email=who, contactExternalId=who,
        productId=number, groupId=number, categoryId=number, price=number, quantity=number, transaction=text,
        searchPhrase=text, impressionContentId=text, recomBlockId=text, phone=_mostly(_PHONES), customData=_OBJECTS,
        productIds=_list(number) | any_json(),
    )  # fmt: skip
    sound = st.just(
        '{"sessionExternalId":"ann","timestamp":"2026-01-05T10:00:00Z","productId":1,"groupId":1,"productIds":[1],'
        '"price":1,"quantity":1,"transaction":"t","categoryId":1,"searchPhrase":"s","contactExternalId":"c",'
        '"impressionContentId":"i","recomBlockId":"b"}'
    )
    kinds = st.sampled_from([*ENVELOPES, "View", ""])
    envelope = st.dictionaries(kinds, sound | event, min_size=1, max_size=1).map(_object)
    other = st.dictionaries(kinds, event | any_json(), max_size=2).map(_object) | any_json()
    return _list(envelope | other)


def vitally_bodies() -> st.SearchStrategy[str]:
    who = _mostly(_PERSONS)
    kind = st.sampled_from([f'"{one}"' for one in TYPES]) | st.sampled_from(['"identify"', "null", "7"])
    message = _some(
        type=kind, userId=who, accountId=who, organizationId=who, event=_mostly(_NAMES), messageId=_mostly(_TEXTS),
        timestamp=_mostly(_DATES), traits=_OBJECTS, properties=_OBJECTS,
    )  # fmt: skip
    parts = st.tuples(kind, who, _mostly(_DATES), _mostly(_NAMES))
    sound = parts.map(
        lambda some: _object({
            "type": some[0], "userId": some[1], "accountId": some[1], "organizationId": some[1], "timestamp": some[2],
            "messageId": '"m"', "event": some[3],
        })
    )  # fmt: skip
    return _list(sound | message | any_json())
