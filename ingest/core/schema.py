"""Which rules a value breaks, by the JSON Schema of its format: the schema is the rule table.

Beside each constraint stands `x-failures`: {keyword: {code, problem, remedy}}, for `required` once more by name; with
`detail`, what only this constraint says. Rules that a schema cannot hold (the bytes, the clock) are in `x-outside` of
its root, warnings in `x-warnings`, both by code. A limit that a source may change is marked `x-setting`: {keyword:
setting}.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from ingest.core.commands import Failure
from ingest.core.compiled import Broken, Check, compiled
from ingest.core.jsontext import Undecodable, oddities, parse, pointer, short, shortened

PLACES: Final = 10  # of one item where the same rule is broken, that are kept; of the others it is kept how many
_OF_EVERY_SHAPE = ("shape_wrong",)  # codes that do not say by themselves what was expected
_TYPES = {
    "array": "an array", "object": "an object", "string": "text", "integer": "an integer", "number": "a number",
    "boolean": "true or false",
}  # fmt: skip
_PACKAGE = Path(__file__).parents[1]


class Meaning(NamedTuple):
    """What a code says to a person."""

    problem: str
    remedy: str


def schemas_folder() -> Path:
    """The folder `schemas`: within the installed package, or at the top of a checkout."""
    installed = _PACKAGE / "schemas"
    return installed if installed.is_dir() else _PACKAGE.parent / "schemas"


@cache
def load(name: str) -> dict[str, Any]:
    """The schema called `name`. Not to be changed."""
    schema: dict[str, Any] = json.loads((schemas_folder() / f"{name}.schema.json").read_bytes())
    return schema


@cache
def codes(name: str) -> dict[str, Meaning]:
    """Every code of a format, failures and warnings, with its meaning."""
    schema = load(name)
    entries = [*_annotated(schema), *schema.get("x-outside", {}).items(), *schema.get("x-warnings", {}).items()]
    return {code: Meaning(entry["problem"], entry["remedy"]) for code, entry in entries}


@cache
def limit(name: str, warning: str) -> int:
    """Above which length `warning` is given."""
    return int(load(name)["x-warnings"][warning]["limit"])


def failure(name: str, code: str, at: str = "", got: object = None, detail: str = "", remedy: str = "") -> Failure:
    """The failure (or warning) `code` in the words of the schema. `remedy` takes the place of what that says of all."""
    meaning = codes(name)[code]
    message = " ".join(filter(None, (meaning.problem, detail, remedy or meaning.remedy)))
    return Failure(code, message, at, shortened(got))


def odd(name: str, value: object) -> list[Failure]:
    """What JSON allows and a warehouse cannot keep, as `first_places` keeps it. Raises Undecodable: it is too deep."""
    return first_places(failure(name, one.code, one.pointer, one.got) for one in oddities(value))


def undecodable(name: str, error: Undecodable) -> Failure:
    """The failure of bytes that are not JSON."""
    return failure(name, error.code, detail=error.reason, remedy=error.remedy)


def too_long(name: str, code: str, length: int, limit_bytes: int, head: bytes, remedy: str = "") -> Failure:
    """The failure of a line or document of `length` bytes; `head` is how it begins, `remedy` as in `failure`."""
    detail = f"It has {length:,} bytes; {limit_bytes:,} are allowed."
    try:
        parse(head.decode(errors="replace").encode())  # it may be cut within a character
    except Undecodable as error:
        if error.remedy:  # it is more than one: that is why it is so long
            detail, remedy = f"{detail} {error.reason}", error.remedy
    return failure(name, code, detail=detail, remedy=remedy)


def first_places(failures: Iterable[Failure], more: Mapping[str, int] | None = None) -> list[Failure]:
    """Of each code the first places, each once, in their order; the last of them says how many more there are.

    `more`: how many are known beside these, by code. One item may break a rule at a hundred thousand places: what is
    given may be a stream, and what is kept is small. Places that are shown alike may count as one.
    """
    coming = iter(failures)
    head = list(islice(coming, 2))
    if len(head) < 2 and not more:
        return [one if (shown := short(one.pointer)) == one.pointer else one._replace(pointer=shown) for one in head]
    kept: dict[tuple[str, str], Failure] = {}  # of a place that is told twice the last
    seen, last, told = set[int](), dict[str, tuple[str, str]](), Counter[str]()
    left = Counter(more or {})
    for one in chain(head, coming):
        place = one.code, one.pointer
        is_new = hash(place) not in seen
        seen.add(hash(place))
        told[one.code] += is_new
        left[one.code] += one.more
        if place in kept or told[one.code] <= PLACES:
            kept[place] = one._replace(pointer=short(one.pointer), more=0)
            last[one.code] = place if is_new else last[one.code]
        else:
            left[one.code] += is_new
    for code, place in last.items():
        if left[code]:
            kept[place] = kept[place]._replace(more=left[code])
    return list(kept.values())


def explain(instance: Any, name: str, part: str = "", **settings: int) -> list[Failure]:
    """The rules of the schema called `name` that `instance` breaks, as `first_places` keeps them; none if it is sound.

    Numbers may be int, float or Decimal. `part` names one of the schema's `$defs` that `instance` is held against; the
    pointers of failures begin in `instance`. `settings` take the place of the limits marked with `x-setting`.
    """
    check = _check(name, part, tuple(sorted(settings.items())))
    # One after the other: of a body that is refused as a whole there may be millions.
    return first_places(one for broken in check.broken(instance) for one in _failures(broken, name))


def _failures(broken: Broken, name: str) -> Iterator[Failure]:
    """The failures of one broken constraint: by the annotation beside it, else those of its branches."""
    annotation = broken.schema.get("x-failures", {}).get(broken.keyword)
    if annotation is None:
        for branch in broken.branches:
            yield from _failures(branch, name)
    elif broken.keyword == "required":
        for missing in (known for known in annotation if known not in broken.value):
            code = annotation[missing]["code"]
            detail = f"{missing} is missing." if code in _OF_EVERY_SHAPE else ""
            yield failure(name, code, pointer(*map(str, broken.path), missing), detail=detail)
    else:
        code, detail = annotation["code"], annotation.get("detail", "")
        if code in _OF_EVERY_SHAPE and broken.keyword == "type":
            detail = " ".join(filter(None, (_expected(broken.schema["type"]), detail)))
        yield failure(name, code, pointer(*map(str, broken.path)), broken.value, detail)


def _expected(types: Any) -> str:
    """What a value has to be, in words. Null is the same as absent, nothing that anybody would send instead."""
    named = [_TYPES[one] for one in ([types] if isinstance(types, str) else types) if one != "null"]
    return f"Expected {' or '.join(named)}."


def _annotated(schema: object) -> Iterator[tuple[str, dict[str, str]]]:
    """Every (code, entry) of the `x-failures` in a schema."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            for entry in _entries(value) if key == "x-failures" else ():
                yield entry["code"], entry
            if key not in ("x-failures", "x-outside", "x-warnings"):
                yield from _annotated(value)
    elif isinstance(schema, list):
        for part in schema:
            yield from _annotated(part)


def _entries(annotation: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for entry in annotation.values():
        yield from [entry] if "code" in entry else _entries(entry)


def _with_settings(schema: Any, settings: Mapping[str, int]) -> Any:
    """A copy of `schema` with the limits of a source in place of the defaults."""
    if isinstance(schema, list):
        return [_with_settings(part, settings) for part in schema]
    if not isinstance(schema, dict):
        return schema
    own = {keyword: settings[name] for keyword, name in schema.get("x-setting", {}).items() if name in settings}
    return {key: _with_settings(value, settings) for key, value in schema.items()} | own


@cache
def _check(name: str, part: str, settings: tuple[tuple[str, int], ...]) -> Check:
    whole = _with_settings(load(name), dict(settings))
    return compiled(whole["$defs"][part] | {"$defs": whole["$defs"]} if part else whole)
