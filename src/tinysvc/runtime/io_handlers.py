"""An io route's function becomes a Handler: bind, call, encode. Unneeded steps are left out at start-up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..binding.binder import Binder
from ..binding.compressed_bodies import is_compressed, typed_body
from ..binding.results import begin_result, encode_result
from ..core.requests import Request
from ..core.responses import Handler, Response
from ..core.threads import in_thread
from .limits import within_time

Bind = Callable[[Request, bytes], Mapping[str, Any]]


def io_handler(
    function: Callable[..., Any], binder: Binder, resources: Mapping[str, Any], max_body_size: int, *, scoped: bool
) -> Handler:
    """The handler of an io route: an `async def` function runs on the loop, a `def` function in a thread.

    Args:
        function: The author's function.
        binder: Binds its parameters.
        resources: Values of the resources that are open for the whole server.
        max_body_size: Bytes that a compressed JSON or form body may have when it is decompressed.
        scoped: The resources are in `request.resources` instead, as some are opened for each request.
    """
    bind = _bound(binder, resources, scoped)
    arguments_of = (
        _with_form(bind, max_body_size) if binder.body_kind == "form" else _with_body(bind, binder, max_body_size)
    )
    binds, stream_type = bool(binder.parameters), binder.stream_type
    if inspect.iscoroutinefunction(function) and binds and not binder.body_kind:

        async def handle_parameters(request: Request) -> Response:
            if request.time_limit is not None and not request.is_timed:
                return await within_time(handle_parameters, request)
            response = encode_result(await function(**bind(request, b"")))
            return response if type(response.content) is bytes else await begin_result(response, stream_type)

        return handle_parameters
    if inspect.iscoroutinefunction(function):

        async def handle(request: Request) -> Response:
            if request.time_limit is not None and not request.is_timed:
                return await within_time(handle, request)
            response = encode_result(await (function(**await arguments_of(request)) if binds else function()))
            return response if type(response.content) is bytes else await begin_result(response, stream_type)

        return handle
    is_stream = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    if not is_stream:
        from anyio.to_thread import current_default_thread_limiter

        current_default_thread_limiter()  # imports anyio's threads now, not during the first request

    async def handle_plain(request: Request) -> Response:
        if request.time_limit is not None and not request.is_timed:
            return await within_time(handle_plain, request)
        call = partial(function, **await arguments_of(request) if binds else {})
        response = encode_result(call() if is_stream else await in_thread(call))
        return response if type(response.content) is bytes else await begin_result(response, stream_type)

    return handle_plain


def _bound(binder: Binder, resources: Mapping[str, Any], scoped: bool) -> Bind:
    bind = binder.bind
    if scoped:
        return lambda request, body: bind(request, body, request.resources or {})
    return lambda request, body: bind(request, body, resources)


def _with_form(bind: Bind, max_body_size: int) -> Callable[[Request], Any]:
    async def arguments_of(request: Request) -> Mapping[str, Any]:
        if is_compressed(request):
            body = await request.body()
            await in_thread(partial(typed_body, request, body, "form", max_body_size))
        else:
            await request.form()
        return bind(request, b"")

    return arguments_of


def _with_body(bind: Bind, binder: Binder, max_body_size: int) -> Callable[[Request], Any]:
    needs_body, typed = binder.body_kind not in ("", "stream"), binder.body_kind == "json"

    async def arguments_of(request: Request) -> Mapping[str, Any]:
        body = await request.body() if needs_body else b""
        if typed and is_compressed(request):
            body = await in_thread(partial(typed_body, request, body, "json", max_body_size))
        return bind(request, body)

    return arguments_of


def with_on_disconnect(handler: Handler, cancels: bool) -> Handler:
    """`handler` of a route with `on_disconnect`: a disconnect cancels its task, or does nothing."""

    async def handle(request: Request) -> Response:
        task = asyncio.current_task()
        request.on_disconnect = task.cancel if cancels and task is not None else lambda: None
        return await handler(request)

    return handle
