"""A large Kissmetrics file that looks like one: sessions of visitors, twenty events with properties of their own.

    python bench/generate.py LINES PATH [--bad SHARE] [--seed N]

78 % records, 19 % sets, 3 % aliases; of all lines, `--bad` (default 0.01) break one rule of several kinds.
The same arguments always write the same bytes.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

_EVENTS = {
    "Visited Site": ("url", "referrer", "browser"),
    "Viewed Pricing": ("url", "plan shown"),
    "Signed Up": ("plan name", "campaign source", "campaign name"),
    "Billed": ("billing amount", "plan name", "currency"),
    "Added to Cart": ("sku", "price", "quantity"),
    "Purchased": ("order id", "order total", "items", "coupon"),
    "Searched": ("search terms", "results"),
    "Opened Email": ("email subject", "campaign name"),
    "Invited Friend": ("invite channel",),
    "Watched Video": ("video title", "seconds watched", "completed"),
    "Logged In": (),
}
_NAMES = list(_EVENTS)
_SET = ("Age", "Gender", "Country", "newsletter", "lifetime value")
_BAD = (
    '{"_p":"%s","_t":%d,"_n":"cut off',
    '{"_t":%2$d,"_n":"nobody"}',
    '{"_p":"%s","_t":"yesterday","_n":"Visited Site"}',
    '{"_p":"%s","_t":%d000,"_n":"Visited Site"}',
    '{"_p":"%s","_t":%d}',
    '{"_p":"%s","_t":%d,"_n":"nested","cart":{"sku":"A-1"}}',
)


def _value(name: str, at: random.Random) -> object:
    match name:
        case "url":
            return f"https://www.example.com/products/{at.randrange(4000)}?ref={at.choice('abcdef')}"
        case "billing amount" | "price" | "order total" | "lifetime value":
            return round(at.random() * 300, 2)
        case "quantity" | "items" | "results" | "seconds watched" | "Age":
            return at.randrange(120)
        case "completed" | "newsletter":
            return at.random() < 0.5
        case "order id" | "sku":
            return f"{name[0].upper()}-{at.randrange(1_000_000)}"
        case "Country":
            return at.choice(("Deutschland", "España", "France", "Österreich", "United States"))
        case _:
            return f"{name} {at.randrange(40)}"


def event(at: random.Random) -> tuple[str, dict[str, object]]:
    """One of the events, with its properties."""
    name = _NAMES[int(at.random() ** 2 * len(_NAMES))]
    return name, {each: _value(each, at) for each in _EVENTS[name]}


def lines(count: int, bad: float = 0.01, seed: int = 1) -> Iterator[str]:
    """`count` lines, without their ends."""
    at = random.Random(seed)
    now = 1_700_000_000
    sessions = ["visitor0@example.com"] * 50  # who is on the site
    for number in range(count):
        now += number % 20 == 0
        place = at.randrange(50)
        if at.random() < 0.15:  # one leaves, another comes
            sessions[place] = f"visitor{int(at.paretovariate(0.4)) % 500_000}@example.com"
        person = sessions[place]
        kind = at.random()
        if kind < bad:
            form = at.choice(_BAD)
            yield form.replace("%2$d", str(now)) if "%2$d" in form else form % (person, now)[: form.count("%")]
        elif kind < bad + 0.78:
            name, properties = event(at)
            yield json.dumps({"_p": person, "_t": now, "_n": name} | properties, separators=(",", ":"))
        elif kind < 0.97:
            chosen = _SET[at.randrange(3) :]
            yield json.dumps({name: _value(name, at) for name in chosen} | {"_p": person, "_t": now})
        else:
            yield json.dumps({"_p": person, "_t": now, "_p2": f"user-{person[7:-12]}"})


def write(path: Path, count: int, bad: float = 0.01, seed: int = 1) -> None:
    """Write the file."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines(count, bad, seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", type=int)
    parser.add_argument("path", type=Path)
    parser.add_argument("--bad", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    write(arguments.path, arguments.lines, arguments.bad, arguments.seed)
