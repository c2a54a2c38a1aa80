"""What holds for any bytes whatever: one item, never an exception; what was sent is what is kept."""

import json
from decimal import Decimal, InvalidOperation

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.commands import Item, Rules
from ingest.core.facts import row as to_row
from ingest.core.formats import open_format
from ingest.core.formats.kissmetrics_octal import read_repaired
from ingest.core.jsontext import Undecodable, decode, dumps, oddities, parse_plain
from ingest.core.schema import codes
from tests.core.lines import any_json, lines

FORMAT = open_format("kissmetrics")
CODES = set(codes("kissmetrics"))
RULES = st.builds(
    Rules,
    strict=st.booleans(),
    nested=st.sampled_from(["fail", "flatten"]),
    max_line_bytes=st.sampled_from([40, 1_048_576]),
    time_from=st.sampled_from([0, 1_230_768_000]),
    received_at=st.sampled_from([0, 1_800_000_000_000_000]),
)


def check(item: Item, rules: Rules) -> None:
    assert bool(item.commands) != bool(item.failures)
    told = [(failure.code, failure.pointer) for failure in item.failures]
    assert len(told) == len(set(told))
    assert {code for code, _ in told} | set(item.warnings) <= CODES
    assert not (item.failures and item.warnings)
    assert not (rules.strict and item.warnings)
    assert not any("\0" in f"{one.pointer} {one.got} {one.message}" for one in item.failures)
    for command in item.commands:
        properties = orjson.loads(to_row(command, 7, 0, item.path, rules).properties)
        assert properties.keys() == command.properties.keys()


@settings(deadline=None)
@given(st.binary() | lines(), RULES)
def test_any_bytes_are_one_item(line: bytes, rules: Rules) -> None:
    (item,) = FORMAT.judge(line, rules)
    check(item, rules)


@settings(deadline=None)
@given(lines(), st.data(), RULES)
def test_a_damaged_line_is_one_item(line: bytes, data: st.DataObject, rules: Rules) -> None:
    start = data.draw(st.integers(0, len(line)))
    damaged = line[:start] + data.draw(st.binary(max_size=3)) + line[data.draw(st.integers(start, len(line))) :]
    (item,) = FORMAT.judge(damaged, rules)
    check(item, rules)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40) | lines(), max_size=4))
def test_any_head_is_refused_or_not(parts: list[bytes]) -> None:
    item = FORMAT.refusal(b"\n".join(parts))
    codes_told = [failure.code for failure in item.failures] if item else []
    assert codes_told in ([], ["document_not_lines"], ["wrong_format"])


@settings(deadline=None)
@given(any_json())
def test_decoding_agrees_with_python_and_loses_no_digit(text: str) -> None:
    try:
        value = decode(text.encode())
        loosely = json.loads(text, parse_float=Decimal)
    except (Undecodable, InvalidOperation):  # of Decimal: an exponent of more than 18 digits
        return
    assert value == loosely
    assert decode(dumps(value).encode()) == value


@settings(deadline=None)
@given(st.text(), st.booleans())
def test_octal_escapes_of_any_text_are_read_back(text: str, as_windows: bool) -> None:
    encoding = "windows-1252" if as_windows else "utf-8"
    encoded = text.encode(encoding, "ignore")
    meant = encoded.decode(encoding)
    sent = b"".join(
        b"\\%03o" % byte if byte > 127 else json.dumps(chr(byte))[1:-1].encode() for byte in encoded
    )  # fmt: skip
    value, is_repaired = read_repaired(b'{"a":"%s"}' % sent, decode)
    assert is_repaired == any(byte > 127 for byte in encoded)
    if not as_windows:  # whose bytes may happen to be UTF-8
        assert value == {"a": meant}


_DIGITS = st.sampled_from([20, 21, 308, 309, 310, 400, 401]).map(lambda many: "9" * many)
_EXPONENTS = st.integers(-400, 400).map(lambda exponent: f"1e{exponent}")
_DEEP = st.integers(95, 105).map(lambda depth: "[" * depth + "]" * depth)
_ODD = st.sampled_from(['"\\u0000"', '{"\\u0000":1}', '"\\ud800"', "-0", "-0.0", "NaN", "[1,]", "1" * 25 + ".5"])


@settings(deadline=None)
@given(st.lists(any_json() | _DIGITS | _EXPONENTS | _DEEP | _ODD, max_size=3), st.booleans())
def test_what_is_plain_is_decoded_alike(texts: list[str], cut: bool) -> None:
    text = f"[{','.join(texts)}]".encode()[: -1 if cut else None]
    if (plain := parse_plain(text)) is not None:
        assert repr(decode(text)) == repr(plain)
        assert not list(oddities(plain))
