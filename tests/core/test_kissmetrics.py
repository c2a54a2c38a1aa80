"""Every row of the contract's table of Kissmetrics lines, every code, and both sides of every limit."""

import re
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from ingest.core.commands import Command, Item, Rules
from ingest.core.facts import row as to_row
from ingest.core.formats import open_format

FORMAT = open_format("kissmetrics")
NOW = 1_800_000_000
RULES = Rules(received_at=NOW * 1_000_000)
STRICT = Rules(received_at=NOW * 1_000_000, strict=True)
FLATTEN = Rules(received_at=NOW * 1_000_000, nested="flatten")
T = 1_393_344_604
AT = T * 1_000_000


def judge(line: bytes | str | dict[str, object], rules: Rules = RULES) -> Item:
    if isinstance(line, dict):
        line = orjson.dumps(line)
    (item,) = FORMAT.judge(line if isinstance(line, bytes) else line.encode(), rules)
    assert bool(item.commands) != bool(item.failures)
    assert not (item.failures and item.warnings)
    assert (item.path, item.raw) == ("", None)
    orjson.dumps([failure.told() for failure in item.failures])
    return item


def line(members: str) -> str:
    """A line of ann's at T, with more members."""
    return f'{{"_p":"ann","_t":{T},{members}}}'


def at(time: str) -> str:
    """A sound line but for its time."""
    return f'{{"_p":"ann","_t":{time},"_n":"x"}}'


def told(item: Item) -> list[tuple[str, str]]:
    return [(failure.code, failure.pointer) for failure in item.failures]


def codes(item: Item) -> list[str]:
    return [failure.code for failure in item.failures]


def record(event: str = "x", **properties: object) -> Command:
    return Command("record", "ann", AT, event=event, properties=properties)


def settle(**properties: object) -> Command:
    return Command("set", "ann", AT, properties=properties)


def alias(other: str = "bob", **properties: object) -> Command:
    return Command("alias", "ann", AT, alias=other, properties=properties)


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        pytest.param(line('"_n":"x"'), [record()], id="record"),
        pytest.param(line('"_n":"x","plan":"pro"'), [record(plan="pro")], id="record with a property"),
        pytest.param(line('"_n":"x","_ip":"::1"'), [record(_ip="::1")], id="record with a transport name"),
        pytest.param(line('"plan":"pro"'), [settle(plan="pro")], id="set"),
        pytest.param(line('"plan":"pro","_k":"1"'), [settle(plan="pro", _k="1")], id="set with a transport name"),
        pytest.param(line('"plan":""'), [settle(plan="")], id="a blank value is a value"),
        pytest.param(line('"":1'), [settle(**{"": 1})], id="a name may be empty"),
        pytest.param(line('"_x":1'), [settle(_x=1)], id="an unknown underscore name is a property"),
        pytest.param(line('"_p2":"bob"'), [alias()], id="alias"),
        pytest.param(line('"_p2":"ann"'), [alias("ann")], id="alias of a person to itself"),
        pytest.param(line('"_p2":"bob","_n":"x"'), [alias(), record()], id="alias, then record"),
        pytest.param(line('"_p2":"bob","a":1'), [alias(), settle(a=1)], id="alias, then set"),
        pytest.param(line('"_p2":"bob","_n":"x","a":1,"_k":2'), [alias(), record(a=1, _k=2)], id="all of it"),
        pytest.param(line('"_p2":"bob","_k":2'), [alias(_k=2)], id="transport names alone stay with the alias"),
        pytest.param(line('"_n":null,"_p2":null,"a":1,"b":null'), [settle(a=1)], id="null is absent"),
        pytest.param(line('"a":true,"b":false,"c":"1"'), [settle(a=True, b=False, c="1")], id="types are kept"),
        pytest.param(line('"a":1,"a":2'), [settle(a=2)], id="the last of a name counts"),
        pytest.param(line('"a":[1],"a":2'), [settle(a=2)], id="the last of a name counts, though the first is broken"),
        pytest.param(line('"a":1,"b":1,"a":null'), [settle(b=1)], id="the last of a name counts, though it is null"),
        pytest.param(line('"a":"x\u2028y\u0085z"'), [settle(a="x\u2028y\u0085z")], id="only a line feed ends a line"),
        pytest.param(line('"a":"\\ud83d\\ude00\\u00e9"'), [settle(a="😀é")], id="escapes"),
        pytest.param(line('"a":"\\\\ud83d"'), [settle(a="\\ud83d")], id="an escaped backslash escapes nothing"),
        pytest.param("\ufeff" + line('"a":1'), [settle(a=1)], id="byte order mark"),
        pytest.param(line('"a":1') + "\r", [settle(a=1)], id="carriage return"),
        pytest.param("\t " + line('"a" : 1 ') + " \t", [settle(a=1)], id="white space"),
        pytest.param(
            f'{{"_p":7,"_t":{T},"_p2":-12}}', [Command("alias", "7", AT, alias="-12")], id="integer identities"
        ),
        pytest.param(f'{{"_p":7.0,"_t":{T},"a":1}}', [Command("set", "7", AT, properties={"a": 1})], id="7.0 is one"),
    ],
)
def test_commands(text: str, commands: list[Command]) -> None:
    item = judge(text)
    assert list(item.commands) == commands
    assert item.warnings == ()


