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
from collections.abc import Awaitable, Callable
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from grpc.aio import InternalError

import grpc

from ..core import forks
from ..core.budget import Deadline, current
from ..core.errors import HTTPError, TinysvcError
from ..core.request_context import owner_by_task
from ..core.requests import Request
from ..core.responses import MESSAGE, Handler, Response, close_content, problem_response
from ..core.tracebacks import author_traceback, indented, observe_error
from ..runtime.message_handlers import MessageFunction
from ..runtime.message_routes import MessageRoute
from ..runtime.open_resources import is_closing
from .open_calls import Context, OpenCall, OpenCalls
from .rpc_errors import RpcStatus, status_of
from .rpc_requests import RpcRequest, metadata_of

if TYPE_CHECKING:
    from ..runtime.tracing import Tracing

log = logging.getLogger("tinysvc.grpc")

Code = grpc.StatusCode

MEMORY_IS_FULL = "The messages of running calls fill the memory for them."

Behavior = Callable[..., Awaitable[Any]]
"""A function that grpcio calls for each RPC of a method."""


class RpcServing(Protocol):
    """The running service, as the RPCs see it."""

    tracing: Tracing | None

    def respond_to_error(self, error: BaseException, request: Request) -> Response:
        """The response to an error. Raises CancelledError or ConnectionAbortedError if no caller waits for it."""

    def url_for(self, handler: Callable[..., Any], /, **parameters: Any) -> str: ...


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
        self.calls = calls
        self._handler = _traced(route, serving)
        self._serving = serving
        self._fill = fill
        self._served_by = NamedService(serving, route.messages.name)

    def method_handler(self) -> grpc.RpcMethodHandler:
        """The method, as grpcio takes it."""
        streams, plan = self.route.messages.streams, self.route.plan
        behavior = self._behavior()
        if plan.request_resources or plan.route.on_disconnect == "finish":
            behavior = self._apart(behavior, finishes=plan.route.on_disconnect == "finish")
        if self.route.messages.takes_stream:
            make = grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler
        else:
            make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
        return make(behavior)

    def request_of(self, call: OpenCall) -> RpcRequest:
        """A new request for a call."""
        path, scheme = self.route.plan.path, self.calls.scheme
        address = call.address or ("" if call.context is None else call.context.peer())
        return RpcRequest(path, call.message, call.metadata, address, scheme, call.time_limit, self._served_by)

    # Behaviors: each is called in the task of an RPC

    def _behavior(self) -> Behavior:
        """What most RPCs do. This is a hot path: a plain handler adds one coroutine to that of the author."""
        calls, streams, respond = self.calls, self.route.messages.streams, self._respond
        begin, end, fail, respond_to_error = self._begin, self._end, self._fail, self._serving.respond_to_error
        current_task, loop = asyncio.current_task, calls.loop
        direct = self._handler if isinstance(self._handler, MessageFunction) and self._fill is None else None

        async def behave(message: Any, context: Context, call: OpenCall | None = None) -> bytes:
            task: Any = current_task(loop)
            owner_by_task[task] = call = call or begin(task, message, context)
            size = len(message) if type(message) is bytes else 0
            calls.begun += 1
            calls.message_bytes += size
            response: bytes | Response
            try:
                try:
                    if calls.message_bytes > calls.max_bytes:
                        raise unbegun(MEMORY_IS_FULL)  # many messages came at once, after MethodTable's check
                    if direct is None:
                        response = await respond(call, message)
                    else:
                        response = direct.encode(await direct.function(**direct.decode(message)))
                except BaseException as error:  # SystemExit, too: a handler must not end the server
                    response = respond_to_error(error, call.request)
                if forks.in_child:
                    forks.end_child()
                if calls.gate is not None and not streams:
                    await calls.gate.wait()
                if isinstance(response, bytes):
                    return response
                if streams or response.content_type != MESSAGE or response.status != 200:
                    await self._send(call, context, response)
                    return b""
                if response.headers:
                    context.set_trailing_metadata(metadata_of(response.headers))
                return bytes(response.content)
            except BaseException as error:
                await fail(task, call, context, error)
                raise
            finally:
                del owner_by_task[task]
                calls.ended += 1
                calls.message_bytes -= size
                if calls.on_end:
                    end(call)
                call.context = None

        return behave

    def _apart(self, behavior: Behavior, *, finishes: bool) -> Behavior:
        """`behavior` in a task of its own, which a cancelled RPC does not cancel while it must go on."""
        calls = self.calls

        def ended(task: asyncio.Task[Any]) -> None:
            calls.finishing.discard(task)
            if not task.cancelled():
                task.exception()  # the RPC has reported it, or has ended

        async def apart(message: Any, context: Context) -> Any:
            call = self._begin(asyncio.current_task(), message, context)
            call.address = context.peer()  # the RPC may end before its task
            task = asyncio.ensure_future(behavior(message, context, call))
            task.add_done_callback(ended)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.done():
                    calls.finishing.add(task)
                    if not finishes and not is_closing(call.request):
                        task.cancel()
                raise

        return apart

    # Their steps

    def _begin(self, task: Any, message: Any, context: Context) -> OpenCall:
        calls = self.calls
        metadata = calls.silent.metadata.pop(task, None)  # its message has arrived
        call = OpenCall(self, message, context, context.invocation_metadata() if metadata is None else metadata)
        if calls.on_end:
            call.begun, call.address = perf_counter(), context.peer()
        seconds = context.time_remaining()
        if seconds is not None:
            call.time_limit = monotonic() + seconds
            current.set(Deadline(call.time_limit))
        return call

    def _respond(self, call: OpenCall, message: Any) -> Awaitable[Response]:
        """Call the handler."""
        if self._fill is not None:
            self._fill(call.request, message)
        return self._handler(call.request)

    def _end(self, call: OpenCall) -> None:
        """Report the end of a call. Its request may live longer."""
        for report in self.calls.on_end:
            report(call)

    async def _send(self, call: OpenCall, context: Context, response: Response) -> None:
        """Send an error, or a stream of messages. The headers of a stream go first: a client may wait for them."""
        if response.content_type != MESSAGE or response.status != 200:
            await self._abort(call, context, response)
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
        except InternalError:  # grpcio cannot send: the client has cancelled, and the cancellation of this task follows
            raise asyncio.CancelledError from None
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
            call.status = Code.DEADLINE_EXCEEDED if call.is_at_deadline() else Code.CANCELLED
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


def unbegun(text: str) -> HTTPError:
    """The error of a call that does not begin: its client may send it again."""
    error = HTTPError(503, text, headers=[("retry-after", "1")])
    error.never_started = True
    return error


def _shutting_down() -> HTTPError:
    return HTTPError(503, "The server is shutting down.", headers=[("retry-after", "1")])


async def _abort_with(call: OpenCall, context: Context, status: RpcStatus) -> None:
    call.status = status.code
    await context.abort(status.code, status.message, status.metadata)
