"""call_context.py: the time of a call, and its place in a chain."""

from __future__ import annotations

from contextvars import Context
from time import monotonic

import pytest

from tinysvc import CallRefused, Request, budget
from tinysvc.core.headers import Headers
from tinysvc.runtime.call_context import GRACE, LONGEST, MAX_HOPS, CallContext, call_context, calling, hops_of, time_for


def request(**headers: str) -> Request:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("GET", "/", headers=Headers(lines))


def test_time_where_the_caller_has_no_deadline() -> None:
    assert time_for(None, 30.0) == 30.0
    assert time_for(None, 0.0) == LONGEST
    assert time_for(0.5, 30.0) == 0.5 + GRACE
    assert time_for(0, 30.0) == LONGEST


def test_deadline_of_the_block_counts() -> None:
    now = monotonic()
    assert 100 <= call_context(100.0).deadline - now < 101
    with budget(5):
        assert call_context(100.0).deadline - now < 6


@pytest.mark.parametrize(
    ("text", "hops"), [("3", 3), ("016", 16), ("", 0), ("-1", 0), ("x", 0), ("1.5", 0), ("9999", 0), ("\xb2", 0)]
)
def test_hops_that_a_sender_may_write(text: str, hops: int) -> None:
    lines = [(b"x-call-hops", text.encode("latin-1"))]
    assert hops_of(Request("GET", "/", headers=Headers(lines))) == hops


def test_called_code_is_one_hop_further() -> None:
    token = calling.set(CallContext(0.0, "", request(traceparent="t", x_other="o"), 4))
    try:
        context = call_context(1.0)
        assert context.hops == 5
        assert context.headers() == [
            ("x-call-hops", "5"),
            ("x-request-id", context.request_id),
            ("traceparent", "t"),
        ]
        assert ("x-other", "o") in context.headers(["x-other", "x-missing"])
    finally:
        calling.reset(token)


def test_seventeenth_hop_is_refused() -> None:
    token = calling.set(CallContext(0.0, "", None, MAX_HOPS))
    try:
        with pytest.raises(CallRefused, match="has passed 16 services"):
            call_context(1.0)
    finally:
        calling.reset(token)


def test_code_without_a_request_sends_no_id() -> None:
    empty = Context()  # other tests of this process have set an id
    assert empty.run(call_context, 1.0).headers() == [("x-call-hops", "1")]
