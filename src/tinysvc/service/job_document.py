"""The JSON of a durable job, as its routes answer it and as the OpenAPI document describes it.

The types hold no code: an encoder reads them, and so does the generator of schemas.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType, field

JobState = Literal["scheduled", "queued", "running", "succeeded", "failed", "cancelled"]
"""A scheduled job waits for a time. A queued job waits for a worker. The last three are ends."""

JOB_STATES: tuple[JobState, ...] = get_args(JobState)

AttemptCause = Literal[
    "",
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
    "arguments-no-longer-fit",
    "saved-unreadable",
]
"""Why an attempt ended; empty while it runs."""


class AttemptDocument(Struct, frozen=True, kw_only=True):
    """One start of a durable job."""

    number: Annotated[int, Meta(ge=1, description="Attempts of a job are numbered from 1.")]
    started: datetime
    ended: datetime | None
    cause: Annotated[AttemptCause, Meta(description="Why the attempt ended; empty while it runs.")]
    detail: Annotated[str, Meta(description="Text for people.")]
    counts: Annotated[bool, Meta(description="Whether it is one of the attempts that the job may use.")]


class JobLinks(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Paths at this server. A link is absent if its request would be refused."""

    job: Annotated[str | UnsetType, Meta(description="GET for this document.")] = field(default=UNSET, name="self")
    result: Annotated[str | UnsetType, Meta(description="GET for the result.")] = UNSET
    cancel: Annotated[str | UnsetType, Meta(description="DELETE to cancel the job; a failed one is dismissed.")] = UNSET
    retry: Annotated[str | UnsetType, Meta(description="POST to start a failed job again.")] = UNSET


class JobDocument(Struct, frozen=True, kw_only=True):
    """A durable job. Times are UTC."""

    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    route: Annotated[str, Meta(description="Path of the route, with the names of its parameters.")]
    state: JobState
    progress: Annotated[float | None, Meta(description="Part of the work that is done, from 0 to 1; null: unknown.")]
    values: Annotated[dict[str, Any], Meta(description="Values that the running job reports.")]
    attempt: Annotated[int, Meta(ge=0, description="Number of the newest attempt; 0 before the first.")]
    attempts: Annotated[list[AttemptDocument], Meta(description="The newest attempts, the oldest first.")]
    used: Annotated[int, Meta(ge=0, description="Attempts that count.")]
    max_attempts: Annotated[int, Meta(ge=1, description="Attempts that the job may use.")]
    priority: Annotated[int, Meta(description="Of the jobs that are due, the highest priority starts first.")]
    key: Annotated[str, Meta(description="The Idempotency-Key of the request; empty for none.")]
    created: datetime
    due: Annotated[datetime | None, Meta(description="The job does not start before this time.")]
    started: Annotated[datetime | None, Meta(description="Start of the newest attempt.")]
    ended: datetime | None
    expires: Annotated[datetime | None, Meta(description="The job and its result are deleted after this time.")]
    problem: Annotated[dict[str, Any] | None, Meta(description="Why the job failed: a problem document (RFC 9457).")]
    has_saved: Annotated[bool, Meta(description="The next attempt goes on from a value that the job has saved.")]
    version: Annotated[int, Meta(description="Grows with every change of the job.")]
    request_id: str
    links: JobLinks


class JobPage(Struct, frozen=True, kw_only=True):
    """Jobs of a route, the newest first."""

    jobs: list[JobDocument]
    counts: Annotated[dict[JobState, int], Meta(description="Jobs of the route by state.")]
    next: Annotated[str | None, Meta(description="Path of the next page; null at the end.")]
