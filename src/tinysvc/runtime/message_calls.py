"""Calls by messages, as over gRPC: the arguments of a call are one message, and so is its result.

A worker that calls knows nothing of that: it asks for a request as over HTTP, and gets such a response. The server
translates:

    request of the worker ──> bind ──> arguments ──> message ──> the callee
    response to the worker <── encode <── result <── message <──
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ..binding.binder import Binder
from ..binding.outgoing import OutgoingRequest
from ..binding.replies import UnreadableReply
from ..binding.results import encode_result
from ..core.call_errors import CallFailed
from ..core.headers import Headers
from ..core.requests import Request
from ..service.router import Router
from ..service.routes import Route
from .call_context import CallContext


class Writer(Protocol):
    """Writes the requests of one handler."""

    @property
    def arguments(self) -> Callable[[tuple[Any, ...], dict[str, Any]], dict[str, Any]]:
        """The arguments by name, as a function call has them. TypeError for a wrong one."""

    def write(self, arguments: Mapping[str, Any]) -> OutgoingRequest:
        """The request for these arguments."""


class Reader(Protocol):
    """Reads the results of one handler."""

    @property
    def streams(self) -> bool:
        """Whether there are several."""

    def value(self, status: int, content_type: str, content: bytes, headers: Headers) -> Any:
        """The value that the handler has returned. UnreadableReply if the content is something else."""

    def items(self, content_type: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        """The items that the handler yields."""


class CalleeMessages(NamedTuple):
    """How a handler is called by messages."""

    writer: Writer
    reader: Reader
    streams: bool
    """Whether its result is a stream."""


FindMessages = Callable[[Callable[..., Any], Route], CalleeMessages]
"""Finds how a handler is called by messages. ConfigurationError if it cannot be."""


class TranslatedResponse(NamedTuple):
    """The response to a worker: as much of `client.messages.Incoming` as it needs."""

    status: int
    headers: Headers
    replica: str
    attempts: int
    content: bytes

    async def body(self, limit: int) -> bytes:
        """The whole body. CallFailed if it is longer than `limit`."""
        if len(self.content) > limit:
            raise CallFailed(f"The body of the response is longer than {limit} bytes.", answered=self.status)
        return self.content

    def discard(self) -> None:
        """Nothing is left of it elsewhere."""


class TranslatedExchange:
    """The exchange of a worker's call, whose callee takes messages.

    Args:
        route: The route of the callee.
        binder: Reads the requests that the worker writes.
        messages: How the callee is called.
        exchange: Sends the messages.
        service: Name of the callee's service.
        max_size: Bytes that a reply may have.
    """

    is_remote = True

    def __init__(
        self,
        route: Route,
        binder: Binder,
        messages: CalleeMessages,
        exchange: Callable[[OutgoingRequest, CallContext], Any],
        service: str,
        max_size: int,
    ) -> None:
        self._router: Router[None] = Router()
        self._router.add(route.path, route.methods, None, route.function)
        self._name = route.function.__qualname__
        self._binder = binder
        self._messages = messages
        self._exchange = exchange
        self._service = service
        self._max_size = max_size

    async def __call__(self, sent: OutgoingRequest, context: CallContext) -> Any:
        """The response as the worker reads it. CallFailed if there is none."""
        request = self._messages.writer.write(await self._arguments(sent))
        names = {name for name, _ in request.headers}
        request.headers.extend(line for line in sent.headers if line[0] not in names | _OF_HTTP)
        incoming = await self._exchange(request, context)
        if incoming.status >= 400:
            return incoming
        content = await incoming.body(self._max_size)
        try:
            value = self._messages.reader.value(incoming.status, "", content, incoming.headers)
        except UnreadableReply as error:
            message = f"The response of {self._name} cannot be read: {error}"
            raise CallFailed(message, service=self._service, replica=incoming.replica, answered=200) from None
        response = encode_result(value)
        content_type = (response.content_type or "").encode()
        return TranslatedResponse(
            response.status,
            Headers([(b"content-type", content_type)] if content_type else []),
            incoming.replica,
            incoming.attempts,
            bytes(response.content),
        )

    async def _arguments(self, sent: OutgoingRequest) -> dict[str, Any]:
        """The arguments that the worker has written into a request."""
        path, _, query = sent.target.partition("?")
        headers = Headers([(name.encode(), value.encode("latin-1")) for name, value in sent.headers])
        body = sent.body if isinstance(sent.body, bytes) else sent.body()
        request = Request(sent.method, path, query, headers, body)
        _, request.path_params = self._router.match(sent.method, path)
        binder = self._binder
        if binder.body_kind == "form":
            await request.form()
        content = await request.body() if binder.body_kind in ("json", "bytes") else b""
        arguments = binder.bind(request, content, dict.fromkeys(binder.resources))
        given = {each.parameter for each in binder.inputs if each.travels}
        return {name: value for name, value in arguments.items() if name in given}


_OF_HTTP = {"content-type", "content-length", "cookie"}
"""Headers of the worker's request that say something about its form."""
