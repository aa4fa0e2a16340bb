"""The errors of calls to other services, and of a budget that is used up.

TinysvcError
├── BudgetExhausted            504  the time that the caller gave is used up
└── CallFailed                 502  the callee failed: no answer, half an answer, a 5xx, or one that cannot be read
    ├── CallUnavailable        503  the callee cannot answer now: no replica is alive, or it is overloaded
    ├── CallRefused            508  the call would be the 17th hop of a chain: the services call each other in a circle
    └── CallTimeout            504  the budget of the call is used up; it is a BudgetExhausted, too

A 4xx of the callee is none of them: it is raised as the HTTPError that the callee's handler has raised.
"""

from __future__ import annotations

from typing import Any

from .errors import TinysvcError


class BudgetExhausted(TinysvcError, TimeoutError):
    """504: the time that the caller gave (`Request-Timeout`), or that a `budget(...)` block allowed, is used up.

    It is a `TimeoutError`, too. A client that gets this response must not repeat the request with the same budget.

    Attributes:
        message (str): The reason, in one sentence.

    Example:
        ```python
        from tinysvc import BudgetExhausted, Request, Response

        def too_late(request: Request, error: BudgetExhausted) -> Response:
            return Response("too late", error.status)

        error_handlers = {BudgetExhausted: too_late}  # for Service(..., error_handlers=error_handlers)
        ```
    """

    status = 504
    kind = "budget-exhausted"

    def __init__(self, message: str = "The time that the caller gave for this request is used up.") -> None:
        super().__init__(message)
        self.message = message

    @property
    def public(self) -> str:
        return self.message

    def __str__(self) -> str:
        return self.message


class CallFailed(TinysvcError):
    """502: a call to a handler of another service has no result.

    The response to the caller's own client names no detail; the log names the service, the replica and the reason.

    Attributes:
        message (str): The reason, in one sentence.
        service (str): Name of the called service, or "".
        replica (str): Address of the replica that failed last; "" if there was none, or if the handler runs here.
        attempts (int): Requests that were sent, retries and hedges included.
        answered (int | None): Status of the callee's response. None: no whole response came.
        details (dict[str, Any] | None): The callee's problem document (RFC 9457), if it sent one.

    Example:
        ```python
        from tinysvc import CallFailed, Request, Response

        def failed(request: Request, error: CallFailed) -> Response:
            print(error.service, error.replica, error.attempts, error.answered)
            return Response("try again later", error.status)

        error_handlers = {CallFailed: failed}  # for Service(..., error_handlers=error_handlers)
        ```
    """

    status = 502
    kind = "call-failed"

    def __init__(
        self,
        message: str,
        *,
        service: str = "",
        replica: str = "",
        attempts: int = 0,
        answered: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.service = service
        self.replica = replica
        self.attempts = attempts
        self.answered = answered
        self.details = details

    @property
    def public(self) -> str:
        return _PUBLIC[self.kind]

    def __str__(self) -> str:
        facts = [f"service {self.service}"] if self.service else []
        facts += [f"replica {self.replica}"] if self.replica else []
        facts += [f"{self.attempts} attempts"] if self.attempts > 1 else []
        facts += [f"answered {self.answered}"] if self.answered else []
        return f"{self.message} ({', '.join(facts)})" if facts else self.message


class CallUnavailable(CallFailed):
    """503 with `Retry-After`: the called service cannot answer now.

    No replica is alive, all refuse, or the service has responded with a 503.

    Attributes:
        retry_after (int): Seconds after which a further try makes sense; the client gets it as `Retry-After`.
    """

    status = 503
    kind = "call-unavailable"

    def __init__(self, message: str, *, retry_after: int = 1, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after
        self.headers = (("retry-after", str(retry_after)),)


class CallRefused(CallFailed):
    """508: the request has passed 16 services already, so they probably call each other in a circle."""

    status = 508
    kind = "call-loop"


class CallTimeout(CallFailed, BudgetExhausted):
    """504: the budget of a call is used up. It is a `BudgetExhausted` and a `TimeoutError`, too."""

    status = 504
    kind = "budget-exhausted"


_PUBLIC = {
    CallFailed.kind: "A service that is needed for this response has failed.",
    CallUnavailable.kind: "A service that is needed for this response is not available at the moment.",
    CallRefused.kind: "The services call each other in a circle.",
    CallTimeout.kind: "The time that the caller gave for this request is used up.",
}
