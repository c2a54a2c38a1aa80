"""How often files come: what is expected counts, else what they did; a guess raises no false alarm."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from ingest.core.rhythm import HOURS_FROM, Rhythm, rhythm

WORK = [24 * day + hour for day in range(14) if day % 7 < 5 for hour in range(8, 20)]  # hourly, by day, not at weekends


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


@pytest.mark.parametrize(
    ("came", "every", "late_after"),
    [
        pytest.param([], None, None, id="nothing"),
        pytest.param(range(HOURS_FROM - 1), None, None, id="too few to learn from"),
        pytest.param(range(HOURS_FROM), 1, 3, id="hourly"),
        pytest.param(range(0, 24 * HOURS_FROM, 24), 24, 72, id="daily"),
        pytest.param([0, 23, 48, 73, 96, 119, 144, 169, 192], 24, 72, id="daily, not to the hour"),
        pytest.param(range(0, 168 * HOURS_FROM, 168), 168, 504, id="weekly"),
        pytest.param([*range(20), *range(120, 140)], 1, 3, id="one pause was a breakdown"),
        pytest.param([*range(20), *range(60, 80), *range(120, 140)], 1, 51.25, id="two pauses are a habit"),
        pytest.param(WORK, 1, 15 + 1.25, id="nights are no delay"),
        pytest.param([*WORK, *(336 + hour for hour in WORK)], 1, 76.25, id="nor are weekends"),
        pytest.param([24 * day for day in range(22) if day % 7 < 5], 24, 90, id="nor are those of a daily file"),
    ],
)
def test_what_is_learned(came: Sequence[int], every: float | None, late_after: float | None) -> None:
    learned = rhythm(None, sorted(came, reverse=True))
    expected = every and late_after and Rhythm(hours(every), hours(late_after), is_guess=True)
    assert learned == (expected or None)


def test_what_is_expected_counts() -> None:
    assert rhythm(hours(24), range(100, 0, -1)) == rhythm(hours(24), []) == Rhythm(hours(24), hours(24))
