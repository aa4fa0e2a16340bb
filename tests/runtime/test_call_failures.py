"""call_failures.py: error responses and errors of handlers as the exceptions of a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tinysvc import BudgetExhausted, CallFailed, CallRefused, CallTimeout, CallUnavailable, HTTPError, QueueFull
from tinysvc.core.errors import BindingError, DeadlineExceeded, DeadlineInQueue, RemoteError, TinysvcError, WorkerDied
from tinysvc.runtime.call_failures import failure_here, failure_of

PROBLEM = {"content-type": "application/problem+json"}


def response(error: TinysvcError) -> TinysvcError:
    """The exception for the response that a server makes of `error`."""
    headers = {**PROBLEM, **{name.lower(): value for name, value in error.headers}}
    body = json.dumps(error.problem()).encode()
    return failure_of(error.status, headers, body, service="shop", replica="http://a:1", attempts=2)


ERRORS: list[tuple[TinysvcError, type[TinysvcError]]] = [
    (HTTPError(404, "no"), HTTPError),
    (BindingError([("query.n", "is missing")]), HTTPError),
    (HTTPError(429, "slowly", headers=[("retry-after", "3")]), HTTPError),
    (HTTPError(500, "broken"), CallFailed),
    (HTTPError(503, "later", headers=[("retry-after", "3")]), CallUnavailable),
    (QueueFull("full", 9), CallUnavailable),
    (DeadlineInQueue("late"), CallUnavailable),
    (DeadlineExceeded("late"), CallFailed),
    (WorkerDied("secret"), CallFailed),
    (BudgetExhausted(), CallTimeout),
    (CallTimeout("late"), CallTimeout),
    (CallRefused("circle"), CallRefused),
    (CallFailed("deeper"), CallFailed),
    (HTTPError(599, "odd"), CallFailed),
]


@pytest.mark.parametrize(("error", "kind"), ERRORS, ids=lambda each: getattr(each, "__name__", str(each)))
def test_error_here_and_its_response_are_the_same_exception(error: TinysvcError, kind: type[TinysvcError]) -> None:
    here = failure_here(error, service="shop", handler="shop.buy", request_id="r")
    there = response(error)
    assert kind in (type(here), *type(here).__bases__)
    assert type(here) is type(there)
    assert here.status == there.status
    assert list(here.headers) == list(there.headers)
    assert here.problem() == there.problem()
    if isinstance(there, CallFailed):
        assert isinstance(here, CallFailed)
        assert (here.answered, here.message) == (there.answered, there.message)
        assert (there.service, there.replica, there.attempts) == ("shop", "http://a:1", 2)


def test_members_of_the_problem_are_kept() -> None:
    error = response(BindingError([("query.n", "is missing")]))
    assert error.problem()["errors"] == [{"place": "query.n", "detail": "is missing"}]
    failed = response(HTTPError(500, "broken"))
    assert isinstance(failed, CallFailed)
    assert failed.details is not None
    assert failed.details["detail"] == "broken"
    assert "has answered 500 Internal Server Error: broken" in str(failed)


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, b"<html>"), (PROBLEM, b"{"), (PROBLEM, b"[]"), (PROBLEM, b'{"type":7}'), (PROBLEM, b"[" * 100_000)],
)
def test_response_that_is_no_problem_document(headers: dict[str, str], body: bytes) -> None:
    failed = failure_of(502, headers, body)
    assert type(failed) is CallFailed
    assert failed.answered == 502
    assert failure_of(404, headers, body).status == 404


@pytest.mark.parametrize(("text", "seconds"), [("7", 7), ("", 1), ("soon", 1), ("99999999", 1)])
def test_retry_after(text: str, seconds: int) -> None:
    failed: Any = failure_of(503, {"retry-after": text}, b"")
    assert failed.retry_after == seconds


def test_failed_call_of_a_called_cpu_handler_keeps_its_status() -> None:
    remote = RemoteError("CallUnavailable", "later", "")
    remote.original = CallUnavailable("later", retry_after=4, service="deeper")
    failed = failure_here(remote, service="shop", handler="shop.buy", request_id="r")
    assert isinstance(failed, CallUnavailable)
    assert (failed.answered, failed.retry_after, failed.service) == (503, 4, "shop")


def test_error_of_a_handler_is_logged_once_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    for error in (ValueError("secret"), RemoteError("ValueError", "secret", "the traceback")):
        caplog.clear()
        failed = failure_here(error, service="shop", handler="shop.buy", request_id="r1")
        assert "secret" not in str(failed)
        (record,) = caplog.records
        assert record.getMessage().startswith("the call of shop.buy (request r1) failed:")
        assert "secret" in record.getMessage()
