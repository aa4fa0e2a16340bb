"""`await cpu(predict, features)`: a cpu handler called as a function, from code on the event loop.

The call runs where the route's requests run: in its pool, behind its `limit`, with its deadline. What goes in and comes
out travels as pickles; the resources are the worker's own, by their names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from ..core.errors import ConfigurationError
from ..core.request_context import request_id
from ..executor import pickled_body
from ..pool.job_reply import JobReply, unpickled
from ..pool.remote_errors import remote_error
from ..pool.state import Job, Lane
from ..service.routes import recorded
from .cpu_messages import CallMessage, CallReply

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool
    from .call_context import CallContext
    from .traced_jobs import TracedJobs

T = TypeVar("T")


class CpuCall(NamedTuple):
    """Where a handler runs that is called as a function."""

    pool: ProcessPoolExecutor | ExternalPool
    number: int
    timeout: float | None
    lane: Lane | None
    tracing: TracedJobs | None = None

    async def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], context: CallContext | None = None) -> Any:
        lengths, body = await pickled_body((args, kwargs))
        message = CallMessage(self.number, lengths, request_id.get() if context is None else context.request_id)
        if context is not None:
            message.headers = [(name.encode(), value.encode("latin-1")) for name, value in context.headers()]
        if self.timeout is not None:
            message.deadline = monotonic() + self.timeout
        submit = self.pool.submit_job
        if self.tracing is not None:
            submit = self.tracing.around(submit)
        job = submit(Job(message, body, self.timeout, self.lane))
        try:
            reply = await job.future
        except asyncio.CancelledError:
            self.pool.abandon(job, even_running=True)
            raise
        result: CallReply = reply.meta
        if result.failure is not None:
            raise remote_error(result.failure, reply.body, only_http=True)
        return unpickled(JobReply(result.lengths, reply.body))


_served: WeakKeyDictionary[asyncio.AbstractEventLoop, list[Mapping[Callable[..., Any], CpuCall]]] = WeakKeyDictionary()


@contextmanager
def callable_here(calls: Mapping[Callable[..., Any], CpuCall]) -> Iterator[None]:
    """While the block runs, code on this loop can call these handlers."""
    here = _served.setdefault(asyncio.get_running_loop(), [])
    here.append(calls)
    try:
        yield
    finally:
        here[:] = [each for each in here if each is not calls]


async def cpu(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a handler that has `@cpu_route` in a worker of its pool: `await cpu(predict, features)`.

    The pool, the `limit` and the `timeout` are the route's. Arguments and result are pickled. Cancelling the task that
    awaits the call stops the job.

    An error that the caller does not catch becomes the response of the caller's request, as if the client had asked the
    cpu route. Error handlers of the caller's service get the `original` of a `RemoteError`.

    Args:
        function: The handler.
        *args: Its positional arguments.
        **kwargs: Its keyword arguments. Resources are filled in by name in the worker.

    Returns:
        The result of the handler.

    Raises:
        HTTPError: The handler raised it.
        RemoteError: The handler raised another exception, or its result cannot be pickled.
        QueueFull: The queue of the pool is full.
        DeadlineExceeded: The `timeout` passed while the job ran.
        DeadlineInQueue: The `timeout` passed while the job waited.
        WorkerDied: The worker crashed, or was killed. See `PoolError` for further errors of a pool.
        ConfigurationError: No service that runs on this event loop serves the function.

    Example:
        ```python
        from tinysvc import cpu, cpu_route, io_route

        @cpu_route("/square")
        def square(n: int) -> int:
            return n * n

        @io_route("/squares")
        async def squares() -> list[int]:
            return [await cpu(square, n) for n in (1, 2, 3)]
        ```
    """
    for calls in reversed(_served.get(asyncio.get_running_loop(), [])):
        if function in calls:
            return await calls[function](args, kwargs)  # type: ignore[no-any-return]
    if any(getattr(record, "durable", None) is not None for record in recorded(function)):
        remedy = "it has @job_route; submit it by `await submit(...)`, or wait for its result by `await call(...)`"
    elif any(getattr(record, "kind", "") == "cpu" for record in recorded(function)):
        remedy = "it is not part of a service that runs on this event loop; name it, or its module, in the Service(...)"
    else:
        remedy = "it has no @cpu_route; give it one, or call it as it is"
    raise ConfigurationError.at(function, f"cannot be called by cpu(...): {remedy}")
