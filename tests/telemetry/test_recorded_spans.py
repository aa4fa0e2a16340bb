"""recorded_spans.py: OpenTelemetry's API, as an author's code uses it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from tinysvc.core.trace_context import TraceContext, current_trace, new_trace
from tinysvc.telemetry.recorded_spans import (
    OwnProvider,
    RecordedSpan,
    current_context,
    make_current,
    otel_context,
    own_context,
    record_to,
    recorded_span,
    within_span,
)
from tinysvc.telemetry.spans import MAX_ITEMS, SpanFields


class Recorded:
    """Keeps the spans."""

    def __init__(self, *, roots: bool = True) -> None:
        self.spans: list[SpanFields] = []
        self.roots = roots

    def record(self, span: SpanFields) -> None:
        self.spans.append(span)

    def samples_root(self) -> bool:
        return self.roots


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    found = Recorded()
    end = record_to(found)
    yield found
    end()


def tracer(recorder: Recorded | None, scope: str = "app") -> trace.Tracer:
    provider = OwnProvider()
    provider.recorder = recorder
    return provider.get_tracer(scope)


def test_span_inside_a_span() -> None:
    recorded = Recorded()
    ours = tracer(recorded)
    with ours.start_as_current_span("outer", kind=SpanKind.CLIENT, attributes={"a": 1}) as outer:
        outer.set_attributes({"b": [1, 2], "c": None})
        with ours.start_as_current_span("inner") as inner:
            inner.add_event("e", {"d": True}, 7)
            inner.add_link(outer.get_span_context(), {"f": "g"})
            inner.update_name("renamed")
    first, last = recorded.spans
    assert (first.name, first.parent_id, first.trace_id) == ("renamed", last.span_id, last.trace_id)
    assert (first.events[0].name, first.events[0].time, first.events[0].attributes) == ("e", 7, {"d": True})
    assert (first.links[0].span_id, first.links[0].attributes) == (last.span_id, {"f": "g"})
    assert (last.name, last.parent_id, last.kind, last.scope) == ("outer", "", SpanKind.CLIENT.value, "app")
    assert last.attributes == {"a": 1, "b": [1, 2]}
    assert last.start <= first.start <= first.end <= last.end


def test_exception_is_an_event_and_a_status() -> None:
    recorded = Recorded()
    with pytest.raises(ValueError, match="no"), tracer(recorded).start_as_current_span("fails"):
        raise ValueError("no")
    (span,) = recorded.spans
    assert (span.status, span.description) == (StatusCode.ERROR.value, "ValueError: no")
    assert span.events[0].attributes["exception.type"] == "ValueError"
    assert "test_recorded_spans.py" in span.events[0].attributes["exception.stacktrace"]


def test_span_may_be_kept_open_and_started_earlier() -> None:
    recorded = Recorded()
    other = otel_context(new_trace(True))
    span = tracer(recorded).start_span("later", start_time=5, links=[Link(other, {"a": "b"})])
    assert recorded.spans == []
    span.end(9)
    span.end(10)
    span.set_attribute("too", "late")
    span.add_event("too late")
    span.update_name("too late")
    span.set_status(StatusCode.ERROR)
    (found,) = recorded.spans
    assert (found.start, found.end, found.attributes, found.events, found.name) == (5, 9, {}, [], "later")
    assert found.links[0].attributes == {"a": "b"}
    assert not span.is_recording()


def test_status_ok_is_final() -> None:
    recorded = Recorded()
    with tracer(recorded).start_as_current_span("a") as span:
        span.set_status(StatusCode.UNSET)
        span.set_status(Status(StatusCode.ERROR, "first"))
        span.set_status(StatusCode.OK)
        span.set_status(StatusCode.ERROR, "second")
    assert (recorded.spans[0].status, recorded.spans[0].description) == (StatusCode.OK.value, "")


def test_span_is_bounded() -> None:
    recorded = Recorded()
    with tracer(recorded).start_as_current_span("a") as span:
        for n in range(MAX_ITEMS + 1):
            span.set_attribute(f"n{n}", n)
            span.add_event("e")
            span.add_link(otel_context(new_trace(True)))
        span.set_attribute("n0", "changed")
    (found,) = recorded.spans
    assert (len(found.attributes), len(found.events), len(found.links)) == (MAX_ITEMS, MAX_ITEMS, MAX_ITEMS)
    assert found.attributes["n0"] == "changed"


def test_tracer_decorates_functions() -> None:
    recorded = Recorded()
    ours = tracer(recorded)

    @ours.start_as_current_span("plain")
    def plain() -> None: ...

    @ours.start_as_current_span("async")
    async def waits() -> bool:
        await asyncio.sleep(0)
        return recorded_span() is not None

    plain()
    plain()
    assert asyncio.run(waits())
    assert [span.name for span in recorded.spans] == ["plain", "plain", "async"]
    assert len({span.span_id for span in recorded.spans}) == 3


@pytest.mark.parametrize("recorder", [None, Recorded(roots=False)])
def test_span_that_is_not_sampled_names_an_unsampled_trace(recorder: Recorded | None) -> None:
    with tracer(recorder).start_as_current_span("a") as span:
        assert not span.is_recording()
        assert span.get_span_context().is_valid
        assert not span.get_span_context().trace_flags.sampled
        with tracer(Recorded()).start_as_current_span("b") as inner:
            assert inner.get_span_context() == span.get_span_context()
    assert recorder is None or recorder.spans == []


def test_span_of_another_process_is_the_parent(recorded: Recorded) -> None:
    parent = new_trace(True)

    def job() -> None:
        make_current(parent)
        assert current_trace() == parent
        with trace.get_tracer("app").start_as_current_span("inside") as span:
            assert current_context() == own_context(span.get_span_context())
        make_current(None)
        assert current_context() is None

    contextvars.copy_context().run(job)
    (span,) = recorded.spans
    assert (span.trace_id, span.parent_id) == (parent.trace_id, parent.span_id)
    assert current_context() is None


def test_own_span_as_the_current_one(recorded: Recorded) -> None:
    context = new_trace(True)
    span = RecordedSpan(recorded, "request", context, start=3)
    with within_span(span):
        assert recorded_span() is span
        assert current_trace() == context
    assert recorded_span() is None
    span.fail("Broken", "it broke")
    span.end(5)
    (found,) = recorded.spans
    assert (found.start, found.end) == (3, 5)
    assert (found.status, found.description, found.attributes) == (2, "it broke", {"error.type": "Broken"})
    assert "request" in repr(span)


def test_contexts_are_the_same_in_both_forms() -> None:
    for context in (new_trace(True), new_trace(False), TraceContext("0" * 31 + "a", "0" * 15 + "b", True)):
        assert own_context(otel_context(context)) == context


def test_recorders_are_stacked() -> None:
    outer, inner = Recorded(), Recorded()
    end_outer = record_to(outer)
    end_inner = record_to(inner)
    ours = trace.get_tracer("app")
    ours.start_span("a").end()
    end_inner()
    ours.start_span("b").end()
    end_outer()
    ours.start_span("c").end()
    assert [span.name for span in inner.spans] == ["a"]
    assert [span.name for span in outer.spans] == ["b"]
