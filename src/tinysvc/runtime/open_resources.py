"""io resources are opened, held and closed, for the whole server or around each request."""

from __future__ import annotations

import asyncio
import inspect
import logging
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import Context, copy_context
from functools import partial
from types import MappingProxyType
from typing import Any

from ..binding.binder import Binder, HeadCheck
from ..core.context_variables import SavedVariables, restore
from ..core.errors import TinysvcError, UnencodableResult
from ..core.requests import Request
from ..core.responses import Handler, Response
from ..core.shutdown import MIN_STEP_TIME, awake_timeout, exit_guard
from ..core.threads import in_thread
from ..core.tracebacks import author_traceback, indented, observe_error
from ..service.resources import Resources, binders_of, open_resource, resource_key
from ..service.routes import Given, Resource
from .limits import within_time
from .own_task import OwnTask

log = logging.getLogger("tinysvc")


NOTHING: Mapping[str, Any] = MappingProxyType({})


class ResourceFailed(TinysvcError):
    """An io_resource raised while it was opened. The message ends with the author's part of the traceback."""


async def open_once(
    stack: AsyncExitStack,
    resources: Resources,
    opened: dict[Any, Any],
    lost: set[str],
    seconds_left: Callable[[], float],
    made: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """Open io resources for the whole server, and return their values by name.

    Args:
        stack: Closes them.
        resources: The resources, in the order of need.
        opened: Values of the resources that are open already; gets the new ones.
        lost: Gets the names of resources that end before the server does.
        seconds_left: How long they may take to close.
        made: Values that the service makes for parameters of the route and its resources; they are returned, too.
    """
    keys: dict[str, Any] = dict.fromkeys(made)
    values: dict[str, Any] = dict(made)
    for name, resource in resources.items():
        key, arguments = resource_key(resource.function, keys, values)
        if key not in opened:
            opened[key] = await _open(stack, resource.function, arguments, lost, seconds_left)
        keys[name], values[name] = key, opened[key]
    return values


async def _open(
    stack: AsyncExitStack,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    lost: set[str],
    seconds_left: Callable[[], float],
) -> Any:
    own = AsyncExitStack()
    stack.push_async_callback(_close_logged, function, own, seconds_left)
    try:
        if inspect.isasyncgenfunction(function):
            held = HeldOpen(function, arguments, lost)
            own.push_async_callback(held.close)
            value = await held.open()
        else:
            value = open_resource(own, function, arguments)
            value = await value if inspect.isawaitable(value) else value
    except Exception as error:
        raise ResourceFailed(f"the resource {function.__name__} cannot be opened:\n{author_traceback(error)}") from None
    return value


class HeldOpen:
    """An async generator that is open in its own task.

    A task group or a timeout around its `yield` cancels the task that has entered it, which must not be the server's.
    """

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any], lost: set[str]) -> None:
        self._function = function
        self._arguments = arguments
        self._lost = lost
        self._opened: asyncio.Future[tuple[Any, Context]] = asyncio.get_running_loop().create_future()
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> Any:
        """Open it and return its value. Raises the error of the generator before its `yield`."""
        self._task = asyncio.create_task(self._hold())
        value, context = await self._opened
        restore(context)  # context variables that it has set are set in the server
        return value

    async def _hold(self) -> None:
        try:
            async with asynccontextmanager(self._function)(**self._arguments) as value:
                if not self._opened.done():
                    self._opened.set_result((value, copy_context()))
                    await self._closing.wait()
        except BaseException as error:  # SystemExit, too: it would end the loop
            if not self._opened.done():
                self._opened.set_exception(error)
            elif self._closing.is_set() and isinstance(error, asyncio.CancelledError):
                pass  # `_close_logged` reports the timeout
            elif self._closing.is_set():
                _log_failure(self._function, "cannot be closed", error)
            else:
                self._report_loss("failed, and is closed while the server runs", error)
        else:
            if not self._closing.is_set():
                self._report_loss("was cancelled, and is closed while the server runs", None)

    def _report_loss(self, words: str, error: BaseException | None) -> None:
        self._lost.add(self._function.__name__)
        _log_failure(self._function, words, error)

    async def close(self) -> None:
        """Close the generator in its task, and wait for that."""
        self._closing.set()
        if self._task is not None:
            if not self._opened.done() or self._opened.cancelled():
                self._task.cancel()
            try:
                await asyncio.wait([self._task])
            except asyncio.CancelledError:  # it takes too long
                self._task.cancel()
                await asyncio.wait([self._task], timeout=MIN_STEP_TIME / 2)
                raise


