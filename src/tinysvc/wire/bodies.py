"""Reads the body of a request: piece by piece, or joined in place.

A request whose body has not arrived in full gets a BodyReader. The reader sees the connection as a `BodySource`. It
decides which bytes count as held memory, which unread bytes are discarded, and how long a client may take.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Protocol

from ..core.errors import ProtocolError
from ..core.requests import ReceivedBody
from ..core.settings import Settings
from ..core.units import KiB
from .connection import IncomingBody, ServerConnection
from .inbox import READ_SIZE, Inbox

COPY_SIZE = 256 * KiB
"""Bytes of a big body that the kernel copies at once, in or out, in about 0.1 ms; then other tasks run. Half the size
does not shorten the delay that eight such bodies cause, and moves them 8 % slower."""

RETRY = [("retry-after", "1")]

MAX_DISCARD = 256 * KiB
"""Unread bytes of a body that are discarded to keep the connection alive, as in Go's net/http. With more, it closes."""


class BodyMemory(Protocol):
    """The memory for bodies that all connections of a server share."""

    body_memory: int
    """Bytes of bodies that all requests hold, but for those that came whole with their heads."""


class BodySource(Protocol):
    """The connection that receives a body."""

    transport: asyncio.Transport
    wire: ServerConnection
    inbox: Inbox
    disconnected: bool

    @property
    def server(self) -> BodyMemory: ...
    @property
    def settings(self) -> Settings: ...

    async def receive_body(self, reader: BodyReader) -> bytes: ...
    def expect_more(self, reader: BodyReader) -> None: ...
    def switch(self, protocol: asyncio.BaseProtocol) -> asyncio.Protocol: ...


class BodyReader(ReceivedBody):
    """A request body that has not arrived in full yet: an async iterator over its pieces.

    Raises ProtocolError 413 if the body is longer than `max_body_size` (for a declared length, when the first bytes of
    the body arrive), 408 if the client stalls, 400 if the body is cut short or malformed. A further call raises the
    same error: nothing after a fault is parsed. Kept pieces count as held memory until `release`, when the request ends
    (503 if there is no room).

    A client has `body_timeout` seconds for the next piece, and in total the additional time that its bytes take at
    `min_body_rate`. Only time in which the handler waits for the body counts.
    """

    def __init__(self, connection: BodySource, body: IncomingBody) -> None:
        self._connection = connection
        self._body = body
        self._kept = False
        self._held = 0  # bytes of kept pieces
        self._waited = self._since = 0.0
        self._is_streamed = False
        self._error: ProtocolError | None = None
        self._pieces: deque[bytes] = deque()  # of a whole body without a declared length
        self._whole: BytesIO | None = None

    def limit(self, size: int) -> None:
        """Set the limit of this body in bytes, before it is read."""
        self._body.limit(size)

    @property
    def is_complete(self) -> bool:
        """Whether the last byte was taken."""
        return self._body.is_complete

    def begin_response(self) -> None:
        """The head of the response is sent next: a 100 after it would be part of its body (RFC 9110, 15.2)."""
        self._body.expects_continue = False

    def keep(self) -> None:
        """The handler keeps the pieces that are read from now on: count them until the request ends."""
        self._kept = True

    def start_clock(self, now: float) -> float:
        """The handler waits for the next piece from now on. Return its deadline."""
        self._since = now
        settings, timeout = self._connection.settings, self._connection.settings.body_timeout
        if settings.min_body_rate:
            timeout = min(timeout, timeout + self._body.received / settings.min_body_rate - self._waited)
        return now + timeout

    def stop_clock(self, now: float) -> None:
        """The handler does not wait any more."""
        self._waited += now - self._since

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._check_not_streamed()
        return self

    async def __anext__(self) -> bytes:
        piece = await self._next_piece()
        if not piece:
            self._is_streamed = self._body.received > 0
            raise StopAsyncIteration
        return piece

    def _check_not_streamed(self) -> None:
        """RuntimeError if the body was streamed to its end: a second reader would see an empty body."""
        if self._is_streamed:
            raise RuntimeError(
                "the request's body was streamed to its end and is not kept; a function that reads it before others, "
                "such as middleware, must call await request.body(), which keeps it"
            )

    async def whole(self) -> bytes:
        """The rest of the body, joined in steps. After a cancellation it can be called again."""
        self._check_not_streamed()
        self.keep()
        if self._body.length is None:
            while piece := await self._next_piece():
                self._pieces.append(piece)
            self._whole = self._whole or _room_for(sum(map(len, self._pieces)))
            await self._join_pieces(self._whole)
        else:
            piece = await self._next_piece()
            self._whole = self._whole or _room_for(self._body.left + len(piece))
            while piece:
                self._whole.write(piece)
                piece = await self._receive_into(self._whole)
        self._whole.truncate()
        return self._whole.getvalue()

    async def _receive_into(self, whole: BytesIO) -> bytes:
        """The next piece. The pieces of a long body before it are written to `whole` by a DirectReceiver."""
        size = self._body.left - READ_SIZE
        if size < COPY_SIZE or self._connection.inbox.has_bytes:
            return await self._next_piece()
        receiver = DirectReceiver(self, self._connection, whole, size)
        try:
            return await self._next_piece()
        finally:
            receiver.close()

    def count(self, size: int) -> None:
        """Count bytes that were received and are kept."""
        self._hold(size)
        self._body.received += size

    def _hold(self, size: int) -> None:
        self._check_room(size)
        self._held += size
        self._connection.server.body_memory += size

    def _check_room(self, size: int) -> None:
        """ProtocolError 503 if the server cannot hold `size` more bytes of bodies."""
        connection = self._connection
        if size > 0 and connection.server.body_memory + size > connection.settings.max_body_memory:
            raise ProtocolError(503, "The server holds as many request bodies as it may.", headers=RETRY)

    def release(self) -> None:
        """The request has ended: it holds no memory any more."""
        self._connection.server.body_memory -= self._held
        self._held = 0

    async def _join_pieces(self, whole: BytesIO) -> None:
        """Join the pieces of a body without a declared length, in steps: other tasks run in between."""
        turn = COPY_SIZE
        while self._pieces:
            whole.write(self._pieces.popleft())
            if whole.tell() >= turn:
                turn = whole.tell() + COPY_SIZE
                await asyncio.sleep(0)

    async def _next_piece(self) -> bytes:
        """The next piece; b"" at the end."""
        if self._error is not None:
            raise self._error
        try:
            await self._check_length()
            piece = await self._receive()
            if self._kept:
                self._hold(len(piece))
        except ProtocolError as error:
            self._error, self._whole = error, None
            self._pieces.clear()
            raise
        return piece

    async def _check_length(self) -> None:
        """Refuse a body whose declared length is over a limit.

        The response waits for the first bytes of the body: only then does the client send too much.
        """
        connection, body = self._connection, self._body
        if body.length is not None and body.length > body.max_size:
            if not body.expects_continue and not connection.inbox.has_bytes:
                await self._wait_for_anything()
            raise ProtocolError(413, f"The body has {body.length} bytes; at most {body.max_size} are allowed.")
        if self._kept:
            self._check_room(body.left)

    async def _wait_for_anything(self) -> None:
        try:
            self._connection.wire.buffer = await self._receive_bytes()
        except ProtocolError:
            pass  # the body did not arrive: still report its length

    async def _receive(self) -> bytes:
        connection, body, wire = self._connection, self._body, self._connection.wire
        if body.expects_continue and not wire.buffer:
            connection.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body.expects_continue = False
        piece = b""
        while not piece and not body.is_complete:
            if body.has_more:
                await asyncio.sleep(0)
                data = b""
            else:
                data = wire.buffer or await self._receive_bytes()
                wire.buffer = b""
            piece = wire.take_piece(data)
            if body.is_complete:
                connection.inbox.bound_buffer()
        return piece

    async def _receive_bytes(self) -> bytes:
        """Wait for more bytes. ProtocolError 400 or 408 when they do not come."""
        try:
            data = await self._connection.receive_body(self)
        except TimeoutError:
            raise ProtocolError(408, "The request body took too long to arrive.") from None
        if not data:
            raise ProtocolError(400, "The request body was cut short.")
        return data

    def is_discardable(self) -> bool:
        """Whether the rest may be discarded: it is short, without a fault, and the client does not wait for a 100."""
        body = self._body
        bound = min(MAX_DISCARD, body.max_size)
        return self._error is None and not body.expects_continue and body.left <= bound

    async def discard(self) -> bool:
        """Discard the rest of the body. False if that is not possible."""
        if not self.is_discardable():
            return False
        bound = self._body.received + MAX_DISCARD
        try:
            while await self._receive():
                if self._body.received > bound:
                    return False
        except ProtocolError:
            return False  # the response is sent: an error response would belong to no request
        return True


