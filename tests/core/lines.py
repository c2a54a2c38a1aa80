"""Hypothesis strategies: Kissmetrics lines as nobody would write them, but somebody's program does."""

import json

from hypothesis import strategies as st

_SPACE = st.sampled_from(["", "", "", " ", "\t", "\r", "  "])
_ODD_NUMBERS = [
    "0", "-0", "-0.0", "1.10", "1e5", "1E+5", "1.5e-7", "1e400", "-1e-400", "1e99999999999999999999", "0e999", "1e308",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809", "9" * 30, "9" * 310,
    "0.1234567890123456789012345", "1.0", "100.00",
]  # fmt: skip
_ODD_STRINGS = [
    r'"\u0000"', r'"\ud83d\ude00"', r'"\/\b\f\n\r\t\"\\"', r'"\\302"', '"\u2028"', '"{"', '"["', '"\x7f"', '"\\u005f"',
    '"' + "x" * 8193 + '"', '"İ"', '"ς,Σ:"',
]  # fmt: skip
_NO_JSON = [
    "01", "1.", ".5", "+1", "NaN", "Infinity", "1e", "0x1", "1_0", "tru", "", r'"\ud83d"', r'"\302\243"', r'"\231"',
    r'"\201"', '"a\tb"', r'"\x41"', '"', "'a'", r'"\u00"', '"\\',
]  # fmt: skip
_NAMES = [
    "_p",
    "_t",
    "_n",
    "_p2",
    "_k",
    "_d",
    "_ip",
    "_server_timestamp",
    "_x",
    "a",
    "A",
    "a.b",
    "",
    "é",
    "a,b",
    "x" * 256,
]
_PERSONS = ['"ann"', '"Ann@x.com"', '" bob "', '"null"', '"0"', "0", "7", "-7", "7.0", '""', '" "', "null", '"a,b:c"',
            '"İ"', '"' + "x" * 255 + '"', '"' + "x" * 256 + '"']  # fmt: skip
_TIMES = ["1393344603", "1393344603", "1393344604", "1393344604.0", '"1393344604"', "1393344604123", "1.393344604e9",
          "1230767999", "1230768000", "1800086400", "1800086401", "true", "-1", "null", '"soon"', "41695.5",
          "99999999999", '"9999-12-31T23:59:59-08:00"', '"0001-01-01T00:00:00+08:00"', "1e400", "9" * 401]  # fmt: skip


def _strings() -> st.SearchStrategy[str]:
    plain = st.text(max_size=8)
    return (
        plain.map(lambda text: json.dumps(text, ensure_ascii=False))
        | plain.map(json.dumps)
        | st.sampled_from(_ODD_STRINGS)
    ).map(lambda text: text.encode("utf-8", "replace").decode())


def _numbers() -> st.SearchStrategy[str]:
    return (
        st.integers().map(str)
        | st.floats(allow_nan=False, allow_infinity=False).map(repr)
        | st.from_regex(r"\A-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?\Z", fullmatch=True)
        | st.sampled_from(_ODD_NUMBERS)
    )


def _values() -> st.SearchStrategy[str]:
    return st.sampled_from(["null", "true", "false"]) | _numbers() | _strings()


def any_json() -> st.SearchStrategy[str]:
    """JSON texts, or nearly: nested, and spelled in every way."""
    return st.recursive(
        _values() | st.sampled_from(_NO_JSON),
        lambda inner: (
            st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]")
            | st.lists(_member(inner), max_size=3).map(_object)
        ),
        max_leaves=6,
    )


def _member(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    names = st.sampled_from(_NAMES).map(lambda name: json.dumps(name, ensure_ascii=False)) | _strings()
    return st.tuples(_SPACE, names, _SPACE, values, _SPACE).map(lambda parts: "{}{}{}:{}{}".format(*parts))


def _object(members: list[str]) -> str:
    return "{" + ",".join(members) + "}"


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Lines with the columns mostly there, in any order. One half is sound, or nearly; anything goes in the other."""
    tidy = draw(st.booleans())
    members = draw(st.lists(_member(_values() if tidy else any_json()), max_size=3))
    events = ['"x"', '"X,y"', '""', "null", "7"]
    for name, values in (("_p", _PERSONS), ("_t", _TIMES), ("_n", events), ("_p2", _PERSONS)):
        if draw(st.integers(0, 9)) < (2 if name == "_p2" else 9):
            value = draw(st.sampled_from(values[:2] if tidy else values) | (st.nothing() if tidy else _values()))
            members.append(f'{draw(_SPACE)}"{name}"{draw(_SPACE)}:{draw(_SPACE)}{value}{draw(_SPACE)}')
    text = draw(_SPACE) + _object(draw(st.permutations(members)))
    end = st.sampled_from(["", "", "\r", " "] if tidy else ["", "\r", ",", "}", "{}"])
    return (text + draw(end)).encode("utf-8", "replace")
