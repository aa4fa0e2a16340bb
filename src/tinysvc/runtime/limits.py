"""Limits of a route or of the server, each a handler around a handler; an unlimited route has none around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
        request.keeps_form = True
        return await handler(request)

    return handle


def limited_time(handler: Handler, timeout: float) -> Handler:
    """`handler`, cancelled after `timeout` seconds: 504."""

    async def handle(request: Request) -> Response:
        try:
            async with asyncio.timeout(timeout) as limit:
                return await handler(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise HTTPError(504, f"The response was not ready within {timeout:g} s.") from None

    return handle


class IoLimit:
    """At most `limit` requests at a time in the handlers that share it; a further request gets 503 at once."""

    def __init__(self, limit: int, where: str = "the server") -> None:
        self.limit = limit
        self.where = where[0].upper() + where[1:]
        self.running = 0

    def around(self, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            if self.running >= self.limit:
                raise HTTPError(
                    503,
                    f"{self.where} already handles {self.limit} requests, its limit.",
                    headers=[("retry-after", "1")],
                )
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
