"""`await submit(train, recipe)`: a durable job is accepted, here or at another service.

submit ──> the arguments as a request, as for `call` ──> POST of the job route ──> Accepted
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..core.call_errors import CallTimeout
from ..core.errors import ConfigurationError
from .call_context import LONGEST, call_context
from .job_headers import job_headers

if TYPE_CHECKING:
    from ..service.job_document import JobDocument
    from .job_calls import JobTarget, SubmittedJob

T = TypeVar("T")


class Accepted(Generic[T]):
    """A durable job that `submit` has submitted. It does not depend on its submitter.

    Attributes:
        id (str): Its id: 32 hexadecimal digits.
        url (str): Its path at the service of its route, as in "/trainings/5f0c...".

    Example:
        ```python
        from tinysvc import Accepted, io_route, job_route, submit

        @job_route("/trainings")
        def train(epochs: int) -> float:
            return 1 / epochs

        @io_route("/start", methods=["POST"])
        async def start(epochs: int) -> dict[str, str]:
            accepted: Accepted[float] = await submit(train, epochs)
            return {"job": accepted.url}
        ```
    """

    def __init__(self, target: JobTarget, job: SubmittedJob) -> None:
        self.id = job.id
        self.url = job.url
        self._target = target
        self._job = job

    async def status(self) -> JobDocument:
        """Ask for its state, its attempts and its progress.

        Returns:
            The document of the durable job, with the fields of its JSON: `state`, `progress`, `values`, `attempts`,
            `problem`, `created`, `started`, `ended`, ...

        Raises:
            HTTPError: 410: its retention is over.
            CallFailed: Its service does not respond.
        """
        return await self._job.document("GET", call_context(self._target.seconds))

    async def result(self, timeout: float | None = None) -> T:
        """Wait for its result.

        Args:
            timeout: Seconds. None: as long as the calling code has. The durable job continues after that.

        Returns:
            The result of the handler.

        Raises:
            CallTimeout: It has not ended in time; a `TimeoutError`, too.
            HTTPError: The handler has raised it, with a 4xx. 410: it was cancelled, or its retention is over.
            CallFailed: It has failed, or its service does not respond.
        """
        context = call_context(LONGEST)
        own = inf if timeout is None else monotonic() + timeout
        is_own = own < context.deadline
        try:
            incoming = await self._job.result(context._replace(deadline=own) if is_own else context)
        except CallTimeout as error:
            if not is_own:
                raise
            message = f"The job has not ended within {timeout:g} s; it continues."
            raise CallTimeout(message, service=error.service) from None
        return cast("T", await self._target.result_of(incoming))

    async def cancel(self) -> JobDocument:
        """Cancel it, and wait until its process is dead. A failed one is dismissed: it is deleted after its retention.

        Returns:
            The document of the durable job, also if it was cancelled before.

        Raises:
            HTTPError: 409: it had succeeded. 410: its retention is over.
            CallFailed: Its service does not respond.
        """
        return await self._job.document("DELETE", call_context(self._target.seconds))

    def __repr__(self) -> str:
        return f"<Accepted {self.url}>"


class Submit:
    """The type of `submit`, which submits durable jobs.

    Example:
        ```python
        from typing import Annotated

        from tinysvc import Bearer, io_route, job_route, submit

        @job_route("/trainings")
        def train(epochs: int) -> float:
            return 1 / epochs

        @io_route("/start", methods=["POST"])
        async def start(token: Annotated[str, Bearer()]) -> str:
            return (await submit.forwarding("authorization")(train, 5)).id
        ```
    """

    def __init__(self, forwarded: tuple[str, ...] = ()) -> None:
        self._forwarded = forwarded

    def __call__(
        self,
        handler: Callable[..., T],
        /,
        *args: Any,
        after: float = 0.0,
        priority: int = 0,
        key: str = "",
        **kwargs: Any,
    ) -> Coroutine[Any, Any, Accepted[T]]:
        """Submit a durable job: see `submit`."""
        target = _target_of(handler)
        context = call_context(target.seconds)
        options = job_headers(after, priority, key)
        return self._accepted(target, target.submit(target.arguments(args, kwargs), context, options, self._forwarded))

    async def _accepted(self, target: JobTarget, submission: Coroutine[Any, Any, SubmittedJob]) -> Accepted[Any]:
        return Accepted(target, await submission)

    def forwarding(self, *headers: str) -> Submit:
        """Return a `submit` that passes headers of the current request on, such as `Authorization`.

        The resources of the job route see them, as they do for a client's own request.

        Args:
            *headers: Names of headers.

        Returns:
            An object that is used like `submit`.
        """
        return Submit((*self._forwarded, *(name.lower() for name in headers)))


def _target_of(handler: Callable[..., Any]) -> JobTarget:
    """Where durable jobs of the handler are submitted. A worker imports this file, too, and needs none of the rest."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError.at(
            handler,
            "cannot be submitted here, where no event loop runs; submit it in an `async def` io handler, which a cpu "
            "handler can call by `call.wait(...)`",
        ) from None
    from .call_targets import callee_of, not_submittable
    from .job_calls import JobTarget

    target = callee_of(handler).target
    if not isinstance(target, JobTarget):
        raise not_submittable(handler)
    return target


submit = Submit()
"""Submit a durable job of a job route, wherever that runs: `accepted = await submit(train, recipe)`.

When `submit` returns, the job is on the disk of its service, and does not depend on the caller. The service is
found as for `call`: it runs here, or the setting `services` names its address. The arguments are checked there.

`submit` is for code on an event loop. `submit.forwarding(...)` passes credentials on. A parameter of the handler that
is called `after`, `priority` or `key` is given by its position.

Args:
    handler: A handler with `@job_route`.
    *args: Its positional arguments. Resources, and the `Job`, are filled in where it runs.
    after: Seconds until the job may start.
    priority: Of the jobs that are due, the highest priority starts first; from -100 to 100.
    key: The Idempotency-Key: a second submission with the same key and the same arguments gives the same job. Empty: a
        new job.
    **kwargs: Its keyword arguments.

Returns:
    The accepted job, an `Accepted`.

Raises:
    HTTPError: The arguments are refused there (422), or the key was used with other arguments (422).
    CallFailed: It was not accepted. `CallUnavailable`: the store is full or away.
    TypeError: The arguments do not fit the handler.
    ValueError: `after`, `priority` or `key` is out of its range.
    ConfigurationError: The handler is not served here, and `services` does not name its module; or it has no
        `@job_route`.

Example:
    ```python
    from tinysvc import io_route, job_route, submit

    @job_route("/trainings")
    def train(epochs: int) -> float:
        return 1 / epochs

    @io_route("/orders/{number}/train", methods=["POST"])
    async def start(number: int) -> str:
        accepted = await submit(train, 5, after=60, priority=5, key=f"order-{number}")
        return accepted.url
    ```
"""
