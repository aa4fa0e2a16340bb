"""Counts requests: a handler around the handler of each route observes how long it took and how it ended.

A request costs two reads of the clock, one look into a dictionary and one bisection. A stream is counted at its end.
The route is the template, never the path, and a request without a route has the route "": a scanner adds no series.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from time import perf_counter

from ..core.requests import Request
from ..core.responses import Handler, Response, close_content
from ..service.router import ROUTABLE_METHODS
from ..telemetry.instruments import EXEMPLAR_INTERVAL, OTHER, Histogram, Registry

SWITCHED = 101
"""The status of an accepted WebSocket (RFC 9110, 15.2.2)."""

DISCONNECTED = 499
"""The status of a request whose client has disconnected before a response was made, as nginx logs it."""

MAX_ERROR_TYPES = 20
"""Types of errors of one route that get series of their own; further ones share OTHER."""

NO_TRACE_PAUSE = 0.01
"""Seconds in which a bucket does not look again for a trace, after a request that is in none: most may be in none."""

ErrorResponse = Callable[[BaseException, Request], Response]


class RequestMetrics:
    """The counts of all requests of one service.

    `trace_id_of` returns the id of the sampled trace that a request belongs to, or "".
    """

    def __init__(self, registry: Registry, trace_id_of: Callable[[Request], str]) -> None:
        self.trace_id_of = trace_id_of
        self._durations = registry.histogram(
            "http.server.request.duration",
            "Time from the head of a request to its response, of a stream to its end.",
            ["http.request.method", "http.route", "http.response.status_code", "error.type"],
        )

    def around(
        self, handler: Handler, method: str, route: str, error_response: ErrorResponse, *, is_socket: bool = False
    ) -> Handler:
        """`handler`, counted. It also turns errors into responses, to know their status.

        Args:
            handler: The whole handler of a route.
            method: The first of its methods. With it and status 200 the route has a series from the beginning: a rate
                needs the zero before the first request.
            route: Its path pattern, with the prefix of its service.
            error_response: The response to an error; it raises if the client has disconnected.
            is_socket: It serves WebSockets: those that it accepts get the status 101, and last until they close.
        """
        series: dict[tuple[str, int], Histogram] = {}
        error_types: set[str] = set()

        def begin_series(method: str, status: int) -> Histogram:
            found = series[method, status] = self._series(method, route, status, str(status) if status >= 500 else "")
            return found

        def fail(request: Request, error: BaseException, begin: float) -> Response | None:
            """The response to the error; None if the client has disconnected: then the error itself must go on."""
            response, status = None, DISCONNECTED
            with suppress(CancelledError, ConnectionAbortedError):
                response = error_response(error, request)
                status = response.status
            name = "" if 400 <= status < 500 else str(getattr(error, "type_name", "") or type(error).__name__)
            if name not in error_types:
                name = name if len(error_types) < MAX_ERROR_TYPES else OTHER
                error_types.add(name)
            self._observe(self._series(request.method, route, status, name), request, begin)
            return response

        def count(request: Request, response: Response, begin: float) -> Response:
            key = request.method, SWITCHED if is_socket else response.status
            found = series.get(key) or begin_series(*key)
            content = response.content
            if isinstance(content, AsyncIterator):
                response.content = CountedStream(content, lambda: self._observe(found, request, begin))
            else:
                self._observe(found, request, begin)
            return response

        usual = begin_series(method, SWITCHED if is_socket else 200)
        counts, due, bound = usual.counts, usual.due, usual.bounds[0]

        async def counted(request: Request) -> Response:
            begin = perf_counter()
            try:
                response = await handler(request)
            except BaseException as error:
                failed = fail(request, error, begin)
                if failed is None:
                    raise
                return failed
            seconds = perf_counter() - begin
            if (
                seconds > bound
                or begin >= due[0]
                or response.status != 200
                or request.method != method
                or type(response.content) is not bytes
            ):
                return count(request, response, begin)
            counts[0] += 1  # without a call: most requests of most routes end here
            usual.sum += seconds
            return response

        return counted

    def count_without_route(self, request: Request, response: Response) -> None:
        """Count a request for which there is no route. It takes no time worth observing."""
        self._series(request.method, "", response.status, "").observe(0.0)

    def _series(self, method: str, route: str, status: int, error: str) -> Histogram:
        method = method if method in ROUTABLE_METHODS else OTHER
        return self._durations.of(method, route, str(status), error)

    def _observe(self, series: Histogram, request: Request, begin: float) -> None:
        seconds = perf_counter() - begin
        bucket = series.observe(seconds)
        if begin >= series.due[bucket]:
            self._add_exemplar(series, bucket, request, seconds, begin)

    def _add_exemplar(self, series: Histogram, bucket: int, request: Request, seconds: float, now: float) -> None:
        if trace_id := self.trace_id_of(request):
            series.add_exemplar(bucket, trace_id, seconds)
            series.due[bucket] = now + EXEMPLAR_INTERVAL
        else:
            series.due[bucket] = now + NO_TRACE_PAUSE


class CountedStream:
    """A stream that reports its end. The connection iterates over the stream itself, so a piece costs nothing."""

    def __init__(self, content: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        self._content = content
        self._on_end: Callable[[], None] | None = on_end

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._content.__aiter__()

    async def __anext__(self) -> bytes:
        return await anext(self._content)

    def tail(self) -> bytes:
        """The bytes that a compressed stream sends at its end, also if it is ended early."""
        return self._content.tail() if hasattr(self._content, "tail") else b""

    async def aclose(self) -> None:
        """Close the stream. It is called at the end of each stream, whichever way it ends."""
        if self._on_end is not None:
            self._on_end()
            self._on_end = None
        await close_content(self._content)
