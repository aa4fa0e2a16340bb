"""The request and the response of a call between services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol

from ..core.call_errors import CallFailed
from ..core.headers import Headers


class Outgoing(NamedTuple):
    """The request of a call.

    `target` is the path with its query, percent-encoded. A body that is a callable gives a new iterator for each
    attempt; if it cannot, `can_repeat` is false, and nothing is sent again once the body was begun.

    Over gRPC `target` is the full name of the method, a body is one message, and an iterator is a stream of messages.
    """

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes | Callable[[], AsyncIterator[bytes]] = b""
    can_repeat: bool = True
    streams: bool = False
    """Whether the response is a stream of messages; only gRPC needs to know."""


class BodySource(Protocol):
    """The connection that the body of a response arrives on."""

    async def receive_piece(self) -> bytes:
        """The next bytes; b"" at the end. CallFailed if the body is cut short, CallTimeout at the deadline."""

    def close(self) -> None:
        """Discard the rest, and the connection with it."""


class Incoming:
    """The response of a call: its head, and the body as it arrives.

    Read the body to its end or call `aclose`: until then the response holds a connection.

    Attributes:
        status: HTTP status.
        headers: Header fields.
        replica: Address of the replica that responded.
        service: Name of the called service.
        attempts: Requests that were sent for it.
        content: The body, if it came with the head or was read; else None.
    """

    __slots__ = ("_source", "attempts", "content", "headers", "replica", "service", "status")

    rpc_code = ""
    """Over gRPC the name of the code, as far as it is known; over HTTP ""."""

    def __init__(
        self, status: int, headers: Headers, replica: str, content: bytes | None, source: BodySource | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.replica = replica
        self.content = content
        self.service = ""
        self.attempts = 1
        self._source = source

    async def body(self, limit: int) -> bytes:
        """The whole body.

        Args:
            limit: Most bytes that are read.

        Raises:
            CallFailed: The body is longer, or was cut short.
            CallTimeout: The budget is used up.
        """
        content = self.content
        if content is None:
            pieces, size = [], 0
            async for piece in self:
                pieces.append(piece)
                size += len(piece)
                self._check(size, limit)
            content = self.content = b"".join(pieces)
        self._check(len(content), limit)
        return content

    def _check(self, size: int, limit: int) -> None:
        if size > limit:
            self.discard()
            raise CallFailed(
                f"The body of the response is longer than {limit} bytes.",
                service=self.service,
                replica=self.replica,
                attempts=self.attempts,
                answered=self.status,
            )

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces of the body as they arrive. A piece that is not taken holds back the callee."""
        if self.content is not None:
            if self.content:
                yield self.content
            return
        source = self._source
        try:
            while source is not None and (piece := await source.receive_piece()):
                yield piece
            self._source = None
        except CallFailed as error:
            error.service, error.attempts = self.service, self.attempts
            raise
        finally:
            self.discard()

    def when_ended(self, function: Callable[[], object]) -> None:
        """Call the function at the end of a stream over gRPC; at once for all other responses."""
        function()

    async def aclose(self) -> None:
        """Discard the rest of the body. If it has not come whole, the callee sees a disconnect."""
        self.discard()

    def discard(self) -> None:
        """Do what `aclose` does, which needs no waiting."""
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def __repr__(self) -> str:
        return f"<Incoming {self.status} of {self.replica}>"
