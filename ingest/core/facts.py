"""One row of the table `commands`, as it leaves judging: the order of its columns and the fact's identity.

Everything a file's rows share (file, source, load, arrival) is added when they are written.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import orjson

from ingest.core.commands import Command, Rules
from ingest.core.jsontext import decode
from ingest.core.matching import Match, key

TRANSPORT_NAMES: Final = frozenset({"_k", "_d", "_c", "_u", "_ip", "_ua", "_server_timestamp"})
_MAY_BE_TRANSPORT: Final = b'"_'  # every transport name begins so, and few rows have one


class CommandRow(NamedTuple):
    """Most rows repeat themselves, and what is not written costs nothing."""

    line: int
    item_no: int  # where the item stands in its line
    item: str
    kind: str
    people_space: str | None  # None: the file's own
    person: str
    person_key: str | None  # None, as of the other keys: the name as it stands
    occurred_at: int  # microseconds, UTC
    event: str | None
    event_key: str | None
    alias: str | None
    alias_key: str | None
    properties: bytes  # JSON
    time_source: str
    identity: bytes | None  # of the command, as a JSON array
    command_id: bytes  # 16 of them


# Some rows, column by column, in the order of `CommandRow`.
Columns = tuple[Sequence[object], ...]


def _exact(value: object) -> object:
    """A number as JSON text, so that every digit survives: orjson has neither Decimal nor integers over 64 bits."""
    if isinstance(value, (str, bool)):
        return value
    return orjson.Fragment(str(value))


def json_object(properties: Mapping[str, object]) -> bytes:
    """Properties as canonical JSON: names sorted, no spaces, numbers as sent."""
    try:
        return compact(orjson.dumps(properties, _exact, orjson.OPT_SORT_KEYS))
    except TypeError:  # an integer over 64 bits
        exact = {name: _exact(value) for name, value in properties.items()}
        return compact(orjson.dumps(exact, None, orjson.OPT_SORT_KEYS))


def compact(made: bytes) -> bytes:
    """What orjson made, to be kept: it holds a page of memory, which takes longer to come than a copy."""
    return b"%b" % made


def row(command: Command, line: int, item_no: int, path: str, rules: Rules) -> CommandRow:
    """The row of one command."""
    space = command.people_space or rules.people_space
    identity = command.identity
    if command.time_source == "received" and not identity:
        identity = ("also", rules.file_id, line, path)
    properties = fact = json_object(command.properties)
    if _MAY_BE_TRANSPORT in properties:
        fact = json_object({name: value for name, value in command.properties.items() if name not in TRANSPORT_NAMES})
    person_key, event_key, alias_key, fact_id = keys(
        rules.match, command.kind, space, command.person, command.at, command.event, command.alias, fact, identity
    )
    return CommandRow(
        line, item_no, path, command.kind, None if space == rules.people_space else space, command.person,
        person_key, command.at, command.event, event_key, command.alias, alias_key, properties,
        command.time_source, compact(orjson.dumps(identity)) if identity else None, fact_id,
    )  # fmt: skip


def keys(
    match: Match, kind: str, space: str, person: str, at: int, event: str | None, alias: str | None, fact: bytes,
    identity: Sequence[object] = (),
) -> tuple[str | None, str | None, str | None, bytes]:  # fmt: skip
    """(person_key, event_key, alias_key, command_id) of a row; a key is None where it is its name.

    Equal facts from any file have the same id. `fact` is canonical JSON of the properties without transport names,
    `identity` as a command has it.
    """
    person_key = key(person, match)
    event_key = None if event is None else key(event, match)
    alias_key = None if alias is None else key(alias, match)
    # An alias has no direction.
    one, other = (person_key, alias_key) if alias_key is None or person_key <= alias_key else (alias_key, person_key)
    said = [kind, space, one, at, event_key, other, orjson.Fragment(fact)]
    if identity:
        how, *more = identity
        said = [kind, space, *more] if how == "only" else [*said, *more]
    fact_id = blake2b(orjson.dumps(said), digest_size=16).digest()
    return differing(person_key, person), differing(event_key, event), differing(alias_key, alias), fact_id


def fact_of(properties: bytes) -> bytes:
    """Stored properties without transport names. Both are canonical JSON."""
    if _MAY_BE_TRANSPORT not in properties:
        return properties
    sent = decode(properties)
    assert isinstance(sent, dict)
    return json_object({name: value for name, value in sent.items() if name not in TRANSPORT_NAMES})


def differing(key: str | None, name: str | None) -> str | None:
    """A key as a row has it: None where it is its name."""
    return None if key == name else key
