"""Error handlers: what a service's author answers where a handler has raised, by the exception's type.

They stand around the handlers of a service and of those inside it; the inner one's are asked first. What a cpu handler
raises is answered in its worker, what befalls the job (QueueFull, WorkerDied, ...) in the server. What `cpu(...)` or a
pool raises in an io handler is answered in the server, by the type that the exception had in its worker.
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
"""`def f(request, error)`: returns, or raises, what the client gets."""

ErrorHandlers = Mapping[type[Exception], ErrorHandler]


def checked(handlers: Mapping[Any, Any]) -> dict[type[Exception], ErrorHandler]:
    """ConfigurationError for what is no type of exception, or no plain function."""
    if not isinstance(handlers, Mapping):
        raise ConfigurationError(f"error_handlers takes a mapping, as in {{KeyError: missing}}, not {handlers!r}")
    for kind, handler in handlers.items():
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise ConfigurationError(
                f"error_handlers takes types of exceptions, as in {{KeyError: missing}}, not {kind!r}"
            )
        if not takes_two(handler) or inspect.iscoroutinefunction(handler):
            raise ConfigurationError(
                f"the error handler of {kind.__name__} is a plain function, as in "
                f"def missing(request, error): return Response(...), not {handler!r}; it may run in a worker"
            )
    return dict(handlers)


def answer_to(error: Exception, request: Request, handlers: ErrorHandlers) -> Response | None:
    """What the handler of the nearest type makes of it; None if there is none."""
    original = getattr(error, "original", None) or error  # of a RemoteError
    handler = next((handlers[kind] for kind in type(original).__mro__ if kind in handlers), None)
    if handler is None:
        return None
    answer: object
    try:
        answer = handler(request, original)
    except HTTPError as raised:
        answer = raised
    response = problem_response(answer, request) if isinstance(answer, HTTPError) else answer
    if not isinstance(response, Response):
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"the error handler {name} returned {answer!r}; return a Response or an HTTPError")
    is_foreseen = isinstance(original, TinysvcError) and not isinstance(original, RemoteError)
    if response.status >= 500 and not is_foreseen:  # a fault is a fault, however it is worded
        observe_error(error)
        words = "%s %s (request %s) is answered %d: %s"
        shown = indented(author_traceback(error))
        log.error(words, request.method, request.raw_path, request.id, response.status, shown)
    return encode_result(response)


def with_error_handlers(handler: Handler, handlers: ErrorHandlers, kind: str) -> Handler:
    """`handler`, whose errors are answered. What a cpu handler has raised, its worker has asked them about."""
    passed_on = (JobAbandoned, RemoteError) if kind == "cpu" else JobAbandoned

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except passed_on:
            raise
        except Exception as error:
            response = answer_to(error, request, handlers)
            if response is None:
                raise
            return response

    return handle