class DirectReceiver(asyncio.BufferedProtocol):
    """Replaces the connection as the protocol while most of a long body arrives: the kernel writes into `whole`.

    Everything else stays with the connection: the end of the body, errors, and the task that waits for either.
    """

    def __init__(self, reader: BodyReader, connection: BodySource, whole: BytesIO, size: int) -> None:
        self._reader, self._connection, self._whole = reader, connection, whole
        self._room, self._filled = whole.getbuffer(), whole.tell()
        self._end = self._filled + size
        self._is_open = True
        self._events = connection.switch(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled : min(self._filled + COPY_SIZE, self._end)]

    def buffer_updated(self, count: int) -> None:
        """Count the bytes, and let other tasks run before more are read."""
        connection = self._connection
        self._filled += count
        connection.transport.pause_reading()
        try:
            self._reader.count(count)
            connection.expect_more(self._reader)
        except ProtocolError as error:
            connection.inbox.fail(error)
        else:
            asyncio.get_running_loop().call_soon(self._go_on if self._filled < self._end else self.close)

    def eof_received(self) -> bool | None:
        return self._events.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._events.connection_lost(exc)

    def pause_writing(self) -> None:
        self._events.pause_writing()

    def resume_writing(self) -> None:
        self._events.resume_writing()

    def _go_on(self) -> None:
        if self._is_open and not self._connection.disconnected:
            self._connection.transport.resume_reading()

    def close(self) -> None:
        """Make the usual protocol the protocol again. Further calls do nothing."""
        if self._is_open:
            self._is_open = False
            self._room.release()
            self._whole.seek(self._filled)
            self._connection.switch(self._events)


def _room_for(size: int) -> BytesIO:
    """A file of `size` bytes that is filled in place. `getvalue` returns its content without a copy."""
    return BytesIO(bytes(size))  # the kernel provides the memory when it is written
