"""A JSON Schema as functions: whether a value is sound, and what of it is not, in half the time of `jsonschema`.

In:     a schema of draft 2020-12 that uses no other keywords than the rule tables in schemas/ do.
Out:    a `Check`.
Numbers may be int, float or Decimal. `jsonschema` stays the measure: tests hold every answer against its own.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

Path = tuple[str | int, ...]
Schema = Mapping[str, Any]


class UnknownKeyword(Exception):
    """A schema asks for what is not compiled."""


class Broken(NamedTuple):
    """A constraint that a value breaks."""

    keyword: str
    schema: Schema  # the constraint is one of it
    value: Any
    path: Path
    branches: Sequence["Broken"] = ()  # of `anyOf`: why none of them holds


class Check(Protocol):
    """A schema, or one keyword of it."""

    def is_valid(self, value: Any) -> bool: ...

    def broken(self, value: Any, path: Path = ()) -> Iterator[Broken]:
        """What a value breaks; of one keyword alone only where that is so."""


def compiled(root: Schema) -> Check:
    """A schema. Raises UnknownKeyword."""
    whole = _Compiler(root).schema(root)
    return whole if isinstance(whole, _All) else _All([whole])


class _Compiler:
    def __init__(self, root: Schema) -> None:
        self._defs: Schema = root.get("$defs", {})
        self._known: dict[str, Check] = {}  # of them

    def schema(self, asked: Schema | bool) -> Check:
        if isinstance(asked, bool):
            if not asked:
                raise UnknownKeyword("false")
            return _Parts(lambda _: ())
        keywords = [name for name in asked if name not in _SAYS_NOTHING and not name.startswith("x-")]
        checks = [self._keyword(name, asked) for name in keywords]
        return checks[0] if len(checks) == 1 else _All(checks)

    def _keyword(self, name: str, of: Schema) -> Check:
        if name in _SIMPLE:
            return _Whole(name, of, _SIMPLE[name](of[name]))
        if name not in _OTHERS:
            raise UnknownKeyword(name)
        return _OTHERS[name](self, name, of)

    def type(self, name: str, of: Schema) -> Check:
        named = [of[name]] if isinstance(of[name], str) else of[name]
        classes = tuple(_CLASSES[one] for one in named if one in _CLASSES)
        is_meant = next((_NUMBERS[one] for one in ("number", "integer") if one in named), _is_none)
        return _Whole(name, of, lambda value: isinstance(value, classes) or is_meant(value))

    def known(self, name: str, of: Schema) -> Check:
        values = of[name] if name == "enum" else [of[name]]
        if not all(isinstance(one, str) for one in values):
            raise UnknownKeyword(f"{name} of others than texts")
        return _Whole(name, of, lambda value: value in values)

    def unless(self, name: str, of: Schema) -> Check:
        refused = self.schema(of[name])
        return _Whole(name, of, lambda value: not refused.is_valid(value))

    def any_of(self, name: str, of: Schema) -> Check:
        branches = [self.schema(one) for one in of[name]]
        return _Whole(name, of, lambda value: any(branch.is_valid(value) for branch in branches), branches)

    def all_of(self, name: str, of: Schema) -> Check:
        return _All([self.schema(one) for one in of[name]])

    def condition(self, name: str, of: Schema) -> Check:
        asked, then, otherwise = (self.schema(of.get(one, True)) for one in (name, "then", "else"))
        return _Parts(lambda value: ((then if asked.is_valid(value) else otherwise, value, None),))

    def reference(self, name: str, of: Schema) -> Check:
        return _Parts(lambda value: ((self._def(of[name].removeprefix("#/$defs/")), value, None),))

    def _def(self, name: str) -> Check:
        if name not in self._known:  # only now: a schema may hold itself
            self._known[name] = self.schema(self._defs[name])
        return self._known[name]

    def properties(self, name: str, of: Schema) -> Check:
        named = {key: self.schema(one) for key, one in of[name].items()}
        return _members(lambda value: [(one, value[key], key) for key, one in named.items() if key in value])

    def pattern_properties(self, name: str, of: Schema) -> Check:
        matched = [(re.compile(pattern), self.schema(one)) for pattern, one in of[name].items()]
        return _members(
            lambda value: ((one, value[key], key) for pattern, one in matched for key in value if pattern.search(key))
        )

    def other_properties(self, name: str, of: Schema) -> Check:
        apart, pattern = of.get("properties", {}), re.compile("|".join(of.get("patternProperties", ())) or "(?!)")

        def others(value: Any) -> Iterator[str]:
            return (key for key in value if key not in apart and not pattern.search(key))

        if of[name] is False:
            return _Whole(name, of, lambda value: not isinstance(value, dict) or next(others(value), None) is None)
        other = self.schema(of[name])
        return _members(lambda value: ((other, value[key], key) for key in others(value)))

    def first_items(self, name: str, of: Schema) -> Check:
        placed = [self.schema(one) for one in of[name]]
        return _members(lambda value: ((one, value[at], at) for at, one in enumerate(placed[: len(value)])), list)

    def items(self, name: str, of: Schema) -> Check:
        item, begin = self.schema(of[name]), len(of.get("prefixItems", ()))
        return _members(lambda value: ((item, value[at], at) for at in range(begin, len(value))), list)


@dataclass(frozen=True, slots=True)
class _Whole:
    """A constraint that a value holds or breaks by itself."""

    keyword: str
    schema: Schema
    is_valid: Callable[[Any], bool]
    branches: Sequence[Check] = ()  # of `anyOf`

    def broken(self, value: Any, path: Path = ()) -> Iterator[Broken]:
        why = [broken for branch in self.branches for broken in branch.broken(value, path)]
        yield Broken(self.keyword, self.schema, value, path, why)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Several, each of the whole value, or of the part of it that stands at a step from it."""

    of: Callable[[Any], Iterable[tuple[Check, Any, str | int | None]]]

    def is_valid(self, value: Any) -> bool:
        for check, part, _ in self.of(value):  # noqa: SIM110  # in half the time of `all`
            if not check.is_valid(part):
                return False
        return True

    def broken(self, value: Any, path: Path = ()) -> Iterator[Broken]:
        for check, part, step in self.of(value):
            if not check.is_valid(part):
                yield from check.broken(part, path if step is None else (*path, step))