@pytest.mark.parametrize(
    "number",
    ["0", "-1", "9223372036854775807", "9223372036854775808", "123456789012345678901234567890", "1.10", "0.0", "-0.10",
     "1.23456789012345678901234567890123456789", "9" * 300, "0.1" + "0" * 50,
     "0.0000001", "-0.0000000", "0.000000000000000", "0." + "0" * 306 + "10"],
)  # fmt: skip
def test_numbers_keep_their_digits(number: str) -> None:
    (command,) = judge(line(f'"a":{number}')).commands
    assert to_row(command, 7, 0, "", RULES)[12] == b'{"a":%b}' % number.encode()


@pytest.mark.parametrize(
    "number", ["1e5", "1E+5", "1.5e-7", "1E-07", "1e308", "1e-308", "-0", "0e99999999999999999999", "0e-5"]
)
def test_numbers_keep_their_value(number: str) -> None:
    (command,) = judge(line(f'"a":{number}')).commands
    kept = orjson.loads(to_row(command, 7, 0, "", RULES).properties)["a"]
    assert kept == float(number)


A255, A256 = "a" * 255, "a" * 256
BROKEN = [
    ("{}", [("person_missing", "/_p"), ("time_missing", "/_t"), ("no_command", "")]),
    ("[1]", [("not_object", "")]),
    ('"x"', [("not_object", "")]),
    ("1", [("not_object", "")]),
    ("null", [("not_object", "")]),
    ('"\\u0000"', [("not_object", ""), ("nul_character", "")]),
    (f'{{"_t":{T},"_n":"x"}}', [("person_missing", "/_p")]),
    (f'{{"_p":null,"_t":{T},"_n":"x"}}', [("person_missing", "/_p")]),
    *(
        (f'{{"_p":"{blank}","_t":{T},"_n":"x"}}', [("person_blank", "/_p")])
        for blank in ("", " ", "\\t\\n", "\u3000", "\u0085")
    ),
    *((f'{{"_p":{value},"_t":{T},"_n":"x"}}', [("person_not_text", "/_p")]) for value in ("true", "1.5", "[]", "{}")),
    (f'{{"_p":"{A256}","_t":{T},"_n":"x"}}', [("person_too_long", "/_p")]),
    (f'{{"_p":{"1" * 256},"_t":{T},"_n":"x"}}', [("person_too_long", "/_p")]),
    ('{"_p":"ann","_n":"x"}', [("time_missing", "/_t")]),
    (at("null"), [("time_missing", "/_t")]),
    *(
        (at(time), [("time_not_epoch_seconds", "/_t")])
        for time in ("true", "false", "-1", "-0.5", "[]", "{}", '""', '"now"', '"1393344604.0"',
                     '" 1393344604"', '"-1"', '"١٢"')
    ),
    *((at(time), [("time_too_old", "/_t")]) for time in ("0", "-0", "1230767999", "1230767999.999999", '"1230767999"')),
    *(
        (at(time), [("time_in_milliseconds", "/_t")])
        for time in ("100000000000", "1393344604123", "1393344604123456789", '"1393344604123"', "1e11",
                     '"' + "9" * 5000 + '"')
    ),
    *((at(str(NOW + 86_400 + late)), [("time_in_future", "/_t")]) for late in (1, 0.5)),
    (at("99999999999"), [("time_in_future", "/_t")]),
    *((line(f'"_n":{value}'), [("event_not_text", "/_n")]) for value in ("7", "true", "1.5", "[]", "{}")),
    (line(f'"_n":"{A256}"'), [("event_too_long", "/_n")]),
    *((line(f'"_p2":{value}'), [("alias_not_text", "/_p2")]) for value in ("1.5", "true", "[]", "{}")),
    (line(f'"_p2":"{A256}"'), [("alias_too_long", "/_p2")]),
    (line('"a":[]'), [("nested_value", "/a")]),
    (line('"_n":"x","a":{},"b":1,"c":[1]'), [("nested_value", "/a"), ("nested_value", "/c")]),
    (line('"_k":{}'), [("nested_value", "/_k"), ("no_command", "")]),
    (line('"a/b~c":[]'), [("nested_value", "/a~1b~0c")]),
    (f'{{"_p":"ann","_t":{T}}}', [("no_command", "")]),
    *(
        (line(members), [("no_command", "")])
        for members in ('"_n":null', '"_n":""', '"_p2":" "', '"_n":"\\u3000","_p2":null', '"a":null',
                        '"_k":1,"_d":1,"_c":"a","_u":"a","_ip":"a","_ua":"a","_server_timestamp":1')
    ),
    (line('"a":"x\\u0000"'), [("nul_character", "/a")]),
    (line('"a\\u0000":1'), [("nul_character", "")]),
    (line('"_n":"\\u0000"'), [("nul_character", "/_n")]),
    (line('"a":[{"b":"\\u0000"}]'), [("nested_value", "/a"), ("nul_character", "/a/0/b")]),
    (line('"a\\u0000":[]'), [("nested_value", "/a␀"), ("nul_character", "")]),
    *(
        (line(f'"a":{number}'), [("number_out_of_range", "/a")])
        for number in ("1e309", "-1e309", "1e99999999999", "1e99999999999999999999", "1e-309", "-1e-400", "9.99e-309",
                       "1e-99999999999999999999", "9" * 309, "9" * 400, "-" + "9" * 5000, "0." + "0" * 310 + "1")
    ),
    *(
        (at(f"1e{nines}"), [("time_in_milliseconds", "/_t"), ("number_out_of_range", "/_t")])
        for nines in ("400", "9" * 11, "9" * 30)
    ),
    (at("1e-99999999999"), [("time_too_old", "/_t"), ("number_out_of_range", "/_t")]),
    (at("1e400"), [("time_in_milliseconds", "/_t"), ("number_out_of_range", "/_t")]),
    (at("1e-400"), [("time_too_old", "/_t"), ("number_out_of_range", "/_t")]),
    (
        '{"z":[],"_p2":true,"_n":7,"_t":"soon","_p":" ","a":1e999}',
        [("person_blank", "/_p"), ("time_not_epoch_seconds", "/_t"), ("event_not_text", "/_n"),
         ("alias_not_text", "/_p2"), ("nested_value", "/z"), ("number_out_of_range", "/a")],
    ),
    (f'{{"_p":"{" " * 256}","_t":{T},"_n":"x"}}', [("person_too_long", "/_p"), ("person_blank", "/_p")]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "failures"), BROKEN, ids=lambda value: str(value)[:60])
