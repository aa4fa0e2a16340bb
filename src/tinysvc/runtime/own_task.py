"""A separate task for the resources of a request, and for everything between their opening and their closing.

Middleware may use a timeout or a cancel scope around `call_next`, which cancels the task of the middleware at any
moment. A cancellation during a commit would leave a transaction neither committed nor rolled back. So a cancellation is

passed on    while the handler runs: the resources then close with the error
delayed      while the resources close: it is raised once they are closed

Task groups and timeouts of the resources themselves cancel the separate task, and work as usual. A route without
middleware needs no separate task: only the server cancels it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Protocol, cast

from ..core import forks, request_context
from ..core.context_variables import copy_back
from ..core.responses import FileContent, Response
from ..core.shutdown import CUT_OFF


class Stream(Protocol):
    """A stream that closes the resources of its request."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    def tail(self) -> bytes: ...

    async def fail(self, error: BaseException) -> None: ...

    async def aclose(self) -> None: ...


class OwnTask:
    """Runs the handler and its resources in one task, then the stream, until `is_closing` is set."""

    def __init__(self) -> None:
        self.is_closing = False
        self._task: asyncio.Task[None] | None = None
        self._call: Callable[[], Awaitable[Any]] | None = None  # the next call
        self._stream: Stream
        self._has_outcome = False  # the call has returned or raised
        self._result: Any = None
        self._error: BaseException | None = None
        self._context = Context()  # the context variables after the call
        self._caller: asyncio.Future[None]
        self._called: asyncio.Future[None]

    async def respond(self, call: Callable[[], Awaitable[Response]]) -> Response:
        """The response of `call`; a stream continues in the task. Context variables that it has set are copied back."""
        before = copy_context()
        try:
            response: Response = await self.run(call)
        finally:
            copy_back(self._context, before)
        if not self.is_closing:
            response.content = StreamOfTask(self, self._stream)
        return response

    async def run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Run `call` in the task; return its result or raise its error. None if the task has ended."""
        loop = asyncio.get_running_loop()
        self._call, self._has_outcome, self._caller = call, False, loop.create_future()
        if self._task is None:
            self._task = loop.create_task(self._serve())
            self._task.add_done_callback(self._wake)
            request_context.register_task(self._task, request_context.current_owner())
        elif self._task.done():
            return await self._outcome()
        elif not self._called.done():
            self._called.set_result(None)
        delayed = None
        try:
            await self._caller
        except asyncio.CancelledError as error:
            with _shield():
                delayed = await self._wait_in_spite_of_cancels(error)
        if delayed is not None and (self._error is None or isinstance(self._error, StopAsyncIteration)):
            if isinstance(self._result, Response) and isinstance(self._result.content, FileContent):
                self._result.content.file.close()
            raise delayed
        return await self._outcome()

    async def _wait_in_spite_of_cancels(self, error: asyncio.CancelledError) -> asyncio.CancelledError | None:
        """Wait for the call, in spite of cancellations. Returns the last delayed one."""
        assert self._task is not None
        delayed = None
        while not self._task.done():
            if self.is_closing and CUT_OFF not in error.args:
                delayed = error
                if self._has_outcome:
                    break
            else:
                self._task.cancel(*error.args)
            self._caller = asyncio.get_running_loop().create_future()
            try:
                await self._caller
                break
            except asyncio.CancelledError as another:
                error = another
        return delayed

    async def _outcome(self) -> Any:
        assert self._task is not None
        result, error = self._result, self._error
        self._result = self._error = None
        if self._task.done() and self._task.cancelled():  # before it started
            error = asyncio.CancelledError()
        if error is None:
            return result
        try:
            if isinstance(error, asyncio.CancelledError) and self._task.cancelling():
                caller = asyncio.current_task()
                if caller is not None and not caller.cancelling():  # a disconnect has cancelled the request
                    caller.cancel(*error.args)
                    await asyncio.sleep(0)
            raise error
        finally:
            del error  # break the reference cycle with this frame

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while self._call is not None:
            call, self._call = self._call, None
            try:
                self._result = await call()
            except BaseException as error:  # SystemExit, too: it would end the loop
                if forks.in_child:
                    forks.end_child(error)
                self._error = error
            if forks.in_child:
                forks.end_child()
            self._context, self._has_outcome = copy_context(), True
            if self.is_closing:
                return  # the end of the task wakes the caller
            if isinstance(self._result, Response):
                self._stream = cast(Stream, self._result.content)
            self._called = loop.create_future()
            self._wake()
            try:
                await self._called
            except asyncio.CancelledError as error:  # a task group of a resource cancels it
                self._call = partial(self._stream.fail, error)

    def _wake(self, _: object = None) -> None:
        if not self._caller.done():
            self._caller.set_result(None)


class StreamOfTask:
    """A stream that runs and closes in the task of its resources."""

    def __init__(self, task: OwnTask, stream: Stream) -> None:
        self._task = task
        self._stream = stream

    def __aiter__(self) -> StreamOfTask:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._task.run(self._stream.__anext__)
        if piece is None:
            raise StopAsyncIteration
        return cast(bytes, piece)

    def tail(self) -> bytes:
        return self._stream.tail()

    async def aclose(self) -> None:
        await self._task.run(self._stream.aclose)


def _shield() -> AbstractContextManager[Any]:
    """A cancel scope of anyio cancels repeatedly, unless a shield is inside it."""
    if "anyio" not in sys.modules:
        return nullcontext()
    from anyio import CancelScope

    return CancelScope(shield=True)
