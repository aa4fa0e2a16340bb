"""What a worker knows of a route, and what its requests, calls and durable jobs have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..binding.inputs import Body
from ..core.call_errors import BudgetExhausted, CallFailed
from ..core.errors import HTTPError
from ..core.headers import Headers
from ..core.requests import Request
from ..core.responses import Response, problem_response
from ..service.error_handlers import ErrorHandler, ErrorHandlers, handled_error
from ..wire.codings import restore_tags
from .cpu_messages import RequestMessage

if TYPE_CHECKING:
    from ..service.routes import Batch
    from .messages import Messages

log = logging.getLogger("tinysvc")

Values = Mapping[str, Any]
"""Of resources, by name."""


class Durable(NamedTuple):
    """What a worker needs to know of a job route."""

    max_result_size: int
    """Bytes."""
    discards_unreadable: bool = False
    """Whether a saved value that cannot be unpickled counts as none."""


class Candidate(NamedTuple):
    """Why an endpoint is there twice: the second one has another version of an artifact open."""

    reference: str
    """Of the artifact, as in "churn@candidate". Without a version of it, the endpoint is as the first one."""
    first: int
    """The position of the first endpoint in the program."""
    compare: Callable[[Any, Any], float] | None = None
    """The author's function of the contents of two responses."""


class Endpoint(NamedTuple):
    """A cpu route as a worker needs it: picklable, by the names of its functions."""

    function: Callable[..., Any]
    path_parameters: tuple[str, ...]
    resources: dict[str, Callable[..., Any]]
    """The resources that the worker opens, in the order of need; a Given needs no opening."""
    shared: frozenset[str] = frozenset()
    """Names of the resources that the forkserver opens."""
    batch: Batch | None = None
    path: str = ""
    """The pattern of its path, with the prefixes of its services."""
    compress: bool = False
    """Whether responses are compressed for clients that accept it."""
    max_body_size: int = 16 * 1024 * 1024
    """Bytes that a compressed body may have when it is decompressed."""
    request_resources: frozenset[str] = frozenset()
    """Names of the resources whose values arrive with each request."""
    error_handlers: dict[type[Exception], ErrorHandler] = {}  # noqa: RUF012 - it is never changed
    has_body: bool = True
    """Whether one of its methods has a body."""
    durable: Durable | None = None
    """Set for a job route."""
    made: Values = {}  # noqa: RUF012 - it is never changed
    """Values that the service makes for parameters of the function and its resources, by name; picklable."""
    is_traced: bool = False
    """Whether spans of its code are sent to the server."""
    artifacts: Mapping[str, Mapping[str, str]] = {}
    """The references of the artifacts that its resources take: by the names of the resource and of its parameter."""
    checks: Mapping[str, Callable[[Any], object]] = {}
    """The checks of its resources, by their names."""
    messages: Messages | None = None
    """Set for a route whose requests and results are messages, as in gRPC."""
    candidate: Candidate | None = None
    """Set if it is the candidate of another endpoint."""


def request_of(message: RequestMessage, body: Body, compresses: bool) -> Request:
    """The request that a message is about. `compresses`: its entity tags may be those of a compressed response."""
    request = Request(
        message.method,
        message.path,
        message.query,
        Headers(message.headers),
        body,
        message.path_params,
        message.peer,
        message.id,
    )
    request.resources = message.resources
    if compresses:
        restore_tags(request)
    return request


def error_response_of(error: Exception, request: Request, error_handlers: ErrorHandlers) -> Response | None:
    """The response of the author's error handlers, or of an HTTPError or a failed call; None for other errors."""
    if error_handlers and (response := handled_error(error, request, error_handlers)):
        return response
    if isinstance(error, (CallFailed, BudgetExhausted)):
        log.error("%s %s (request %s): %d, %s", request.method, request.raw_path, request.id, error.status, error)
        return problem_response(error, request)
    return problem_response(error, request) if isinstance(error, HTTPError) else None
