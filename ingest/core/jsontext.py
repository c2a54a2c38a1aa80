"""What a JSON text says, exactly: strict, every digit kept, nothing guessed.

In:     the bytes of one line or document.
Out:    str, bool, None, int, Decimal, list, dict; beside it what JSON allows and a warehouse cannot keep. Of a name
        that comes twice in an object the last counts.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import isinf
from typing import Any, Final, NoReturn

import msgspec
import orjson

_BYTES_A_VALUE: Final = 12  # decoded, nothing but small values takes thirty times as much as its text, and more
_VALUES_ALLOWED: Final = 1_000_000  # however small documents have to be
_SIGNS: Final = (b",", b"[", b"{")  # one stands before each value, or each member of an object
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)

JQ_DIGITS: Final = "jq 1.7 or later, which keeps every digit"  # to be said with every command that calls jq
MAX_DEPTH: Final = 100  # of objects and arrays in each other; far from where Python's own stack would end
_POINTER_LENGTH: Final = 500  # characters of a place that is told; a name may have a million
_MAX_INT_DIGITS: Final = 400  # longer ones are no double anyway, and slow as int
_PLAIN_DIGITS: Final = 20
_PLAIN_BYTES: Final = 1 << 20
_PLAIN_INTEGER: Final = 10**_PLAIN_DIGITS
_TINY: Final = Decimal("1e-308")
_MANY_ZEROS: Final = re.compile(r"-?0\.000000[0-9]*")

# A backslash with what it escapes; group 1 is half of a pair that stands alone. Read from left to right, so that
# an escaped backslash takes no part in what follows it.
_SURROGATE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_WHITE: Final = re.compile(r"[ \t\n\r]*")
_WINDOW: Final = 4096
_LONGEST_WORD: Final = 16  # that the decoder reads as one, but for strings and numbers: a pair of surrogates has 12


class Undecodable(ValueError):
    """The bytes are not JSON. `code` is not_utf8 or not_json, `reason` one sentence; `is_cut`: they may go on.

    `remedy` is a sentence where the mistake is known, else blank.
    """

    def __init__(self, code: str, reason: str, is_cut: bool = False, remedy: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.is_cut = is_cut
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something JSON allows and a warehouse cannot keep: `code` is nul_character or number_out_of_range."""

    code: str
    pointer: str
    got: object


def decode(data: bytes) -> object:
    """Read one JSON text. `oddities` says what of it no warehouse can keep. Raises Undecodable."""
    value = parse(data)
    for _ in oddities(value):
        pass  # to the end: it tells of what is too deep, too
    return value


def parse(data: bytes) -> object:
    """As `decode`, but for what is too deep: that is for `oddities` to say. Raises Undecodable."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Undecodable("not_utf8", f"Byte {error.start + 1} does not belong there.") from error
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        is_cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        problem, remedy = _mistake(text, error.pos) if error.msg == "Extra data" else ("", "")
        problem = problem or f"{error.msg.removesuffix(' at')} at character {error.pos + 1}."
        raise Undecodable("not_json", problem, is_cut, remedy) from error
    except RecursionError as error:
        raise Undecodable("not_json", _TOO_DEEP) from error
    for escape in _SURROGATE.finditer(text):  # in text that parses, backslashes stand in strings only
        if escape[1]:
            raise Undecodable("not_json", f"Half a surrogate pair, \\{escape[1]}, at character {escape.start() + 1}.")
    return value


def parse_plain(data: bytes) -> object:
    """As `decode`, in a third of the time; None of what it is not sure of: one to have decoded, for what is odd in it.

    What reads it is stricter than `decode` in all but numbers, and depth, which is seen level by level. Where memory
    ends it brings the process down, so it is for what takes little.
    """
    if len(data) > _PLAIN_BYTES:
        return None
    try:
        value: object = _PLAIN_DECODER.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if b"\\u0000" in data:
        return None
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            for item in one.values() if type(one) is dict else one if type(one) is list else (one,):
                kind = type(item)
                if kind is dict or kind is list:
                    below.append(item)
                elif kind is int and not -_PLAIN_INTEGER < item < _PLAIN_INTEGER:
                    return None
        if not below:
            return value
        level = below
    return None


def values_allowed(max_document_bytes: int) -> int:
    """How many values a document may hold where it may have so many bytes."""
    return max(_VALUES_ALLOWED, max_document_bytes // _BYTES_A_VALUE)


def values_at_most(text: bytes) -> int:
    """How many values a JSON text may hold. Known without decoding it."""
    return sum(map(text.count, _SIGNS))


def holds_more(text: bytes, values: int) -> bool:
    """Whether a JSON text holds more than so many values. Known without decoding it."""
    more = values_at_most(text) - values
    if more > 0:  # but some of these signs may stand in strings
        for string in _STRING.finditer(text):
            more -= values_at_most(string[0])
            if more <= 0:
                break
    return more > 0


def in_range(number: int | Decimal) -> bool:
    """Whether it is a finite IEEE double, and zero or not closer to zero than 1e-308."""
    try:
        return not isinf(float(number)) and (number == 0 or isinstance(number, int) or number.copy_abs() >= _TINY)
    except OverflowError:  # an int
        return False


def dumps(value: object) -> str:
    """JSON text of a decoded value, without spaces, with every digit."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumps(name)}:{dumps(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(value)
    return orjson.dumps(value).decode()


