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
    """A client's WebSocket, for a handler's parameter of this type.

    It is accepted by `accept`, or by the first `receive` or `send`. To refuse it, raise HTTPError before that. A
    message is `str` (text) or `bytes` (binary). `async for` yields messages until the socket is closed.

    Attributes:
        request: The request that opened the WebSocket.
        subprotocol: The subprotocol that `accept` has chosen; "" if there is none.

    Example:
        ```python
        @io_route("/chat/{room}")
        async def chat(socket: WebSocket, room: str) -> None:
            async for message in socket:
                await socket.send(message)
        ```
    """

    def __init__(self, request: Request) -> None:
        """For a request that asks for a WebSocket.

        Args:
            request: The request with the opening handshake.

        Raises:
            HTTPError: 426 if the request does not ask for a WebSocket, 400 if its handshake is invalid.
        """
        self.request = request
        self.subprotocol = ""
        self._handshake = check_handshake(request)
        self._protocol: SocketProtocol | None = None

    @classmethod
    def of_request(cls, request: Request) -> WebSocket:
        """The WebSocket that a request asks for; called for a handler's parameter.

        Args:
            request: The request with the opening handshake.

        Returns:
            The WebSocket, not accepted yet.

        Raises:
            HTTPError: 426 if the request does not ask for a WebSocket, 400 if its handshake is invalid.
        """
        return cls(request)

    @property
    def accepted(self) -> bool:
        """Whether the handshake is complete."""
        return self._protocol is not None

    @property
    def close_code(self) -> int:
        """The code of the first close frame, sent or received; 1006 if the connection was lost; 0 while it is open."""
        return self._protocol.code if self._protocol else 0

    async def accept(
        self,
        *,
        subprotocols: Sequence[str] = (),
        origins: Iterable[str] = (),
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Complete the handshake (RFC 6455, 4.2.2).

        Args:
            subprotocols: The subprotocols of the service. The first one that the client offers is chosen.
            origins: Origins whose pages may connect, as in "https://app.example", beside this host; "*" allows all.
                A client that sends no Origin header is no browser, and is allowed.
            headers: More headers of the 101 response.

        Raises:
            HTTPError: 403 if the page's origin is not allowed, or the client offers none of `subprotocols`.
            RuntimeError: If the socket is accepted already.
        """
        if self._protocol is not None:
            raise RuntimeError("the WebSocket is accepted already; call accept() before the first receive or send")
        request = self.request
        check_origin(request, frozenset(origins))
        self.subprotocol = chosen_subprotocol(request, subprotocols)
        handshake = self._handshake
        response = handshake.response(self.subprotocol, Response(b"", headers=headers).headers)
        connection: UpgradableConnection = request.upgrade
        self._protocol = SocketProtocol(connection, handshake.frames)
        self._protocol.start(response)

    async def _accepted(self) -> SocketProtocol:
        if self._protocol is None:
            await self.accept()
        assert self._protocol is not None
        return self._protocol

    async def receive(self) -> str | bytes:
        """Wait for the next message. One task at a time may wait.

        Returns:
            The message: `str` for text, `bytes` for binary.

        Raises:
            SocketClosed: If the socket is closed, and all messages that came before are received.
            RuntimeError: If another task is waiting already.
            HTTPError: As `accept`, if the socket was not accepted before.
        """
        return await (self._protocol or await self._accepted()).receive()

    async def receive_text(self) -> str:
        """Wait for the next message, which must be text. A binary message closes the socket with 1003.

        Returns:
            The text.

        Raises:
            SocketClosed: As `receive`, and after a binary message.
            RuntimeError: As `receive`.
            HTTPError: As `receive`.
        """
        return await self._receive_only(str)  # type: ignore[return-value]

    async def receive_bytes(self) -> bytes:
        """Wait for the next message, which must be binary. A text closes the socket with 1003.

        Returns:
            The bytes.

        Raises:
            SocketClosed: As `receive`, and after a text message.
            RuntimeError: As `receive`.
            HTTPError: As `receive`.
        """
        return await self._receive_only(bytes)  # type: ignore[return-value]

    async def _receive_only(self, kind: type) -> str | bytes:
        message = await self.receive()
        if type(message) is not kind:
            expected, found = ("text", "binary") if kind is str else ("binary", "text")
            await self._refuse(UNSUPPORTED, f"expected a {expected} message, but received a {found} message")
        return message

    async def receive_json(self, type: Any = Any) -> Any:  # noqa: A002 - as in msgspec
        """Wait for the next message, text or binary, and decode it as JSON. Invalid JSON closes the socket with 1007.

        Args:
            type: The type of the value: a dataclass, a msgspec Struct, a pydantic model, `list[int]`, ...

        Returns:
            A value of this type.

        Raises:
            SocketClosed: As `receive`, and after a message that is not JSON of this type.
            RuntimeError: As `receive`.
            HTTPError: As `receive`.
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
        """Send a message. Waits while the client reads slower than messages are sent (back-pressure).

        Args:
            message: `str` is sent as text, all else as binary.

        Raises:
            SocketClosed: If the socket is closed.
            TypeError: If `message` is of another type.
            HTTPError: As `accept`, if the socket was not accepted before.
        """
        await (self._protocol or await self._accepted()).send(message)

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON in a text message. Waits as `send`.

        Args:
            value: Any value that a handler may return as JSON.

        Raises:
            SocketClosed: If the socket is closed.
            HTTPError: As `accept`, if the socket was not accepted before.
        """
        await (self._protocol or await self._accepted()).send(json_bytes(value), text=True)

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close the socket (RFC 6455, 7), and wait until the connection has ended: at most 10 seconds.

        A second call does nothing but wait.

        Args:
            code: 1000 to 1003, 1007 to 1014, or 3000 to 4999 (RFC 6455, 7.4).
            reason: At most 123 bytes of UTF-8.

        Raises:
            ValueError: If `code` or `reason` is not allowed.
            HTTPError: As `accept`, if the socket was not accepted before.
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
