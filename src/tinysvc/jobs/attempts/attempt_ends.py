"""From the end of a job in a pool to the end of an attempt in the store.

the job in the pool                              the write to the store
a result                                         finish
a failure that the worker has classified         fail: for good, or with a further attempt after a pause
a dead worker, a deadline, an error              fail, with a further attempt after a pause
no worker for it, or a full queue; or a worker
that a swap has ended                            fail, with a further attempt; this one does not count
closed pool                                      release: the job is queued, and the attempt does not count
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    JobRefused,
    NoWorkers,
    PoolClosed,
    QueueFull,
    RemoteError,
    TinysvcError,
    WorkerDied,
)
from ...core.job_errors import NoLongerFits
from ...pool.generations import HeldTooLong
from ...pool.job_reply import JobReply, JobStream
from ...runtime.cpu_messages import AttemptFailure, DurableReply
from ...runtime.durable_endpoints import MAX_DETAIL
from ..records import ResultHead

NOT_STARTED = (DeadlineInQueue, JobRefused, NoWorkers, QueueFull)
"""Errors of a job that no worker has begun."""


class Finished(NamedTuple):
    """The attempt has a result."""

    head: ResultHead
    body: bytes


class Failed(NamedTuple):
    """The attempt has failed."""

    cause: str
    """See records.CAUSES."""
    detail: str
    """For the author."""
    problem: dict[str, Any]
    """For the client (RFC 9457), if there is no further attempt."""
    is_final: bool = False
    """There is no further attempt."""
    counts: bool = True
    traceback: str = ""
    """For the log."""


class Released(NamedTuple):
    """The attempt was interrupted, through no fault of its own."""

    cause: str


AttemptEnd = Finished | Failed | Released


def end_by_reply(reply: JobReply) -> AttemptEnd:
    """The end of an attempt whose worker has replied."""
    said: DurableReply = reply.meta
    if said.failure is not None:
        return _failed(said.failure)
    assert not isinstance(reply.body, JobStream)
    body = bytes(reply.body)
    return Finished(
        ResultHead(status=said.status, content_type=said.content_type, headers=said.headers, size=len(body)), body
    )


def _failed(failure: AttemptFailure) -> Failed:
    return Failed(
        failure.cause,
        failure.detail,
        failure.problem,
        failure.is_final,
        failure.counts,
        failure.error.traceback if failure.error is not None else "",
    )


def end_by_error(error: Exception) -> AttemptEnd:
    """The end of an attempt whose job in the pool has failed with this error."""
    if isinstance(error, (PoolClosed, JobAbandoned)):
        return Released("shutdown")
    problem = error.problem() if isinstance(error, TinysvcError) else TinysvcError().problem()
    detail = str(error)[:MAX_DETAIL]
    if isinstance(error, NOT_STARTED):
        return Failed("not-started", detail, problem, counts=False)
    if isinstance(error, HeldTooLong):
        return Failed("worker-died", detail, problem, counts=False)
    if isinstance(error, WorkerDied):
        return Failed("worker-died", detail, problem)
    if isinstance(error, DeadlineExceeded):
        return Failed("deadline", detail, problem)
    traceback = error.traceback if isinstance(error, RemoteError) else ""
    return Failed("error", detail, problem, traceback=traceback)


def no_longer_fits(detail: str) -> Failed:
    """The end of an attempt whose stored request cannot be read."""
    error = NoLongerFits(detail)
    return Failed(error.kind, detail, error.problem(), is_final=True, counts=False)