def dumped(value: object) -> Iterator[str]:
    """What `dumps` gives, in parts: the whole may be long."""
    if not isinstance(value, (dict, list)):
        yield dumps(value)
        return
    yield "{" if isinstance(value, dict) else "["
    for number, one in enumerate(value):
        if number:
            yield ","
        if isinstance(value, dict):
            yield f"{dumps(one)}:"
        yield from dumped(value[one] if isinstance(value, dict) else one)
    yield "}" if isinstance(value, dict) else "]"


def short(text: str, length: int = _POINTER_LENGTH) -> str:
    """A pointer, or a name in one, no longer than anybody reads."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def pointer(*names: str) -> str:
    """The JSON Pointer (RFC 6901) of a place, fit for print: warehouses refuse U+0000, which is shown as U+2400."""
    return "".join("/" + name.replace("~", "~0").replace("/", "~1").replace("\0", "␀") for name in names)


def shortened(value: object, length: int = 100) -> object:
    """A decoded value fit for a report: scalars as they are if JSON and warehouses keep them, else text, cut."""
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    text = value[: length + 1] if isinstance(value, str) else ""
    for part in () if isinstance(value, str) else dumped(value):
        text += part
        if len(text) > length:  # what follows may be long
            break
    text = text.replace("\0", "␀")
    return text if len(text) <= length else f"{text[: length - 1]}…"


def plain_number(number: Decimal) -> int | float:
    """A number of a few digits as JSON has it: whole where it is whole."""
    return int(number) if number == number.to_integral_value() else float(number)


def replaced(text: str, at: str, value: float) -> str | None:
    """A JSON text with another number where a JSON Pointer points, all else as it was; None where nothing is there."""
    found = place(text, at)
    return found and f"{text[: found[0]]}{json.dumps(value)}{text[found[1] :]}"


def place(text: str, at: str) -> tuple[int, int] | None:
    """Where in a JSON text the value stands that a JSON Pointer names: its first character, and the one after it.

    Of a name that comes twice the last one counts, as everywhere. None where there is no such value, or no JSON.
    """
    names = [name.replace("~1", "/").replace("~0", "~") for name in at.split("/")[1:]]
    try:
        start = behind_white(text, 0)
        end = _DECODER.raw_decode(text, start)[1]
        for name in names:
            found = [(first, last) for key, first, last in members(text, start) if key == name]
            if not found:
                return None
            start, end = found[-1]
    except (ValueError, RecursionError):
        return None
    return start, end


def end_of(text: str, start: int) -> tuple[int | None, int]:
    """Where the object or array ends that begins at `start`, None if none does; and how far it was read to know that.

    It is read in a window that grows: the decoder counts the lines up to a mistake, of all that it was given.
    """
    size, left = _WINDOW, len(text) - start
    while True:
        window = text[start : start + size]
        try:
            end = start + _DECODER.raw_decode(window)[1]
        except json.JSONDecodeError as error:
            # Of a string that does not end it is told where it begins; other words that are cut are short.
            is_known = not error.msg.startswith("Unterminated string")
            if size >= left:
                return None, start + error.pos if is_known else len(text)
            if is_known and error.pos <= len(window) - _LONGEST_WORD:
                return None, start + error.pos
            size *= 4
        except (ValueError, RecursionError):
            return None, len(text)
        else:
            return end, end


def behind_white(text: str, at: int) -> int:
    """Where the next character stands that is no white space."""
    return _WHITE.match(text, at).end()  # type: ignore[union-attr]  # it always matches


def members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Name (or number) of each value of the object or array that begins at `start`, and where it stands.

    `text` is JSON up to there at least. Of a name that comes twice both are given.
    """
    is_object, number = text[start] == "{", 0
    if text[start] not in "{[":
        return
    at = behind_white(text, start + 1)
    while text[at] not in "}]":
        name = str(number)
        if is_object:
            name, at = _DECODER.raw_decode(text, at)
            at = behind_white(text, behind_white(text, at) + 1)  # behind the colon
        end = _DECODER.raw_decode(text, at)[1]
        yield name.replace("\0", "␀"), at, end
        at, number = behind_white(text, end), number + 1
        if text[at] == ",":
            at = behind_white(text, at + 1)


