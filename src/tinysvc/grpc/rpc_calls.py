"""One RPC: message -> Request -> the handler of its route -> message and status.

The handler runs in grpcio's task of the RPC, which grpcio cancels when the client cancels, disconnects, or its deadline
passes. That stops everything, as a disconnect does over HTTP: the job is killed. Two kinds of work must go on: a route
with `on_disconnect="finish"`, and the closing of resources of the request, such as a commit. Their RPCs run in a task
of their own (`_apart`), which decides about a cancellation itself.

The deadline of an RPC is the client's part of the request's budget, so code that asks for `seconds_left()` sees it. No
timer is needed for it: grpcio has one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from ..core import forks
from ..core.budget import Deadline, current
from ..core.errors import HTTPError, TinysvcError
from ..core.headers import Headers
from ..core.request_context import owner_by_task
from ..core.requests import Request
from ..core.responses import MESSAGE, Handler, Response, close_content, problem_response
from ..core.shutdown import DRAINED
from ..core.tracebacks import author_traceback, indented, observe_error
from ..runtime.message_routes import MessageRoute
from ..runtime.open_resources import is_closing
from .rpc_errors import RpcStatus, status_of
from .rpc_requests import header_lines, metadata_of, peer_of
from .silent_calls import SilentCalls

if TYPE_CHECKING:
    from ..runtime.tracing import Tracing

log = logging.getLogger("tinysvc.grpc")

Code = grpc.StatusCode

QUIET = 0.005
"""Seconds without a new call after which a drain may begin: a call that has arrived is taken within much less."""

LONGEST_HOLD = 0.25
"""Seconds, at most, in which replies are held at the beginning of a drain."""

Context = Any
"""grpcio's context of an RPC (grpc.aio.ServicerContext)."""

Behavior = Callable[[Any, Context], Awaitable[Any]]
"""A function that grpcio calls for each RPC of a method."""


class RpcServing(Protocol):
    """The running service, as the RPCs see it."""

    tracing: Tracing | None

    def respond_to_error(self, error: BaseException, request: Request) -> Response:
        """The response to an error. Raises CancelledError or ConnectionAbortedError if no caller waits for it."""

    def url_for(self, handler: Callable[..., Any], /, **parameters: Any) -> str: ...


class OpenCall:
    """An RPC that runs."""

    __slots__ = ("begun", "is_ended", "request", "status")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.begun = perf_counter()
        self.status = Code.OK
        self.is_ended = False  # the server shuts down, and has cancelled it

    def current_request(self) -> Request:
        """The request that its task works for."""
        return self.request


class OpenCalls:
    """The RPCs that run, by their tasks, and the bytes of their messages.

    Args:
        scheme: "https" with TLS, else "http".
        silent: Those whose message has not arrived.
        max_bytes: Of the messages of all running RPCs.
    """

    def __init__(self, scheme: str, silent: SilentCalls, max_bytes: int) -> None:
        self.scheme = scheme
        self.silent = silent
        self.max_bytes = max_bytes
        self.by_task: dict[asyncio.Task[Any], OpenCall] = {}
        self.message_bytes = 0
        self.left: set[asyncio.Task[Any]] = set()  # tasks whose client has gone, and that may finish
        self.begun = 0  # calls since the start
        self.gate: asyncio.Event | None = None  # replies wait for it: see `hold_replies`
        self.on_end: list[Callable[[RpcMethod, OpenCall], None]] = []  # metrics and the access log

    @asynccontextmanager
    async def hold_replies(self) -> AsyncIterator[None]:
        """Hold the replies of calls while the block runs, which begins when no new call has come for a moment.

        grpcio takes one call after the other. At its shutdown it cancels those that have arrived and are not yet taken,
        and their clients do not repeat them. A client that waits for a reply sends no further call.
        """
        self.gate = asyncio.Event()
        try:
            begun, end = -1, monotonic() + LONGEST_HOLD
            while begun != self.begun and monotonic() < end:
                begun = self.begun
                await asyncio.sleep(QUIET)
            yield
        finally:
            self.gate.set()
            self.gate = None

    def end_all(self) -> None:
        """Cancel all RPCs, as the server shuts down: their clients get UNAVAILABLE and may go elsewhere."""
        for task, call in list(self.by_task.items()):
            if task not in self.left:
                call.is_ended = True
                task.cancel(DRAINED)


