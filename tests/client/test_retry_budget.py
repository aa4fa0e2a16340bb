"""retry_budget.py: a tenth of the calls, and one a second."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tinysvc.client.retry_budget import PER_SECOND, SHARE, WINDOW, RetryBudget

EVENTS = st.lists(st.tuples(st.sampled_from(["call", "retry", "retry"]), st.floats(0.0, 2.0)), max_size=400)


@given(EVENTS)
def test_retries_are_a_share_of_the_calls(events: list[tuple[str, float]]) -> None:
    budget, now = RetryBudget(), 0.0
    calls: list[int] = []  # their seconds
    retries: list[int] = []
    for kind, passed in events:
        now += passed
        if kind == "call":
            budget.deposit(now)
            calls.append(int(now))
        elif budget.withdraw(now):
            retries.append(int(now))
        first = int(now) - WINDOW
        recent = [len([each for each in times if each > first]) for times in (calls, retries)]
        assert recent[1] <= recent[0] * SHARE + PER_SECOND * WINDOW


@given(st.integers(0, 500))
def test_what_is_left_can_be_used(calls: int) -> None:
    budget = RetryBudget()
    for _ in range(calls):
        budget.deposit(5.0)
    granted = 0
    while budget.withdraw(6.0):
        granted += 1
    assert granted == int(calls * SHARE + PER_SECOND * WINDOW + 1e-9)


def test_deposits_expire() -> None:
    budget = RetryBudget()
    for _ in range(1000):
        budget.deposit(0.0)
    granted = 0
    while budget.withdraw(float(WINDOW)):
        granted += 1
    assert granted == PER_SECOND * WINDOW


def test_one_retry_a_second_needs_no_call() -> None:
    budget = RetryBudget()
    granted = [budget.withdraw(float(second)) for second in range(100) for _ in range(3)]
    assert sum(granted) == 100 * PER_SECOND
