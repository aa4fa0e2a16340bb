"""An error becomes a response: its status and detail for the client, everything else for the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TypeVar

from ..core import forks
from ..core.call_errors import BudgetExhausted, CallFailed
from ..core.errors import (
    ConfigurationError,
    DeadlineExceeded,
    HTTPError,
    JobAbandoned,
    JobRefused,
    NoRoute,
    RemoteError,
    TinysvcError,
    UnencodableResult,
    WorkerDied,
)
from ..core.log_records import SOURCE, source_here
from ..core.requests import Request
from ..core.responses import Response, problem_response
from ..core.tracebacks import author_traceback, indented, observe_error
from ..service.error_handlers import ErrorHandlers, handled_error
from ..service.router import allow

log = logging.getLogger("tinysvc")

T = TypeVar("T")


def error_response(
    error: BaseException, request: Request, error_handlers_under: Mapping[str, ErrorHandlers]
) -> Response:
    """The response to an error that left the handler of a request, or that there is no route.

    Args:
        error: Also SystemExit and KeyboardInterrupt: a handler must not end the server.
        request: The request.
        error_handlers_under: Error handlers by the prefix of their service, for a request without a route.

    Raises:
        CancelledError: The request's task is cancelled.
        ConnectionAbortedError: The client has disconnected.
    """
    if forks.in_child:
        forks.end_child(error)
    if isinstance(error, NoRoute) and request.method != "OPTIONS":
        try:
            error_handlers = of_longest_prefix(error_handlers_under, request.raw_path) or {}
            if response := handled_error(error, request, error_handlers):
                return response
        except Exception as raised_by_handler:
            return _logged(raised_by_handler, request)
    if isinstance(error, NoRoute) and request.method == "OPTIONS":
        if error.status == 405:
            return Response(b"", 204, error.headers)
        if request.raw_path == "*":
            return Response(b"", 204, [("allow", allow(("GET", "POST", "PUT", "PATCH", "DELETE")))])
    if isinstance(error, HTTPError):
        try:
            return problem_response(error, request)
        except ValueError as bad_header:
            return _logged(bad_header, request)
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise error
        return _logged(RuntimeError("the handler raised CancelledError, but nothing cancelled it"), request)
    return _logged(error, request)


def of_longest_prefix(by_prefix: Mapping[str, T], path: str) -> T | None:
    """The value of the longest prefix that the path begins with, or None."""
    prefixes = [prefix for prefix in by_prefix if path == prefix or path.startswith(prefix + "/")]
    return by_prefix[max(prefixes, key=len)] if prefixes else None


def _logged(error: BaseException, request: Request) -> Response:
    """Log the error with its details; the response has only what the client may know."""
    if isinstance(error, JobAbandoned):
        raise ConnectionAbortedError(str(error)) from None
    observe_error(error)
    level, text = _log_line(error)
    if text:
        source, line = source_here(), "%s %s (request %s): %s"
        summary, _, details = text.partition("\n")
        source.message, source.exception = f"{request.method} {request.raw_path}: {summary}", details.strip("\n")
        arguments = request.method, request.raw_path, request.id, indented(text)
        log.log(level, line, *arguments, extra={SOURCE: source})
    return problem_response(error if isinstance(error, TinysvcError) else TinysvcError(), request)


def _log_line(error: BaseException) -> tuple[int, str]:
    """Level and text of the log line; no text for errors of a busy server, such as QueueFull."""
    if isinstance(error, (RemoteError, UnencodableResult, ConfigurationError)):
        return logging.ERROR, str(error)
    if isinstance(error, (WorkerDied, JobRefused, DeadlineExceeded)):
        return logging.ERROR, f"{error.status}, {error}"
    if isinstance(error, BudgetExhausted):
        return logging.INFO, f"{error.status}, {error}"
    if isinstance(error, CallFailed):
        return logging.ERROR, f"{error.status}, a call failed: {error}"
    if not isinstance(error, TinysvcError):
        return logging.ERROR, f"the handler failed\n{author_traceback(error)}"
    return logging.DEBUG, ""
