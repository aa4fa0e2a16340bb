"""WebSocket (RFC 6455) as handlers see it.

    @io_route("/chat/{room}")
    async def chat(socket: WebSocket, room: str) -> None:
        async for message in socket:                    # ends with the disconnect
            await socket.send(message)

The opening handshake is in websocket_handshake.py, the connection in websocket_protocol.py, the route in
websocket_route.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NoReturn

from ..binding.json_bodies import json_value
from ..core.encoding import json_bytes
from ..core.requests import Request
from ..core.responses import Response
from .websocket_handshake import check_handshake, check_origin, chosen_subprotocol
from .websocket_protocol import (
    INVALID_DATA,
    NORMAL,
    UNSUPPORTED,
    SocketClosed,
    SocketProtocol,
    UpgradableConnection,
    shortened_reason,
)


class WebSocket:
    """The WebSocket (RFC 6455) of one client: a handler takes it as a parameter of this type.

    `accept`, or the first `receive` or `send`, accepts it; raise `HTTPError` before that to refuse it. Text messages
    are str, binary ones bytes. `async for` yields messages until the WebSocket is closed. At most 16 messages (64 KiB)
    wait for the handler; then the server reads no more from the client. It needs `tinysvc[websocket]`.

    Attributes:
        request (Request): The request that opened the WebSocket.
        subprotocol (str): The agreed subprotocol; empty if there is none.

    Example:
        ```python
        from tinysvc import WebSocket, io_route

        @io_route("/echo/{room}")
        async def echo(socket: WebSocket, room: str) -> None:
            async for message in socket:
                await socket.send(message)
        ```
    """

    def __init__(self, request: Request) -> None:
        """The WebSocket of a request, not accepted yet.

        Args:
            request: The request with the opening handshake.

        Raises:
            HTTPError: 426 if the request is not for a WebSocket, 400 if its handshake is invalid.
        """
        self.request = request
        self.subprotocol = ""
        self._handshake = check_handshake(request)
        self._protocol: SocketProtocol | None = None

    @classmethod
    def of_request(cls, request: Request) -> WebSocket:
        """The WebSocket of a request; called for a handler's parameter of this type.

        Args:
            request: The request with the opening handshake.

        Returns:
            The WebSocket, not accepted yet.

        Raises:
            HTTPError: 426 if the request is not for a WebSocket, 400 if its handshake is invalid.
        """
        return cls(request)

    @property
    def accepted(self) -> bool:
        """Whether the handler has accepted the WebSocket."""
        return self._protocol is not None

    @property
    def close_code(self) -> int:
        """Code of the first close frame, sent or received (RFC 6455, 7.4). 1006: lost without one. 0: open."""
        return self._protocol.code if self._protocol else 0

    async def accept(
        self,
        *,
        subprotocols: Sequence[str] = (),
        origins: Iterable[str] = (),
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Accept the WebSocket.

        A browser sends the origin of its page. It must be the host of this service, or one of `origins`: otherwise a
        page of any site could open a WebSocket with the cookies of its visitor.

        Args:
            subprotocols: Subprotocols that the handler speaks. The first one that the client offers is agreed.
            origins: Further origins that are allowed, as in "https://app.example"; "*" for any.
            headers: Further header lines of the response, as (name, value).

        Raises:
            HTTPError: 403, the origin is not allowed, or the client offers none of the subprotocols.
            RuntimeError: The WebSocket was accepted before.
        """
        if self._protocol is not None:
            raise RuntimeError("the WebSocket is accepted already; call accept() before the first receive or send")
        request = self.request
        check_origin(request, frozenset(origins))
        self.subprotocol = chosen_subprotocol(request, subprotocols)
        handshake = self._handshake
        response = handshake.response(self.subprotocol, Response(b"", headers=headers).headers)
        connection: UpgradableConnection = request.peer.upgrade
        self._protocol = SocketProtocol(connection, handshake.frames)
        self._protocol.start(response)

    async def _accepted(self) -> SocketProtocol:
        if self._protocol is None:
            await self.accept()
        assert self._protocol is not None
        return self._protocol

    async def receive(self) -> str | bytes:
        """Wait for the next message.

        Returns:
            str for a text message, bytes for a binary one.

        Raises:
            SocketClosed: The WebSocket is closed.
            HTTPError: 403, this call accepts the WebSocket and the origin of its page is not allowed.
        """
        return await (self._protocol or await self._accepted()).receive()

    async def receive_text(self) -> str:
        """Wait for the next message, which must be text. A binary one closes the WebSocket with 1003.

        Returns:
            The text.

        Raises:
            SocketClosed: The WebSocket is closed.
            HTTPError: 403, this call accepts the WebSocket and the origin of its page is not allowed.
        """
        return await self._receive_only(str)  # type: ignore[return-value]

    async def receive_bytes(self) -> bytes:
        """Wait for the next message, which must be binary. A text one closes the WebSocket with 1003.

        Returns:
            The bytes.

        Raises:
            SocketClosed: The WebSocket is closed.
            HTTPError: 403, this call accepts the WebSocket and the origin of its page is not allowed.
        """
        return await self._receive_only(bytes)  # type: ignore[return-value]

    async def _receive_only(self, kind: type) -> str | bytes:
        message = await self.receive()
        if type(message) is not kind:
            expected, found = ("text", "binary") if kind is str else ("binary", "text")
            await self._refuse(UNSUPPORTED, f"expected a {expected} message, but received a {found} message")
        return message

    async def receive_json(self, type: Any = Any) -> Any:  # noqa: A002 - as in msgspec
        """Wait for the next message and decode it as JSON. A wrong message closes the WebSocket with 1007.

        Args:
            type: Type that the message is checked against, as for a parameter of a handler.

        Returns:
            The value, of this type.

        Raises:
            SocketClosed: The WebSocket is closed.
            HTTPError: 403, this call accepts the WebSocket and the origin of its page is not allowed.
        """
        message = await self.receive()
        try:
            return json_value(message, type)
        except ValueError as error:
            return await self._refuse(INVALID_DATA, f"invalid message: {error}")

    async def _refuse(self, code: int, reason: str) -> NoReturn:
        reason = shortened_reason(reason)
        await self.close(code, reason)
        raise SocketClosed(code, reason)

    async def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send a message. It waits while the client reads too slowly.

        Args:
            message: str is sent as text, bytes as binary.

        Raises:
            SocketClosed: The WebSocket is closed.
            HTTPError: 403, this call accepts the WebSocket and the origin of its page is not allowed.
        """
        await (self._protocol or await self._accepted()).send(message)

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON in a text message.

        Args:
            value: Any value that a handler could return as JSON.

        Raises:
            SocketClosed: The WebSocket is closed.
            HTTPError: 403, this call accepts the WebSocket and the origin of its page is not allowed.
            UnencodableResult: JSON cannot hold the value.
        """
        await (self._protocol or await self._accepted()).send(json_bytes(value), text=True)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the WebSocket, and wait some seconds for the client to confirm it. A second call does nothing.

        Args:
            code: Code of the close frame (RFC 6455, 7.4); 1000 is a normal end.
            reason: Text of the close frame.

        Raises:
            HTTPError: 403, this call accepts the WebSocket and the origin of its page is not allowed.
        """
        protocol = await self._accepted()
        protocol.close(code, reason)
        await protocol.wait_ended()

    async def end(self, code: int, reason: str) -> None:
        """Close the socket after its handler has ended. From now on its task is not cancelled.

        Args:
            code: As of `close`.
            reason: As of `close`.
        """
        await self.close(code, reason)
        assert self._protocol is not None
        self._protocol.handler_ended = True

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await (self._protocol or await self._accepted()).receive()
        except SocketClosed:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        state = "not accepted" if not self._protocol else f"closed {self.close_code}" if self.close_code else "open"
        return f"<WebSocket {self.request.raw_path} {self.request.client} {state}>"
