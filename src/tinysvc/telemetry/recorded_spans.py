"""Spans that are recorded here, behind OpenTelemetry's API: those of tinysvc, and those of an author's own tracer.

    tracer.start_as_current_span("load")  ──> RecordedSpan ──> end ──> Recorder.record(SpanFields)

In a server the recorder is a queue before the exporter, in a worker it sends frames. So a worker, and the forkserver
from which it comes, needs OpenTelemetry's API alone, which starts no thread. A span without a recorded parent costs
an author's code a look at a context variable, and nothing is built.

The author's tracers reach this provider only if the author has installed none.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util._decorator import _agnosticcontextmanager

from ..core.trace_context import TraceContext, add_source, new_span_id, new_trace
from .spans import MAX_ITEMS, MAX_TEXT, SpanEvent, SpanFields, SpanLink, clean, clean_value

SAMPLED, NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)


class Recorder(Protocol):
    """Takes the spans of this process."""

    def record(self, span: SpanFields) -> None:
        """A span has ended. It may be called in any thread, and must not raise or wait."""

    def samples_root(self) -> bool:
        """Whether a span without a parent is recorded."""


def otel_context(context: TraceContext, *, is_remote: bool = False) -> SpanContext:
    """The span as OpenTelemetry names it."""
    flags = SAMPLED if context.is_sampled else NOT_SAMPLED
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote, flags)


def own_context(context: SpanContext) -> TraceContext:
    """The inverse of `otel_context`."""
    return TraceContext(f"{context.trace_id:032x}", f"{context.span_id:016x}", context.trace_flags.sampled)


class RecordedSpan(Span):
    """A span that is recorded. Attributes may be set until it ends."""

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        context: TraceContext,
        parent_id: str = "",
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        start: int = 0,
        scope: str = "tinysvc",
        is_remote: bool = False,
    ) -> None:
        self.trace_context = context
        self.fields = SpanFields(
            name, context.trace_id, context.span_id, parent_id, kind.value, start or time.time_ns(), 0, {}, [], []
        )
        self.fields.scope, self.fields.is_remote = scope, is_remote
        self._recorder = recorder

    def fail(self, kind: str, description: str = "") -> None:
        """Mark it as failed. `kind` becomes `error.type`."""
        self.fields.attributes["error.type"] = kind
        self.fields.status, self.fields.description = StatusCode.ERROR.value, description[:MAX_TEXT]

    def end(self, end_time: int | None = None) -> None:
        """Record it. Later calls do nothing."""
        if not self.fields.end:
            self.fields.end = end_time or time.time_ns()
            self._recorder.record(self.fields)

    def get_span_context(self) -> SpanContext:
        return otel_context(self.trace_context)

    def is_recording(self) -> bool:
        return not self.fields.end

    def set_attribute(self, key: str, value: Any) -> None:
        attributes = self.fields.attributes
        if self.is_recording() and value is not None and (key in attributes or len(attributes) < MAX_ITEMS):
            attributes[str(key)[:MAX_TEXT]] = clean_value(value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def add_event(self, name: str, attributes: Mapping[str, Any] | None = None, timestamp: int | None = None) -> None:
        if self.is_recording() and len(self.fields.events) < MAX_ITEMS:
            self.fields.events.append(SpanEvent(name[:MAX_TEXT], timestamp or time.time_ns(), clean(attributes)))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        if self.is_recording() and context.is_valid and len(self.fields.links) < MAX_ITEMS:
            found = own_context(context)
            self.fields.links.append(SpanLink(found.trace_id, found.span_id, clean(attributes)))

    def update_name(self, name: str) -> None:
        if self.is_recording():
            self.fields.name = name[:MAX_TEXT]

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """The status OK is final, as OpenTelemetry asks for."""
        code = status if isinstance(status, StatusCode) else status.status_code
        text = description if isinstance(status, StatusCode) else status.description
        if self.is_recording() and self.fields.status != StatusCode.OK.value and code is not StatusCode.UNSET:
            self.fields.status = code.value
            self.fields.description = (text or "")[:MAX_TEXT] if code is StatusCode.ERROR else ""

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        known: dict[str, Any] = {
            "exception.type": type(exception).__qualname__,
            "exception.message": str(exception),
            "exception.stacktrace": "".join(traceback.format_exception(exception))[-MAX_TEXT:],
        }
        self.add_event("exception", known | dict(attributes or {}), timestamp)

    def __repr__(self) -> str:
        return f"<RecordedSpan {self.fields.name!r} {self.trace_context.traceparent}>"


def recorded_span(context: Context | None = None) -> RecordedSpan | None:
    """The current span, if it is recorded here, else None."""
    found = trace.get_current_span(context)
    return found if isinstance(found, RecordedSpan) else None


def current_context() -> TraceContext | None:
    """The current span of the calling code, also one that another provider records; None if it has begun none."""
    found = trace.get_current_span()
    if isinstance(found, RecordedSpan):
        return found.trace_context
    context = found.get_span_context()
    return own_context(context) if context.is_valid else None


@contextmanager
def within_span(span: Span) -> Iterator[None]:
    """Let `span` be the current one. Unlike `trace.use_span` it notes no exception."""
    token = attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        detach(token)


def make_current(context: TraceContext | None) -> None:
    """Let a span of another process be the current one, or none, for the rest of the context."""
    span = trace.INVALID_SPAN if context is None else NonRecordingSpan(otel_context(context, is_remote=True))
    attach(trace.set_span_in_context(span))


class OwnTracer(trace.Tracer):
    """A tracer of the author's code."""

    def __init__(self, provider: OwnProvider, scope: str) -> None:
        self._provider = provider
        self._scope = scope

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        parent = trace.get_current_span(context).get_span_context()
        recorder = self._provider.recorder
        if parent.is_valid:
            if not parent.trace_flags.sampled or recorder is None:
                return NonRecordingSpan(parent)
            known = own_context(parent)
            own = TraceContext(known.trace_id, new_span_id(), True)
            span = RecordedSpan(
                recorder, name[:MAX_TEXT], own, known.span_id, kind, start=start_time or 0, scope=self._scope
            )
        else:
            if recorder is None or not recorder.samples_root():
                return NonRecordingSpan(otel_context(new_trace(False)))
            span = RecordedSpan(
                recorder, name[:MAX_TEXT], new_trace(True), "", kind, start=start_time or 0, scope=self._scope
            )
        span.set_attributes(attributes or {})
        for link in links or ():
            if isinstance(link, Link):
                span.add_link(link.context, link.attributes)
        return span

    @_agnosticcontextmanager  # as OpenTelemetry's own: it also decorates functions, and async ones
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[Span]:
        span = self.start_span(name, context, kind, attributes, links, start_time)
        with trace.use_span(span, end_on_exit, record_exception, set_status_on_exception):
            yield span


class OwnProvider(trace.TracerProvider):
    """Gives tracers to the author's code. Without a recorder they record nothing."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> trace.Tracer:
        return OwnTracer(self, instrumenting_module_name[:MAX_TEXT])


_provider = OwnProvider()


def record_to(recorder: Recorder) -> Callable[[], None]:
    """Let `recorder` take the spans of this process from now on. Returns a function that ends this."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # the author has installed no other
        trace.set_tracer_provider(_provider)
    before, _provider.recorder = _provider.recorder, recorder
    remove = add_source(current_context)

    def end() -> None:
        remove()
        if _provider.recorder is recorder:
            _provider.recorder = before

    return end