def test_broken_rules(text: str, failures: list[tuple[str, str]]) -> None:
    assert sorted(told(judge(text))) == sorted(failures)
    assert [pointer for _, pointer in told(judge(text))] == [pointer for _, pointer in failures]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value"),
        (b"nonsense", "Expecting value at character 1"),
        (b'{"_p":"ann"', "at character"),
        (b'{"a":1,}', "at character"),
        (b'{"a":1} 7', "Extra data"),
        (b'{"a":1} // c', "Extra data"),
        (b"{'a':1}", "at character 2"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b'{"a":01}', "at character"),
        (b'{"a":1.}', "at character"),
        (b'{"a":"\t"}', "control character"),
        (b'{"a":"\\ud83d"}', "ud83d"),
        (b'{"a":"\\ude00\\ud83d"}', "ude00"),
        (b'{"a":"\\ud83d","a":1}', "ud83d"),
        (b'{"\\udfff":1}', "udfff"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "deep"),
        (b"[" * 100_000, "deep"),
        (b'{"a":"\\201"}', "escape"),
        (b'{"a":"\\302\\243","b":NaN}', "NaN"),
        (b'{"a":"\\101"}', "escape"),
        (b"\\302\\243", "Expecting value"),
    ],
)  # fmt: skip
def test_not_json(text: bytes, reason: str) -> None:
    item = judge(text)
    assert told(item) == [("not_json", "")]
    assert reason in item.failures[0].message


