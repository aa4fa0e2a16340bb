"""A call as a request and its response: over the network, or to a route of this process that needs a whole request.

arguments ──> RequestWriter ──> Exchange ──> check_response ──> ReplyReader ──> result, or the items of a stream
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from ..binding.outgoing import OutgoingRequest
from ..binding.replies import UnreadableReply
from ..core.call_errors import CallFailed, CallTimeout
from ..core.errors import ConfigurationError
from .call_context import CallContext
from .call_failures import check_response
from .message_calls import Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..client.services import Services
    from ..service.routes import Route

Exchange = Callable[[OutgoingRequest, CallContext], "Awaitable[Any]"]
"""Sends a request, and returns an `Incoming` when the head of the response has come."""


def is_remote(exchange: Exchange) -> bool:
    """Whether requests go over a network, where one may be sent a second time."""
    return bool(getattr(exchange, "is_remote", False))


class RemoteExchange:
    """Sends requests to the replicas of a service.

    Args:
        services: The services at addresses.
        service: Name of the service.
        route: The route of the handler.
        streams: Whether the response is a stream of messages.
    """

    is_remote = True

    def __init__(self, services: Services, service: str, route: Route, *, streams: bool = False) -> None:
        from ..client.messages import Outgoing

        self._services = services
        self._service = service
        self._route = route
        self._outgoing = Outgoing
        self._streams = streams
        self._idempotent = route.idempotent or route.durable is not None  # it has an Idempotency-Key

    def __call__(self, sent: OutgoingRequest, context: CallContext) -> Awaitable[Any]:
        method, target, headers, body, can_repeat = sent
        return self._services.send(
            self._service,
            self._outgoing(method, target, headers, body, can_repeat, self._streams),
            deadline=context.deadline,
            idempotent=self._idempotent and can_repeat,
            hedge=self._route.hedge,
        )


class ExchangeTarget:
    """Where calls of a handler go, if they are requests.

    Args:
        route: The route of the handler.
        writer: Writes its requests.
        reader: Reads its results.
        exchange: Sends the requests.
        service: Name of the service, for errors.
        max_size: Bytes that a result may have.
    """

    def __init__(
        self,
        route: Route,
        writer: Writer,
        reader: Reader,
        exchange: Exchange,
        service: str,
        max_size: int,
    ) -> None:
        self.arguments = writer.arguments
        self._function = route.function
        self._writer = writer
        self._reader = reader
        self._exchange = exchange
        self._service = service
        self._max_size = max_size

    async def value(self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...]) -> Any:
        """The result of the handler."""
        if self._reader.streams:
            raise ConfigurationError.at(
                self._function, "streams, and call(...) returns one value; write `async for item in call.stream(...)`"
            )
        return await self.result_of(await self._sent(arguments, context, forwarded))

    async def result_of(self, incoming: Any) -> Any:
        """The result of the handler in a response. Raises the exception of an error response."""
        try:
            if incoming.status >= 400:
                await check_response(incoming, self._service)
            content = incoming.content  # it mostly came with the head
            if content is None or len(content) > self._max_size:
                content = await incoming.body(self._max_size)
            content_type = incoming.headers.get("content-type", "")
            return self._reader.value(incoming.status, content_type, content, incoming.headers)
        except UnreadableReply as error:
            raise self._unreadable(incoming, error) from None
        finally:
            incoming.discard()

    async def items(
        self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...], seconds: float
    ) -> AsyncGenerator[Any, None]:
        """The items that the handler yields. The response must begin within `seconds`."""
        try:
            async with asyncio.timeout(seconds) as limit:
                incoming = await self._sent(arguments, context, forwarded)
        except TimeoutError:
            if not limit.expired():
                raise
            raise CallTimeout(f"The stream has not begun within {seconds:g} s.", service=self._service) from None
        try:
            await check_response(incoming, self._service)
            if incoming.status >= 300:
                raise UnreadableReply(f"{incoming.status} is no stream, and redirects are not followed")
            async for item in self._reader.items(incoming.headers.get("content-type", ""), aiter(incoming)):
                yield item
        except UnreadableReply as error:
            raise self._unreadable(incoming, error) from None
        finally:
            incoming.discard()

    def _sent(self, arguments: dict[str, Any], context: CallContext, forwarded: tuple[str, ...]) -> Awaitable[Any]:
        request = self._writer.write(arguments)
        request.headers.extend(context.headers(forwarded))
        return self._exchange(request, context)

    def _unreadable(self, incoming: Any, error: UnreadableReply) -> CallFailed:
        return CallFailed(
            f"The response of {self._function.__qualname__} cannot be read: {error}",
            service=self._service,
            replica=incoming.replica,
            attempts=incoming.attempts,
            answered=incoming.status,
        )
