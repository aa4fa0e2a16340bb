"""Calls of handlers of this process that need no request: an io handler is awaited, a cpu handler is a job of its pool.

Only routes whose options and parameters mean nothing for a call are called like this: see `is_direct`. The arguments
and the result are the same objects as in a function call; for a cpu handler, copies.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from ..binding.outgoing import RequestWriter, arguments_by_name
from ..binding.replies import ReplyReader
from ..client.deadlines import Deadlines
from ..core.budget import Deadline, current
from ..core.call_errors import CallTimeout
from ..core.errors import ConfigurationError, DeadlineExceeded, DeadlineInQueue, HTTPError, TinysvcError
from ..core.responses import Response
from ..core.threads import in_thread
from .call_context import CallContext, calling
from .call_failures import failure_here

if TYPE_CHECKING:
    from ..core.settings import Settings
    from ..service.plan import Plan
    from .cpu_calls import CpuCall

_DIRECT_PLACES = frozenset({"path", "query", "header", "cookie", "json", "resource"})


def is_direct(plan: Plan, reader: ReplyReader, settings: Settings) -> bool:
    """Whether a call of the route needs no request: nothing around the handler, and nothing in it, has to see one."""
    route = plan.route
    if plan.middleware or plan.error_handlers or plan.request_resources or route.batch or route.cache or route.durable:
        return False
    if route.kind == "io" and (route.limit or settings.max_io_requests):
        return False
    is_stream = inspect.isgeneratorfunction(route.function) or inspect.isasyncgenfunction(route.function)
    if reader.streams or reader.returns_response or is_stream:
        return False
    return all(each.place in _DIRECT_PLACES for each in plan.binder.inputs)


class DirectTarget:
    """A handler of this process that is called as a function.

    Args:
        plan: Its route.
        service: Name of its service, for errors.
    """

    def __init__(self, plan: Plan, service: str) -> None:
        writer = RequestWriter(plan.route.function, "GET", "/", plan.binder.inputs)
        self.timeout = plan.route.timeout or None
        self.service = service
        self.function = plan.route.function
        self.name = f"{self.function.__module__}.{self.function.__qualname__}"
        self._names, self._required = writer.names, writer.required

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name. TypeError for a wrong one."""
        if not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        return arguments_by_name(self.function, self._names, self._required, args, kwargs)

    def items(self, *_: Any) -> AsyncGenerator[Any, None]:
        """A stream; this handler has none."""
        raise ConfigurationError.at(self.function, "returns one value and streams nothing; write `await call(...)`")

    def failed(self, error: Exception, context: CallContext) -> NoReturn:
        """Raise the exception of the call for an error of the handler."""
        raise failure_here(error, service=self.service, handler=self.name, request_id=context.request_id) from error

    def too_late(self) -> CallTimeout:
        return CallTimeout("The budget of the call is used up.", service=self.service)


class TaskLimit:
    """The deadline of a call in the current task: as `asyncio.timeout`, without a timer of its own."""

    __slots__ = ("_cancelling", "_task", "expired")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self.expired = False

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        self.expired = True
        self._task.cancel()

    def ends_cancellation(self) -> bool:
        """Whether the deadline alone has cancelled the task. Its cancellation is withdrawn."""
        return self.expired and self._task.uncancel() <= self._cancelling


class DirectIo(DirectTarget):
    """An io handler: `async def` on the loop, `def` in a thread.

    Args:
        plan: Its route.
        service: Name of its service, for errors.
        resources: The values of the resources that are open for the whole server.
        deadlines: Those of all calls.
    """

    def __init__(self, plan: Plan, service: str, resources: Mapping[str, Any], deadlines: Deadlines) -> None:
        super().__init__(plan, service)
        self._deadlines = deadlines
        own = {name: resources[name] for name in plan.binder.resources}
        self._function: Callable[..., Any] = partial(self.function, **own) if own else self.function
        self._is_async = inspect.iscoroutinefunction(self.function)

    async def value(self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...]) -> Any:
        """The result of the handler."""
        now = monotonic()
        deadline, own = context.deadline, self.timeout
        if deadline <= now:
            raise self.too_late()
        is_own = own is not None and now + own < deadline
        if is_own:
            deadline = now + own  # type: ignore[operator]  # it is not None
        inner = calling.set(context)
        outer = current.set(Deadline(deadline))
        limit = TaskLimit()
        self._deadlines.add(limit, deadline)
        try:
            if self._is_async:
                result = await self._function(**arguments)
            else:
                result = await in_thread(partial(self._function, **arguments))
        except asyncio.CancelledError:
            if not limit.ends_cancellation():
                raise
            if not is_own:
                raise self.too_late() from None
            self.failed(HTTPError(504, f"The response was not ready within {own:g} s."), context)
        except Exception as error:
            limit.ends_cancellation()
            self.failed(error, context)
        finally:
            self._deadlines.discard(limit)
            current.reset(outer)
            calling.reset(inner)
        if limit.expired:
            limit.ends_cancellation()
        if isinstance(result, Response):
            raise ConfigurationError.at(
                self.function, "returns a Response, which its annotation does not say; annotate it with -> Response"
            )
        return result


class DirectCpu(DirectTarget):
    """A cpu handler: a job of its pool."""

    def __init__(self, plan: Plan, service: str, job: CpuCall) -> None:
        super().__init__(plan, service)
        self._job = job

    async def value(self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...]) -> Any:
        """The result of the handler."""
        left, own = context.deadline - monotonic(), self._job.timeout
        if left <= 0:
            raise self.too_late()
        is_own = own is not None and own < left
        try:
            return await self._job._replace(timeout=own if is_own else left)((), arguments, context)
        except (DeadlineInQueue, DeadlineExceeded) as error:
            if not is_own:
                raise self.too_late() from error
            self.failed(error, context)
        except TinysvcError as error:
            self.failed(error, context)
