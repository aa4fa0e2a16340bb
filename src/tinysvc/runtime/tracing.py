"""Traces of one running service: which requests are recorded, and the span of each (OpenTelemetry).

    server span        GET /items/{name}       this file
      queue, run       queue default, run ...  traced_jobs.py; also of a job that is killed
        its own spans  whatever the author's code in the worker begins: worker_tracing.py
      call             call shop.price         traced_calls.py
    attempt            attempt /trainings      of a durable job, a trace of its own with a link to the request

Whether a request is recorded is decided before anything is built: by the caller, if it sends a `traceparent`; else by
chance, `trace_sample`. A recorded request gets a `traceparent` that names its span: log lines, calls, jobs and stored
requests read it there, whether traces are on or not.

Nothing here is imported or called in a service without `traces`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import partial
from random import random
from typing import Any, Protocol

from opentelemetry.trace import SpanKind

from ..core.headers import Headers
from ..core.requests import Request
from ..core.responses import FileContent, Handler, Response, close_content
from ..core.settings import Settings
from ..core.threads import in_thread
from ..core.trace_context import TraceContext, new_span_id, new_trace, trace_of, with_trace
from ..telemetry.instruments import metric_of
from ..telemetry.recorded_spans import RecordedSpan, record_to, within_span
from ..telemetry.snapshots import Metric
from ..telemetry.span_export import OtlpExport, SpanQueue, destination
from ..telemetry.spans import MAX_TEXT, checked_span

log = logging.getLogger("tinysvc.traces")

LAST_SENDING = 2.0
"""Seconds, at most, in which the last spans are sent while the server ends: a collector takes milliseconds."""

PROBES = frozenset({"/livez", "/readyz"})
"""Probes and scrapes come every few seconds, and say nothing about the work of the service."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?")


class Serving(Protocol):
    """A running service."""

    async def handle(self, request: Request) -> Response: ...

    def route_of(self, request: Request) -> str: ...


Describe = Callable[[Request], tuple[str, dict[str, Any]]]
"""The name of a request's span, and its attributes."""


class Tracing:
    """The traces of one running service.

    Args:
        queue: Takes the spans.
        sample: Share of the requests without a `traceparent` that are recorded.
        quiet: Paths of which requests are recorded only for a caller that records them.
    """

    def __init__(self, queue: SpanQueue, sample: float, quiet: frozenset[str] = PROBES) -> None:
        self._quiet = quiet
        self.queue = queue
        self._sample = sample

    def around(self, running: Serving, describe: Describe | None = None) -> Handler:
        """The handler of the service, with a span around each request that is recorded.

        Args:
            running: The service.
            describe: Says what the span is called; by default it has the attributes of an HTTP request.
        """
        handle, sample, quiet, record = running.handle, self._sample, self._quiet, self._record

        def traced(request: Request) -> Any:
            lines = request.headers.raw
            parent = None
            for line in lines:  # mostly there is none: look for it without a call
                if line[0] == b"traceparent":
                    parent = trace_of(lines)
                    break
            is_sampled = random() < sample and request.raw_path not in quiet if parent is None else parent.is_sampled
            return record(running, describe, request, parent) if is_sampled else handle(request)

        return traced

    async def _record(
        self, running: Serving, describe: Describe | None, request: Request, parent: TraceContext | None
    ) -> Response:
        span = self._begin(describe or partial(_http_span, running), request, parent)
        try:
            with within_span(span):
                response = await running.handle(request)
        except BaseException as error:  # the client has disconnected, or the server aborts the connection
            span.fail(type(error).__name__, "the request was ended before its response")
            span.end()
            raise
        if describe is None:
            span.fields.attributes["http.response.status_code"] = response.status
        if response.status >= 500:
            span.fail(str(response.status))
        content = response.content
        if isinstance(content, (bytes, memoryview, FileContent)):
            span.end()
        else:
            response.content = TracedStream(content, span)
        return response

    def _begin(self, describe: Describe, request: Request, parent: TraceContext | None) -> RecordedSpan:
        own = new_trace(True) if parent is None else TraceContext(parent.trace_id, new_span_id(), True)
        name, known = describe(request)
        parent_id = "" if parent is None else parent.span_id
        span = RecordedSpan(self.queue, name, own, parent_id, SpanKind.SERVER, is_remote=parent is not None)
        request.headers = Headers(with_trace(request.headers.raw, own, keep_state=parent is not None))
        known["tinysvc.request.id"] = request.id
        span.fields.attributes.update((name, value) for name, value in known.items() if value)
        return span

    def metrics(self) -> Iterable[Metric]:
        """What has become of the spans."""
        queue = self.queue
        ends = [(["sent"], queue.sent), (["dropped"], queue.dropped), (["lost"], queue.lost)]
        text = "Spans by outcome: sent; dropped, as the queue was full; lost, as the collector did not take them."
        return [metric_of("counter", "tinysvc.traces.spans", text, ends, ["outcome"])]

    def reports_of(self, pool: str) -> Callable[[int, Any], None]:
        """The function that takes the spans of the workers of a pool."""

        def take(worker: int, fields: Any) -> None:
            try:
                span = checked_span(fields)
            except ValueError as error:
                log.warning("worker %d of the pool %s sent an invalid span: %s", worker, pool, error)
                return
            span.attributes["tinysvc.pool"], span.attributes["tinysvc.worker"] = pool, worker
            self.queue.record(span)

        return take


