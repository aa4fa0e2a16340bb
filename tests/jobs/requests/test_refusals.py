"""refusals.py: each refusal has its reason and a remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tinysvc.core.responses import problem_response
from tinysvc.jobs.records import Record, State
from tinysvc.jobs.requests.refusals import cannot_cancel, cannot_retry, expired_job, no_result, unknown_job


def record(state: State, **values: Any) -> Record:
    return Record(id="1", route="/t", state=state, created=0.0, due=0.0, max_attempts=3, **{"keep": 60.0} | values)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (unknown_job("7"), "404 There is no job '7' at this path."),
        (expired_job(record(State.SUCCEEDED, keep=5)), "410 The job has succeeded, and was kept for 5 s after that."),
        (
            expired_job(record(State.CANCELLED, keep=7200)),
            "410 The job was cancelled, and was kept for 2 hours after that.",
        ),
        (no_result(record(State.CANCELLED), 1), "410 The job was cancelled, and has no result."),
        (no_result(record(State.RUNNING), 1), "404 The job is running; its result comes when it has succeeded."),
        (cannot_cancel(record(State.FAILED)), "409 The job has failed already."),
        (
            cannot_retry(record(State.RUNNING)),
            "409 A job can be retried if it has failed, and this one is running; wait for its end, or cancel it.",
        ),
        (
            cannot_retry(record(State.SUCCEEDED)),
            "409 A job can be retried if it has failed, and this one has succeeded; submit a new one.",
        ),
    ],
)
def test_sentence_of_each_refusal(problem: Exception, expected: str) -> None:
    assert str(problem) == expected


def test_problem_document_names_the_state() -> None:
    problem = no_result(record(State.QUEUED), 7)
    assert problem.problem()["type"] == "urn:tinysvc:not-finished"
    assert problem.problem()["state"] == "queued"
    assert ("retry-after", "7") in problem_response(problem).headers
