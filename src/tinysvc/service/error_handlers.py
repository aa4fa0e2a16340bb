"""Error handlers: functions of the author that turn an exception of a handler into a response, by its type.

The error handlers of a service also apply to the services inside it, after their own. An exception of a cpu handler is
handled in its worker, an error of the job itself (QueueFull, WorkerDied, ...) in the server. An exception that a
pool raises in an io handler is handled in the server, by the type that it had in the worker.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..binding.results import encode_result
from ..core.errors import ConfigurationError, HTTPError, JobAbandoned, RemoteError, TinysvcError
from ..core.requests import Request
from ..core.responses import Handler, Response, problem_response
from ..core.tracebacks import author_traceback, indented, observe_error
from .route_options import takes_two

log = logging.getLogger("tinysvc")

ErrorHandler = Callable[[Request, Any], Response | HTTPError]
"""`def f(request, error)`: returns a Response, or returns or raises an HTTPError."""

ErrorHandlers = Mapping[type[Exception], ErrorHandler]


def checked(handlers: Mapping[Any, Any]) -> dict[type[Exception], ErrorHandler]:
    """The error handlers of a service. ConfigurationError for a key that is no exception type, or no plain function."""
    if not isinstance(handlers, Mapping):
        raise ConfigurationError(f"error_handlers takes a mapping, as in {{KeyError: missing}}, not {handlers!r}")
    for kind, handler in handlers.items():
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise ConfigurationError(
                f"error_handlers takes types of exceptions, as in {{KeyError: missing}}, not {kind!r}"
            )
        if not takes_two(handler) or inspect.iscoroutinefunction(handler):
            raise ConfigurationError(
                f"the error handler of {kind.__name__} must be a plain function, as in "
                f"def missing(request, error): return Response(...), not {handler!r}; it may run in a worker"
            )
    return dict(handlers)


def handled_error(error: Exception, request: Request, handlers: ErrorHandlers) -> Response | None:
    """The response of the error handler for the nearest base class of the error; None if there is none."""
    original = getattr(error, "original", None) or error  # a RemoteError has the worker's exception
    handler = next((handlers[kind] for kind in type(original).__mro__ if kind in handlers), None)
    if handler is None:
        return None
    result: object
    try:
        result = handler(request, original)
    except HTTPError as raised:
        result = raised
    response = problem_response(result, request) if isinstance(result, HTTPError) else result
    if not isinstance(response, Response):
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"the error handler {name} returned {result!r}; return a Response or an HTTPError")
    is_expected = isinstance(original, TinysvcError) and not isinstance(original, RemoteError)
    if response.status >= 500 and not is_expected:  # a bug is logged, even if its response hides it
        observe_error(error)
        words = "%s %s (request %s) gets a %d from an error handler: %s"
        shown = indented(author_traceback(error))
        log.error(words, request.method, request.raw_path, request.id, response.status, shown)
    return encode_result(response)


def with_error_handlers(handler: Handler, handlers: ErrorHandlers, kind: str) -> Handler:
    """`handler` with error handlers around it. The worker has handled the exceptions of a cpu handler already."""
    unhandled = (JobAbandoned, RemoteError) if kind == "cpu" else JobAbandoned

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except unhandled:
            raise
        except Exception as error:
            response = handled_error(error, request, handlers)
            if response is None:
                raise
            return response

    return handle