MISTAKES = [
    pytest.param("{0}{1}\n", "Another document begins at character 35 of the same line.", "jq -c . FILE", id="two"),
    pytest.param("{0} {1} {0}\n", "at character 36 of the same line.", "jq -c . FILE", id="three, with spaces"),
    pytest.param("{0}\r{1}\r", "behind a carriage return (CR) alone", "tr '\\r' '\\n' < FILE", id="CR"),
    pytest.param("{0},\n{1},\n", "A comma follows the object.", "sed 's/,[[:space:]]*$//' FILE", id="commas"),
    pytest.param("{0},\r\n{1} , \r\n", "A comma follows", "sed 's/,[[:space:]]*$//' FILE", id="commas, CRLF"),
    pytest.param("{0},{1}\n", "A comma and more follow at character 35.", "", id="commas on one line"),
]


@pytest.mark.parametrize(("text", "reason", "command"), MISTAKES)
def test_the_mistake_of_a_producer_is_named_and_the_command_fixes_it(
    text: str, reason: str, command: str, tmp_path: Path
) -> None:
    some = [f'{{"_p":"{name}","_t":1393344604,"a":1}}' for name in ("ann", "bob")]
    text = text.replace("{0}", some[0]).replace("{1}", some[1])
    head = text.encode().split(b"\n")[0]
    (failure,) = judge(head).failures
    assert (failure.code, reason in failure.message, command in failure.message) == ("not_json", True, True)
    long = FORMAT.too_long(2 << 20, head, RULES)
    assert (long.code, command in long.message) == ("line_too_long", True)
    if command.startswith(("tr", "sed")):
        (tmp_path / "FILE").write_text(text, encoding="utf-8", newline="")
        (shown,) = re.findall(r": ((?:tr|sed) .* > FIXED\.json) ", failure.message)
        subprocess.run(["bash", "-c", shown], cwd=tmp_path, check=True)
        fixed = (tmp_path / "FIXED.json").read_text(encoding="utf-8").splitlines()
        assert [one.strip() for one in fixed] == some


