"""The messages of `job.progress(...)` and `job.save(...)`: the questions of a worker, and the answer.

worker                                                              server
job.progress(0.5, loss=0.1) ──> ProgressReport                 ──> keeps it, and writes it to the store later
job.save(value)             ──> SaveRequest, and a pickle      ──> writes it to the store
                            <── JobAnswer                      <── after that

Neither names its job: the server knows which job runs in the worker that asks.
"""

from __future__ import annotations

from typing import Any, Literal

from .message import Message


class ProgressReport(Message, tag=1):
    """How far the job is."""

    fraction: float | None
    values: dict[str, Any]


class SaveRequest(Message, tag=2):
    """The body is to be kept for the next attempt."""


class JobAnswer(Message, tag=1):
    """The server's answer to either."""

    refusal: Literal["", "stale", "unavailable"] = ""
    """ "stale": another attempt has the job, or the job was cancelled. "unavailable": the store cannot write now."""
    detail: str = ""
