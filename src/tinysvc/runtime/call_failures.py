"""Failed calls: an error response of the callee, or the error of a handler here, as the exception in the caller.

    4xx                        HTTPError with the same status, detail and further members
    503                        CallUnavailable
    504 budget-exhausted       CallTimeout
    508 call-loop              CallRefused
    any other 5xx              CallFailed

The same error of a handler becomes the same exception, whether the handler runs here or elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.call_errors import CallFailed, CallRefused, CallTimeout, CallUnavailable
from ..core.errors import HTTPError, RemoteError, TinysvcError
from ..core.form_data import is_json_type
from ..core.tracebacks import author_traceback, indented, observe_error

if TYPE_CHECKING:
    from ..client.messages import Incoming

log = logging.getLogger("tinysvc.calls")

MAX_PROBLEM = 64 * 1024
"""Bytes of an error response that are read."""

PASSED_ON = ("retry-after", "www-authenticate", "allow", "accept")
"""Headers of a 4xx that its exception keeps: they belong to the status. Others were for the callee's client only."""


class CalleeError(HTTPError):
    """A 4xx of the callee, with all members of its problem document."""

    def __init__(self, status: int, detail: str, headers: list[tuple[str, str]], members: Mapping[str, Any]) -> None:
        super().__init__(status, detail, headers=headers)
        self.members = members

    def problem(self) -> dict[str, Any]:
        return {**super().problem(), **self.members}


async def check_response(incoming: Incoming, service: str) -> None:
    """Raise the exception of an error response, and close it. Nothing happens to any other response.

    Raises:
        HTTPError: The status is a 4xx.
        CallFailed: The status is a 5xx.
    """
    if incoming.status < 400:
        return
    try:
        body = await incoming.body(MAX_PROBLEM)
    except CallFailed:
        body = b""
    headers = {name: incoming.headers.get(name, "") for name in (*PASSED_ON, "content-type")}
    raise failure_of(
        incoming.status, headers, body, service=service, replica=incoming.replica, attempts=incoming.attempts
    )


def failure_of(
    status: int, headers: Mapping[str, str], body: bytes, *, service: str = "", replica: str = "", attempts: int = 0
) -> HTTPError | CallFailed:
    """The exception of an error response.

    Args:
        status: Its status, 400 or more.
        headers: Its headers, with names in lower case.
        body: Its body: a problem document, or anything else.
        service: Name of the callee.
        replica: Address of the replica.
        attempts: Requests that were sent.
    """
    members = _members(headers.get("content-type", ""), body)
    return _failure(status, headers, members, {"service": service, "replica": replica, "attempts": attempts})


def _members(content_type: str, body: bytes) -> dict[str, Any] | None:
    if is_json_type(content_type):
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            pass
    return None


def _failure(
    status: int, headers: Mapping[str, str], members: dict[str, Any] | None, facts: Mapping[str, Any]
) -> HTTPError | CallFailed:
    kind = str((members or {}).get("type", "")).removeprefix("urn:tinysvc:")
    detail = (members or {}).get("detail", "")
    if status < 500:
        kept = [(name, headers[name]) for name in PASSED_ON if headers.get(name)]
        return CalleeError(status, str(detail), kept, members or {})
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    message = f"The callee has answered {status} {phrase}"
    message += f", {kind}" if kind not in ("", "about:blank") else ""
    message += f": {detail}" if detail else "."
    facts = {**facts, "answered": status, "details": members}
    if status == 503:
        text = headers.get("retry-after", "")
        return CallUnavailable(message, retry_after=int(text) if text.isdecimal() and len(text) < 6 else 1, **facts)
    if status == 504 and kind == CallTimeout.kind:
        return CallTimeout(message, **facts)
    return CallRefused(message, **facts) if kind == CallRefused.kind else CallFailed(message, **facts)


def failure_here(error: Exception, *, service: str, handler: str, request_id: str) -> TinysvcError:
    """The exception of a call for an error of a handler in this process. It is logged as that of a request is."""
    known = error if isinstance(error, TinysvcError) else TinysvcError()
    if isinstance(error, RemoteError) and isinstance(error.original, TinysvcError):
        known = error = error.original  # of a cpu handler: of a call that it has made, for example
    if not isinstance(error, TinysvcError) or isinstance(error, RemoteError):
        observe_error(error)
        text = str(error) if isinstance(error, RemoteError) else author_traceback(error)
        log.error("the call of %s (request %s) failed: %s", handler, request_id, indented(text))
    status = known.status if known.status != 499 else 500
    headers = {name.lower(): value for name, value in known.headers}
    members = {**known.problem(), "status": status}
    return _failure(status, headers, members, {"service": service})
