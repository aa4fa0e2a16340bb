"""The messages of `call.wait(...)`: what a worker asks the server, and the answer. They are data: no code travels.

worker                                                             server
arguments ──> RequestWriter ──> CallQuestion and the body ──> sends the request (waiting_calls.py)
result    <── ReplyReader   <── CallAnswer and the body   <── the response
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.call_errors import CallFailed, CallRefused, CallTimeout, CallUnavailable
from ..core.errors import ConfigurationError, HTTPError, TinysvcError
from .message import Message


class CallQuestion(Message, tag=0):
    """A request to the handler `name` of `module`. Its body is that of the question."""

    module: str
    name: str
    method: str
    target: str
    """Without the prefix of where the handler is mounted."""
    headers: list[tuple[str, str]]
    deadline: float | None


class Failure(Message):
    """An exception instead of a response."""

    kind: str
    message: str
    status: int
    service: str = ""
    replica: str = ""
    attempts: int = 0
    answered: int | None = None
    retry_after: int = 1

    def error(self) -> TinysvcError:
        """The exception."""
        facts = {
            "service": self.service,
            "replica": self.replica,
            "attempts": self.attempts,
            "answered": self.answered,
        }
        if self.kind == "CallUnavailable":
            return CallUnavailable(self.message, retry_after=self.retry_after, **facts)
        if kind := _CALLS.get(self.kind):
            return kind(self.message, **facts)  # type: ignore[arg-type]
        if self.kind == "HTTPError":
            return HTTPError(self.status, self.message)
        return ConfigurationError(self.message)


class CallAnswer(Message, tag=0):
    """The head of the response, whose body is that of the answer; or why there is none."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    service: str
    replica: str
    attempts: int
    failure: Failure | None = None


_CALLS = {kind.__name__: kind for kind in (CallFailed, CallRefused, CallTimeout)}


def failure_from(error: TinysvcError) -> Failure:
    """The exception as a message."""
    if isinstance(error, CallFailed):
        return Failure(
            type(error).__name__,
            error.message,
            error.status,
            error.service,
            error.replica,
            error.attempts,
            error.answered,
            getattr(error, "retry_after", 1),
        )
    if isinstance(error, HTTPError):
        return Failure("HTTPError", error.detail, error.status)
    return Failure("ConfigurationError", str(error), error.status)
