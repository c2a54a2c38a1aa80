"""How fast the other formats load beside Kissmetrics, for each command.

    python bench/formats.py [--commands N] [--rounds N]

Bodies as programs send them: visits of some actions, and the most items that one call of a vendor may have. One item
in a hundred breaks a rule, as of the Kissmetrics lines. Loads take turns; told are medians over the rounds. The same
arguments always write the same bytes.
"""

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import generate
from run import load, timed

_SESSIONS = 5_000
_BAD = 0.01
_NOW = 1_700_000_000


def woopra(at: random.Random, number: int) -> tuple[object, int]:
    """A visit of one to nine actions. See `_FORMATS`."""
    actions = [
        {"time": (_NOW + number * 60 + one) * 1000 + at.randrange(1000), "name": event, "properties": properties}
        for one, (event, properties) in enumerate(_events(at, at.randrange(1, 10)))
    ]
    visitor = {"email": f"visitor{at.randrange(_SESSIONS)}@example.com", "account_level": "enterprise", "seats": 7}
    visit = {"city": "Wien", "browser": "Firefox", "time": (_NOW + number * 60) * 1000}
    return {"visitor": visitor, **visit, "actions": actions}, len(actions) + 1


def webengage(at: random.Random, number: int) -> tuple[object, int]:
    """25 events, or every fourth time as many users."""
    if number % 4 == 0:
        users: list[dict[str, object]] = [
            {"userId": f"user{at.randrange(_SESSIONS)}", "firstName": "John", "email": f"{at.random()}@example.com",
             "phone": "+551155256325", "gender": "male", "birthDate": "1986-08-19T15:45:00-0800",
             "attributes": {"Age": "31", "Dollars spent": round(at.random() * 300, 2)}}
            for _ in range(25)
        ]  # fmt: skip
        return {"users": users}, len(users)
    events = [
        {"userId": f"user{at.randrange(_SESSIONS)}", "eventName": event, "eventTime": _iso(number, one, "-0800"),
         "eventData": properties}
        for one, (event, properties) in enumerate(_events(at, 25))
    ]  # fmt: skip
    return {"events": events}, len(events)


def retailrocket(at: random.Random, number: int) -> tuple[object, int]:
    """Twenty steps through a shop."""
    steps = []
    for one in range(20):
        who = {"sessionExternalId": f"s{at.randrange(_SESSIONS):08x}", "timestamp": _iso(number, one, "Z")}
        product = {"productId": at.randrange(10_000)}
        bought = {"price": round(at.random() * 300, 2), "quantity": 1, "transaction": f"T-{at.randrange(1_000_000)}"}
        kind, what = at.choice((
            ("view", product), ("view", product), ("view", product | {"stockId": "vienna"}), ("addToBasket", product),
            ("categoryView", {"categoryId": at.randrange(300)}), ("search", {"searchPhrase": "rote Schuhe"}),
            ("order", product | bought),
        ))  # fmt: skip
        steps.append({kind: who | what})
    return steps, len(steps)


def vitally(at: random.Random, number: int) -> tuple[object, int]:
    """100 messages: tracks, users and accounts."""
    messages: list[dict[str, object]] = []
    traits: dict[str, object]
    for one, (event, properties) in enumerate(_events(at, 100)):
        ids = {"userId": str(at.randrange(_SESSIONS)), "accountId": f"a{at.randrange(300)}"}
        known = {"messageId": f"{at.getrandbits(128):032x}", "timestamp": _iso(number, one, ".123Z")}
        if one % 4 < 2:
            messages.append({"type": "track", **ids, "event": event, "properties": properties, **known})
        elif one % 4 == 2:
            traits = {"name": "Lionel", "email": "lionel@example.com", "number": at.randrange(99)}
            messages.append({"type": "user", **ids, "traits": traits, **known})
        else:
            account = {"accountId": ids["accountId"], "organizationId": "o1"}
            traits = {"group": "D", "seats": at.randrange(99)}
            messages.append({"type": "account", **account, "traits": traits, **known})
    return messages, len(messages)


# What makes a body: it, and how many commands it asks for.
_FORMATS: Mapping[str, Callable[[random.Random, int], tuple[object, int]]] = {
    "woopra": woopra, "webengage": webengage, "retailrocket": retailrocket, "vitally": vitally,
}  # fmt: skip
# What breaks the first item of a body: a text, and another in its place.
_BROKEN: Mapping[str, tuple[str, str]] = {
    "woopra": ('"name":', '"nome":'), "webengage": ('"userId":', '"user":'),
    "retailrocket": ('"sessionExternalId":', '"session":'), "vitally": ('"type":"track"', '"type":"tracks"'),
}  # fmt: skip


def _events(at: random.Random, count: int) -> Iterator[tuple[str, dict[str, object]]]:
    for _ in range(count):
        yield generate.event(at)


def _iso(number: int, one: int, rest: str) -> str:
    return f"{datetime.fromtimestamp(_NOW + number * 60 + one, UTC):%Y-%m-%dT%H:%M:%S}{rest}"


def write(path: Path, name: str, commands: int, seed: int = 1) -> int:
    """Write bodies of a format, one a line, of at least so many commands; how many they are."""
    at, written, number, due = random.Random(seed), 0, 0, 0.0
    with path.open("w", encoding="utf-8") as file:
        while written < commands:
            body, many = _FORMATS[name](at, number)
            text = json.dumps(body, separators=(",", ":"))
            due += many * _BAD
            if due >= 1:
                text, due, many = text.replace(*_BROKEN[name], 1), due - 1, many - 1
            file.write(f"{text}\n")
            written, number = written + many, number + 1
    return written


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="landfall-bench-") as name:
        folder = Path(name)
        plain = folder / "plain.json"
        generate.write(plain, arguments.commands)
        runs = {"kissmetrics": (load(plain), {}), "kissmetrics, Python only": (load(plain), {"INGEST_NATIVE": "false"})}
        many = dict.fromkeys(runs, round(arguments.commands * (1 - _BAD)))
        for format in _FORMATS:
            path = folder / f"{format}.json"
            many[format] = write(path, format, arguments.commands)
            runs[format] = ([*load(path), "--format", format], {})
        cpu, _ = timed(folder, runs, arguments.rounds)
    each = {what: cpu[what] / many[what] for what in runs}
    for what, seconds in each.items():
        native, python = (each[one] / seconds for one in ("kissmetrics", "kissmetrics, Python only"))
        print(f"  {what:30} {seconds * 1e6:6.1f} CPU us a command  {native:.2f} of Kissmetrics, {python:.2f} of it"
              " with Python only")  # fmt: skip


if __name__ == "__main__":
    main()
