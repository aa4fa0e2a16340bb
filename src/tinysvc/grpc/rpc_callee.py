"""A handler that is called over gRPC: arguments -> the message of a request, and the reply -> the result.

The counterparts of binding/outgoing.py and binding/replies.py, which calls over HTTP use. The numbers of the fields
come from the handler's module, and from the .proto file beside it, exactly as at the callee.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from ..binding.message_binder import IN_MESSAGE
from ..binding.outgoing import OutgoingRequest, RequestWriter, outgoing_body
from ..binding.replies import UnreadableReply
from ..core.errors import ConfigurationError
from ..core.headers import Headers
from ..core.optional_libraries import missing_library
from ..runtime.message_calls import CalleeMessages
from ..service.plan import plan_of
from ..service.routes import Route
from .rpc_schema import Method
from .schema_of import schema_of_function


def callee_messages(function: Callable[..., Any], route: Route) -> CalleeMessages:
    """How the messages of a handler are written and read.

    Raises:
        ConfigurationError: It cannot be called over gRPC, or a library is missing.
    """
    if missing := missing_library("grpc"):
        raise ConfigurationError.at(function, f"is called over gRPC, but {missing}")
    schema = schema_of_function(function)
    if schema.methods:
        (method,) = schema.methods
        return CalleeMessages(RpcWriter(method, route), RpcReader(method), method.server_streams)
    why = schema.left_out[0][1]
    raise ConfigurationError.at(
        function, f"cannot be called over gRPC: {why}; give its service an address of HTTP, as in http://host:8000"
    )


class RpcWriter:
    """Writes the requests of one handler."""

    def __init__(self, method: Method, route: Route) -> None:
        function = route.function
        inputs = plan_of(function, route).binder.inputs
        whole = RequestWriter(function, "POST", route.path, inputs)
        in_metadata = [each for each in inputs if each.travels and each.place not in (*IN_MESSAGE, "stream")]
        self.arguments = whole.arguments
        self._name = function.__qualname__
        self._target = method.path
        self._codec = method.codec
        self._headers = RequestWriter(function, "POST", "/", in_metadata) if in_metadata else None
        self._stream = method.codec.stream_parameter
        self._takes_body = whole.takes_body

    def write(self, arguments: Mapping[str, Any]) -> OutgoingRequest:
        """The request for these arguments.

        Raises:
            UnencodableResult: A value does not fit its field.
            TypeError: It is the body of a handler that takes the request.
        """
        headers = [] if self._headers is None else self._headers.write(arguments).headers
        if self._stream:
            body, can_repeat = outgoing_body(self._messages(arguments.get(self._stream, ())))
            return OutgoingRequest("POST", self._target, headers, body, can_repeat)
        if self._takes_body and "body" in arguments:
            raise TypeError(f"{self._name}() takes no body over gRPC; call it over HTTP, or give it a parameter")
        return OutgoingRequest("POST", self._target, headers, self._codec.encode_arguments(arguments))

    async def _messages(self, items: Any) -> AsyncIterator[bytes]:
        encode = self._codec.encode_request_item
        if isinstance(items, Iterable):
            for item in items:
                yield encode(item)
        else:
            async for item in items:
                yield encode(item)


class RpcReader:
    """Reads the replies of one handler."""

    def __init__(self, method: Method) -> None:
        self.streams = method.server_streams
        self._result = method.codec.decode_result
        self._item = method.codec.decode_item

    def value(self, status: int, content_type: str, content: bytes, headers: Headers) -> Any:
        """The value that the handler has returned. UnreadableReply if the message is something else."""
        return self._result(content)

    async def items(self, content_type: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        """The items that the handler yields, from their messages. UnreadableReply for a wrong one."""
        if not self.streams:
            raise UnreadableReply("one message came, and a stream was expected")
        async for piece in pieces:
            yield self._item(piece)
