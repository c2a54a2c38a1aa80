"""Odd lines, one for each thing that the native core looks at, and whether it is sure of them.

In the manner of JSONTestSuite, whose files are about one thing each. Every check in native/*.rs has a line here that
only it decides: `tests/test_native_proofs.py` takes them away one by one.
"""

from collections.abc import Iterator
from pathlib import Path

from tests.core.test_kissmetrics import BROKEN, WARNED

CASES = Path(__file__).parent.parent / "cases"

# Where the text stands → the texts that the core is sure of there, and those that it leaves to the judge.
ODD: dict[str, tuple[list[str], list[str]]] = {
    # The value of a property.
    '{"_p":"p","_t":1393344604,"_n":"e","a":%s}': ([
        "0", "7", "-7", "10", "1.10", "-1.5", "0.0", "-0.0", "100.00", "0.123456789012345678", "-1.12345678901234567",
        "999999999999999999", "9223372036854775807", "9223372036854775808", "18446744073709551615",
        "-9223372036854775808", "true", "false", '""', '" "', '"null"', '"{"', '"["', '":{"', '"a:null"', '"é"',
        '"日本"',
        '"\x7f"', '"\x80"', '"\u2028"', '"\uffff"', '"\U0010ffff"', '"/"', '"1234567"', '"12345678"', '"123456789"',
        r'"\""', r'"\\"', r'"\/"', r'"\b"', r'"\f"', r'"\n"', r'"\r"', r'"\t"', r'"\u0001"', r'"\u001F"', r'"\u000b"',
        r'"\u0008"', r'"\u000c"', r'"\u0041"', r'"\u00e9"', r'"\u00E9"', r'"\uABCD"', r'"\ud83d\ude00"',
        r'"\uD800\uDC00"',
        r'"\uDBFF\uDFFF"', r'"\\u0000"', r'"\\\""', r'"a\\"', r'"1234567\"9"', r'"12345678\\"', r'"\u005f_"',
        f'"{"x" * 8192}"',
    ], [
        "-0", "00", "01", "-01", "-", "+1", ".5", "1.", "-.5", "1.e5", "1e5", "1E5", "1E+5", "0e0", "1.5e5", "1.5E-7",
        "1e400", "-1e-400", "1.1234567890123456789", "-1.123456789012345678", "9" * 30, "9" * 310,
        "18446744073709551616", "-9223372036854775809", "1_0", "0x1", "1a", "1 2", "-a", "--1", "NaN", "Infinity",
        "nul", "null", "nulL", "tru", "trux", "True", "fals", "falsx", "'a'", "a", "", '"', '"a', r'"\"', r'"\x41"',
        r'"\a"',
        r'"\0"', r'"\u"', r'"\u00"', r'"\u00g1"', r'"\u+041"', r'"\u0000"', r'"a\u0000"', r'"\ud83d"', r'"\ud83d\n"',
        r'"\ud83dxxde00"', r'"\ud83d\u0041"', r'"\ud83d\ud83d"', r'"\ud83d\ue000"', r'"\ude00"', r'"\ude00\ud83d"',
        r'"\U0041"', '"\t"', '"\x1f"', '"\x00"', '"12345678\x1f"', '"1234567\x01"', '"1234\x1f"', "{}", "[]",
        '{"b":1}',
        "[1]", "[null]", '"a""b"', '"a" "b"', '"a":1', "1:2", "\x0b1", "\x0c1", "\u00a01", "/**/1", "1/**/",
        f'"{"x" * 8193}"', f'"{"é" * 8192}"', r'"\302\251"',
    ]),
    # The value of _t.
    '{"_p":"p","_t":%s,"_n":"e"}': ([
        "1230768000", "1393344604", "1800000000", "1800086400",
    ], [
        "1230767999", "1800086401", "99999999999", "100000000000", "1393344604000", "-1", "0", "-0", "1393344604.0",
        "1.393344604e9", '"1393344604"', '""', "true", "null", "{}", "[1393344604]", "9223372036854775808",
        "01393344604",
    ]),
    # The value of _p.
    '{"_p":%s,"_t":1393344604,"_n":"e"}': ([
        '"ann"', '"Ann"', '"ANN@X.COM"', '" ann "', '"a,b:c"', '",a:"', '"::a"', '"a b"', "7", "-7",
        "18446744073709551615",
        r'"\u0041"', r'"a\"b"', r'"\ta"', r'"\u001ca"', r'"\u001fa\u000b"', r'"\u001ba"', r'"\u000ea"', r'"\b"', '"é"',
        '"É"',
        '"ÄÖÜ,ẞ"', '"Я,:"', '"日本"', '"😀"', '"\u3000é\u3000"', '"\u0085é"', '"\u00a0é"', '"\u200bé"', '"ς"',
        '"null0"', '"nobody"', '"é:"', '":é"', '"null,"', '":null"', f'"{"A" * 255}"', f'"{"É" * 255}"',
        f'"{"😀" * 255}"',
        '"a:"', '"A:"', '"É:A"', '"\u2028é"', r'"\u00C9"', '"\U00010400"',
    ], [
        '""', '" "', '"\u3000"', '"\u0085\u00a0"', r'"\t\n"', '"null"', '"NULL"', '" Null "', '"\u3000null"',
        '"None\u00a0"',
        '"0"', "0", "-1", '"-1"', "null", "true", "false", "7.0", "-0", "{}", "[]", f'"{"a" * 256}"', f'"{"é" * 256}"',
        f'"é{"a" * 255}"', r'"\u0000"', r'"\ud83d"', r'"\x41"', '"İ"', '"ΟΔΟΣ"', '"\u212aİ"',
    ]),
    # The value of _n.
    '{"_p":"p","_t":1393344604,"_n":%s}': ([
        '"e"', '"E"', '"null"', '"0"', '"Signed Up, at last"', '"É"', '"a:b"', '" É "', r'"\u00C9\n"',
        f'"{"e" * 255}"',
        '"a,"', '",É"',
    ], [
        '""', '" "', '"\u3000"', "null", "7", "0", "-7", "7.5", "true", "{}", "[]", f'"{"e" * 256}"', r'"\u0000"',
        '"İ"',
        r'"\x"',
    ]),
    # The value of _p2.
    '{"_p":"p","_t":1393344604,"_p2":%s}': ([
        '"a"', '"z"', '"P"', '"p"', '"Z,z"', '"É"', '"日本"', "7", '"a\u3000"', '" a "', r'"\u00C9"',
    ], [
        '""', '" "', "null", "0", '"0"', '"null"', "7.5", "true", "{}", f'"{"a" * 256}"', '"İ"', r'"\u0000"',
    ]),
    # The name of a property.
    '{"_p":"p","_t":1393344604,%s:1}': ([
        '"a"', '""', '"é"', '"日本"', '"_"', '"_x"', '"_P"', '"A B"', '"a.b"', '"a:b"', '"\x7f"', f'"{"x" * 255}"',
        '"_K"',
    ], [
        '"_k"', '"_d"', '"_c"', '"_u"', '"_ip"', '"_ua"', '"_server_timestamp"', '"_p"', '"_t"', '"_n"', r'"\u0061"',
        r'"\n"', '"\t"', f'"{"x" * 256}"', "a", "1", "null", '"a" "b"', '"a":', "'a'",
    ]),
    # Other members, beside an event.
    '{"_p":"p","_t":1393344604,"_n":"e"%s}': ([
        "", " ", "\t", "\r", ',"b":1,"a":2', ',"a":1,"A":1', ',"a":1,"aa":2', ',"é":1,"z":2', ',"_k":1', ',"_d":1',
        ',"_c":1',
        ',"_u":1', ',"_ip":"::1"', ',"_ua":"x"', ',"_server_timestamp":1', ',"_k":1,"a":2', ',"_k":1,"a":1.5',
        ',"_k":1,"a":true', ',"_k":1,"a":false', ',"_k":1,"a":"b"',
        r',"_k":1,"a":"\n"', ',"_k":1,"":2',
        ',"b":1,"_ip":1,"Z":2',
        ',"_p2":null', ' , "a" : 1 ', '\t,\t"a"\t:\t1\t', '\r,\r"a"\r:\r1\r',
        *(f',"a":"{"x" * size}"' for size in (*range(60, 75), *range(188, 202), 1000)),
    ], [
        ',"_p2":"a"', ',"_p2":""', ",", ",,", ',"a"', ',"a":', ',"a":1,', ',"a":1,"a":1', ',"a":1,"b":2,"a":3',
        ',"a":null',
        ',"_k":null', ',"_k":1,"_k":1', ',"_p":"p"', ',"_t":1393344604', ',"_n":"e"', ',"_p2":null,"_p2":null',
        '"a":1', ' "a":1',
        ';"a":1', ',"a"=1', ',"a" 1', ',"a":1]', "}", "]", "{", ',{"a":1}', "\x00", "\x0b", "\x0c", "\u00a0", "\ufeff",
        ",//", "#",
        ',"a":1 "b":2', ',"":1,"":2', r',"a":1,"\u0061":2',
    ]),
    # A set or an alias with more.
    '{"_p":"p","_t":1393344604%s}': ([
        ',"_p2":null,"a":1', ',"_n":null,"a":1', ',"_n":null,"_p2":"a"', ',"_n":null,"_p2":null,"a":1',
        ',"_k":1,"a":1', ',"a":""',
        ',"_p2":"P,"', ',"_p2":"o:"',
    ], [
        "", ',"_k":1', ',"_k":1,"_ip":2', ',"_n":null', ',"_n":null,"_p2":null', ',"_p2":"a","a":1',
        ',"_p2":"a","_k":1',
        ',"_p2":"","a":1', ',"_n":"","a":1', ',"_n":"e","_p2":"a"', ',"_n":"e","_p2":"a","a":1',
    ]),
    # The whole line.
    "%s": ([
        '{"_n":"e","_t":1393344604,"_p":"p"}', ' {"_p":"p","_t":1393344604,"_n":"e"} ',
        '\t\r{"_p":"p","_t":1393344604,"_n":"e"}\r',
        '{\t"_p":"p","_t":1393344604,"_n":"e"}', '{\r"_p":"p","_t":1393344604,"_n":"e"}',
        '{"_p":"p","_n":"e","_t":1393344604}',
    ], [
        "", " ", "\r", "{}", "[]", "null", "1", '""', "{", "}", '{"', "[", "{,}", '{"_p"}', '{"_p":}', '{"_p":"p"',
        '{"_p":"p"}',
        '{"_t":1393344604}', '{"_n":"e"}', '{"_t":1393344604,"_n":"e"}', '{"_p":"p","_n":"e"}',
        '{,"_p":"p","_t":1393344604,"_n":"e"}',
        '[{"_p":"p","_t":1393344604,"_n":"e"}]', '{"_p":"p","_t":1393344604,"_n":"e"',
        '"_p":"p","_t":1393344604,"_n":"e"}',
        '("_p":"p","_t":1393344604,"_n":"e")', '\x0c{"_p":"p","_t":1393344604,"_n":"e"}', "{_p:1}",
        '{"_p":"p","_t":1393344604,"_n":"e"}x',
        '{"_p":"p","_t":1393344604,"_n":"e"}{"_p":"p","_t":1393344604,"_n":"e"}',
        '{"_p":"p","_t":1393344604,"_n":"e"},',
        '{"_p":"p","_t":1393344604,"_n":"e']),
}  # fmt: skip
# The value of a property, in bytes that are no UTF-8: never sure.
NO_TEXT = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xc3(", b"\xe0\x80\x80", b"\xe2\x82", b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xfe", b"\xff", b"1234567\xff",
    b"\xe6\x97\xa5\xff",
]  # fmt: skip


def odd() -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether the core is sure of it under ordinary rules."""
    for frame, (sure, doubtful) in ODD.items():
        for text in (*sure, *doubtful):
            yield (frame % text).encode(), text in sure
    for raw in NO_TEXT:
        yield b'{"_p":"p","_t":1393344604,"_n":"e","a":"%b"}' % raw, False


def corpus() -> list[bytes]:
    """These, the tables of the judge, and the lines of every file of `cases`."""
    files = [path.read_bytes() for path in sorted(CASES.rglob("*.json*")) if ".expected." not in path.name]
    tables = [text.encode() for text, _ in BROKEN + WARNED]
    lines = [line for text in (*files, *tables) for line in text.split(b"\n")]
    return list(dict.fromkeys([*(line for line, _ in odd()), *lines]))