@dataclass(frozen=True, slots=True)
class _All:
    """Each of the whole value."""

    checks: Sequence[Check]

    def is_valid(self, value: Any) -> bool:
        for check in self.checks:  # noqa: SIM110  # in half the time of `all`
            if not check.is_valid(value):
                return False
        return True

    def broken(self, value: Any, path: Path = ()) -> Iterator[Broken]:
        for check in self.checks:
            if isinstance(check, _Parts) or not check.is_valid(value):
                yield from check.broken(value, path)


def _members(of: Callable[[Any], Iterable[tuple[Check, Any, str | int]]], type_of: type = dict) -> _Parts:
    """Of an object, or an array. A value of another type has none."""
    return _Parts(lambda value: of(value) if isinstance(value, type_of) else ())


def _matching(search: Callable[[str], object]) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, str) or search(value) is not None


def _is_none(_: object) -> bool:
    return False


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:  # as JSON Schema has it: 1.0 is one
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return _is_number(value) and bool(value == int(value))


_SAYS_NOTHING = ("$defs", "$id", "$schema", "description", "title", "then", "else")  # by itself
_CLASSES = {"array": list, "boolean": bool, "null": type(None), "object": dict, "string": str}
_NUMBERS = {"integer": _is_integer, "number": _is_number}
# By the value of the keyword: what holds of values of one type, others not being asked.
_SIMPLE: Mapping[str, Callable[[Any], Callable[[Any], bool]]] = {
    "exclusiveMaximum": lambda limit: lambda value: not _is_number(value) or value < limit,
    "maxItems": lambda limit: lambda value: not isinstance(value, list) or len(value) <= limit,
    "maxLength": lambda limit: lambda value: not isinstance(value, str) or len(value) <= limit,
    "maxProperties": lambda limit: lambda value: not isinstance(value, dict) or len(value) <= limit,
    "minItems": lambda limit: lambda value: not isinstance(value, list) or len(value) >= limit,
    "minLength": lambda limit: lambda value: not isinstance(value, str) or len(value) >= limit,
    "minProperties": lambda limit: lambda value: not isinstance(value, dict) or len(value) >= limit,
    "minimum": lambda limit: lambda value: not _is_number(value) or value >= limit,
    "pattern": lambda text: _matching(re.compile(text).search),
    "required": lambda names: lambda value: not isinstance(value, dict) or all(name in value for name in names),
}
_OTHERS: Mapping[str, Callable[[_Compiler, str, Schema], Check]] = {
    "$ref": _Compiler.reference,
    "additionalProperties": _Compiler.other_properties,
    "allOf": _Compiler.all_of,
    "anyOf": _Compiler.any_of,
    "const": _Compiler.known,
    "enum": _Compiler.known,
    "if": _Compiler.condition,
    "items": _Compiler.items,
    "not": _Compiler.unless,
    "patternProperties": _Compiler.pattern_properties,
    "prefixItems": _Compiler.first_items,
    "properties": _Compiler.properties,
    "type": _Compiler.type,
}
