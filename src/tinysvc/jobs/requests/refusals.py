"""The error responses of a job route, by the state of the durable job that a request names."""

from __future__ import annotations

from typing import Any

from ...core.errors import HTTPError
from ..records import ENDED, Record, State

NO_CACHE = ("cache-control", "no-cache")
"""A shared cache may keep a 404 for minutes, and would still answer with it when the result is there."""


class JobProblem(HTTPError):
    """An error response about a durable job.

    Args:
        status: HTTP status.
        kind: Name of the error in the problem document.
        detail: Text for the client.
        members: Further members of the problem document.
        headers: Further header lines of the response.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        members: dict[str, Any] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(status, detail, headers=headers)
        self.kind = kind
        self.members = members or {}

    def problem(self) -> dict[str, Any]:
        return {**super().problem(), **self.members}


def unknown_job(job_id: str) -> JobProblem:
    """404: the route has no durable job with this id, and it had none within the retention."""
    return JobProblem(404, "unknown-job", f"There is no job {job_id!r} at this path.")


def expired_job(record: Record) -> JobProblem:
    """410: the durable job was kept for the time that its route says, and was then removed."""
    return JobProblem(410, "job-expired", f"The job {_is(record)}, and was kept for {_time(record.keep)} after that.")


def no_result(record: Record, retry_after: int) -> JobProblem:
    """The response in place of the result of a durable job that has not succeeded."""
    if record.state == State.CANCELLED:
        return JobProblem(410, "job-cancelled", "The job was cancelled, and has no result.")
    detail = f"The job is {record.state}; its result comes when it has succeeded."
    headers = (("retry-after", str(retry_after)), NO_CACHE)
    return JobProblem(404, "not-finished", detail, {"state": record.state.value}, headers)


def cannot_cancel(record: Record) -> JobProblem:
    """409: the durable job had succeeded before the cancel."""
    return JobProblem(409, "job-ended", f"The job {_is(record)} already.", _state(record))


def cannot_retry(record: Record) -> JobProblem:
    """409: only a failed durable job can be retried."""
    remedy = "submit a new one" if record.state in ENDED else "wait for its end, or cancel it"
    detail = f"A job can be retried if it has failed, and this one {_is(record)}; {remedy}."
    return JobProblem(409, "not-failed", detail, _state(record))


def _is(record: Record) -> str:
    if record.state == State.CANCELLED:
        return "was cancelled"
    return f"has {record.state}" if record.state in ENDED else f"is {record.state}"


def _state(record: Record) -> dict[str, Any]:
    return {"state": record.state.value}


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size and not seconds % size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