def _log_failure(function: Callable[..., Any], words: str, error: BaseException | None) -> None:
    text = f"the resource {function.__name__} {words}"
    if error is not None:
        observe_error(error)
        text += f":\n{author_traceback(error)}"
    log.error("%s", indented(text))


async def _close_logged(function: Callable[..., Any], own: AsyncExitStack, seconds_left: Callable[[], float]) -> None:
    """Close one resource. A failure or a timeout is logged; the other resources are closed all the same."""
    seconds = max(MIN_STEP_TIME, seconds_left())
    late = f"the resource {getattr(function, '__name__', function)} was not closed within shutdown_timeout"
    exit_guard.limit_step(seconds + MIN_STEP_TIME, late)
    limit = asyncio.timeout(None)
    try:
        async with awake_timeout(seconds) as limit:
            await own.aclose()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        if isinstance(error, TimeoutError) and limit.expired():
            log.error("%s; its cleanup was cancelled", late)
        else:
            _log_failure(function, "cannot be closed", error)
    finally:
        exit_guard.end_step()


Opener = Callable[[AsyncExitStack, dict[str, Any]], Awaitable[Any]]


class Scope:
    """The resources that a route opens for each request, around its handler.

    Nothing is opened for a request with a wrong parameter, of a resource or of the handler.

    Args:
        resources: The resources, in the order of need.
        binder: The binder of the handler.
        once: Values of the resources that are open for the whole server.
        sent: Send the values to a worker, pickled.
        timeout: Seconds for opening and the handler; closing does not count.
        apart: Run the request in its own task, because middleware may cancel it, too.
    """

    def __init__(
        self,
        resources: Resources,
        binder: Binder,
        once: Mapping[str, Any],
        *,
        sent: bool,
        timeout: float | None = None,
        apart: bool = False,
    ) -> None:
        known = {*resources, *once}
        self._steps = [(name, _bound(each, known), _opener(each.function)) for name, each in resources.items()]
        self._once = once
        self._names = sorted(resources.keys() & binder.resources)
        self._check = HeadCheck([*binders_of(resources, known), binder])
        self._sent = sent  # to a worker, by value
        self._timeout = timeout
        self._apart = apart and any(_needs_closing(each.function) for each in resources.values())

    def around(self, handler: Handler) -> Handler:
        async def handle(request: Request, own_task: OwnTask | None = None) -> Response:
            self._check(request)
            stack = AsyncExitStack()
            try:
                if self._timeout is None and request.time_limit is None:
                    response = await self._respond(stack, handler, request)
                else:  # only around this: the deadline does not cancel the closing
                    response = await within_time(partial(self._respond, stack, handler), request, self._timeout)
            except BaseException as error:
                _protect_closing(request, own_task)
                await _close(stack, error)
                raise  # a resource cannot swallow the error
            if isinstance(response.content, AsyncIterator):
                stack.callback(_protect_closing, request, own_task)  # it runs first when the stream closes
                response.content = OpenStream(response.content, stack)
                return response
            _protect_closing(request, own_task)
            await stack.aclose()
            return response

        async def handle_apart(request: Request) -> Response:
            own_task = OwnTask()
            return await own_task.respond(partial(handle, request, own_task))

        return handle_apart if self._apart else handle

    async def _respond(self, stack: AsyncExitStack, handler: Handler, request: Request) -> Response:
        values = await self._open(stack, request)
        request.resources = self._pickled(values) if self._sent else values
        return await handler(request)

    async def _open(self, stack: AsyncExitStack, request: Request) -> dict[str, Any]:
        values = dict(self._once)
        for name, bind, opener in self._steps:
            values[name] = await opener(stack, bind(request, b"", values))
        return values

    def _pickled(self, values: Mapping[str, Any]) -> bytes:
        try:
            return pickle.dumps({name: values[name] for name in self._names})
        except Exception as error:
            names = ", ".join(self._names)
            raise UnencodableResult(f"the resources {names} of a request cannot be sent to a worker: {error}") from None