@pytest.mark.parametrize(
    ("head", "command"),
    [
        (b'[{"_p":"ann"},{"_p":"bob', "jq -c '.[]' FILE"),
        (b'{"events" : [{"_p":"ann"},', "jq -c '.events[]' FILE"),
        (b'{"_p":"ann","a":"xx', "Check that lines end with a line feed"),
        ('{"_p":"ann"}\r{"_p":"é'.encode()[:-1], "tr "),
    ],
)
def test_why_a_line_is_too_long_is_said(head: bytes, command: str) -> None:
    assert command in FORMAT.too_long(2 << 20, head, RULES).message


def test_nesting_has_a_limit_of_its_own() -> None:
    assert codes(judge(line('"a":' + "[" * 99 + "]" * 99))) == ["nested_value"]
    assert codes(judge(line('"a":' + "[" * 100 + "]" * 100))) == ["not_json"]


def test_not_utf8() -> None:
    assert codes(judge(b'{"a":"\xe9"}')) == ["not_utf8"]
    assert codes(judge(b'{"a":"\xed\xa0\x80"}')) == ["not_utf8"]


def test_line_too_long() -> None:
    text = line('"a":1').encode()
    assert codes(judge(text, Rules(max_line_bytes=len(text) - 1))) == ["line_too_long"]
    rules = Rules(max_line_bytes=len(text), received_at=RULES.received_at)
    assert judge(text, rules).commands
    assert judge(text + b"\r", rules).commands, "a line end is not part of a line"


@pytest.mark.parametrize(
    ("time", "microseconds", "coerced"),
    [
        ("1230768000", 1_230_768_000_000_000, False),
        (str(NOW + 86_400), (NOW + 86_400) * 1_000_000, False),
        (f'"{T}"', AT, True),
        (f'"000{T}"', AT, True),
        (f"{T}.0", AT, True),
        ("1.393344604e9", AT, True),
        (f"{T}.123456", AT + 123_456, True),
        (f"{T}.9999999999999999999999999999999999", AT + 999_999, True),
        (f"{NOW + 86_400}.0", (NOW + 86_400) * 1_000_000, True),
    ],
)
def test_times(time: str, microseconds: int, coerced: bool) -> None:
    item = judge(at(time))
    assert [command.at for command in item.commands] == [microseconds]
    assert item.warnings == (("time_coerced",) if coerced else ())


def test_limits_of_time_are_the_sources_own() -> None:
    assert judge(at("5"), Rules(time_from=5, future_seconds=0, received_at=5_000_000)).commands
    assert codes(judge(at("4"), Rules(time_from=5, received_at=5_000_000))) == ["time_too_old"]
    assert codes(judge(at("6"), Rules(time_from=5, received_at=5_000_000, future_seconds=0))) == ["time_in_future"]
    half = Rules(time_from=0, received_at=5_500_000, future_seconds=10)
    assert judge(at("15.5"), half).commands
    assert codes(judge(at("15.500001"), half)) == ["time_in_future"]
    assert codes(judge(at("-1"), Rules(time_from=-5))) == ["time_not_epoch_seconds"]


