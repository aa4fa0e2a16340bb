"""trace_context.py: the headers of W3C Trace Context, and the span that the running code belongs to."""

from __future__ import annotations

import pytest

from tinysvc import Request
from tinysvc.core.budget import Deadline, current
from tinysvc.core.headers import Headers
from tinysvc.core.trace_context import (
    TraceContext,
    add_source,
    current_trace,
    new_span_id,
    new_trace,
    parse_traceparent,
    trace_headers,
    trace_of,
    with_trace,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "is_sampled"),
    [
        (GIVEN, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # the flag for random trace ids
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
    ],
)
def test_valid_header(text: str, is_sampled: bool) -> None:
    assert parse_traceparent(text.encode()) == TraceContext(TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"{GIVEN}\n",
    ],
)
def test_invalid_header_is_ignored(text: str) -> None:
    assert parse_traceparent(text.encode()) is None


def test_two_headers_are_none() -> None:
    line = (b"traceparent", GIVEN.encode())
    assert trace_of([(b"host", b"a"), line]) == TraceContext(TRACE, SPAN, True)
    assert trace_of([(b"traceparent", f" {GIVEN}\t".encode())]) == TraceContext(TRACE, SPAN, True)
    assert trace_of([line, line]) is None
    assert trace_of([]) is None


def test_new_ids_are_valid_and_unlike() -> None:
    one, other = new_trace(True), new_trace(False)
    assert parse_traceparent(one.traceparent.encode()) == one
    assert parse_traceparent(other.traceparent.encode()) == other
    assert one.trace_id != other.trace_id
    assert new_span_id() != new_span_id()


def test_header_is_replaced() -> None:
    lines = [(b"a", b"1"), (b"traceparent", b"x"), (b"tracestate", b"k=v")]
    span = TraceContext(TRACE, SPAN, True)
    ours = (b"traceparent", GIVEN.encode())
    assert with_trace(lines, span, keep_state=True) == [(b"a", b"1"), (b"tracestate", b"k=v"), ours]
    assert with_trace(lines, span, keep_state=False) == [(b"a", b"1"), ours]


def test_current_trace_is_that_of_the_request_or_of_a_span() -> None:
    assert current_trace() is None
    token = current.set(Deadline(None, Request("GET", "/", headers=Headers([(b"traceparent", GIVEN.encode())]))))
    try:
        assert current_trace() == TraceContext(TRACE, SPAN, True)
        inner = new_trace(True)
        remove = add_source(lambda: inner)
        assert current_trace() == inner
        remove()
        assert current_trace() == TraceContext(TRACE, SPAN, True)
    finally:
        current.reset(token)


def test_headers_of_a_call() -> None:
    given = Headers([(b"traceparent", GIVEN.encode()), (b"tracestate", b"k=v")])
    assert trace_headers(None) == []
    assert trace_headers(Headers()) == []
    assert trace_headers(given) == [("traceparent", GIVEN), ("tracestate", "k=v")]
    inner = TraceContext(TRACE, "0000000000000001", True)
    remove = add_source(lambda: inner)
    assert trace_headers(None) == [("traceparent", inner.traceparent)]
    assert trace_headers(given) == [("traceparent", inner.traceparent), ("tracestate", "k=v")]
    remove()


def test_call_of_an_unsampled_request_says_so() -> None:
    remove = add_source(lambda: None)
    ((name, value),) = trace_headers(Headers())
    remove()
    found = parse_traceparent(value.encode())
    assert name == "traceparent"
    assert found is not None
    assert not found.is_sampled
