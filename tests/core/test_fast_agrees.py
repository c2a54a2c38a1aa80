"""The fast decoders, in Python and native, may only say yes, without a warning, and then say what the judge says."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.core.commands import Rules
from ingest.core.facts import Columns
from ingest.core.facts import row as to_row
from ingest.core.formats import Fast, open_format
from ingest.core.formats.kissmetrics_native import Native
from ingest.core.native import library
from ingest.judging import COMMANDS, with_shared
from tests.core.lines import lines
from tests.core.test_kissmetrics import BROKEN, WARNED

FORMAT = open_format("kissmetrics")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RULES = [
    Rules(received_at=1_800_000_000_000_000),
    Rules(received_at=1_800_000_000_000_000, strict=True, match="exact", people_space="ours é"),
    Rules(received_at=1_393_344_600_000_000, nested="flatten", time_from=5, future_seconds=3),
    Rules(received_at=1_800_000_000_000_000, ignored_identities=frozenset()),
]


def native(rules: Rules) -> Fast:
    """The native core as a fast decoder."""
    core = library()
    assert core, "there is no native core here: make native"
    judge = Native(core, rules).judge

    def accept(some: Sequence[bytes], first_line: int) -> tuple[Columns, list[int]]:
        block = b"".join(line + b"\n" for line in some)
        judged = judge(block, first_line)
        assert judged is not None
        assert judged.lines == len(some)
        assert [block[at : at + size] for _, at, size in judged.doubtful] == [
            some[place] for place, _, _ in judged.doubtful
        ]
        chunk = [column.to_pylist() for column in with_shared(judged)]
        rows = [dict(zip(COMMANDS.names[1:], row, strict=True)) for row in zip(*chunk, strict=True)]
        assert Counter(row["kind"] for row in rows) == Counter(judged.kinds)
        for row in rows:
            row["occurred_at"] = (row["occurred_at"] - EPOCH) // timedelta(microseconds=1)
            row["properties"], row["command_id"] = row["properties"].encode(), row["command_id"].bytes
        return tuple([row[name] for row in rows] for name in COMMANDS.names[1:]), [
            place for place, _, _ in judged.doubtful
        ]

    return accept


FAST = [[FORMAT.fast(rules), native(rules)] for rules in RULES]


def agree(some: list[bytes], number: int = 0) -> list[tuple[bool, ...]]:
    """Of which of these lines, taken together, the fast decoders said yes; of those the judge must say the same."""
    answers = []
    for fast in FAST[number]:
        columns, doubtful = fast(some, 7)
        yes = [place not in doubtful for place in range(len(some))]
        rest = iter(list(zip(*columns, strict=True)))
        for place in (place for place, sure in enumerate(yes) if sure):
            (item,) = FORMAT.judge(some[place], RULES[number])
            assert (item.failures, item.warnings, len(item.commands)) == ((), (), 1)
            assert to_row(item.commands[0], 7 + place, 0, "", RULES[number]) == next(rest)
        assert not list(rest)
        answers.append(yes)
    return list(zip(*answers, strict=True))


def agrees(line: bytes, number: int = 0) -> tuple[bool, ...]:
    (yes,) = agree([line], number)
    return yes


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
