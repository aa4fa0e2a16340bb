"""Limits on handlers, as handlers around them. What a route or a server does not limit has none around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..core.errors import HTTPError
from ..core.messages import DRAINED, EVENTS, Handler, Request, Response


def limited_body(handler: Handler, size: int) -> Handler:
    """`handler` with bodies of at most `size` bytes, whatever the server's `max_body_size`: 413 for a longer one."""

    async def handle(request: Request) -> Response:
        request.limit_body(size)
        return await handler(request)

    return handle


def with_kept_form(handler: Handler) -> Handler:
    """`handler`, within which `request.form()` keeps the body for those that read it as bytes."""

    async def handle(request: Request) -> Response:
        request.keeps_form = True
        return await handler(request)

    return handle


def limited_time(handler: Handler, timeout: float) -> Handler:
    """`handler`, which is cancelled after `timeout` seconds: 504."""

    async def handle(request: Request) -> Response:
        try:
            async with asyncio.timeout(timeout) as limit:
                return await handler(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise HTTPError(504, f"The request was not answered within {timeout:g} s.") from None

    return handle


class IoLimit:
    """At most `limit` requests in the handlers put under it at one time; who comes then is told at once: 503."""

    def __init__(self, limit: int, where: str = "the server") -> None:
        self.limit = limit
        self.where = where[0].upper() + where[1:]
        self.running = 0

    def around(self, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            if self.running >= self.limit:
                raise HTTPError(
                    503,
                    f"{self.where} is at work on {self.limit} requests, as many as it may.",
                    headers=[("retry-after", "1")],
                )
            self.running += 1
            try:
                return await handler(request)
            finally:
                self.running -= 1

        return handle


class Beginnings:
    """Live streams that have not sent their head: a drain does not wait for the first item, which may never come."""

    def __init__(self) -> None:
        self.draining = False
        self._ends: set[Callable[[], object]] = set()

    def drain(self) -> None:
        """End those that are there, and from now on each new one."""
        self.draining = True
        for end in list(self._ends):
            end()

    def around(self, handler: Handler, content_type: str) -> Handler:
        """`handler` of a live stream. A drain answers 503, or with no events: browsers reconnect."""

        def ended() -> Response:
            if content_type == EVENTS:  # at a 503 an EventSource gives up (WHATWG HTML, 9.2.3)
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

            self._ends.add(end)
            try:
                return await handler(request)
            except asyncio.CancelledError:
                if not is_ended or task.uncancel():  # the client has disconnected, or the time is over
                    raise
            finally:
                self._ends.discard(end)
            return ended()

        return handle
