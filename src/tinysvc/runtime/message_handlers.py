"""The function of an io route as a Handler of messages: decode, call, encode. Like io_handlers.py, for HTTP.

The options of the route are around both: see route_handlers.py. A cpu route's messages are read and written in a
worker: see cpu_endpoints.py.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from ..binding.message_binder import MessageBinder
from ..binding.results import ChunkStream, encode_result, iterate_in_thread
from ..core.context_variables import SavedVariables
from ..core.requests import Request
from ..core.responses import MESSAGE, Handler, Response
from ..core.threads import in_thread
from .limits import within_time
from .messages import Messages, message_response, whole_encoder, whole_response

_END: Any = object()


def message_handler(
    function: Callable[..., Any],
    binder: MessageBinder,
    messages: Messages,
    resources: Mapping[str, Any],
    *,
    scoped: bool,
) -> Handler:
    """The handler of an io route for messages.

    Args:
        function: The author's function.
        binder: Binds its parameters.
        messages: How its messages are read and written.
        resources: Values of the resources that are open for the whole server.
        scoped: The resources are in `request.resources` instead, as some are opened for each request.
    """
    encode = whole_encoder(messages.codec.encode_result)
    is_coroutine = inspect.iscoroutinefunction(function)
    if is_coroutine and binder.takes_only_message and not messages.streams:
        return MessageFunction(function, binder.decode, encode)

    makes_stream = inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)

    async def handle(request: Request) -> Response:
        if request.time_limit is not None and not request.is_timed:
            return await within_time(handle, request)
        values = (request.resources or {}) if scoped else resources
        body = b"" if messages.takes_stream else await request.body()
        call = partial(function, **binder.bind(request, body, values))
        result = call() if makes_stream else await (call() if is_coroutine else in_thread(call))
        return await _begin_stream(messages, result) if messages.streams else whole_response(encode(result))

    return handle


class MessageFunction:
    """The handler of a coroutine function that takes nothing but fields of the message, and returns one message.

    Code that has a message and needs no request takes the steps itself:

        encode(await function(**decode(message)))

    Args:
        function: The author's function.
        decode: Reads the message. BindingError for one that does not fit.
        encode: Writes the result: its message, or the response if the result is a Response.
    """

    __slots__ = ("decode", "encode", "function")

    def __init__(
        self,
        function: Callable[..., Awaitable[Any]],
        decode: Callable[[bytes], dict[str, Any]],
        encode: Callable[[Any], bytes | Response],
    ) -> None:
        self.function = function
        self.decode = decode
        self.encode = encode

    async def __call__(self, request: Request) -> Response:
        if request.time_limit is not None and not request.is_timed:
            return await within_time(self, request)
        return whole_response(self.encode(await self.function(**self.decode(await request.body()))))


async def _begin_stream(messages: Messages, result: Any) -> Response:
    """The response with a stream of messages. An error before the first item is raised here."""
    if isinstance(result, Response):
        if result.status >= 400:
            return encode_result(result)
        response = await _begin_stream(messages, result.content)
        list.extend(response.headers, result.headers)
        return response
    items = result if isinstance(result, AsyncIterator) else iterate_in_thread(iter(result))
    stream = MessageStream(items, messages.codec.encode_item)
    await stream.begin()
    return message_response(stream)


class MessageStream(ChunkStream):
    """The items of an asynchronous stream, each as a message."""

    def __init__(self, items: AsyncIterator[Any], encode: Callable[[Any], bytes]) -> None:
        super().__init__(items)
        self._encode = encode

    async def begin(self) -> str:
        """Fetch the first item, whose error is raised as for a plain result."""
        first = await anext(self._items, _END)
        self._first = None if first is _END else self._encode(first)
        self._variables = SavedVariables()
        return MESSAGE
