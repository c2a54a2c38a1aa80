"""The fast decoders, in Python and native, may only say yes, without a warning, and then say what the judge says."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.agreement import FAST, RULES, agree, agrees
from tests.core.lines import lines
from tests.core.odd import corpus, odd
from tests.core.test_kissmetrics import BROKEN, WARNED


@settings(max_examples=400, deadline=None)
@given(lines(), st.sampled_from(range(len(RULES))))
def test_any_line(line: bytes, number: int) -> None:
    agrees(line, number)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(lines(), max_size=30), st.sampled_from(range(len(RULES))))
def test_lines_together_give_what_each_gives_alone(some: list[bytes], number: int) -> None:
    for fast in FAST[number]:
        columns, doubtful = fast(some, 7)
        alone = [fast([line], 7 + place) for place, line in enumerate(some)]
        assert doubtful == [place for place, (_, doubt) in enumerate(alone) if doubt]
        assert list(zip(*columns, strict=True)) == [
            row for one, doubt in alone if not doubt for row in zip(*one, strict=True)
        ]


# Each makes its line doubtful by itself, or only looks as if it did.
TELLING = [
    "18446744073709551616", "-9223372036854775809", "9" * 30, "9" * 310, "1e400", r'"\u0000"', '{"a":1}', "{}", "[1]",
    '[{"a":1}]', "null", '"{"', '":{"', '"["', '":null"', f'"{"x" * 8193}"', "1.10", "1", "1", "1",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "_ip", "x" * 256]), st.sampled_from(TELLING)), max_size=6),
    st.sampled_from(range(len(RULES))),
)
def test_no_line_hides_behind_its_neighbours(members: list[tuple[str, str]], number: int) -> None:
    some = [f'{{"_p":"p","_t":1393344604,"_n":"e","{name}":{value}}}'.encode() for name, value in members]
    assert agree(some, number) == [agrees(line, number) for line in some]


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5), st.text(max_size=20) | st.booleans() | st.integers(-(2**63), 2**63 - 1), max_size=4
    ),
    st.text(min_size=1, max_size=20),
    st.sampled_from(range(len(RULES))),
)
def test_any_ordinary_line(properties: dict[str, object], name: str, number: int) -> None:
    agrees(orjson.dumps(properties | {"_p": name, "_t": 1_393_344_603, "_n": name}), number)


@pytest.mark.parametrize("text", [text for text, _ in BROKEN + WARNED], ids=lambda text: text[:60])
def test_the_tables_of_the_judge(text: str) -> None:
    for number in range(len(RULES)):
        agrees(text.encode(), number)


def test_odd_lines() -> None:
    for number in range(len(RULES)):
        agree(corpus(), number)
    lines, sure = zip(*odd(), strict=True)
    told = [core for _, core in agree(list(lines))]
    assert [line for line, *both in zip(lines, sure, told, strict=True) if both[0] != both[1]] == []


@pytest.mark.parametrize(
    "members",
    [
        '"_n":"x"', '"a":1', '"_p2":"bob"', '"_n":"x","a":1.10,"b":true,"c":"é"', '"_n":"x","_ip":"::1"', '"a":""',
        '"_n":"x","a":"a\\nb"', '"_n":"Signed Up, at last"', '"a":9223372036854775807', '"a":-1.5', '"_p2":"ann"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("end", ["", "\r", " "])
def test_ordinary_lines_are_fast(members: str, end: str) -> None:
    for number in range(len(RULES)):
        assert all(agrees(f'{{"_p":"Ann@x.com","_t":1393344603,{members}}}{end}'.encode(), number))
