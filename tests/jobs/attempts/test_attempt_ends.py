"""attempt_ends.py: each way in which the pool reports the end of an attempt."""

from __future__ import annotations

import pytest

from tinysvc.core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    NoWorkers,
    PoolClosed,
    QueueFull,
    RemoteError,
    WorkerDied,
)
from tinysvc.jobs.attempts.attempt_ends import Failed, Finished, Released, end_by_error, end_by_reply, no_longer_fits
from tinysvc.jobs.records import CAUSES, ResultHead
from tinysvc.pool.frames import ErrorText
from tinysvc.pool.generations import HeldTooLong
from tinysvc.pool.job_reply import JobReply
from tinysvc.runtime.cpu_messages import AttemptFailure, DurableReply


def test_reply_without_failure_is_a_result() -> None:
    reply = JobReply(DurableReply(201, "text/plain", [("x-own", "1")]), memoryview(b"done"))
    head = ResultHead(status=201, content_type="text/plain", headers=[("x-own", "1")], size=4)
    assert end_by_reply(reply) == Finished(head, b"done")


def test_failure_in_the_reply_is_the_end_of_the_attempt() -> None:
    text = ErrorText("ValueError", "no", "Traceback ...")
    failure = AttemptFailure("unencodable", "ValueError: no", True, False, {"status": 500}, text)
    reply = JobReply(DurableReply(500, None, [], failure), b"")
    assert end_by_reply(reply) == Failed("unencodable", "ValueError: no", {"status": 500}, True, False, "Traceback ...")


@pytest.mark.parametrize(
    ("error", "cause", "counts", "status"),
    [
        (WorkerDied("worker 1 was killed by SIGKILL"), "worker-died", True, 500),
        (HeldTooLong("worker 1 held an old generation"), "worker-died", False, 500),
        (DeadlineExceeded("the job ran past its deadline of 1 s"), "deadline", True, 504),
        (DeadlineInQueue("the job waited past its deadline of 1 s"), "not-started", False, 503),
        (QueueFull("9 jobs wait already", 1), "not-started", False, 503),
        (NoWorkers("no worker is alive"), "not-started", False, 503),
        (RemoteError("MemoryError", "", "Traceback ..."), "error", True, 500),
        (TypeError("of tinysvc itself"), "error", True, 500),
    ],
)
def test_error_of_the_pool_is_a_failure_with_its_cause(error: Exception, cause: str, counts: bool, status: int) -> None:
    end = end_by_error(error)
    assert isinstance(end, Failed)
    assert (end.cause, end.counts, end.is_final, end.problem["status"]) == (cause, counts, False, status)
    assert end.detail == str(error)
    assert cause in CAUSES


def test_closed_pool_releases_the_attempt() -> None:
    assert end_by_error(PoolClosed("the pool is shutting down")) == Released("shutdown")
    assert end_by_error(JobAbandoned("the job was abandoned")) == Released("shutdown")


def test_request_that_no_longer_fits_uses_no_attempt() -> None:
    end = no_longer_fits("it is no MessagePack")
    assert (end.is_final, end.counts, end.problem["type"]) == (True, False, "urn:tinysvc:arguments-no-longer-fit")
    assert "MessagePack" not in str(end.problem)