@pytest.mark.parametrize(
    ("time", "code", "seconds"),
    [
        ("1393344604000", "time_in_milliseconds", "send 1393344604."),
        ("1393344604123", "time_in_milliseconds", "send 1393344604.123."),
        ("1393344604123.5", "time_in_milliseconds", "send 1393344604.1235."),
        ("1393344604123456", "time_in_milliseconds", "send 1393344604.123456."),
        ("1393344604123456789", "time_in_milliseconds", "send 1393344604.123456."),
        ('"1393344600000"', "time_in_milliseconds", "send 1393344600."),
        ('"2014-02-25T16:10:04Z"', "time_not_epoch_seconds", "send 1393344604."),
        ('"2014-02-25 16:10:04"', "time_not_epoch_seconds", "send 1393344604."),
        ('"2014-02-25T17:10:04.5+0100"', "time_not_epoch_seconds", "send 1393344604.5."),
        ('"2014-02-25"', "time_not_epoch_seconds", "send 1393286400."),
        ('"20140225"', "time_too_old", "send 1393286400."),
        ("41695", "time_too_old", "send 1393286400."),
        ("41695.673657", "time_too_old", "send 1393344604."),
        ('"41695.673657"', "time_not_epoch_seconds", "send 1393344604."),
        (
            '"1393344604.5"',
            "time_not_epoch_seconds",
            "A text may hold digits only. It reads as 2014-02-25 16:10:04 UTC: send 1393344604.5.",
        ),
        ('" 1393344604"', "time_not_epoch_seconds", "send 1393344604."),
    ],
)
def test_a_wrong_time_tells_the_seconds_meant(time: str, code: str, seconds: str) -> None:
    (failure,) = judge(at(time)).failures
    assert failure.code == code
    assert f"send {failure.send}." in failure.message, "a program reads it as a number"
    assert judge(at(str(failure.send))).commands
    assert failure.message.endswith(seconds)
    assert str(failure.got) == time.strip('"')


@pytest.mark.parametrize(
    "time",
    [
        *["1", "81000", '"soon"', "true", "-41695", '"1950-01-01"', "9" * 30, "[]", "1e300"],
        *['"9999-12-31T23:59:59-08:00"', '"0001-01-01T00:00:00+08:00"', f'"2014-02-25T16:10:04.{"1" * 50}+08:00"'],
    ],
)
def test_nothing_is_guessed_of_other_times(time: str) -> None:
    assert all("send" not in failure.message for failure in judge(at(time)).failures)


WARNED = [
    (line('"a":"\\302\\243 \\231"'), ["repaired"]),
    (at(f"{T}.5"), ["time_coerced"]),
    (line('"_n":" ","a":1'), ["event_blank"]),
    (line('"_p2":"","a":1'), ["alias_blank"]),
    (line(f'"{A256}":1'), ["name_too_long"]),
    (line(f'"{A255}":1'), []),
    (line(f'"a":"{"x" * 8193}"'), ["value_too_long"]),
    (line(f'"a":"{"x" * 8192}"'), []),
    (line(f'"a":"{"x" * 8193}","b":"{"x" * 8193}"'), ["value_too_long"]),
    (line('"_p2":" NULL "'), ["ignored_identity"]),
    (f'{{"_p":0,"_t":{T},"a":1}}', ["ignored_identity"]),
    (
        f'{{"_p":"Anonymous","_t":"{T}","_n":"","a":"\\231"}}',
        ["repaired", "ignored_identity", "time_coerced", "event_blank"],
    ),
]


@pytest.mark.parametrize(("text", "warnings"), WARNED, ids=lambda value: str(value)[:60])
def test_warnings(text: str, warnings: list[str]) -> None:
    assert list(judge(text).warnings) == warnings
    assert set(codes(judge(text, STRICT))) == set(warnings)


def test_strict_tells_warnings_beside_failures() -> None:
    assert told(judge(f'{{"_p":"null","_t":"{T}","a":[]}}', STRICT)) == [
        ("ignored_identity", "/_p"), ("time_coerced", "/_t"), ("nested_value", "/a"),
    ]  # fmt: skip


def test_a_long_identity_is_no_long_value() -> None:
    assert told(judge(f'{{"_p":"{"a" * 8193}","_t":{T},"_n":"x"}}', STRICT)) == [("person_too_long", "/_p")]


