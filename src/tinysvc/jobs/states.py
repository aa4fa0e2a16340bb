"""The transitions of a durable job: pure functions from a record to the next one. No clock, no I/O.

    event      from                    to
    claim      queued                  running      one attempt more: its number is the fence
    wake       scheduled, when due     queued
    progress   running                 running
    save       running                 running
    finish     running                 succeeded
    fail       running                 scheduled    with `retry_at`, while attempts are left
               running                 failed       otherwise
    release    running                 queued       no attempt is used (shutdown)
    lapse      running                 queued       the server process died: one attempt is used
               running                 failed       ... and it was the last one
               cancelled, with owner   cancelled    the owner's workers died with it
    stopped    cancelled, with owner   cancelled    the owner has killed the worker
    cancel     waiting or running      cancelled    a running one keeps its owner until `stopped` or `lapse`
               failed                  cancelled    it is dismissed: its problem stays, its retention begins
    retry      failed                  queued       all attempts are allowed again; their numbers continue
    expire     succeeded, cancelled    the same     when the retention is over: `expired` is set

Two rules give the rest. *Fence:* each write of an attempt names its number, and is refused unless that attempt is the
running one. *First commit wins:* an ended durable job changes no more, except by `retry`, `cancel` (both of a failed
one) and `expire`.

Both stores call these functions inside their transactions, so that they cannot differ.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from msgspec.structs import replace

from ..core.job_errors import KeyReused, TooManyWaiting
from .records import ENDED, AttemptRecord, CancelOutcome, Failure, NewJob, Progress, Record, ResultHead, State

KEPT_ATTEMPTS = 20
"""Attempts that a record lists. A retry that is repeated for years must not make it grow without end."""
LOST_VERSIONS = 1000
"""Added to the version when a server process died: the crash may have lost progress whose version watchers know."""
KEEP_EXPIRED = 30 * 86400.0
"""Seconds for which a store remembers that there was a durable job: its result is 410 then, not 404."""


class Refusal(msgspec.Struct, frozen=True):
    """Why an event does not apply. Nothing changes."""

    reason: str
    """ "stale": an older attempt, or none runs. "ended". "not-" and the condition that does not hold."""


STALE = Refusal("stale")


def repeated_by(new: NewJob, earlier: Record | None, waiting: int) -> Record | None:
    """The durable job that this submission repeats. None: accept a new one.

    Args:
        new: The submission.
        earlier: The durable job of the route with the same key, if there is one.
        waiting: Durable jobs of the route that wait. It counts only if the submission has `max_waiting`.

    Raises:
        KeyReused: `earlier` has another request.
        TooManyWaiting: The route takes no further one.
    """
    if earlier is not None:
        if earlier.digest != new.digest:
            raise KeyReused(new.key)
        return earlier
    if new.max_waiting is not None and waiting >= new.max_waiting:
        raise TooManyWaiting(f"{waiting} durable jobs of {new.route} wait already.")
    return None


def accepted(new: NewJob, job_id: str, now: float) -> Record:
    """The first record of a durable job."""
    due = now if new.due is None else new.due
    return Record(
        id=job_id,
        route=new.route,
        path=new.path,
        state=State.SCHEDULED if due > now else State.QUEUED,
        priority=new.priority,
        key=new.key,
        digest=new.digest,
        created=now,
        due=due,
        keep=new.keep,
        max_attempts=new.max_attempts,
        request_id=new.request_id,
    )


def wake(record: Record, now: float) -> Record | Refusal:
    """The time of a scheduled one has come."""
    if record.state != State.SCHEDULED or record.due > now:
        return Refusal("not-due")
    return replace(record, state=State.QUEUED, version=record.version + 1)


def claim(record: Record, owner: str, now: float) -> Record | Refusal:
    """`owner` starts the next attempt."""
    if record.state != State.QUEUED:
        return Refusal("not-queued")
    number = record.attempt + 1
    return replace(
        record,
        state=State.RUNNING,
        owner=owner,
        started=now,
        attempt=number,
        attempts=[*record.attempts, AttemptRecord(number=number, started=now)][-KEPT_ATTEMPTS:],
        progress=record.progress if record.has_saved else None,  # without a saved value, the work begins at 0 again
        version=record.version + 1,
    )


def progress(record: Record, attempt: int, value: Progress) -> Record | Refusal:
    """The attempt reports its progress."""
    if not _runs(record, attempt):
        return STALE
    return replace(record, progress=value, version=record.version + 1)


def save(record: Record, attempt: int) -> Record | Refusal:
    """The attempt saves a value, from which a later attempt can continue."""
    if not _runs(record, attempt):
        return STALE
    return replace(record, has_saved=True, version=record.version + 1)


def finish(record: Record, attempt: int, head: ResultHead, now: float) -> Record | Refusal:
    """The attempt has a result."""
    if not _runs(record, attempt):
        return STALE
    ended = _end_attempt(record, now, "succeeded", "", counts=True)
    kept = {"result": head, "problem": None, "has_saved": False, "ended": now, "expires": now + record.keep}
    return replace(ended, state=State.SUCCEEDED, **kept)


def fail(record: Record, attempt: int, failure: Failure, now: float) -> Record | Refusal:
    """The attempt has failed. With `retry_at` there is a further one then, while attempts are left."""
    if not _runs(record, attempt):
        return STALE
    ended = _end_attempt(record, now, failure.cause, failure.detail, counts=failure.counts)
    ended = replace(ended, problem=failure.problem)
    if failure.retry_at is None or ended.used >= ended.max_attempts:
        return replace(ended, state=State.FAILED, ended=now)
    return replace(ended, state=State.SCHEDULED if failure.retry_at > now else State.QUEUED, due=failure.retry_at)


def release(record: Record, attempt: int, cause: str, now: float) -> Record | Refusal:
    """The attempt was stopped by a shutdown: the durable job is queued, and the attempt does not count."""
    if not _runs(record, attempt):
        return STALE
    return replace(_end_attempt(record, now, cause, "", counts=False), state=State.QUEUED)


def lapse(record: Record, now: float, cause: str = "server-died") -> Record | Refusal:
    """The owner died, with its workers: the attempt counts, as it may be the reason."""
    if record.state == State.CANCELLED and record.owner:
        return replace(record, owner="", version=record.version + 1)
    if record.state != State.RUNNING:
        return Refusal("ended" if record.state in ENDED else "not-running")
    ended = _end_attempt(record, now, cause, f"The server process {record.owner} ended.", counts=True)
    ended = replace(ended, version=ended.version + LOST_VERSIONS)
    if ended.used < ended.max_attempts:
        return replace(ended, state=State.QUEUED)
    detail = f"The server process ended during attempt {record.attempt}, the last one."
    return replace(ended, state=State.FAILED, ended=now, problem=problem_of(cause, 500, detail))


def stopped(record: Record, attempt: int) -> Record | Refusal:
    """The owner has killed the worker of a cancelled attempt."""
    if record.state != State.CANCELLED or record.attempt != attempt or not record.owner:
        return Refusal("not-cancelled")
    return replace(record, owner="", version=record.version + 1)


def cancel(record: Record, now: float) -> Record | Refusal:
    """Cancel it. A running one keeps its owner: that must kill the worker. A failed one is dismissed."""
    if record.state in (State.SUCCEEDED, State.CANCELLED):
        return Refusal("ended")
    if record.state != State.RUNNING:
        return replace(
            record,
            state=State.CANCELLED,
            ended=now,
            expires=now + record.keep,
            has_saved=False,
            version=record.version + 1,
        )
    ended = _end_attempt(record, now, "cancelled", "", counts=True)
    return replace(
        ended,
        state=State.CANCELLED,
        owner=record.owner,
        ended=now,
        expires=now + record.keep,
        has_saved=False,
    )


def cancel_outcome(old: Record, new: Record | Refusal) -> CancelOutcome:
    """The answer to a cancel: `new` is the result of `cancel(old, now)`."""
    if isinstance(new, Record):
        return CancelOutcome("cancelled", new, new.owner, new.attempt)
    kind = "was-cancelled" if old.state == State.CANCELLED else "ended"
    return CancelOutcome(kind, old, old.owner, old.attempt)


def retry(record: Record, now: float) -> Record | Refusal:
    """Start a failed one again."""
    if record.state != State.FAILED:
        return Refusal("not-failed")
    return replace(
        record,
        state=State.QUEUED,
        used=0,
        due=now,
        ended=None,
        problem=None,
        version=record.version + 1,
    )


def expire(record: Record, now: float) -> Record | Refusal:
    """Its retention is over: only id, route, state and times are kept."""
    if record.expires is None or record.expires > now or record.owner or record.expired:
        return Refusal("not-over")
    return replace(
        record,
        key="",
        digest=b"",
        attempts=[],
        progress=None,
        has_saved=False,
        result=None,
        problem=None,
        expired=True,
        version=record.version + 1,
    )


def forgotten_at(record: Record) -> float:
    """When a store removes the last trace of a durable job whose retention is over."""
    assert record.expires is not None
    return record.expires + KEEP_EXPIRED


def problem_of(kind: str, status: int, detail: str) -> dict[str, Any]:
    """A problem document (RFC 9457)."""
    return {"type": f"urn:tinysvc:{kind}", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def _runs(record: Record, attempt: int) -> bool:
    return record.state == State.RUNNING and record.attempt == attempt


def _end_attempt(record: Record, now: float, cause: str, detail: str, *, counts: bool) -> Record:
    """The record without its running attempt."""
    last = replace(record.attempts[-1], ended=now, cause=cause, detail=detail, counts=counts)
    return replace(
        record,
        attempts=[*record.attempts[:-1], last],
        used=record.used + counts,
        owner="",
        version=record.version + 1,
    )
