"""The errors of tinysvc. Each has the HTTP status that a client gets for it.

TinysvcError                   500
├── ConfigurationError         raised at start-up, never sent to a client: the fault, its place and the remedy
├── HTTPError                  any status; a handler raises it to send an error response
│   ├── BindingError           422  the request does not fit the handler's parameters
│   ├── NoRoute                404, 405  nothing is served at this path, or not by this method
│   └── ProtocolError          4xx/5xx  the bytes are not valid HTTP/1.1; the connection closes
├── UnencodableResult          500  a result of a handler cannot be sent
├── BudgetExhausted, CallFailed     of calls to other services: call_errors.py
└── PoolError                  why a job has no result
    ├── QueueFull              503  more jobs wait than the queue may hold
    ├── NoWorkers              503  no worker is alive and none can be started
    ├── DeadlineInQueue        503  the deadline passed before the job was started
    ├── DeadlineExceeded       504  the deadline passed while the job ran; its worker was killed
    ├── JobAbandoned           499  the client disconnected: the result is discarded
    ├── PoolClosed             503  the pool is shutting down
    ├── WorkerDied             500  the worker crashed, exited or was killed in the middle of the job
    ├── JobRefused             500  the same job has crashed several workers
    ├── WorkerStartError       500  a worker cannot start
    └── RemoteError            500  the job raised, or its result could not be sent back
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any


class TinysvcError(Exception):
    """Base of all errors of tinysvc. An error handler for it gets every error that the other classes here name.

    Attributes:
        status: HTTP status of the response; 500 unless a class says otherwise.
        kind: Name of the error in the problem document (RFC 9457), as in "queue-full"; empty for "about:blank".
        headers: Further header lines of the response, as (name, value).
        never_started: Neither the handler nor its job was started: the problem document has `"started": false`.
        public (str): Text that the client may read; empty if the details belong into the log only.

    Example:
        ```python
        from tinysvc import QueueFull, TinysvcError

        error: TinysvcError = QueueFull("12 jobs wait already", retry_after=3)
        assert (error.status, error.kind, error.public) == (503, "queue-full", "12 jobs wait already")
        ```
    """

    status: int = 500
    kind: str = ""
    headers: Sequence[tuple[str, str]] = ()
    never_started: bool = False

    @property
    def public(self) -> str:
        """The text that the client may read; empty if the details belong into the log only."""
        return ""

    def problem(self) -> dict[str, Any]:
        """Return the error as the members of a problem document (RFC 9457).

        Returns:
            `type`, `title` and `status`; `detail` if there is a text that the client may read; and `started`, which is
            false, if the request had no effect.
        """
        try:
            title = HTTPStatus(self.status).phrase
        except ValueError:
            title = "Error"
        members: dict[str, Any] = {
            "type": f"urn:tinysvc:{self.kind}" if self.kind else "about:blank",
            "title": title,
            "status": self.status,
        }
        if self.public:
            members["detail"] = self.public
        if self.never_started:
            members["started"] = False
        return members


class ConfigurationError(TinysvcError):
    """A mistake that the author or operator must correct before the service can start.

    It is raised at start-up, and never reaches a client. The message names the mistake, its place and the remedy.

    Example:
        ```python
        from tinysvc import ConfigurationError, io_route

        try:
            @io_route("items")
            async def items() -> list[str]:
                return []
        except ConfigurationError as error:
            assert "must begin with" in str(error)
        ```
    """

    @classmethod
    def at(cls, function: Callable[..., Any], sentence: str) -> ConfigurationError:
        """An error about `function`, with the file and line where it is defined."""
        return cls(f"{source_location(function)}: {sentence}")


def source_location(function: object) -> str:
    """The name of a function, and the file and line where it is defined."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


