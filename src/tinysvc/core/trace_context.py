"""Trace context (W3C): which span a request, a call or a log line belongs to.

    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
                 version, trace id, span id, flags: 01 is sampled

All of this works without OpenTelemetry: a service without traces of its own passes the header on, and its log lines
name the trace. `runtime/tracing.py` records spans; while it does, `current_trace` finds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import getrandbits
from typing import NamedTuple

from .budget import current_request
from .headers import Headers
from .request_context import current_owner

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"

_GRAMMAR = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class TraceContext(NamedTuple):
    """One span, as other processes know it."""

    trace_id: str
    """32 hex digits."""
    span_id: str
    """16 hex digits."""
    is_sampled: bool
    """Whether the span is recorded."""

    @property
    def traceparent(self) -> str:
        """The value of the header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"


def new_span_id() -> str:
    """A random span id."""
    return f"{getrandbits(64) or 1:016x}"


def new_trace(is_sampled: bool) -> TraceContext:
    """The first span of a new trace."""
    return TraceContext(f"{getrandbits(128) or 1:032x}", new_span_id(), is_sampled)


def parse_traceparent(value: bytes) -> TraceContext | None:
    """The span that a header names; None if the header is invalid (W3C Trace Context, 3.2.2)."""
    found = _GRAMMAR.fullmatch(value)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    context = TraceContext(trace_id.decode(), span_id.decode(), bool(int(flags, 16) & 1))
    return None if context.trace_id == _NO_TRACE or context.span_id == _NO_SPAN else context


def trace_of(lines: Sequence[tuple[bytes, bytes]]) -> TraceContext | None:
    """The span that the header lines of a request name; None if there is none, or more than one."""
    found = None
    for name, value in lines:
        if name == b"traceparent":
            if found is not None:
                return None
            found = value
    return None if found is None else parse_traceparent(found.strip(b" \t"))


def with_trace(
    lines: Sequence[tuple[bytes, bytes]], context: TraceContext, *, keep_state: bool
) -> list[tuple[bytes, bytes]]:
    """The header lines with `context` as their span. `tracestate` belongs to the old trace: kept only on demand."""
    dropped = (b"traceparent",) if keep_state else (b"traceparent", b"tracestate")
    kept = [line for line in lines if line[0] not in dropped]
    kept.append((b"traceparent", context.traceparent.encode()))
    return kept


# The running code

Source = Callable[[], TraceContext | None]
"""Returns the span that the calling code has begun."""

_sources: list[Source] = []


def add_source(source: Source) -> Callable[[], None]:
    """Let `source` name the current span from now on. Returns a function that ends this."""
    _sources.append(source)
    return lambda: _sources.remove(source)


def current_trace() -> TraceContext | None:
    """The span that the calling code belongs to: on the event loop, in a thread or in a worker.

    It is the innermost span that is recorded here; else the one that the `traceparent` of the current request names.
    """
    if _sources and (found := _sources[-1]()) is not None:
        return found
    owner = current_owner()
    request = owner.current_request() if owner is not None else current_request()
    return trace_of(request.headers.raw) if request is not None else None


def trace_headers(headers: Headers | None) -> list[tuple[str, str]]:
    """The headers with which a call passes the trace on.

    Args:
        headers: Those of the request that the calling code works for; None if there is no request.
    """
    found = _sources[-1]() if _sources else None
    if headers is None:
        return [] if found is None else [(TRACEPARENT, found.traceparent)]
    lines = [(name, headers[name]) for name in (TRACEPARENT, TRACESTATE) if name in headers]
    if found is not None:
        return [(TRACEPARENT, found.traceparent), *lines[1:]]
    if _sources and not lines:  # so the callee does not decide anew: the whole request is not sampled
        lines.append((TRACEPARENT, new_trace(False).traceparent))
    return lines
