"""core/errors.py: the status of each error, and the text that a client may read."""

from __future__ import annotations

import json

import pytest

from tinysvc.core import errors

ALL: list[tuple[errors.TinysvcError, int, dict[str, object]]] = [
    (errors.TinysvcError("secret"), 500, {"type": "about:blank", "title": "Internal Server Error"}),
    (errors.HTTPError(404, "gone"), 404, {"title": "Not Found", "detail": "gone"}),
    (errors.HTTPError(599), 599, {"title": "Error"}),
    (errors.ProtocolError(400, "bad bytes"), 400, {"title": "Bad Request", "detail": "bad bytes"}),
    (errors.QueueFull("full", 7), 503, {"type": "urn:tinysvc:queue-full", "detail": "full"}),
    (errors.NoWorkers("secret", 1), 503, {"type": "urn:tinysvc:no-workers"}),
    (errors.DeadlineInQueue("late"), 503, {"type": "urn:tinysvc:deadline-in-queue", "detail": "late"}),
    (errors.PoolClosed("closed"), 503, {"type": "urn:tinysvc:draining"}),
    (errors.DeadlineExceeded("late"), 504, {"type": "urn:tinysvc:deadline-exceeded", "detail": "late"}),
    (errors.JobAbandoned("gone"), 499, {"type": "urn:tinysvc:client-gone"}),
    (errors.WorkerDied("secret", -11), 500, {"type": "urn:tinysvc:worker-died"}),
    (errors.WorkerStartError("secret", "secret"), 500, {}),
    (errors.RemoteError("ValueError", "secret", "secret"), 500, {"type": "about:blank"}),
    (errors.UnencodableResult("secret"), 500, {"type": "about:blank"}),
]


@pytest.mark.parametrize(("error", "status", "members"), ALL, ids=lambda value: type(value).__name__)
def test_error_has_status_and_problem_document(
    error: errors.TinysvcError, status: int, members: dict[str, object]
) -> None:
    problem = error.problem()
    assert problem["status"] == error.status == status
    assert members.items() <= problem.items()
    assert "secret" not in json.dumps(problem)


def test_retry_after() -> None:
    assert errors.QueueFull("full", 7).headers == (("retry-after", "7"),)


def test_deadlines_are_timeouts() -> None:
    assert isinstance(errors.DeadlineExceeded("x"), TimeoutError)
    assert isinstance(errors.DeadlineInQueue("x"), TimeoutError)


def test_http_error_takes_error_statuses_only() -> None:
    with pytest.raises(ValueError, match="from 400 to 599, not 200"):
        errors.HTTPError(200)
