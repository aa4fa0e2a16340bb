"""`call.wait(handler, ...)` in a cpu handler: the worker asks the server, which makes the call (waiting_calls.py)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from ..binding.outgoing import OutgoingBody, RequestWriter
from ..binding.replies import ReplyReader, UnreadableReply
from ..core.budget import current_deadline
from ..core.call_errors import CallFailed
from ..core.errors import ConfigurationError
from ..core.headers import Headers
from ..pool.questions import asking
from ..service.plan import plan_of
from ..service.routes import call_method, route_of
from .call_context import call_context
from .call_failures import failure_of
from .call_messages import CallAnswer, CallQuestion


class Callee(NamedTuple):
    """What a worker knows of a handler that it calls."""

    writer: RequestWriter
    reader: ReplyReader


_known: dict[Callable[..., Any], Callee] = {}


def wait_for_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], forwarded: tuple[str, ...]
) -> Any:
    """See `Call.wait`."""
    ask = asking.get()
    if ask is None:
        from .thread_calls import wait_in_thread  # not in a worker

        return wait_in_thread(function, args, kwargs, forwarded)
    callee = _known.get(function) or _callee(function)
    context = call_context(0.0)
    request = callee.writer.write(callee.writer.arguments(args, kwargs))
    answer: CallAnswer | None
    question = CallQuestion(
        function.__module__,
        function.__qualname__,
        request.method,
        request.target,
        [*request.headers, *context.headers(forwarded)],
        current_deadline(),
    )
    answer, content = ask(question, _whole(request.body))
    if answer is None:
        raise ConfigurationError.at(function, "cannot be called by call.wait(...): this pool belongs to no service")
    if answer.failure is not None:
        raise answer.failure.error()
    headers = Headers(answer.headers)
    facts: dict[str, Any] = {"service": answer.service, "replica": answer.replica, "attempts": answer.attempts}
    if answer.status >= 400:
        raise failure_of(answer.status, headers, content, **facts)
    try:
        return callee.reader.value(answer.status, headers.get("content-type", ""), content, headers)
    except UnreadableReply as error:
        message = f"The response of {function.__qualname__} cannot be read: {error}"
        raise CallFailed(message, answered=answer.status, **facts) from None


def _callee(function: Callable[..., Any]) -> Callee:
    route = route_of(function)
    if route is None:
        raise ConfigurationError.at(function, "cannot be called by call.wait(...): it has no route")
    binder = plan_of(function, route).binder
    reader = ReplyReader(function, batched=route.batch is not None)
    if reader.streams:
        raise ConfigurationError.at(function, "streams, and call.wait(...) returns one value")
    writer = RequestWriter(function, call_method(route, binder.body_kind), route.path, binder.inputs)
    found = _known[function] = Callee(writer, reader)
    return found


def _whole(body: OutgoingBody) -> bytes:
    """The body as bytes. The iterators of forms and files never wait for an event loop."""
    if isinstance(body, bytes):
        return body
    pieces: AsyncIterator[bytes] = body()
    found: list[bytes] = []
    while True:
        try:
            pieces.__anext__().__await__().send(None)
        except StopIteration as piece:
            found.append(piece.value)
        except StopAsyncIteration:
            return b"".join(found)
        else:
            raise TypeError("the body of call.wait(...) is bytes; an iterator that waits needs an event loop")
