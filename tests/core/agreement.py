"""The fast decoders, in Python and native, held against the judge: they may only say yes, and then say what it says."""

import ctypes
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import compress

from ingest.core.commands import Rules
from ingest.core.facts import Columns
from ingest.core.facts import row as to_row
from ingest.core.formats import Fast, open_format
from ingest.core.formats.kissmetrics_native import Native
from ingest.core.native import library
from ingest.judging import COMMANDS, with_shared

FORMAT = open_format("kissmetrics")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RULES = [
    Rules(received_at=1_800_000_000_000_000),
    Rules(received_at=1_800_000_000_000_000, strict=True, match="exact", people_space="ours é"),
    Rules(received_at=1_393_344_600_000_000, nested="flatten", time_from=5, future_seconds=3),
    Rules(received_at=1_800_000_000_000_000, ignored_identities=frozenset()),
]


def native(rules: Rules, core: ctypes.CDLL | None) -> Fast:
    """The native core as a fast decoder."""
    assert core, "there is no native core here: make native"
    judge = Native(core, rules).judge

    def accept(some: Sequence[bytes], first_line: int) -> tuple[Columns, list[int]]:
        # The last line may lack its end, if it is not empty.
        block = b"\n".join(some) + b"\n" * (some[-1:] == [b""] or len(some) % 2)
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


FAST = [[FORMAT.fast(rules), native(rules, library())] for rules in RULES]


def agree(some: list[bytes], number: int = 0, decoders: list[list[Fast]] = FAST) -> list[tuple[bool, ...]]:
    """Of which of these lines, taken together, the decoders said yes; of those the judge must say the same."""
    answers = []
    judged: dict[int, tuple[object, ...]] = {}
    for fast in decoders[number]:
        columns, doubtful = fast(some, 7)
        yes = [True] * len(some)
        for place in doubtful:
            yes[place] = False
        rows = iter(zip(*columns, strict=True))
        for place in compress(range(len(some)), yes):
            if place not in judged:
                (item,) = FORMAT.judge(some[place], RULES[number])
                assert (item.failures, item.warnings, len(item.commands)) == ((), (), 1), some[place]
                judged[place] = to_row(item.commands[0], 7 + place, 0, "", RULES[number])
            assert next(rows) == judged[place], some[place]
        assert next(rows, None) is None
        answers.append(yes)
    return list(zip(*answers, strict=True))


def agrees(line: bytes, number: int = 0) -> tuple[bool, ...]:
    (yes,) = agree([line], number)
    return yes
