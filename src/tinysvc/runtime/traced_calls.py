"""Spans of calls to handlers, over the network or in this process. Only in a service with `traces`.

A request that a call sends has its span in `traceparent`: for the callee that is the parent. All attempts of a call
are one span.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, Protocol

from opentelemetry.trace import SpanKind

from ..binding.outgoing import OutgoingRequest
from ..core.errors import TinysvcError
from ..core.trace_context import TRACEPARENT, TraceContext, new_span_id, parse_traceparent
from ..telemetry.recorded_spans import RecordedSpan, Recorder, recorded_span, within_span
from .call_context import CallContext
from .exchanges import Exchange, is_remote


class DirectTarget(Protocol):
    """A handler of this process that is called as a function."""

    name: str

    def arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]: ...

    async def value(self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...]) -> Any: ...

    def items(self, *_: Any) -> AsyncGenerator[Any, None]: ...


class TracedExchange:
    """An exchange that records the requests of recorded callers.

    Args:
        exchange: Sends the requests.
        recorder: Takes the spans.
        handler: Name of the called handler.
        service: Name of its service.
        over_rpc: Whether the requests go over gRPC.
    """

    def __init__(
        self, exchange: Exchange, recorder: Recorder, handler: str, service: str, *, over_rpc: bool = False
    ) -> None:
        self.is_remote = is_remote(exchange)
        self._exchange = exchange
        self._recorder = recorder
        self._handler = handler
        self._service = service
        self._over_rpc = over_rpc

    def __call__(self, sent: OutgoingRequest, context: CallContext) -> Awaitable[Any]:
        for name, value in sent.headers:
            if name == TRACEPARENT:
                parent = parse_traceparent(value.encode("latin-1"))
                if parent is not None and parent.is_sampled:
                    return self._record(sent, context, parent)
                break
        return self._exchange(sent, context)

    async def _record(self, sent: OutgoingRequest, context: CallContext, parent: TraceContext) -> Any:
        own = TraceContext(parent.trace_id, new_span_id(), True)
        span = RecordedSpan(self._recorder, f"call {self._handler}", own, parent.span_id, SpanKind.CLIENT)
        attributes = span.fields.attributes
        attributes["tinysvc.service"] = self._service
        if self._over_rpc:
            attributes |= {"rpc.system.name": "grpc", "rpc.method": sent.target.removeprefix("/")}
        else:
            attributes["http.request.method"] = sent.method
        headers = [line for line in sent.headers if line[0] != TRACEPARENT]
        headers.append((TRACEPARENT, own.traceparent))
        try:
            with within_span(span):
                incoming = await self._exchange(sent._replace(headers=headers), context)
        except BaseException as error:
            _fail(span, error)
            raise
        if incoming.replica:
            attributes["tinysvc.replica"] = incoming.replica
        attributes["tinysvc.call.attempts"] = incoming.attempts
        status = incoming.rpc_code if self._over_rpc else incoming.status
        attributes["rpc.status_code" if self._over_rpc else "http.response.status_code"] = status
        if incoming.status >= 400:
            span.fail(str(status))
        span.end()
        return incoming


class TracedDirect:
    """A handler of this process, whose calls by recorded callers are recorded.

    Args:
        target: The handler.
        recorder: Takes the spans.
    """

    def __init__(self, target: DirectTarget, recorder: Recorder) -> None:
        self.arguments = target.arguments
        self.items = target.items
        self._target = target
        self._recorder = recorder

    async def value(self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...]) -> Any:
        """The result of the handler."""
        parent = recorded_span()
        if parent is None:
            return await self._target.value(arguments, context, forwarded)
        outer = parent.trace_context
        own = TraceContext(outer.trace_id, new_span_id(), True)
        span = RecordedSpan(self._recorder, f"call {self._target.name}", own, outer.span_id)
        try:
            with within_span(span):
                result = await self._target.value(arguments, context, forwarded)
        except BaseException as error:
            _fail(span, error)
            raise
        span.end()
        return result


def _fail(span: RecordedSpan, error: BaseException) -> None:
    if isinstance(error, asyncio.CancelledError):
        span.fail("cancelled", "the caller has given up")
    else:
        span.fail(type(error).__name__, str(error) if isinstance(error, TinysvcError) else "")
    span.end()