class HTTPError(TinysvcError):
    """Raise it in a handler to send an error response, a problem document (RFC 9457).

    Args:
        status: HTTP status, 400 to 599.
        detail: Text for the client.
        headers: Further header lines of the response, as (name, value).

    Raises:
        ValueError: `status` is not from 400 to 599.

    Example:
        ```python
        from tinysvc import HTTPError, io_route

        @io_route("/items/{number}")
        async def item(number: int) -> str:
            if number > 9:
                raise HTTPError(404, f"There is no item {number}.")
            return f"item {number}"
        ```
    """

    def __init__(self, status: int, detail: str = "", *, headers: Sequence[tuple[str, str]] = ()) -> None:
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise ValueError(f"HTTPError takes a status from 400 to 599, not {status!r}; return a Response for others")
        super().__init__(status, detail)
        self.status = status
        self.detail = str(detail)
        self.headers = headers

    @property
    def public(self) -> str:
        return self.detail

    def __str__(self) -> str:
        return f"{self.status} {self.detail}".rstrip()


class BindingError(HTTPError):
    """422: the request does not fit the parameters of the handler.

    Attributes:
        faults (Sequence[tuple[str, str]]): One (place, detail) for each parameter that cannot be
            filled, as in ("query.limit", "...").

    Example:
        ```python
        from tinysvc import Request, Response
        from tinysvc.core.errors import BindingError

        def invalid(request: Request, error: BindingError) -> Response:
            return Response({"fields": [place for place, _ in error.faults]}, 400)

        error_handlers = {BindingError: invalid}  # for Service(..., error_handlers=error_handlers)
        ```
    """

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__(422, "; ".join(f"{place}: {detail}" for place, detail in faults))
        self.faults = faults

    def problem(self) -> dict[str, Any]:
        return {**super().problem(), "errors": [{"place": place, "detail": detail} for place, detail in self.faults]}


class NoRoute(HTTPError):
    """404: no route has this path. 405 with `Allow`: the routes of this path take other methods (RFC 9110, 15.5.6).

    Attributes:
        status (int): 404 or 405.

    Example:
        ```python
        from tinysvc import NoRoute, Request, Response

        def nowhere(request: Request, error: NoRoute) -> Response:
            return Response({"see": "/docs"}, error.status)

        error_handlers = {NoRoute: nowhere}  # for Service(..., error_handlers=error_handlers)
        ```
    """

    beside: Any = None


class UnencodableResult(TinysvcError):
    """500: a handler returned, or yielded, a value that is neither bytes, text nor JSON.

    It is also the error of a stream with another length than its `content-length`, and of bad text in a header.
    """


class ProtocolError(HTTPError):
    """The bytes of the client are refused: one response, then the connection closes."""


class PoolError(TinysvcError):
    """Base of the errors of a worker pool: why a job has no result.

    Attributes:
        message (str): The reason, in one sentence.

    Example:
        ```python
        import asyncio

        from tinysvc import PoolError, ProcessPoolExecutor

        async def main() -> None:
            async with ProcessPoolExecutor(1) as pool:
                try:
                    await pool.run(int, "seven")
                except ValueError:  # the function itself has failed
                    pass
                except PoolError as error:  # the job has no result
                    print(error.message)

        if __name__ == "__main__":
            asyncio.run(main())
        ```
    """

    message_is_public = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    @property
    def public(self) -> str:
        return self.message if self.message_is_public else ""

    def __str__(self) -> str:
        return self.message


class _Unavailable(PoolError):
    """A 503 with `Retry-After`, in whole seconds."""

    status = 503
    message_is_public = True

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = (("retry-after", str(retry_after)),)


class QueueFull(_Unavailable):
    """503: as many jobs wait as the queue of the pool may hold.

    Attributes:
        retry_after (int): Seconds after which a further try makes sense; the client gets it as `Retry-After`.

    Example:
        ```python
        from tinysvc import QueueFull, Request, Response

        def busy(request: Request, error: QueueFull) -> Response:
            return Response("busy", 503, {"retry-after": str(error.retry_after)})
        ```
    """

    kind = "queue-full"


class NoWorkers(_Unavailable):
    """503: no worker is alive and none can be started. The message has the reason, for the log only.

    Attributes:
        retry_after (int): Seconds until the pool tries to start a worker again; the client gets it as `Retry-After`.
    """

    kind = "no-workers"

    @property
    def public(self) -> str:
        return "No worker is alive at the moment."  # the message, with the reason, may contain secrets