def _mistake(text: str, end: int) -> tuple[str, str]:
    """What is wrong with `text`, and what to do with its file, where a whole value ends at `end`; or blanks."""
    rest = text[end : end + 1]
    if rest == ",":
        if text[end + 1 :].strip():
            return f"A comma and more follow at character {end + 1}.", "Put each object on a line of its own."
        return (
            "A comma follows the object.",
            "Leave out the commas between lines: sed 's/,[[:space:]]*$//' FILE > FIXED.json does so.",
        )
    if rest not in ("{", "["):
        return "", ""
    gap = text[len(text[:end].rstrip()) : end]
    if "\r" in gap and "\n" not in gap:
        return (
            f"Another document begins at character {end + 1}, behind a carriage return (CR) alone, which ends no line.",
            "End lines with a line feed: tr '\\r' '\\n' < FILE > FIXED.json does so.",
        )
    return (
        f"Another document begins at character {end + 1} of the same line.",
        f"Put each on a line of its own: jq -c . FILE > FIXED.json does so ({JQ_DIGITS}).",
    )


def _integer(token: str) -> int | Decimal:
    return int(token) if len(token) <= _MAX_INT_DIGITS else Decimal(token)


class _AsSent(Decimal):
    """Spelled without an exponent: a Decimal this close to zero has one, whether it was sent with one or not."""

    def __str__(self) -> str:
        return format(self, "f")


def _number(token: str) -> Decimal:
    try:
        return _AsSent(token) if _MANY_ZEROS.fullmatch(token) else Decimal(token)
    except InvalidOperation:  # an exponent of more than 18 digits
        mantissa, exponent = token.lower().split("e")
        zero = not mantissa.strip("-0.")
        return Decimal(0) if zero else Decimal(f"{mantissa}e{'-' * exponent.startswith('-')}99999999999")


def _plain_number(token: str) -> Decimal:
    """Short and without an exponent it is surely in range."""
    if len(token) > _PLAIN_DIGITS or "e" in token or "E" in token:
        raise ValueError
    return _number(token)


def _constant(token: str) -> NoReturn:
    raise Undecodable("not_json", f"{token} is not a JSON value.")


_DECODER: Final = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_constant)
_PLAIN_DECODER: Final = msgspec.json.Decoder(float_hook=_plain_number)
_TOO_DEEP: Final = f"Objects and arrays are nested in each other more than {MAX_DEPTH} deep."


_Place = tuple["_Place | None", str | int]  # where something stands: the place of what holds it, and its own name


def oddities(value: object, at: _Place | None = None, depth: int = 0) -> Iterator[Oddity]:
    """What JSON allows and a warehouse cannot keep, in a decoded value that stands at `at`.

    Places are written out only where they are shown: a name may be long, and much may stand below it.

    Raises Undecodable: it is too deep.
    """
    if isinstance(value, str):
        if "\0" in value:
            yield Oddity("nul_character", _written(at), value)
    elif isinstance(value, (int, Decimal)):
        if not in_range(value):
            yield Oddity("number_out_of_range", _written(at), value)
    elif isinstance(value, (dict, list)):
        if depth == MAX_DEPTH:
            raise Undecodable("not_json", _TOO_DEEP)
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(name, str) and "\0" in name:
                yield Oddity("nul_character", _written(at), name)
            yield from oddities(item, (at, name), depth + 1)


def _written(at: _Place | None) -> str:
    """A place as a JSON Pointer."""
    names: list[str] = []
    while at is not None:
        at, name = at
        names.append(short(str(name)))
    return short(pointer(*reversed(names)))
