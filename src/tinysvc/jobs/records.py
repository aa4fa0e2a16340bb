"""The values that a store keeps of a durable job. All times are Unix time in seconds."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from ..service.job_options import DEFAULT_KEEP, Retry


class State(StrEnum):
    """The state of a durable job. states.py has the table of transitions."""

    SCHEDULED = "scheduled"
    """Waits until its time: `after=`, or the pause before a further attempt."""
    QUEUED = "queued"
    """Waits for a worker."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Kept until it is retried or cancelled: its retention has no end."""
    CANCELLED = "cancelled"


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
WAITING = frozenset({State.SCHEDULED, State.QUEUED})


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A durable job that is not yet accepted."""

    route: str
    """Path pattern of the job route with its prefixes, as in "/users/{user}/trainings"."""
    path: str = ""
    """The path of this request, as in "/users/7/trainings": one user's durable jobs are listed by it."""
    request: bytes
    """The request without its body, as msgpack. The store does not read it."""
    body: bytes = b""
    digest: bytes = b""
    """Hash of the request: another one under the same `key` is refused."""
    due: float | None = None
    """When it may start. None: now."""
    priority: int = 0
    """Higher ones start first."""
    key: str = ""
    """Idempotency-Key: the route has at most one durable job with this key."""
    keep: float = DEFAULT_KEEP
    """Seconds after its end until the record and the result are removed."""
    max_attempts: int = Retry().attempts
    max_waiting: int | None = None
    """Refuse it if as many durable jobs of the route wait already. None: no limit."""
    request_id: str = ""


class AttemptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to run a durable job."""

    number: int
    started: float
    ended: float | None = None
    cause: str = ""
    """Why it ended: "" while it runs, then one of CAUSES."""
    detail: str = ""
    counts: bool = True
    """It uses one of the attempts that the job may have."""


CAUSES = frozenset(
    {
        "succeeded",
        "error",
        "worker-died",
        "deadline",
        "server-died",
        "shutdown",
        "cancelled",
        "lease-lost",
        "unencodable",
        "not-started",
        "saved-unreadable",
        "arguments-no-longer-fit",
    }
)


class Failure(msgspec.Struct, frozen=True):
    """Why an attempt has failed, and when the next one may start."""

    cause: str
    """One of CAUSES."""
    detail: str = ""
    """For the author."""
    problem: dict[str, Any] | None = None
    """The problem document (RFC 9457) that clients get if there is no further attempt."""
    retry_at: float | None = None
    """When the next attempt may start, if attempts are left. None: there is no further one."""
    counts: bool = True
    """See `AttemptRecord`."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running attempt is."""

    fraction: float | None = None
    values: dict[str, Any] = {}


class ResultHead(msgspec.Struct, frozen=True, kw_only=True):
    """The stored response without its body."""

    status: int
    content_type: str | None
    headers: list[tuple[str, str]] = []
    size: int = 0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A durable job without its request, body, saved value and result."""

    id: str
    """128 random bits as 32 hex digits."""
    route: str
    path: str = ""
    state: State
    priority: int = 0
    key: str = ""
    digest: bytes = b""
    created: float
    due: float
    started: float | None = None
    """Start of the newest attempt."""
    ended: float | None = None
    keep: float
    expires: float | None = None
    """End of its retention. None: it has not ended, or it has failed."""
    attempt: int = 0
    """Number of the newest attempt. Each start adds one: it is the fence against late writes."""
    used: int = 0
    """Attempts that count."""
    max_attempts: int
    attempts: list[AttemptRecord] = []
    """The newest ones, at most 20."""
    progress: Progress | None = None
    has_saved: bool = False
    result: ResultHead | None = None
    problem: dict[str, Any] | None = None
    """The problem document (RFC 9457) of a failed one."""
    version: int = 1
    """Grows with each change."""
    owner: str = ""
    """The server process that runs it. A cancelled one keeps its owner until that has killed the worker."""
    request_id: str = ""
    expired: bool = False
    """Its retention is over: only id, route, state and times are kept, for KEEP_EXPIRED (states.py)."""


class Submitted(msgspec.Struct, frozen=True):
    """Answer to `submit`."""

    record: Record
    is_new: bool
    """False: the key belongs to a durable job that was accepted before."""


class Claimed(msgspec.Struct, frozen=True):
    """A durable job that this server process must run now; `record.attempt` is the attempt."""

    record: Record
    request: bytes
    body: bytes
    saved: bytes | None
    start_by: float | None = None
    """When the lease under which it was claimed ends (CLOCK_BOOTTIME): later, another server may run the next attempt.
    None: there is no lease."""


class Change(msgspec.Struct, frozen=True):
    """Report of a committed change, to watchers."""

    id: str
    """Empty in MISSED only."""
    route: str
    state: State
    version: int


MISSED = Change("", "", State.QUEUED, 0)
"""Changes may have been missed, as after a lost connection: watchers read their records again."""


class CancelOutcome(msgspec.Struct, frozen=True):
    """Answer to `cancel`."""

    kind: str
    """ "cancelled", "was-cancelled", "ended" (it succeeded before) or "unknown"."""
    record: Record | None = None
    owner: str = ""
    """The server process that still runs the attempt, and must kill its worker. "": none does."""
    attempt: int = 0


class Page(msgspec.Struct, frozen=True):
    """Durable jobs, the newest first."""

    records: list[Record]
    next: str
    """Cursor of the next page; "" at the end."""
    counts: dict[str, int]
    """Durable jobs in each state, for the asked route or for all routes."""