class DeadlineInQueue(_Unavailable, TimeoutError):
    """503: the deadline passed while the job waited for a worker. It is a `TimeoutError`, too.

    Attributes:
        retry_after (int): Seconds after which a further try makes sense; the client gets it as `Retry-After`.
    """

    kind = "deadline-in-queue"


class PoolClosed(_Unavailable):
    """503: the pool shuts down and takes no more jobs.

    Attributes:
        retry_after (int): Seconds after which a further try makes sense; the client gets it as `Retry-After`.
    """

    kind = "draining"


class DeadlineExceeded(PoolError, TimeoutError):
    """504: the deadline passed while the job ran, and its worker was killed. It is a `TimeoutError`, too.

    Example:
        ```python
        import asyncio
        import time

        from tinysvc import DeadlineExceeded, ProcessPoolExecutor

        async def main() -> None:
            async with ProcessPoolExecutor(1) as pool:
                try:
                    await pool.run(time.sleep, 60, timeout=0.1)
                except DeadlineExceeded:
                    print("stopped")

        if __name__ == "__main__":
            asyncio.run(main())
        ```
    """

    status = 504
    kind = "deadline-exceeded"
    message_is_public = True


class JobAbandoned(PoolError):
    """499: the client disconnected, and the result of the job is discarded."""

    status = 499
    kind = "client-gone"


class WorkerDied(PoolError):
    """500: the worker crashed, exited or was killed while it ran the job. Other jobs are not affected.

    `submit` raises a subclass that is a `concurrent.futures.process.BrokenProcessPool`, too.

    Attributes:
        exitcode (int | None): As in `multiprocessing.Process.exitcode`: a negative number is a signal.
            None if it is unknown.

    Example:
        ```python
        import asyncio
        import os

        from tinysvc import ProcessPoolExecutor, WorkerDied

        async def main() -> None:
            async with ProcessPoolExecutor(1) as pool:
                try:
                    await pool.run(os._exit, 3)
                except WorkerDied as error:
                    assert error.exitcode == 3

        if __name__ == "__main__":
            asyncio.run(main())
        ```
    """

    kind = "worker-died"

    def __init__(self, message: str, exitcode: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode


class JobRefused(PoolError):
    """500: the same request has crashed three workers within ten seconds; the pool does not run it again."""

    kind = "crash-loop"
    message_is_public = True


class WorkerStartError(PoolError):
    """500: a worker cannot be made ready. At the start of a server it ends the start with exit status 3.

    Attributes:
        traceback (str): Traceback of the worker as text; empty if the worker has died without one.

    Example:
        ```python
        from tinysvc.core.errors import WorkerStartError

        error = WorkerStartError("the worker cannot start", "ValueError: seven")
        assert "ValueError" in error.traceback
        ```
    """

    kind = "worker-start"

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.message}\n{self.traceback}" if self.traceback else self.message


class RemoteError(PoolError):
    """An exception that was raised in a worker. It travels as text: nothing from a worker runs in the server.

    Attributes:
        type_name (str): Name of the exception's type.
        message (str): Type and text of the exception.
        traceback (str): Traceback of the worker as text.
        original: The exception itself, or a copy without what cannot be pickled, where a function was called (`call`,
            `run`, `submit`). None if the exception cannot be pickled, and for requests of a cpu route.

    Example:
        ```python
        from tinysvc import CallFailed, RemoteError, call, cpu_route

        @cpu_route("/invert/{n}")
        def invert(n: float) -> float:
            return 1 / n

        async def safe(n: float) -> float:
            try:
                return await call(invert, n)
            except CallFailed as error:
                assert isinstance(error.__cause__, RemoteError)
                return 0.0
        ```
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.traceback = traceback
        self.original: Exception | None = None

    def __str__(self) -> str:
        return f"{self.message}\n\n{self.traceback}" if self.traceback else self.message
