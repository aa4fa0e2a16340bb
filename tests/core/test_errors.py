"""errors.py: each error's status, what a client may read of it, and the author's part of a traceback."""

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
def test_status_and_problem(error: errors.TinysvcError, status: int, members: dict[str, object]) -> None:
    problem = error.problem()
    assert problem["status"] == error.status == status
    assert members.items() <= problem.items()
    assert "secret" not in json.dumps(problem)


def test_retry_after() -> None:
    assert errors.QueueFull("full", 7).headers == (("retry-after", "7"),)


def test_deadlines_are_timeouts() -> None:
    assert isinstance(errors.DeadlineExceeded("x"), TimeoutError)
    assert isinstance(errors.DeadlineInQueue("x"), TimeoutError)


def test_a_traceback_begins_at_the_authors_code() -> None:
    from tinysvc.core.messages import Response

    try:
        Response(status=1)
    except ValueError as error:
        text = errors.author_traceback(error)
    assert "test_errors.py" in text
    assert "messages.py" not in text
    assert text.endswith("a response takes a status from 200 to 599, not 1")


@pytest.mark.asyncio
async def test_so_it_does_in_a_thread_and_for_what_it_came_from() -> None:
    from tinysvc.core.threads import in_thread

    nothing: dict[str, int] = {}

    async def in_ours() -> None:
        await in_thread(lambda: nothing["missing"])

    try:
        try:
            await in_ours()
        except KeyError as error:
            raise ValueError("no such thing") from error
    except ValueError as error:
        text = errors.author_traceback(error)
    files = [line.split('"')[1] for line in text.splitlines() if line.lstrip().startswith("File ")]
    assert files == [__file__] * len(files)
    assert "KeyError: 'missing'" in text
    assert text.endswith("ValueError: no such thing")