class NamedService:
    """What `Request.served_by` is for an RPC: its route has the name of the method."""

    def __init__(self, serving: RpcServing, name: str) -> None:
        self._name = name
        self.url_for = serving.url_for

    def route_of(self, request: Request) -> str:
        """As log lines name it."""
        return f"RPC {self._name}"


class RpcMethod:
    """A method of a service: what grpcio calls for each of its RPCs.

    Args:
        route: The route that serves it.
        serving: The running service.
        calls: All RPCs that run.
        fill: Makes path and query of a request from its message, where code beside the handler reads them.

    A message is bytes; for a method that takes a stream, it is grpcio's iterator over them.
    """

    def __init__(
        self,
        route: MessageRoute,
        serving: RpcServing,
        calls: OpenCalls,
        fill: Callable[[Request, bytes], None] | None = None,
    ) -> None:
        self.name = f"/{route.messages.name}"
        self.route = route
        self._handler = _traced(route, serving)
        self._serving = serving
        self._calls = calls
        self._fill = fill
        self._path = route.plan.path
        self._served_by = NamedService(serving, route.messages.name)

    def method_handler(self) -> grpc.RpcMethodHandler:
        """The method, as grpcio takes it."""
        streams, plan = self.route.messages.streams, self.route.plan
        behavior = self._stream() if streams else self._unary()
        if plan.request_resources or plan.route.on_disconnect == "finish":
            behavior = self._apart(behavior, finishes=plan.route.on_disconnect == "finish")
        if self.route.messages.takes_stream:
            make = grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler
        else:
            make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return make(behavior)

    # Behaviors: each is called in the task of an RPC

    def _unary(self) -> Behavior:
        begin, respond, end, calls = self._begin, self._respond, self._end, self._calls

        async def unary(message: Any, context: Context) -> bytes:
            task = asyncio.current_task()
            assert task is not None
            call = begin(task, message, context)
            try:
                response = await respond(call, message)
                if calls.gate is not None:
                    await calls.gate.wait()
                content = response.content
                if response.content_type == MESSAGE and response.status == 200:
                    if response.headers:
                        context.set_trailing_metadata(metadata_of(response.headers))
                    return content if type(content) is bytes else bytes(content)
                await self._abort(call, context, response)
                return b""  # not reached
            except BaseException as error:
                await self._fail(task, call, context, error)
                raise
            finally:
                end(task, call, message)

        return unary

    def _stream(self) -> Behavior:
        begin, respond, end = self._begin, self._respond, self._end

        async def stream(message: Any, context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None
            call = begin(task, message, context)
            try:
                response = await respond(call, message)
                if response.content_type != MESSAGE or response.status != 200:
                    await self._abort(call, context, response)
                await self._send(call, context, response)
            except BaseException as error:
                await self._fail(task, call, context, error)
                raise
            finally:
                end(task, call, message)

        return stream

    def _apart(self, behavior: Behavior, *, finishes: bool) -> Behavior:
        """`behavior` in a task of its own, which a cancelled RPC does not cancel while it must go on."""
        calls = self._calls

        def ended(task: asyncio.Task[Any]) -> None:
            calls.left.discard(task)
            if not task.cancelled():
                task.exception()  # the RPC has reported it, or has ended

        async def apart(message: Any, context: Context) -> Any:
            if (own := asyncio.current_task()) is not None:
                calls.silent.has_message(own)
            task = asyncio.ensure_future(behavior(message, context))
            task.add_done_callback(ended)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.done():
                    call = calls.by_task.get(task)
                    calls.left.add(task)
                    if not finishes and (call is None or not is_closing(call.request)):
                        task.cancel()
                raise

        if self.route.messages.streams:

            async def apart_stream(message: Any, context: Context) -> None:
                await apart(message, context)

            return apart_stream
        return apart

    # Their steps

    def _begin(self, task: asyncio.Task[Any], message: Any, context: Context) -> OpenCall:
        calls = self._calls
        headers = Headers(header_lines(context.invocation_metadata()))
        peer = peer_of(context.peer(), calls.scheme)
        request = Request("POST", self._path, "", headers, message, None, peer, "", self._served_by)
        seconds = context.time_remaining()
        if seconds is not None:
            request.time_limit = monotonic() + seconds
            current.set(Deadline(request.time_limit))
        call = OpenCall(request)
        calls.by_task[task] = owner_by_task[task] = call
        calls.silent.has_message(task)
        calls.begun += 1
        if type(message) is bytes:
            calls.message_bytes += len(message)
        return call

    async def _respond(self, call: OpenCall, message: Any) -> Response:
        """The response of the handler, or that to its error."""
        calls, request = self._calls, call.request
        try:
            if calls.message_bytes > calls.max_bytes:
                raise _too_much_memory()
            if self._fill is not None:
                self._fill(request, message)
            response = await self._handler(request)
        except BaseException as error:  # SystemExit, too: a handler must not end the server
            response = self._serving.respond_to_error(error, request)
        if forks.in_child:
            forks.end_child()
        return response

    def _end(self, task: asyncio.Task[Any], call: OpenCall, message: Any) -> None:
        calls = self._calls
        del calls.by_task[task], owner_by_task[task]
        if type(message) is bytes:
            calls.message_bytes -= len(message)
        for report in calls.on_end:
            report(self, call)

    async def _send(self, call: OpenCall, context: Context, response: Response) -> None:
        """Send a stream of messages. Its headers go first: a client may wait for them."""
        content = response.content
        try:
            await context.send_initial_metadata(metadata_of(response.headers))
            while True:
                try:
                    piece = await anext(content)
                except StopAsyncIteration:
                    return
                except (Exception, SystemExit, KeyboardInterrupt) as error:  # no handler ends the server
                    await self._cut_off(call, context, error)
                await context.write(piece)
        finally:
            await close_content(content)

    async def _cut_off(self, call: OpenCall, context: Context, error: BaseException) -> None:
        """The handler has failed in the middle of a stream."""
        request = call.request
        if isinstance(error, TinysvcError) and error.status < 500:
            response = problem_response(error, request)
        else:
            observe_error(error)
            text = indented(author_traceback(error))
            log.error("%s (request %s): the stream failed half-way and was cut off: %s", self.name, request.id, text)
            response = problem_response(error if isinstance(error, TinysvcError) else TinysvcError(), request)
        await self._abort(call, context, response)

    async def _abort(self, call: OpenCall, context: Context, response: Response) -> Any:
        """End the RPC with the status of an error response. It does not return."""
        await close_content(response.content)
        if response.status < 400:
            log.error(
                "%s: middleware or an error handler responded with a %s of %s, which is no message of this method; "
                "respond with an error, or let the handler respond",
                *(self.name, response.status, response.content_type or "no type"),
            )
            response = problem_response(TinysvcError(), call.request)
        await _abort_with(call, context, status_of(response))

    async def _fail(self, task: asyncio.Task[Any], call: OpenCall, context: Context, error: BaseException) -> None:
        """Give the RPC a status if its end was not a response: it was cancelled, or the pool has dropped its job."""
        if isinstance(error, asyncio.CancelledError):
            limit = call.request.time_limit
            is_late = limit is not None and limit <= monotonic()
            call.status = Code.DEADLINE_EXCEEDED if is_late else Code.CANCELLED
            if call.is_ended:
                task.uncancel()
                await _abort_with(call, context, status_of(problem_response(_shutting_down(), call.request)))
        elif isinstance(error, ConnectionAbortedError):
            await _abort_with(call, context, RpcStatus(Code.CANCELLED, "The call was abandoned."))
        elif call.status is Code.OK:
            call.status = Code.UNKNOWN  # as grpcio reports an error of ours


def _traced(route: MessageRoute, serving: RpcServing) -> Handler:
    if serving.tracing is None:
        return route.handler
    from .rpc_traces import RpcTraces  # imported only with traces

    return RpcTraces(route.messages.name, route.handler, serving.respond_to_error).around(serving.tracing)


def _too_much_memory() -> HTTPError:
    """Many messages have arrived at once: none of them was counted when the method was looked up."""
    error = HTTPError(503, "The messages of running calls fill the memory for them.", headers=[("retry-after", "1")])
    error.never_started = True
    return error


def _shutting_down() -> HTTPError:
    return HTTPError(503, "The server is shutting down.", headers=[("retry-after", "1")])


async def _abort_with(call: OpenCall, context: Context, status: RpcStatus) -> None:
    call.status = status.code
    await context.abort(status.code, status.message, status.metadata)