@pytest.mark.parametrize("name", ["_p", "_n", "_p2"])
def test_names_have_at_most_255_characters(name: str) -> None:
    sound = {"_p": "ann", "_t": T, "_n": "x"}
    assert judge(sound | {name: "😀" * 255}).commands
    assert judge(sound | {name: "😀" * 256}).failures


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (rb"\302\243", "£"),
        (rb"caf\303\251 \342\202\254", "café €"),
        (rb"brand\231", "brand™"),
        (rb"\351t\351", "été"),
        (rb"\303\251\231", "Ã©™"),  # a run is UTF-8 as a whole, or windows-1252 as a whole
        (rb"\303 \251", "Ã ©"),
        (rb"\355\240\275", "í\xa0½"),
        (rb"\\302\302\243", r"\302£"),
        (rb"\"\302\243\"", '"£"'),
        (rb"\302\2433", "£3"),
        (rb"\u00e9\302\243\ud83d\ude00", "é£😀"),
    ],
)
def test_octal_escapes(sent: bytes, meant: str) -> None:
    item = judge(line('"_n":"x","a":"%s"').encode() % sent)
    assert item.commands == (record(a=meant),)
    assert item.warnings == ("repaired",)


def test_octal_escapes_in_names_and_beside_real_text() -> None:
    assert judge(line('"\\302\\243":"é"')).commands == (settle(**{"£": "é"}),)


def test_an_escaped_backslash_before_digits_is_json() -> None:
    item = judge(line(r'"a":"\\302\\243"'))
    assert item.commands == (settle(a=r"\302\243"),)
    assert item.warnings == ()


def test_of_a_byte_that_is_not_utf8_it_is_told_where_it_was_sent() -> None:
    sent = rb'{"_p":"\302\243' + b'\xff"}'
    (failure,) = judge(sent).failures
    assert failure.code == "not_utf8"
    assert f"Byte {sent.index(255) + 1} " in failure.message


@pytest.mark.parametrize("octal", ["201", "215", "217", "220", "235"])
def test_a_byte_without_a_meaning_stays_not_json(octal: str) -> None:
    assert codes(judge(line(f'"a":"\\{octal}"'))) == ["not_json"]
    assert codes(judge(line(f'"a":"\\302\\243","b":"\\{octal}"'))) == ["not_json"]


@pytest.mark.parametrize(
    ("members", "flat", "warnings"),
    [
        ('"a":{"b":{"c":1.10},"d":"x"}', {"a.b.c": Decimal("1.10"), "a.d": "x"}, []),
        ('"a":[1.10,"x",true,null,12345678901234567890]', {"a": "1.10,x,true,12345678901234567890"}, []),
        ('"a":[{"b":1.10},[null,"é\\""]]', {"a": '[{"b":1.10},[null,"é\\""]]'}, []),
        ('"a":[]', {"a": ""}, []),
        ('"a":{"b":null},"c":1', {"c": 1}, []),
        ('"a":{"b":1},"a.b":2', {"a.b": 2, "a.a.b": 1}, ["name_collision"]),
        ('"a.b":2,"a":{"b":1},"a.a.b":3', {"a.b": 2, "a.a.b": 3, "a.a.a.b": 1}, ["name_collision"]),
        ('"a":{"b":1},"a.b":null', {"a.b": 1}, []),
        ('"a":{"b.c":1,"b":{"c":2}}', {"a.b.c": 1, "a.b.a.b.c": 2}, ["name_collision"]),
        (f'"a":{{"{A255}":{{"b":1}}}}', {f"a.{A255}": '{"b":1}'}, ["name_too_long"]),
    ],
)
def test_flatten(members: str, flat: dict[str, object], warnings: list[str]) -> None:
    item = judge(line(members), FLATTEN)
    assert item.commands == (settle(**flat),)
    assert list(item.warnings) == warnings


def test_flatten_leaves_the_columns_alone() -> None:
    assert told(judge('{"_p":{"a":1},"_t":[1],"_n":{},"_p2":[]}', FLATTEN)) == [
        ("person_not_text", "/_p"), ("time_not_epoch_seconds", "/_t"), ("event_not_text", "/_n"),
        ("alias_not_text", "/_p2"),
    ]  # fmt: skip
    assert codes(judge(line('"a":{"b":{}}'), FLATTEN)) == ["no_command"]


