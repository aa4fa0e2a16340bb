"""The family tree of tinysvc's errors. Each knows the HTTP status a client gets for it.

TinysvcError                   500
├── ConfigurationError         said at start-up, never to a client: what is wrong, where, and the remedy
├── HTTPError                  any status; raise it in a handler to answer with it
│   ├── BindingError           422  the request does not fit the handler's parameters
│   ├── NoRoute                404, 405  nothing is served at this path, or not by this method
│   └── ProtocolError          4xx/5xx  the bytes are not acceptable HTTP/1.1; the connection closes
├── UnencodableResult          500  a handler returned what cannot be sent
└── PoolError                  why a job has no result
    ├── QueueFull              503  more jobs wait than the queue may hold
    ├── NoWorkers              503  none is alive and none could be started
    ├── DeadlineInQueue        503  the deadline passed before the job was started
    ├── DeadlineExceeded       504  the deadline passed while it ran; its worker was killed
    ├── JobAbandoned           499  nobody waits for the result any more
    ├── PoolClosed             503  the pool is shutting down
    ├── WorkerDied             500  the worker crashed, exited or was killed in the middle of the job
    ├── JobRefused             500  this very job has crashed one worker after the other
    ├── WorkerStartError       500  a worker could not be made ready
    └── RemoteError            500  the job raised, or its result could not be sent back
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any


class TinysvcError(Exception):
    """Base of all errors of tinysvc.

    `status` is the HTTP status a client gets, `kind` names the error in the problem document (RFC 9457), and
    `public` is what a client may read about it: empty where the facts belong into the log only.
    """

    status: int = 500
    kind: str = ""
    headers: Sequence[tuple[str, str]] = ()

    @property
    def public(self) -> str:
        return ""

    def problem(self) -> dict[str, Any]:
        """The error as the members of an RFC 9457 problem document."""
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
        return members


class ConfigurationError(TinysvcError):
    """Something the author or operator must mend before the service can start."""

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
    """Raise it in a handler to answer with `status` (400 to 599), a `detail` the client may read, and `headers`."""

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
    """422: `faults` holds one (place, detail) for each parameter that could not be filled."""

    def __init__(self, faults: Sequence[tuple[str, str]]) -> None:
        super().__init__(422, "; ".join(f"{place}: {detail}" for place, detail in faults))
        self.faults = faults

    def problem(self) -> dict[str, Any]:
        return {**super().problem(), "errors": [{"place": place, "detail": detail} for place, detail in self.faults]}


class NoRoute(HTTPError):
    """404, or 405 with `Allow`; then `beside` is the target of another method at this path."""

    beside: Any = None


class UnencodableResult(TinysvcError):
    """A handler returned, or yielded, what is neither bytes, text nor JSON; or a stream of another length than said."""


class ProtocolError(HTTPError):
    """The peer's bytes are refused. One answer, then the connection closes."""


class PoolError(TinysvcError):
    """Why a job has no result."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class _Busy(PoolError):
    """Try again later: carries `retry_after` in whole seconds."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.headers = (("retry-after", str(retry_after)),)

    @property
    def public(self) -> str:
        return self.message


class QueueFull(_Busy):
    kind = "queue-full"


class NoWorkers(_Busy):
    kind = "no-workers"

    @property
    def public(self) -> str:
        return "No worker is alive at the moment."  # why not may hold secrets; it is in the message, for the log


class DeadlineInQueue(_Busy, TimeoutError):
    kind = "deadline-in-queue"


class PoolClosed(_Busy):
    kind = "draining"


class DeadlineExceeded(PoolError, TimeoutError):
    status = 504
    kind = "deadline-exceeded"

    @property
    def public(self) -> str:
        return self.message


class JobAbandoned(PoolError):
    status = 499
    kind = "client-gone"


class WorkerDied(PoolError):
    """`exitcode` as in `multiprocessing.Process.exitcode`: negative is the signal's number; None if unknown."""

    kind = "worker-died"

    def __init__(self, message: str, exitcode: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode


class JobRefused(PoolError):
    kind = "crash-loop"

    @property
    def public(self) -> str:
        return self.message


_RAISE = {
    errno.EAGAIN: "raise the limit of processes (pids.max of the container, or ulimit -u)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "close files: the whole machine has too many open",
    errno.ENOMEM: "give it more memory",
    errno.ENOSPC: "free some space",
}


def describe_os_error(call: str, error: OSError) -> str:
    """The end of a sentence about a call that the system has refused, with the remedy where there is a usual one."""
    remedy = _RAISE.get(error.errno or 0, "")
    return f"{call} failed: {error.strerror or error}" + (f"; {remedy}" if remedy else "")


class WorkerStartError(PoolError):
    """`traceback` is the worker's own, as text; empty if it died without a word."""

    kind = "worker-start"

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.message}\n{self.traceback}" if self.traceback else self.message


class RemoteError(PoolError):
    """An exception raised in a worker. It travels as three strings, so that nothing of a worker runs here.

    Of a function that was called (`run`, `submit`, `cpu`), whose result is a pickle anyway, `original` is the exception
    or a copy without what cannot be pickled; None if it has none.
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        super().__init__(f"{type_name}: {message}")
        self.type_name = type_name
        self.traceback = traceback
        self.original: Exception | None = None

    def __str__(self) -> str:
        return f"{self.message}\n\n{self.traceback}" if self.traceback else self.message


error_observers: list[Callable[[BaseException], None]] = []
"""Called for each error of a handler that is not an answer on purpose, in the thread where it came up: for tests."""


def observe_error(error: BaseException) -> None:
    for each in error_observers.copy():  # another thread may serve, and end, meanwhile
        each(error)
