"""The diagram of docs/decisions/0002, arrow by arrow: each state with each load and each action."""

from datetime import UTC, datetime, timedelta

import pytest

from ingest.core.lifecycle import (
    ACTIONS,
    ENDS,
    HISTORY,
    LOADED_AS,
    REOPENS,
    STATES,
    TAKES,
    Action,
    Intent,
    State,
    is_due,
    is_settled,
    may_return,
    next_try,
    refusal,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REDRIVEN = "Lines of it were fixed, and what a redrive brought is loaded. Undo it first."
# Of each state the loads that take a file on, and the actions.
DIAGRAM: dict[State, str] = {
    "loaded": "force | undo force",
    "rejected": "force | undo force ignore",
    "held": "release force | force release ignore",
    "duplicate": "force | force ignore",
    "undone": "again force | force ignore",
    "replaced": "force | force",
    "ignored": "again force | force",
    "retrying": "new again release force | force ignore retry",
}


@pytest.mark.parametrize("state", STATES)
def test_what_may_be_done_to_a_file_in_each_state(state: State) -> None:
    loads, actions = ({*names.split()} for names in DIAGRAM[state].split("|"))
    intents: tuple[Intent, ...] = tuple(REOPENS)
    assert {intent for intent in intents if not is_settled(state, intent)} == loads
    assert {action for action in ACTIONS if refusal(action, state) is None} == actions
    for action in {*ACTIONS} - actions:
        assert (refusal(action, state) or "").startswith(f"It is {state}; {action} is for files that are ")


@pytest.mark.parametrize(("version_id", "replaced_by", "returns"), [
    pytest.param(None, "another", True, id="its key came back to these bytes"),
    pytest.param("1", None, True, id="its object seemed to be gone"),
    pytest.param("1", "another", False, id="a version that another one replaced"),
])  # fmt: skip
def test_what_was_replaced_may_return(version_id: str | None, replaced_by: str | None, returns: bool) -> None:
    assert may_return(version_id, replaced_by) == returns
    for state in STATES:
        assert is_settled(state, may_return=returns) == (state != "retrying" and not (returns and state == "replaced"))


@pytest.mark.parametrize(("action", "state", "why"), [
    ("ignore", "loaded", "It is loaded; ignore is for files that are retrying, held, rejected, duplicate or undone. Undo it first."),  # noqa: E501
    ("undo", "held", "It is held; undo is for files that are loaded or rejected."),
    ("force", "loaded", None),
])  # fmt: skip
def test_why_an_action_is_refused(action: Action, state: State, why: str | None) -> None:
    assert refusal(action, state) == why


def test_a_rejected_file_of_which_a_redrive_is_loaded_is_not_ignored() -> None:
    for state in STATES:
        why = refusal("ignore", state, is_redriven=True)
        assert why == (refusal("ignore", state) if state != "rejected" else REDRIVEN)
    assert refusal("undo", "rejected", is_redriven=True) is None


def test_a_redrive_is_not_forced() -> None:
    for state in STATES:
        assert "from the file that they fix" in (refusal("force", state, is_redrive=True) or "")
        assert refusal("undo", state, is_redrive=True) == refusal("undo", state)


def test_each_action_ends_in_a_state_that_is_told() -> None:
    assert TAKES.keys() == {*ACTIONS}
    assert {*ENDS} <= {*ACTIONS}
    assert {*LOADED_AS.values()} | {*ACTIONS} <= {*HISTORY}


def test_a_file_is_tried_again_less_and_less_often_and_never_given_up() -> None:
    waits = [(next_try(attempt, NOW) - NOW) // timedelta(minutes=1) for attempt in (1, 2, 3, 9, 10, 1000)]
    assert waits == [1, 2, 4, 256, 360, 360]
    for attempts in (1, 1000):
        due = next_try(attempts, NOW)
        assert [is_due(due, at) for at in (NOW, due, due + timedelta(days=9))] == [False, True, True]
    assert is_due(NOW + timedelta(days=9), NOW)  # a clock was wrong
