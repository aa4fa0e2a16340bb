"""The way of spans to a collector: a bounded queue, and a thread that sends them by OTLP over HTTP.

    any thread ──record──> queue (bound) ──> thread: batches ──> OpenTelemetry's exporter ──> collector
                             │ full: counted, dropped               │ fails: counted, lost

`record` never waits. A collector that is slow or away costs spans and no request, and one line of the log a minute.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from ..core.errors import ConfigurationError
from ..core.trace_context import TraceContext
from .recorded_spans import otel_context
from .spans import SpanFields

log = logging.getLogger("tinysvc.traces")

MAX_WAITING = 8192
"""Spans that may wait for the exporter, some ten megabytes: several seconds of a busy process."""

BATCH = 256
"""Spans in one request to the collector. To encode them takes some milliseconds, in which the event loop runs only when
the interpreter switches threads: OpenTelemetry's 512 would double that."""

DELAY = 1.0
"""Seconds that a span waits for others of its batch."""

QUIET = 60.0
"""Seconds between two lines of the log about lost spans."""

Export = Callable[[list[SpanFields]], str]
"""Sends a batch. Returns "", or the reason why it is lost. It may take as long as it wants, and must not raise."""


class SpanQueue:
    """Spans that wait for the exporter, and its thread.

    Args:
        export: Sends a batch; called in the thread.
        destination: For the log.
    """

    def __init__(self, export: Export, destination: str, samples_root: Callable[[], bool] = lambda: False) -> None:
        self.dropped = 0  # spans that found the queue full
        self.lost = 0  # spans that the collector did not take
        self.sent = 0
        self.samples_root = samples_root
        self._export = export
        self._destination = destination
        self._waiting: deque[SpanFields] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._abandoned = False  # nothing waits for the thread any more
        self._logged_at = -QUIET
        self._logged = 0  # of the dropped and lost ones
        self._sending = 0  # spans of the batch that is sent now
        self._fails = False  # the last batch was lost
        self._thread = threading.Thread(target=self._run, name="tinysvc-traces", daemon=True)
        self._thread.start()

    def record(self, span: SpanFields) -> None:
        """Queue a span, or drop it."""
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        waiting.append(span)
        if len(waiting) == BATCH:
            self._wake.set()

    def _run(self) -> None:
        while not self._stopped or self._waiting:
            if not self._stopped and len(self._waiting) < BATCH:
                self._wake.wait(DELAY)
            self._wake.clear()
            if batch := self._next_batch():
                self._send(batch)

    def _next_batch(self) -> list[SpanFields]:
        waiting = self._waiting
        batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
        self._sending = len(batch)
        return batch

    def _send(self, batch: list[SpanFields]) -> None:
        try:
            reason = self._export(batch)
        except Exception as error:  # a bug of the exporter must not end the thread
            reason = f"{type(error).__name__}: {error}"
        self._sending, self._fails = 0, bool(reason)
        if reason:
            self.lost += len(batch)
        else:
            self.sent += len(batch)
        missing = self.dropped + self.lost
        now = monotonic()
        if missing > self._logged and not self._abandoned and now - self._logged_at >= QUIET:
            self._logged_at = now
            text = reason or "it takes them more slowly than they come"
            log.warning("the collector at %s misses %d spans so far: %s", self._destination, missing, text)
            self._logged = missing

    def close(self, seconds: float) -> int:
        """Send what waits, within `seconds`; it blocks. Returns how many spans were left behind.

        A collector that has not taken the last batch gets no further one.
        """
        self._stopped = True
        self._wake.set()
        if not self._fails:
            self._thread.join(seconds)
        self._abandoned = True
        left = len(self._waiting) + self._sending
        self._waiting.clear()
        return left


class _Reasons(logging.Filter):
    """Keeps what the exporter would log of each failed batch: the queue logs it, at most once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.last = record.getMessage()
        return False


_reasons = _Reasons()


class OtlpExport:
    """Sends batches by OpenTelemetry's exporter.

    Args:
        traces: The setting.
        service: Name of the service, unless an OTEL_ variable names it.
        environ: The OTEL_ variables are read from here, and by the exporter itself.
        timeout: Seconds for a batch, with its retries. None: as the OTEL_ variables say, or 10.

    Raises:
        ConfigurationError: The variables ask for another protocol.
    """

    def __init__(
        self,
        traces: str,
        service: str,
        environ: Mapping[str, str] = os.environ,
        *,
        timeout: float | None = None,
    ) -> None:
        _check_protocol(traces, environ)
        self._exporter = OTLPSpanExporter(endpoint=_endpoint(traces), timeout=timeout)
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_reasons)
        resource = Resource.create({"service.instance.id": f"{os.uname().nodename}-{os.getpid()}"})
        name = resource.attributes.get(SERVICE_NAME, "")
        if str(name).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._resource = resource
        self._scopes: dict[str, InstrumentationScope] = {}

    def __call__(self, batch: list[SpanFields]) -> str:
        """Send a batch. Returns "" or the reason of the failure."""
        _reasons.last = ""
        result = self._exporter.export([self._readable(span) for span in batch])
        return "" if result is SpanExportResult.SUCCESS else _reasons.last or "the exporter has failed"

    def close(self) -> None:
        """End an attempt that is under way."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: SpanFields) -> ReadableSpan:
        scope = self._scopes.get(span.scope)
        if scope is None:
            if len(self._scopes) > 1000:
                self._scopes.clear()
            scope = self._scopes[span.scope] = InstrumentationScope(span.scope)
        parent = None
        if span.parent_id:
            parent = otel_context(TraceContext(span.trace_id, span.parent_id, True), is_remote=span.is_remote)
        return ReadableSpan(
            name=span.name,
            context=otel_context(TraceContext(span.trace_id, span.span_id, True)),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            events=[Event(event.name, event.attributes, event.time) for event in span.events],
            links=[
                Link(otel_context(TraceContext(link.trace_id, link.span_id, True)), link.attributes)
                for link in span.links
            ],
            kind=SpanKind(span.kind),
            status=Status(StatusCode(span.status), span.description or None),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=scope,
        )


def _check_protocol(traces: str, environ: Mapping[str, str]) -> None:
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if (protocol := environ.get(variable, "")) and traces == "otlp":
            if protocol != "http/protobuf":
                raise ConfigurationError(
                    f"{variable} is {protocol!r}, but traces are sent by http/protobuf only; set it to http/protobuf, "
                    "and the endpoint to that port of the collector, which is usually 4318"
                )
            return


def _endpoint(traces: str) -> str | None:
    """The address for the exporter; None: it reads the OTEL_ variables. A URL without a path gets the usual one."""
    if traces == "otlp":
        return None
    _, _, rest = traces.partition("://")
    return traces if rest.partition("/")[2] else f"{traces.rstrip('/')}/v1/traces"


def destination(traces: str, environ: Mapping[str, Any] = os.environ) -> str:
    """Where the traces go, for the log; without credentials."""
    if traces != "otlp":
        found = traces
    else:
        found = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or ""
    scheme, separator, rest = (found or "http://localhost:4318").partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