def _http_span(running: Serving, request: Request) -> tuple[str, dict[str, Any]]:
    route = running.route_of(request).partition(" ")[2]
    host, port = _host_and_port(request.host)
    client = request.client
    return f"{request.method} {route}".rstrip(), {
        "http.request.method": request.method,
        "http.route": route,
        "url.path": request.raw_path[:MAX_TEXT],
        "url.scheme": request.scheme,
        "server.address": host,
        "server.port": port,
        "client.address": client[0] if isinstance(client, tuple) and client else "",
        "user_agent.original": request.headers.get("user-agent", ""),
    }


def _host_and_port(text: str) -> tuple[str, int]:
    """Host and port of a `Host` header; 0 if it has no port."""
    found = _HOST.fullmatch(text)
    return (found[1], int(found[2] or 0)) if found else (text, 0)


class TracedStream:
    """The content of a recorded response: its end is the end of the span."""

    def __init__(self, pieces: Any, span: RecordedSpan) -> None:
        self._pieces = pieces
        self._span = span

    def __aiter__(self) -> TracedStream:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._span.end()
            raise
        except BaseException as error:
            self._span.fail(type(error).__name__, "the stream failed half-way")
            self._span.end()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pieces, name)  # `tail`, `fail` and the like of the stream itself

    async def aclose(self) -> None:
        """The stream is not sent to its end, or its end has been sent."""
        try:
            await close_content(self._pieces)
        finally:
            if self._span.is_recording():
                self._span.fail("aborted", "the stream was aborted before its end")
                self._span.end()


class OpenTracing:
    """Traces from the start of a service to its end.

    Args:
        settings: The server's settings.
        service: Name of the service, unless an OTEL_ variable has one.

    Raises:
        ConfigurationError: OpenTelemetry's SDK is not installed, or its variables ask for another protocol.
    """

    def __init__(self, settings: Settings, service: str) -> None:
        self._export = OtlpExport(settings.traces, service)
        sample = settings.trace_sample
        queue = SpanQueue(self._export, destination(settings.traces), lambda: random() < sample)
        self.tracing = Tracing(queue, sample, PROBES | {settings.metrics})
        self._end = record_to(queue)

    async def aclose(self, seconds: float) -> None:
        """Send what waits, within `seconds`."""
        self._end()
        queue = self.tracing.queue
        left = await in_thread(lambda: queue.close(min(seconds, LAST_SENDING)))
        self._export.close()
        if left:
            log.warning("%d spans were not sent before the server ended", left)


def open_tracing(settings: Settings, service: str) -> OpenTracing:
    """Begin to record. ConfigurationError if that is not possible."""
    return OpenTracing(settings, service)
