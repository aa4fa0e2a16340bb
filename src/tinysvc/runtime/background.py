"""Background tasks: work of a request that runs after its response.

add     the handler, or a resource of the request, adds a task with the context variables of that moment
start   after the handler has succeeded, the resources of the request are closed and a stream has ended
drain   the requests end first, then the tasks, then the pools and the resources, within one shutdown_timeout
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from ..core import budget, forks
from ..core.errors import HTTPError
from ..core.request_context import register_task
from ..core.requests import Request
from ..core.responses import Handler, Response
from ..core.shutdown import awake_timeout
from ..core.threads import in_thread
from ..core.tracebacks import INDENT, author_traceback, indented, observe_error
from .open_resources import OpenStream

log = logging.getLogger("tinysvc")

THREADS = 40
"""Tasks of plain `def` that run at one time, besides the threads of handlers, of which anyio allows as many."""

GRACE = 0.5
"""Seconds for the cleanup of tasks that a drain has cancelled."""


class Task(NamedTuple):
    """One function to call, and the request that asked for it."""

    call: partial[Any]
    name: str
    request: Request | None
    context: Context

    def current_request(self) -> Request | None:
        """The request, for its log lines."""
        return self.request


class Background:
    """Tasks of a request that run after its response: a handler, or a resource of the request, takes it as a parameter.

    The tasks of one request start together: once the handler has succeeded, its resources are closed and a stream has
    ended. They run concurrently. They are discarded when the handler fails. A failed task is logged with the id of its
    request. A drain waits for tasks within `shutdown_timeout`. Work that must not be lost is a durable job (`submit`).

    Example:
        ```python
        from tinysvc import Background, io_route

        def send_mail(address: str, subject: str) -> None:
            print(f"to {address}: {subject}")

        @io_route("/orders", methods=["POST"])
        async def order(address: str, background: Background) -> None:
            background.add(send_mail, address, subject="Thank you")
        ```
    """

    for_resources = True
    for_calls = True

    def __init__(self, tasks: BackgroundTasks | None = None, request: Request | None = None) -> None:
        self._tasks = tasks or BackgroundTasks(0)
        self._request = request
        self._added: deque[Task] = deque()
        self._starts = False

    @classmethod
    def of_request(cls, request: Request) -> Background:
        """The one of this request: handler and resources share it."""
        return _of_running.get(request) or cls(None, request)  # in the test of a function, no server starts its tasks

    def add(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Call a function after the response. The task keeps the context variables of this moment.

        Args:
            function: An `async def` runs on the event loop, a `def` in a thread.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Raises:
            TypeError: `function` does not take these arguments, or is a coroutine, a generator function or no function.
            HTTPError: 503, the server has `max_background` tasks (1000) already.
        """
        name = _checked_name(function)
        if inspect.isfunction(function):
            inspect.signature(function).bind(*args, **kwargs)  # an error here still reaches the client
        context = copy_context()
        if budget.current in context:
            context.run(budget.current.set, None)  # the deadline is that of the response
        task = Task(partial(function, *args, **kwargs), name, self._request, context)
        self._tasks.reserve(task)
        self._added.append(task)
        if self._starts:  # added by a task
            self._tasks.loop.call_soon_threadsafe(self.start)

    def start(self) -> None:
        """Start the tasks, and those that are added from now on. Called on the event loop."""
        self._starts = True
        while self._added:
            self._tasks.start(self._added.popleft())

    def discard(self) -> None:
        """Start none of the tasks."""
        while self._added:
            self._tasks.release(self._added.popleft())


_of_running: dict[Request, Background] = {}
"""The Background of each request whose handler runs and takes one."""


class BackgroundTasks:
    """The tasks of all requests of a server: at most `limit` (0: any number), waiting and running."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._known: dict[int, Task] = {}  # by id: tasks that wait for the response, and running tasks
        self._running: dict[asyncio.Task[None], Task] = {}
        self._limiter: Any = None
        self._closed = False

    def around(self, handler: Handler) -> Handler:
        """`handler`; after its response the tasks that it has added start."""

        async def handle(request: Request) -> Response:
            self.loop = asyncio.get_running_loop()
            background = _of_running[request] = Background(self, request)
            try:
                response = await handler(request)
            except BaseException:
                background.discard()
                raise
            finally:
                del _of_running[request]
            if isinstance(response.content, AsyncIterator):
                stack = AsyncExitStack()
                stack.push(partial(_end_of_stream, background))
                response.content = OpenStream(response.content, stack)
            else:
                background.start()
            return response

        return handle

    def reserve(self, task: Task) -> None:
        if self.limit and len(self._known) >= self.limit:
            raise HTTPError(
                503,
                f"The server already has {self.limit} background tasks, its limit (max_background).",
                headers=[("retry-after", "1")],
            )
        self._known[id(task)] = task

    def release(self, task: Task) -> None:
        self._known.pop(id(task), None)

    def start(self, task: Task) -> None:
        if self._closed:
            self.release(task)
            log.warning("the background task %s was not started because the server ends", _described(task))
            return
        running = self.loop.create_task(self._run(task), context=task.context)
        self._running[running] = task
        running.add_done_callback(self._running.pop)
        register_task(running, task)

    async def _run(self, task: Task) -> None:
        try:
            await self._call(task.call)
        except BaseException as error:  # SystemExit, too: a task must not end the server
            if forks.in_child:
                forks.end_child(error)
            current = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and current is not None and current.cancelling():
                raise
            observe_error(error)
            log.error("the background task %s failed\n%s", _described(task), INDENT + indented(author_traceback(error)))
        finally:
            self.release(task)
        if forks.in_child:
            forks.end_child()

    async def _call(self, call: partial[Any]) -> None:
        if inspect.iscoroutinefunction(call):
            await call()
            return
        if self._limiter is None:
            from anyio import CapacityLimiter  # imported only where it is used

            self._limiter = CapacityLimiter(THREADS)
        result = await in_thread(call, limiter=self._limiter)
        if inspect.isawaitable(result):  # of an object whose __call__ is async
            await result

    async def drain(self, timeout: float) -> None:
        """Wait for the tasks, for `timeout` seconds, then cancel them."""
        with suppress(TimeoutError):
            async with awake_timeout(timeout):
                while self._running:
                    await asyncio.wait(self._running)
        self._closed = True
        if self._running:
            names = ", ".join(sorted({task.name for task in self._running.values()}))
            log.warning("%d background tasks were cancelled because the server ends (%s)", len(self._running), names)
            for running in self._running:
                running.cancel()
            await asyncio.wait(self._running, timeout=GRACE)


def _end_of_stream(
    background: Background, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
) -> None:
    """Start the tasks, also after a disconnect, which is no failure of the handler; discard them after an error."""
    if error is None or isinstance(error, (ConnectionError, asyncio.CancelledError)):
        background.start()
    else:
        background.discard()


def _described(task: Task) -> str:
    if task.request is None:
        return task.name
    return f"{task.name} of {task.request.method} {task.request.raw_path} (request {task.request.id})"


def _checked_name(function: object) -> str:
    if inspect.iscoroutine(function):
        function.close()  # otherwise the interpreter warns that it was never awaited
        name = function.__name__
        raise TypeError(
            f"background.add takes a function and its arguments: background.add({name}, ...), not a coroutine"
        )
    if not callable(function):
        raise TypeError(f"background.add takes a function and its arguments, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"background.add takes a function that does the work when it is called, not a generator: {function!r}"
        )
    return getattr(function, "__qualname__", None) or type(function).__qualname__