def test_what_was_got_is_short_and_kept_by_any_warehouse() -> None:
    got = {
        failure.pointer: failure.got
        for failure in judge(line(f'"_n":7,"_p2":"{A256}","a":["\\u0000"],"b":"\\u0000","c":{"9" * 400}')).failures
    }
    assert got == {
        "/_n": 7, "/_p2": "a" * 99 + "…", "/a": '["\\u0000"]', "/a/0": "␀", "/b": "␀", "/c": "9" * 99 + "…",
    }  # fmt: skip


def test_a_name_that_cannot_be_kept_is_shown() -> None:
    assert [failure.got for failure in judge(line('"a\\u0000":1')).failures] == ["a␀"]


OBJECT = b'{"_p":"ann","_t":1393344604,"a":1}'


@pytest.mark.parametrize(
    ("head", "refused"),
    [
        pytest.param(
            b'{"links":\n  [\n    {"_n":"x","_p":"a","_t":1},\n  ]\n}', True, id="the vendor's own bad example"
        ),
        pytest.param(b"[\n1,\n2\n]\n", True, id="an array"),
        pytest.param(b"\xef\xbb\xbf\n \r\n[\r\n1\r\n]", True, id="mark and blank lines before it"),
        pytest.param(b'{\n  "a": 1\n}\n', True, id="a pretty object"),
        pytest.param(b'{\n  "a": {},\n' + b" \n" * 40_000, True, id="longer than the head"),
        pytest.param(b"", False, id="empty"),
        pytest.param(b"\n\n", False, id="blank"),
        pytest.param(OBJECT + b"\n", False, id="lines"),
        pytest.param(OBJECT, False, id="one line without its end"),
        pytest.param(b"{\n" + OBJECT + b"\n", False, id="one good line is enough"),
        pytest.param(b"{\n" + OBJECT, False, id="though it has no end"),
        pytest.param(b'{\n{"a":"\\302\\243"}\n', False, id="or is to be repaired"),
        pytest.param(b'[{"a":1}]\n[2]\n', False, id="a complete array"),
        pytest.param(b"{'a': 1}\n{'a': 2}\n", False, id="no JSON, but complete"),
        pytest.param(b'{"a":1,}\n{"a":2,}\n', False, id="trailing commas"),
        pytest.param(b"a,b\n1,2\n", False, id="something else"),
        pytest.param(b'{"a":"' + b"x" * 70_000, False, id="one line, longer than the head"),
        pytest.param(b'{\n"a":"' + b"x" * 70_000, True, id="the cut line is no object"),
        pytest.param(
            (b"{\n" + b" " * 65_536)[: 65_536 - len(OBJECT)] + b"\n" + OBJECT, True, id="nor is one that may be cut"
        ),
    ],
)
def test_refusal(head: bytes, refused: bool) -> None:
    item = FORMAT.refusal(head[:65_536])
    assert (item is not None) == refused
    if item is not None:
        assert told(item) == [("document_not_lines", "")]


def test_the_vendors_examples() -> None:
    text = b"""\
{"_n":"visited site","_p":"person@mail.com","_t":1393344604}
{"url":"www.example.com/","_n":"visited","_p":"person@mail.com","_t":1393344607}
{"_p":"new_customer@mail.com","_p2":"chuck@mail.com","_t":1393344614}
{"_p":"1", "_t":1328044149, "_n":"Subscribed", "Age":32, "Gender":"Male"}
{"_p":"1", "_t":1328044149, "Email Address":"bob@bob.com"}"""
    kinds = [command.kind for one in text.split(b"\n") for command in judge(one).commands]
    assert kinds == ["record", "record", "alias", "record", "set"]


def test_seconds_are_utc() -> None:
    (command,) = judge(line('"_n":"x"')).commands
    assert datetime.fromtimestamp(command.at / 1_000_000, UTC).isoformat() == "2014-02-25T16:10:04+00:00"
