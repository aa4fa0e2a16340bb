"""Spans of the author's code in a worker: they travel to the server as frames, each when it ends.

A span that has ended is not lost when the worker is killed; one that has not is. Only OpenTelemetry's API is loaded
here: the SDK, its threads and its connections are the server's. Without a recorded job nothing is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from ..core.trace_context import trace_of
from ..pool.program import JobFunction, Reply
from ..pool.questions import reporting
from ..telemetry.recorded_spans import make_current, record_to
from ..telemetry.spans import SpanFields
from .cpu_messages import BatchMessage, DurableMessage

SPAN_RATE = 1000
"""Spans that a worker sends in a second. Further ones are dropped, and counted in the next one that is sent: the
server's event loop needs about 20 us for each."""


class WorkerRecorder:
    """Sends spans to the server. They never wait for it longer than any frame does."""

    def __init__(self) -> None:
        self.send: Callable[[Any], None] | None = None
        self._second = 0
        self._count = 0
        self._dropped = 0

    def record(self, span: SpanFields) -> None:
        """Send a span, unless the worker sends too many."""
        second = int(monotonic())
        if second != self._second:
            self._second, self._count = second, 0
        self._count += 1
        if self.send is None or self._count > SPAN_RATE:
            self._dropped += 1
            return
        if self._dropped:
            span.attributes["tinysvc.spans_dropped_before"] = self._dropped
        try:
            self.send(span)
            self._dropped = 0
        except OSError:  # the server has closed the channel, or this is a forked child
            self._dropped += 1

    def samples_root(self) -> bool:
        """A span outside of a recorded job belongs to no request."""
        return False


_recorder = WorkerRecorder()
_is_open = False


def traced(run_job: JobFunction) -> JobFunction:
    """`run_job`, in which the author's spans belong to the job's own span, if that is recorded."""

    def run(meta: Any, body: bytes | memoryview) -> Reply:
        context = trace_of(_lines_of(meta))
        if context is not None and context.is_sampled:
            _begin()
            make_current(context)  # for the rest of the job, also for its stream: it has a context of its own
        elif reporting.get() is None:
            make_current(None)  # jobs in a thread share one context
        return run_job(meta, body)

    return run


def _begin() -> None:
    """Let spans go to the server, if this is a worker. In a pool of threads the server has its own recorder."""
    global _is_open
    report = reporting.get()
    if report is None:
        return
    _recorder.send = report
    if not _is_open:
        _is_open = True
        record_to(_recorder)


def _lines_of(meta: Any) -> Sequence[tuple[bytes, bytes]]:
    """The headers of the job; of a batch, those of its first recorded request."""
    if type(meta) is DurableMessage:
        return meta.request.headers
    if type(meta) is not BatchMessage:
        return meta.headers  # type: ignore[no-any-return]
    for each in meta.requests:
        context = trace_of(each.headers)
        if context is not None and context.is_sampled:
            return each.headers
    return ()
