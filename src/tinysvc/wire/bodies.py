"""The body of a request, as it comes: piece by piece, or put together in place.

A connection hands a reader to its request where the body has not arrived whole. What the reader needs of the connection
is a `Source`; what counts as held, what is swallowed and how long a client may take is decided here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Protocol

from ..core.errors import ProtocolError
from ..core.settings import KiB, Settings
from .connection import IncomingBody, ServerConnection
from .inbox import READ_SIZE, Inbox

COPY_SIZE = 256 * KiB
"""Bytes of a big body that the kernel copies at once, in or out, in some 0.1 ms: then others have a turn. With half as
many, eight such bodies hold the loop no shorter, and are moved 8 % slower."""

MAX_DISCARD = 256 * KiB
"""Unread body bytes we swallow to keep a connection alive (Go's net/http does the same); more, and it is closed."""


class BodySource(Protocol):
    """The connection that a body comes by."""

    settings: Settings
    transport: asyncio.Transport
    wire: ServerConnection
    inbox: Inbox
    body: BodyReader | None
    gone: bool

    async def receive_body(self, reader: BodyReader) -> bytes: ...
    def check_room(self, size: int) -> None: ...
    def count_body(self, size: int) -> None: ...
    def expect_more(self, reader: BodyReader) -> None: ...
    def switch(self, protocol: asyncio.BaseProtocol | None) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class BodyReader:
    """A request body that has not arrived in full yet: an async iterator over its pieces.

    Raises ProtocolError 413 when it is longer than `max_body_size` (if it says so itself, as soon as anything of it
    comes), 408 when the client stalls, 400 when it is cut short or malformed; and the same again when it is asked
    again, as nothing behind a fault is looked at. It is its connection's `body` until it has been read to the end. What
    is kept counts as held (503 when there is no room for it) until the request ends.

    A client has `body_timeout` seconds for the next piece, and on the whole so many more as its bytes take at
    `min_body_rate`. Only the time counts in which somebody waits for it.
    """

    def __init__(self, connection: BodySource, body: IncomingBody) -> None:
        self._connection = connection
        self._body = body
        self._kept = False
        self._waited = self._since = 0.0
        self._is_streamed = False
        self._error: ProtocolError | None = None
        self._pieces: deque[bytes] = deque()  # of the whole, when its length is not known
        self._whole: BytesIO | None = None

    def limit(self, size: int) -> None:
        """Take at most so many bytes. Nothing has been read yet."""
        self._body.limit(size)

    def begin_response(self) -> None:
        """The answer's head comes next: a 100 behind it would stand in its body (RFC 9110, 15.2)."""
        self._body.expects_continue = False

    def keep(self) -> None:
        """What is read from now on is held in memory until the request ends."""
        self._kept = True

    def start_clock(self, now: float) -> float:
        """Somebody waits for the next piece from now on. The time at which it must be there."""
        self._since = now
        settings, patience = self._connection.settings, self._connection.settings.body_timeout
        if settings.min_body_rate:
            patience = min(patience, patience + self._body.received / settings.min_body_rate - self._waited)
        return now + patience

    def stop_clock(self, now: float) -> None:
        self._waited += now - self._since

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._check_is_there()
        return self

    async def __anext__(self) -> bytes:
        piece = await self._next_piece()
        if not piece:
            self._is_streamed = self._body.received > 0
            raise StopAsyncIteration
        return piece

    def _check_is_there(self) -> None:
        """RuntimeError for who would take a body for empty that another has streamed to its end."""
        if self._is_streamed:
            raise RuntimeError(
                "the request's body was streamed to its end, and is not kept; who reads it before others do "
                "(a middleware, say) calls await request.body() instead, which keeps it"
            )

    async def whole(self) -> bytes:
        """All that has not been streamed yet, put together in steps. Who gave up half-way may ask again."""
        self._check_is_there()
        self.keep()
        if self._body.length is None:
            while piece := await self._next_piece():
                self._pieces.append(piece)
            self._whole = self._whole or _room_for(sum(map(len, self._pieces)))
            await self._put_together(self._whole)
        else:
            piece = await self._next_piece()
            self._whole = self._whole or _room_for(self._body.left + len(piece))
            while piece:
                self._whole.write(piece)
                piece = await self._fill(self._whole)
        self._whole.truncate()
        return self._whole.getvalue()

    async def _fill(self, whole: BytesIO) -> bytes:
        """The next piece, or the last one if there is much: then all before it is in `whole`."""
        size = self._body.left - READ_SIZE
        if size < COPY_SIZE or self._connection.inbox.has_bytes:
            return await self._next_piece()
        filler = DirectReceiver(self, self._connection, whole, size)
        try:
            return await self._next_piece()
        finally:
            filler.close()

    def count(self, size: int) -> None:
        """So many bytes more were received."""
        self._connection.count_body(size)
        self._body.received += size

    async def _put_together(self, whole: BytesIO) -> None:
        """Write the pieces of a body that did not say its length."""
        turn = COPY_SIZE
        while self._pieces:
            whole.write(self._pieces.popleft())
            if whole.tell() >= turn:
                turn = whole.tell() + COPY_SIZE
                await asyncio.sleep(0)

    async def _next_piece(self) -> bytes:
        """The next piece; b"" behind the last one."""
        if self._error is not None:
            raise self._error
        try:
            await self._check_length()
            piece = await self._receive()
            if self._kept:
                self._connection.count_body(len(piece))
        except ProtocolError as error:
            self._error, self._whole = error, None
            self._pieces.clear()
            raise
        return piece

    async def _check_length(self) -> None:
        """Refuse what is too long, or too much at this time, by its own words.

        The answer waits until anything of the body comes: only then is somebody about to send too much.
        """
        connection, body = self._connection, self._body
        if body.length is not None and body.length > body.max_size:
            if not body.expects_continue and not connection.inbox.has_bytes:
                await self._wait_for_anything()
            raise ProtocolError(413, f"The body has {body.length} bytes; at most {body.max_size} are allowed.")
        if self._kept:
            connection.check_room(body.left)

    async def _wait_for_anything(self) -> None:
        try:
            self._connection.wire.buffer = await self._connection.receive_body(self)
        except ProtocolError:
            pass  # that it never came is the smaller fault

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
                data = wire.buffer or await connection.receive_body(self)
                wire.buffer = b""
            piece = wire.take_piece(data)
            if body.is_complete:
                connection.body = None
                connection.inbox.bound_buffer()
        return piece

    def is_discardable(self) -> bool:
        """Whether what is left may be swallowed: not too much, nothing wrong, and no 100 that the client waits for."""
        body = self._body
        bound = min(MAX_DISCARD, body.max_size)
        return self._error is None and not body.expects_continue and body.left <= bound

    async def discard(self) -> bool:
        """Swallow what the handler did not read. False if that cannot be done."""
        if not self.is_discardable():
            return False
        bound = self._body.received + MAX_DISCARD
        try:
            while await self._receive():
                if self._body.received > bound:
                    return False
        except ProtocolError:
            return False  # the request has its answer; a second one would belong to nothing
        return True


class DirectReceiver(asyncio.BufferedProtocol):
    """Takes its connection's place while most of a long body arrives: the kernel writes it to where it is to be.

    All else comes to the connection: the end of the body, what goes wrong, and the task that waits for either.
    """

    def __init__(self, reader: BodyReader, connection: BodySource, whole: BytesIO, size: int) -> None:
        self._reader, self._connection, self._whole = reader, connection, whole
        self._room, self._filled = whole.getbuffer(), whole.tell()
        self._end = self._filled + size
        self._is_open = True
        connection.switch(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[self._filled : min(self._filled + COPY_SIZE, self._end)]

    def buffer_updated(self, count: int) -> None:
        """Some more has come; then others have a turn."""
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
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    def _go_on(self) -> None:
        if self._is_open and not self._connection.gone:
            self._connection.transport.resume_reading()

    def close(self) -> None:
        """The connection is in its place again; once is enough."""
        if self._is_open:
            self._is_open = False
            self._room.release()
            self._whole.seek(self._filled)
            self._connection.switch(None)


def _room_for(size: int) -> BytesIO:
    """A file of `size` bytes that is filled in place: its whole value can be had without a copy."""
    return BytesIO(bytes(size))  # memory that is not touched before it is written to