def _protect_closing(request: Request, own_task: OwnTask | None) -> None:
    """Resources close now: no disconnect and no timeout may cancel that, for example during a commit."""
    request.on_disconnect = _do_nothing
    if own_task is not None:
        own_task.is_closing = True


def is_closing(request: Request) -> bool:
    """Whether the resources of the request close: from then on a disconnect must not stop its task."""
    return request.on_disconnect is _do_nothing


def _do_nothing() -> None:
    pass


def _bound(resource: Resource, known: Set[str]) -> Callable[[Request, bytes, Mapping[str, Any]], dict[str, Any]]:
    return (lambda *_: {}) if isinstance(resource.function, Given) else Binder(resource.function, (), known).bind


def _opener(function: Callable[..., Any]) -> Opener:
    """How a resource of a request is opened: a `def` runs in a thread, as handlers do."""
    if isinstance(function, Given):
        return _given(function)
    if inspect.isasyncgenfunction(function):
        opened = asynccontextmanager(function)
        return lambda stack, arguments: stack.enter_async_context(opened(**arguments))
    if inspect.iscoroutinefunction(function):
        return lambda stack, arguments: function(**arguments)
    if inspect.isgeneratorfunction(function):
        return _in_threads(function)
    return lambda stack, arguments: in_thread(partial(function, **arguments))


def _needs_closing(function: Callable[..., Any]) -> bool:
    return inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)


def _given(function: Callable[..., Any]) -> Opener:
    async def enter(stack: AsyncExitStack, arguments: dict[str, Any]) -> Any:
        return function()

    return enter


def _in_threads(function: Callable[..., Any]) -> Opener:
    opened = contextmanager(function)

    async def enter(stack: AsyncExitStack, arguments: dict[str, Any]) -> Any:
        context = opened(**arguments)

        async def close(*error: Any) -> bool | None:
            return await in_thread(partial(context.__exit__, *error), always=True)  # type: ignore[no-any-return]

        def open_it() -> Any:
            value = context.__enter__()
            stack.push_async_exit(close)  # here, as a disconnect may end the waiting for the value
            return value

        return await in_thread(open_it)

    return enter


class OpenStream:
    """A stream that closes the resources of its request after its last piece, or when it is aborted."""

    def __init__(self, pieces: AsyncIterator[bytes], stack: AsyncExitStack) -> None:
        self._pieces = pieces
        self._stack = stack
        self._variables = SavedVariables()  # as the handler has set them

    def __aiter__(self) -> OpenStream:
        return self

    async def __anext__(self) -> bytes:
        self._variables.restore()
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            await self._stack.aclose()
            raise
        except BaseException as error:
            await _close(self._stack, error)
            raise

    def tail(self) -> bytes:
        """The bytes that a compressed stream sends at its end, also if it is ended early."""
        return self._pieces.tail() if hasattr(self._pieces, "tail") else b""

    async def aclose(self) -> None:
        """Close the resources with ConnectionAbortedError: the stream was aborted, so they must not commit."""
        self._variables.restore()
        await self._close_with(ConnectionAbortedError("the stream was aborted before its end"))

    async def fail(self, error: BaseException) -> None:
        """Close it because of an error between two pieces, and raise that error."""
        await self._close_with(error)
        raise error

    async def _close_with(self, error: BaseException) -> None:
        try:
            if close := getattr(self._pieces, "aclose", None):
                await close()
        finally:
            await _close(self._stack, error)


async def _close(stack: AsyncExitStack, error: BaseException) -> None:
    """Throw the error into the open generators. It cannot be swallowed; another error from them is raised."""
    try:
        await stack.__aexit__(type(error), error, error.__traceback__)
    except BaseException as other:
        if other is not error:
            raise
