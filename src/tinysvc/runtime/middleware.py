"""Middleware at work: the author's functions around handlers, `async def m(request, call_next)`.

    request  ──> middleware ──> call_next ──> handler
    response <── middleware <── response <───────┘

The response of middleware is encoded as a handler's result is. A stream or a file that `call_next` has returned is
always closed, also where middleware returns another response, or its own stream around it: nothing else holds it, and
nothing else stops a job that streams.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from ..binding.results import begin_result, encode_result
from ..core.errors import JobAbandoned
from ..core.requests import Request
from ..core.responses import Handler, Middleware, Response, close_content
from .open_resources import OpenStream


def within(
    middleware: Sequence[Middleware],
    handler: Handler,
    error_response: Callable[[BaseException, Request], Response],
) -> Handler:
    """`handler` with the middleware around it, the first outermost; `call_next` returns a response to an error."""
    for each in reversed(middleware):
        handler = around(each, partial(guarded, handler, error_response))
    return handler


async def guarded(
    handler: Handler, error_response: Callable[[BaseException, Request], Response], request: Request
) -> Response:
    """The response of the handler, or the response to the error that it raises."""
    try:
        return await handler(request)
    except JobAbandoned:  # the client has disconnected: RunningService ends the connection, middleware may clean up
        raise
    except BaseException as error:
        return error_response(error, request)


def around(middleware: Middleware, handler: Handler) -> Handler:
    """`handler` with one middleware around it."""
    name = getattr(middleware, "__qualname__", type(middleware).__qualname__)

    async def handle(request: Request) -> Response:
        given: list[Any] = []  # contents of the responses of call_next

        async def call_next(request: Request) -> Response:
            response = await handler(request)
            given.append(response.content)
            return response

        try:
            awaitable: Any = middleware(request, call_next)
            if isinstance(awaitable, Response):
                raise TypeError(f"the middleware {name} is not async; write async def {name}(request, call_next)")
            response = await awaitable
            if not isinstance(response, Response):
                raise TypeError(f"the middleware {name} returned {response!r}; return a Response, as call_next does")
            response = await _finished(response)
        except BaseException:
            await _close(given)
            raise
        if len(given) != 1 or response.content is not given[0]:
            await _replace(given, response)
        return response

    return handle


async def _finished(response: Response) -> Response:
    """The response with its content encoded; a response of `call_next` is encoded already."""
    if isinstance(response.content, (bytes, AsyncIterator)) and not inspect.isasyncgen(response.content):
        return response
    return await begin_result(encode_result(response), "")


async def _replace(given: list[Any], response: Response) -> None:
    """The response has new content: remove the old Content-Length, and close the old content, after a stream's end."""
    others = [each for each in given if each is not response.content]
    if len(others) == len(given):
        response.headers = [field for field in response.headers if field[0].lower() != "content-length"]
    if isinstance(response.content, AsyncIterator):
        stack = AsyncExitStack()
        stack.push_async_callback(_close, others)
        response.content = OpenStream(response.content, stack)
    else:
        await _close(others)


async def _close(contents: list[Any]) -> None:
    for each in contents:
        await close_content(each)
