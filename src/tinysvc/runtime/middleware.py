"""Middleware at work: what an author puts around handlers, as `async def m(request, call_next)`.

    request ──> middleware ──> call_next ──> handler
    answer  <── middleware <── response  <──────┘

What it answers is encoded as a handler's result is. A stream or a file that `call_next` gave is closed whatever comes
of it, also where middleware answers something else, or with a stream of its own around it: nobody else knows of it, and
a job that streams is stopped by nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from ..binding.results import begin_result, encode_result
from ..core.messages import Handler, Middleware, Request, Response, close_content
from .open_resources import OpenStream


def around(middleware: Middleware, handler: Handler) -> Handler:
    """The handler with the middleware around it."""
    name = getattr(middleware, "__qualname__", type(middleware).__qualname__)

    async def handle(request: Request) -> Response:
        given: list[Any] = []  # contents of responses

        async def call_next(request: Request) -> Response:
            response = await handler(request)
            given.append(response.content)
            return response

        try:
            answer: Any = middleware(request, call_next)
            if isinstance(answer, Response):
                raise TypeError(f"the middleware {name} is no async def; write async def {name}(request, call_next)")
            response = await answer
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
    """As it can be sent: what it has from `call_next` is so already."""
    if isinstance(response.content, (bytes, AsyncIterator)) and not inspect.isasyncgen(response.content):
        return response
    return await begin_result(encode_result(response), "")


async def _replace(given: list[Any], response: Response) -> None:
    """The response has other content than was given: that one's length is not its, and it is closed, or behind this."""
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
