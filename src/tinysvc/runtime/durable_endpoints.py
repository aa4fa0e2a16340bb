"""The worker's side of a job route: one attempt of a durable job, from its stored request to its response or failure.

The request was bound once before, in the server, when it was accepted. So a fault of the binding is a change of the
code since then. The end of an attempt decides its consequence:

    the lease of its server is over       not-started               repeated; the attempt does not count
    the request does not bind             arguments-no-longer-fit   failed; the attempt does not count
    job.saved cannot be unpickled         saved-unreadable          failed; the attempt does not count
    HTTPError below 500                   error                     failed, with the problem of the error
    any other exception                   error                     repeated after a pause
    the result is no single response      unencodable               failed
    otherwise                             succeeded                 the response is stored

An error handler of the author makes the response of an exception, as for a request: below 400 it is the result.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from ..binding.binder import Binder
from ..binding.compressed_bodies import typed_body
from ..binding.inputs import Body
from ..binding.results import encode_result
from ..core.budget import Deadline, current
from ..core.call_errors import CallFailed
from ..core.errors import HTTPError, TinysvcError, UnencodableResult
from ..core.job_errors import NoLongerFits, UnreadableSave
from ..core.request_context import current_attempt, request_id, route_name
from ..core.requests import Request
from ..core.responses import PROBLEM, FileContent, Response, check_headers, problem_response
from ..pool.program import JobFunction, Reply
from ..pool.questions import asking
from ..pool.remote_errors import error_text
from .cpu_messages import AttemptFailure, DurableMessage, DurableReply
from .endpoint_parts import Endpoint, Values, error_response_of, request_of
from .job import Attempt

MAX_DETAIL = 2000
"""Characters of an exception's text that the record of an attempt keeps."""

MAX_PROBLEM = 64 * 1024
"""Bytes of a problem document that the record of a job keeps: each list of jobs reads it."""

UNREADABLE, ERROR, UNENCODABLE = "saved-unreadable", "error", "unencodable"
NOT_STARTED = "not-started"


def attempts_of(endpoint: Endpoint, resources: Values) -> JobFunction:
    """The function that runs one attempt of a durable job. `resources` are open."""
    durable = endpoint.durable
    assert durable is not None
    bind = _binding(endpoint, resources)

    def run_job(message: DurableMessage, body: Body) -> Reply:
        if message.start_by is not None and time.clock_gettime(time.CLOCK_BOOTTIME) >= message.start_by:
            return _too_late()
        ask = asking.get()
        assert ask is not None  # checks.py refuses a pool that has no channel for questions
        saved = body[message.size :] if message.has_saved else None
        job = Attempt(message.job_id, message.attempt, ask, saved, durable.discards_unreadable)
        content = body[: message.size]
        request = request_of(message.request, content, False)
        request_id.set(message.request.id)
        route_name.set(f"job {endpoint.path}")
        current_attempt.set((message.job_id, message.attempt))
        current.set(Deadline(message.request.deadline, request))
        try:
            with job.of(request):
                response = _whole(encode_result(endpoint.function(**bind(request, content))), durable.max_result_size)
        except MemoryError:  # the worker's state is unknown; it is replaced
            raise
        except Exception as error:
            return _failed(error, request, endpoint, durable.max_result_size)
        return _succeeded(response)

    return run_job


def _too_late() -> Reply:
    """The attempt has waited in its pool while the server was stopped. A pool knows no leases."""
    detail = "the attempt waited for a worker until the lease of its server was over"
    failure = AttemptFailure(NOT_STARTED, detail, False, False, TinysvcError().problem())
    return Reply(DurableReply(500, None, [], failure), b"")


def _binding(endpoint: Endpoint, resources: Values) -> Callable[[Request, Body], dict[str, Any]]:
    names = {*resources, *endpoint.request_resources}
    binder = Binder(endpoint.function, endpoint.path_parameters, names)
    kind, limit = binder.body_kind, endpoint.max_body_size

    def bind(request: Request, body: Body) -> dict[str, Any]:
        try:
            values = resources if request.resources is None else {**resources, **pickle.loads(request.resources)}
            if missing := [name for name in binder.resources if name not in values]:
                raise LookupError(f"its resource {', '.join(missing)} is new")
        except MemoryError:
            raise
        except Exception as error:
            raise NoLongerFits("The stored request does not fit the handler.") from error
        try:
            return binder.bind(request, typed_body(request, body, kind, limit), values)
        except HTTPError as error:
            raise NoLongerFits("The stored request does not fit the handler.") from error

    return bind


def _whole(response: Response, max_size: int) -> Response:
    """The response. UnencodableResult if it is a stream or a file, or too big."""
    if not isinstance(response.content, (bytes, memoryview)):
        if isinstance(response.content, FileContent):
            response.content.file.close()
        raise UnencodableResult(
            "the result of a durable job is stored as a whole, but this is a stream or a file; return a list or bytes"
        )
    if (size := len(response.content)) > max_size:
        raise UnencodableResult(f"the result has {size} bytes; max_result_size is {max_size}")
    check_headers(response)
    return response


def _succeeded(response: Response) -> Reply:
    return Reply(DurableReply(response.status, response.content_type, response.headers), response.content)


def _failed(error: Exception, request: Request, endpoint: Endpoint, max_size: int) -> Reply:
    unknown = problem_response(TinysvcError(), request)
    if isinstance(error, NoLongerFits):
        return _failure(error.kind, error.__cause__ or error, problem_response(error), is_final=True, counts=False)
    if isinstance(error, (UnreadableSave, UnencodableResult)):
        cause_name = UNREADABLE if isinstance(error, UnreadableSave) else UNENCODABLE
        return _failure(cause_name, error, unknown, is_final=True, counts=cause_name != UNREADABLE)
    try:
        response = error_response_of(error, request, endpoint.error_handlers)
        if response is not None:
            response = _whole(response, max_size)
    except MemoryError:
        raise
    except Exception as of_handler:  # of the author's error handler
        return _failure(ERROR, of_handler, unknown)
    if response is None:
        return _failure(ERROR, error, unknown)
    if response.status < 400:
        return _succeeded(response)
    return _failure(ERROR, error, response, is_final=response.status < 500)


def _failure(
    cause: str, error: BaseException, response: Response, *, is_final: bool = False, counts: bool = True
) -> Reply:
    text = error_text(error)
    detail = f"{text.type_name}: {text.message}"[:MAX_DETAIL]
    is_known = is_final and isinstance(error, HTTPError)
    failure = AttemptFailure(
        cause, detail, is_final, counts, _problem(response), None if is_known or isinstance(error, CallFailed) else text
    )
    return Reply(DurableReply(response.status, None, [], failure), b"")


def _problem(response: Response) -> dict[str, Any]:
    """The problem document (RFC 9457) of an error's response; of an author's own response, one with its status."""
    if response.content_type == PROBLEM and len(response.content) <= MAX_PROBLEM:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(response.content, type=dict[str, Any])
    error = TinysvcError()
    error.status = response.status
    return error.problem()
