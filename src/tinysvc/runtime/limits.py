"""Limits of a route or of the server, each a handler around a handler; an unlimited route has none around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from ..core.budget import TIMEOUT_FIELDS, Deadline, current, sooner
from ..core.call_errors import BudgetExhausted
from ..core.errors import HTTPError
from ..core.requests import Request
from ..core.responses import EVENTS, Handler, Response
from ..core.shutdown import DRAINED


def limited_body(handler: Handler, size: int) -> Handler:
    """`handler` for bodies of at most `size` bytes, instead of the server's `max_body_size`: 413 for a longer one."""

    async def handle(request: Request) -> Response:
        request.limit_body(size)
        return await handler(request)

    return handle


def with_kept_form(handler: Handler) -> Handler:
    """`handler` with `request.form()` keeping the body, which middleware or the binder reads as bytes, too."""

    async def handle(request: Request) -> Response:
        request.keep_form()
        return await handler(request)

    return handle


def limited_time(handler: Handler, timeout: float) -> Handler:
    """`handler`, cancelled after `timeout` seconds: 504. A client's `Request-Timeout` can shorten this."""

    async def handle(request: Request) -> Response:
        return await within_time(handler, request, timeout)

    return handle


async def within_time(handler: Handler, request: Request, timeout: float | None = None) -> Response:
    """Call `handler`, and cancel it after `timeout` seconds or when the client gives up, whichever is sooner.

    Code that the handler calls sees the deadline by `seconds_left`. A stream that it returns has only the client's.

    Raises:
        BudgetExhausted: The client has given up; also at once, before the handler starts.
        HTTPError: 504, the timeout has passed.
    """
    now = monotonic()
    at = sooner(request.time_limit, None if timeout is None else now + timeout)
    if at is None:
        return await handler(request)
    deadline = Deadline(at)
    token = current.set(deadline)
    try:
        if at <= now:
            raise budget_exhausted(request, "before the handler started")
        async with asyncio.timeout(at - now) as limit:
            return await handler(request)
    except TimeoutError:
        if at <= now or not limit.expired():
            raise
        if at == request.time_limit:
            raise budget_exhausted(request, "while the handler ran") from None
        raise HTTPError(504, f"The response was not ready within {timeout:g} s.") from None
    finally:
        deadline.at = request.time_limit
        with suppress(ValueError):  # the handler runs in a task of its own
            current.reset(token)


def with_known_budget(handler: Handler) -> Handler:
    """`handler` of a route with middleware: code of the middleware sees the client's deadline, too."""

    async def handle(request: Request) -> Response:
        if request.time_limit is None:
            return await handler(request)
        token = current.set(Deadline(request.time_limit))
        try:
            return await handler(request)
        finally:
            with suppress(ValueError):
                current.reset(token)

    return handle


def budget_exhausted(request: Request, when: str, *timings: str) -> BudgetExhausted:
    """The error of a request whose client has given up. Its message and `Server-Timing` name the budget.

    Args:
        request: The request.
        when: What the server did at that moment, as in "while the handler ran".
        timings: What else `Server-Timing` names.
    """
    fields = [request.headers.get(name.decode(), "") for name in sorted(TIMEOUT_FIELDS, reverse=True)]
    given = " and ".join(filter(None, fields)) or "its caller"
    error = BudgetExhausted(f"The budget of the request, {given}, was used up {when}.")
    error.headers = [("server-timing", ", ".join([*timings, f'budget;desc="{given}"']))]
    return error


class IoLimit:
    """At most `limit` requests at a time in the handlers that share it; a further request gets 503 at once."""

    def __init__(self, limit: int, where: str = "the server") -> None:
        self.limit = limit
        self.where = where[0].upper() + where[1:]
        self.running = 0

    def around(self, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            if self.running >= self.limit:
                text = f"{self.where} already handles {self.limit} requests, its limit."
                error = HTTPError(503, text, headers=[("retry-after", "1")])
                error.never_started = True
                raise error
            self.running += 1
            try:
                return await handler(request)
            finally:
                self.running -= 1

        return handle


class UnstartedStreams:
    """Live streams that have not sent their head: a drain ends them, because the first item may never come."""

    def __init__(self) -> None:
        self.draining = False
        self._end_functions: set[Callable[[], object]] = set()

    def drain(self) -> None:
        """End these streams, and from now on each new one."""
        self.draining = True
        for end in list(self._end_functions):
            end()

    def around(self, handler: Handler, content_type: str) -> Handler:
        """`handler` of a live stream: a drain responds with 503, or with an empty event stream.

        Browsers reconnect after an empty event stream; after a 503 an EventSource gives up (WHATWG HTML, 9.2.3).
        """

        def ended() -> Response:
            if content_type == EVENTS:
                return Response(b"", headers=[("cache-control", "no-cache")], content_type=EVENTS)
            raise HTTPError(503, "The server is shutting down.", headers=[("retry-after", "1")])

        async def handle(request: Request) -> Response:
            if self.draining:
                return ended()
            task = asyncio.current_task()
            assert task is not None
            is_ended = False

            def end() -> None:
                nonlocal is_ended
                is_ended = True
                task.cancel(DRAINED)

            self._end_functions.add(end)
            try:
                return await handler(request)
            except asyncio.CancelledError:
                if not is_ended or task.uncancel():  # cancelled by a disconnect or a deadline
                    raise
            finally:
                self._end_functions.discard(end)
            return ended()

        return handle
