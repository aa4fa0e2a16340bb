"""Spans of jobs: how long each waited and ran, whatever ended it. Only in a service with `traces`.

    parent (server span, call, ...)
      queue default      from its submission to its start; left out if it did not wait
      run /predict       from its start to its end in the server: a result, an error, a deadline, a dead worker

The ids of `run` travel to the worker with the job, so that the spans of the author's code are inside it. The span is
made by the server, which sees the end of each job: a killed worker loses none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from opentelemetry.trace import SpanKind

from ..core.trace_context import TraceContext, new_span_id, new_trace, trace_of, with_trace
from ..pool.job_reply import JobReply, JobStream
from ..pool.state import Job
from ..telemetry.recorded_spans import RecordedSpan, Recorder, recorded_span
from ..telemetry.spans import Attributes, SpanLink
from .artifact_labels import HEADER
from .cpu_messages import CallMessage, CallReply, DurableMessage, DurableReply, RequestMessage, ResponseHead

Submit = Callable[[Job], Job]


class TracedJobs:
    """Wraps the `submit_job` of a pool or a batcher.

    Args:
        recorder: Takes the spans.
        pool: Name of the pool.
        routes: The paths of its endpoints, by their numbers.
        has_artifacts: Its responses may name versions of artifacts.
    """

    def __init__(self, recorder: Recorder, pool: str, routes: Sequence[str], *, has_artifacts: bool = False) -> None:
        self._recorder = recorder
        self._pool = pool
        self._routes = routes
        self._has_artifacts = has_artifacts

    def around(self, submit: Submit) -> Submit:
        """`submit`, which records the jobs of recorded requests. The requests of a batch are recorded one by one."""

        def traced(job: Job) -> Job:
            meta = job.meta
            kind = type(meta)
            if kind is DurableMessage:
                lines = meta.request.headers
            elif kind is RequestMessage or kind is CallMessage:
                lines = meta.headers
            else:
                return submit(job)
            span = recorded_span()
            parent = trace_of(lines) if span is None else span.trace_context
            if parent is None or not parent.is_sampled:
                return submit(job)
            return self._record(submit, job, parent)

        return traced

    def _record(self, submit: Submit, job: Job, parent: TraceContext) -> Job:
        meta = job.meta
        route = self._routes[meta.endpoint]
        attributes: Attributes = {"tinysvc.pool": self._pool, "http.route": route}
        attempt = None
        if type(meta) is DurableMessage:
            attempt = self._attempt(meta, route, parent)
            parent = attempt.trace_context
        context = TraceContext(parent.trace_id, new_span_id(), True)
        run = RecordedSpan(self._recorder, f"run {route}", context, parent.span_id)
        run.fields.attributes.update(attributes)
        target = meta.request if type(meta) is DurableMessage else meta
        target.headers = with_trace(target.headers, context, keep_state=attempt is None)
        ending = _Ending(self._recorder, run, attempt, f"queue {self._pool}", parent, attributes, self._has_artifacts)
        try:
            submit(job)
        except BaseException as error:
            ending.refused(error)
            raise
        job.future.add_done_callback(partial(ending.settled, job))
        return job

    def _attempt(self, meta: DurableMessage, route: str, accepted: TraceContext) -> RecordedSpan:
        """The span of an attempt: the first one of a trace, as days may lie between the two."""
        span = RecordedSpan(self._recorder, f"attempt {route}", new_trace(True), "", SpanKind.CONSUMER)
        span.fields.links.append(SpanLink(accepted.trace_id, accepted.span_id))
        span.fields.attributes.update(
            {
                "http.route": route,
                "tinysvc.job.id": meta.job_id,
                "tinysvc.job.attempt": meta.attempt,
                "tinysvc.request.id": meta.request.id,
            }
        )
        return span


class _Ending:
    """What is recorded when a job ends."""

    def __init__(
        self,
        recorder: Recorder,
        run: RecordedSpan,
        attempt: RecordedSpan | None,
        queue: str,
        parent: TraceContext,
        attributes: Attributes,
        has_artifacts: bool,
    ) -> None:
        self._recorder = recorder
        self._run = run
        self._attempt = attempt
        self._queue_name = queue
        self._parent = parent
        self._attributes = attributes
        self._has_artifacts = has_artifacts

    def refused(self, error: BaseException) -> None:
        """The pool has not taken it."""
        self._end_queue(time.time_ns(), error)

    def settled(self, job: Job, future: asyncio.Future[JobReply]) -> None:
        """Its future is done: it has ended, or its stream has begun, or its caller has given up."""
        submitted = self._run.fields.start
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        ended = job.settled or monotonic()
        started = min(job.started or ended, ended)
        started_at = submitted + int((started - job.admitted) * 1e9)
        ended_at = submitted + int((ended - job.admitted) * 1e9)
        if not job.started:
            self._end_queue(ended_at, error)
            return
        if started > job.admitted:
            self._queue(started_at).end(started_at)
        self._run.fields.start = started_at
        stream = None if error is not None else future.result().body
        if self._has_artifacts and error is None:
            self._note_artifact(future.result().meta)
        if isinstance(stream, JobStream):
            stream.call_at_end(self._stream_ended)
        elif error is not None:
            self._end(error, ended_at)
        else:
            self._end_with(future.result().meta, ended_at)

    def _note_artifact(self, reply: Any) -> None:
        """Note the versions that the worker has open."""
        for name, value in getattr(reply, "headers", ()):
            if name == HEADER:
                self._run.fields.attributes["tinysvc.artifact"] = value

    def _stream_ended(self, error: BaseException | None) -> None:
        self._end(error, time.time_ns())

    def _queue(self, end: int) -> RecordedSpan:
        context = TraceContext(self._parent.trace_id, new_span_id(), True)
        start = min(self._run.fields.start, end)
        span = RecordedSpan(self._recorder, self._queue_name, context, self._parent.span_id, start=start)
        span.fields.attributes.update(self._attributes)
        return span

    def _end_queue(self, end: int, error: BaseException | None) -> None:
        """The job has ended before its start."""
        span = self._queue(end)
        for each in (span, self._attempt):
            if each is not None:
                _note(each, error)
                each.end(end)

    def _end(self, error: BaseException | None, end: int) -> None:
        for each in (self._run, self._attempt):
            if each is not None:
                _note(each, error)
                each.end(end)

    def _end_with(self, reply: Any, end: int) -> None:
        """The worker has replied, perhaps with an error."""
        kind, text = _failure_of(reply)
        for each in (self._run, self._attempt):
            if each is not None:
                if kind:
                    each.fail(kind, text)
                each.end(end)


def _failure_of(reply: Any) -> tuple[str, str]:
    """The kind and the text of the failure in a worker's reply; empty if it has none."""
    if isinstance(reply, ResponseHead) and reply.status >= 500:
        return str(reply.status), ""
    if isinstance(reply, CallReply) and reply.failure is not None:
        return reply.failure.type_name, reply.failure.message
    if isinstance(reply, DurableReply) and reply.failure is not None:
        return reply.failure.cause, reply.failure.detail
    return "", ""


def _note(span: RecordedSpan, error: BaseException | None) -> None:
    if isinstance(error, asyncio.CancelledError):
        span.fail("cancelled", "the caller has given up")
    elif error is not None:
        span.fail(getattr(error, "type_name", "") or type(error).__name__, str(error).partition("\n")[0])
