"""An io handler's function -> a Handler: bind, call, encode. What it has no need of is decided here, at start-up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from threading import Lock, get_ident
from typing import Any

from . import current, forks
from .binding import Binder, is_packed
from .codings import unpack_body
from .contexts import Threads
from .ending import watch
from .forms import parse_form
from .messages import DRAINED, FileContent, Handler, Request, Response
from .results import begin_stream, encode_result

Bind = Callable[[Request, bytes], Mapping[str, Any]]


def io_handler(
    function: Callable[..., Any], binder: Binder, resources: Mapping[str, Any], max_body_size: int, *, scoped: bool
) -> Handler:
    """What answers an io route: `async def` on the loop, `def` in a thread.

    `resources` are the values of those that the whole server has; with `scoped`, the request brings all it needs as
    `request.resources`. A typed body may unpack to `max_body_size` bytes.
    """
    bind = _bound(binder, resources, scoped)
    arguments_of = (
        _with_form(bind, max_body_size) if binder.body_kind == "form" else _with_body(bind, binder, max_body_size)
    )
    binds, stream_type = bool(binder.parameters), binder.stream_type
    if inspect.iscoroutinefunction(function) and binds and not binder.body_kind:

        async def handle_parameters(request: Request) -> Response:
            response = encode_result(await function(**bind(request, b"")))
            return response if type(response.content) is bytes else await begin_result(response, stream_type)

        return handle_parameters
    if inspect.iscoroutinefunction(function):

        async def handle(request: Request) -> Response:
            response = encode_result(await (function(**await arguments_of(request)) if binds else function()))
            return response if type(response.content) is bytes else await begin_result(response, stream_type)

        return handle
    is_stream = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)
    if not is_stream:
        from anyio.to_thread import current_default_thread_limiter

        current_default_thread_limiter()  # loads what runs threads: the first request must not wait for that

    async def handle_plain(request: Request) -> Response:
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
        if is_packed(request):
            header, body = request.headers["content-encoding"], await request.body()
            whole = await in_thread(partial(unpack_body, header, body, max_body_size))
            request.form_data = await in_thread(partial(parse_form, request.headers.get("content-type", ""), whole))
        else:
            await request.form()
        return bind(request, b"")

    return arguments_of


def _with_body(bind: Bind, binder: Binder, max_body_size: int) -> Callable[[Request], Any]:
    needs_body, typed = bool(binder.body_kind), binder.body_kind == "json"

    async def arguments_of(request: Request) -> Mapping[str, Any]:
        body = await request.body() if needs_body else b""
        if typed and is_packed(request):
            body = await in_thread(partial(unpack_body, request.headers["content-encoding"], body, max_body_size))
        return bind(request, body)

    return arguments_of


def told_of_disconnect(handler: Handler, cancels: bool) -> Handler:
    """A handler whose route says what happens when its client leaves."""

    async def handle(request: Request) -> Response:
        task = asyncio.current_task()
        request.on_disconnect = task.cancel if cancels and task is not None else lambda: None
        return await handler(request)

    return handle


async def in_thread(function: Callable[[], Any], *, always: bool = False, limiter: Any = None) -> Any:
    """What `function` returns. Who is cancelled waits for a thread that has begun: what it uses must stay open so long.

    One that has not begun, never does; but with `always` it does all the same, in a thread beside those that handlers
    wait for: what closes a resource. `limiter` is anyio's, in the place of the one of all handlers.
    """
    from anyio import CancelScope, CapacityLimiter  # only services with `def` handlers pay for the import
    from anyio.to_thread import run_sync

    turn = Lock()  # whoever has it came first: the thread or the cancellation
    limiter = CapacityLimiter(1) if always else limiter
    threads = Threads.of(asyncio.current_task())
    work = asyncio.ensure_future(
        run_sync(partial(_outcome, threads.within(function), turn, current.connection()), limiter=limiter)
    )
    try:
        result, failure = await asyncio.shield(work)
    except asyncio.CancelledError as error:
        if not always and turn.acquire(blocking=False):
            work.cancel()
        elif not always and DRAINED in error.args:
            watch.left_thread = True  # it may never return
        else:
            with CancelScope(shield=True):  # a scope of anyio's cancels again and again
                await asyncio.wait([work])
            threads.copy_back()
        raise
    threads.copy_back()
    if failure is None:
        return result
    try:
        raise failure
    finally:
        del failure, work  # which lead to this frame


def _outcome(
    function: Callable[[], Any], turn: Lock, connection: current.Serves | None
) -> tuple[Any, BaseException | None]:
    """What it returns, or raises: the SystemExit of a task would end the loop."""
    if not turn.acquire(blocking=False):
        return None, None  # to nobody
    if connection:
        current.by_thread[get_ident()] = connection
    try:
        result = function()
    except BaseException as error:
        if forks.in_child:
            forks.end_of_child(error)
        return None, error
    finally:
        current.by_thread.pop(get_ident(), None)
    if forks.in_child:
        forks.end_of_child()
    return result, None


async def begin_result(response: Response, stream_type: str) -> Response:
    """A result as it can be sent: bytes and files as they are, of an iterator the first item is fetched."""
    items = response.content
    if isinstance(items, (bytes, memoryview, FileContent)):
        return response
    if isinstance(items, Iterator):
        items = _iterate_in_thread(items)
    return await begin_stream(response, items, stream_type)


async def _iterate_in_thread(items: Iterator[Any]) -> AsyncIterator[Any]:
    end = object()
    try:
        while (item := await in_thread(partial(next, items, end))) is not end:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None and not getattr(items, "gi_running", False):  # a drain has left its thread behind
            await in_thread(close, always=True)
