"""One row of the table `commands`, as it leaves judging: the order of its columns and the fact's identity.

Everything a file's rows share (file, source, load, arrival) is added when they are written.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import orjson

from ingest.core.commands import Command, Rules
from ingest.core.identity import key

TRANSPORT_NAMES: Final = frozenset({"_k", "_d", "_c", "_u", "_ip", "_ua", "_server_timestamp"})

# (line, item_no, item, kind, people_space, person, person_key, at, event, event_key, alias, alias_key, properties,
#  time_source, command_id). `item_no`: where the item stands in its line. `at`: microseconds UTC. `properties`: JSON.
# `command_id`: 16 bytes.
# Most rows repeat themselves, and what is not written costs nothing: `people_space` None is the file's own, a key None
# is its name as it stands.
Row = tuple[object, ...]

# Some rows, column by column, in the order of `Row`.
Columns = tuple[Sequence[object], ...]


def _exact(value: object) -> object:
    """A number as JSON text, so that every digit survives: orjson has neither Decimal nor integers over 64 bits."""
    if isinstance(value, (str, bool)):
        return value
    return orjson.Fragment(str(value))


def json_object(properties: dict[str, object]) -> bytes:
    """Properties as canonical JSON: names sorted, no spaces, numbers as sent."""
    return orjson.dumps(properties, option=orjson.OPT_SORT_KEYS)


def command_id(
    kind: str, space: str, person_key: str, at: int, event_key: str | None, alias_key: str | None, properties: bytes,
    identity: tuple[object, ...] = (),
) -> bytes:  # fmt: skip
    """The identity of a fact: equal facts from any file have the same 16 bytes.

    `properties` is canonical JSON without transport names. `identity` tells apart what the fact itself does not,
    such as the place of an item that has no time of its own.
    """
    if alias_key is not None and alias_key < person_key:
        person_key, alias_key = alias_key, person_key  # an alias has no direction
    fact = [kind, space, person_key, at, event_key, alias_key, orjson.Fragment(properties), *identity]
    return blake2b(orjson.dumps(fact), digest_size=16).digest()


def row(command: Command, line: int, item_no: int, path: str, rules: Rules, identity: tuple[object, ...] = ()) -> Row:
    """The row of one command."""
    space = command.people_space or rules.people_space
    person_key = key(command.person, rules.match)
    event_key = None if command.event is None else key(command.event, rules.match)
    alias_key = None if command.alias is None else key(command.alias, rules.match)
    exact = {name: _exact(value) for name, value in command.properties.items()}
    fact = json_object({name: value for name, value in exact.items() if name not in TRANSPORT_NAMES})
    fact_id = command_id(command.kind, space, person_key, command.at, event_key, alias_key, fact, identity)
    return (
        line, item_no, path, command.kind, None if space == rules.people_space else space, command.person,
        differing(person_key, command.person), command.at, command.event, differing(event_key, command.event),
        command.alias, differing(alias_key, command.alias), json_object(exact), command.time_source, fact_id,
    )  # fmt: skip


def differing(key: str | None, name: str | None) -> str | None:
    """A key as a row has it: None where it is its name."""
    return None if key == name else key
