"""Thousands of histories of a small world, and that one which goes wrong is found and told."""

import os
import re
import subprocess
import sys

import pytest

from ingest.plans.changes import Draft
from tests.simulator.history import trace_of
from tests.support import ROOT

AT_ONCE = 400


@pytest.mark.parametrize("first", range(0, 1600, AT_ONCE))
def test_histories_keep_what_is_promised(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        trace_of(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1600, 10_000, AT_ONCE))
def test_thousands_of_histories_keep_what_is_promised(first: int) -> None:
    test_histories_keep_what_is_promised(first)


def test_a_seed_gives_the_same_trace_each_time() -> None:
    """In a process of its own too, where sets of texts have another order."""
    command = [sys.executable, "-m", "tests.simulator", "--seed", "4"]
    of_its_own = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert trace_of(4) == trace_of(4) == of_its_own.stdout.splitlines()
    assert trace_of(4) != trace_of(5)


def test_a_history_that_goes_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Draft, "take_away", lambda *_: ())  # nothing ever leaves
    with pytest.raises(AssertionError) as failed:
        test_histories_keep_what_is_promised(0)
    (told,) = failed.value.__notes__
    assert re.match(r"seed \d+ fails: AssertionError: ", told.splitlines()[-1])
