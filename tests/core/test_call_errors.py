"""core/call_errors.py: what the client gets for a failed call, and what the log gets."""

from __future__ import annotations

import json

import pytest

from tinysvc import BudgetExhausted, CallFailed, CallRefused, CallTimeout, CallUnavailable

FACTS = {"service": "inference", "replica": "http://secret:8001", "attempts": 2, "answered": 500}


@pytest.mark.parametrize(
    ("kind", "status", "name"),
    [
        (CallFailed, 502, "call-failed"),
        (CallUnavailable, 503, "call-unavailable"),
        (CallTimeout, 504, "budget-exhausted"),
        (CallRefused, 508, "call-loop"),
    ],
)
def test_client_learns_status_and_type_and_the_log_learns_the_rest(
    kind: type[CallFailed], status: int, name: str
) -> None:
    error = kind("the secret of the callee", **FACTS)  # type: ignore[arg-type]
    problem = error.problem()
    assert (error.status, problem["status"], problem["type"]) == (status, status, f"urn:tinysvc:{name}")
    assert "secret" not in json.dumps(problem)
    assert str(error) == (
        "the secret of the callee (service inference, replica http://secret:8001, 2 attempts, answered 500)"
    )
    assert (error.service, error.replica, error.attempts, error.answered) == tuple(FACTS.values())


def test_facts_that_are_not_known_are_not_written() -> None:
    assert str(CallFailed("no answer")) == "no answer"
    assert str(CallFailed("no answer", attempts=1)) == "no answer"


def test_unavailable_service_has_a_retry_after() -> None:
    assert CallUnavailable("all replicas are out", retry_after=3, service="x").headers == (("retry-after", "3"),)


def test_used_up_budgets_are_timeouts() -> None:
    assert isinstance(CallTimeout("late"), (BudgetExhausted))
    assert issubclass(BudgetExhausted, TimeoutError)
    assert BudgetExhausted().problem()["detail"] == "The time that the caller gave for this request is used up."
    assert str(BudgetExhausted("late")) == "late"
