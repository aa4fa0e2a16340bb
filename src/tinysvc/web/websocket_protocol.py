"""A WebSocket on its connection (RFC 6455): bytes become messages, messages become bytes.

    bytes ──> SocketProtocol.data_received ──> frames ──> messages ──> queue ──> await receive()
    bytes <── transport.write <── frames <── await send(message)

The `websockets` library parses and builds frames and does no I/O. This file is the asyncio shell around it.

A message wakes its handler directly, without a task, timer or lock for each message. The queue of received messages is
bounded; when it is full, the server stops reading from the client. Pings and timeouts of the closing handshake are
checked by the sweep that checks all connections.

A socket is *open* until a close frame is sent or received, or the connection is lost. From then on `receive` and
`send` raise SocketClosed. A handler that is still running GRACE seconds after the disconnect is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, Protocol, cast

from ..core.errors import TinysvcError
from ..core.settings import Settings
from ..core.units import KiB

log = logging.getLogger("tinysvc.websocket")

MAX_QUEUED = 16
"""Messages in the queue of a handler; when it holds more, the server stops reading. As in the websockets library."""

MAX_QUEUED_SIZE = 64 * KiB
"""Size of these messages in bytes; a single message may be longer."""

PARSE_SIZE, MAX_FRAMES = 16 * KiB, 200
"""Bytes that are parsed in one step, and frames in one turn of the event loop: about 15 ms at most."""

GRACE = 10.0
"""Seconds that a client has to complete the closing handshake, and a handler to end after a disconnect."""

LINGER = 2.0
"""Seconds in which the server still reads from a client that broke the protocol, to get the close frame delivered."""

MAX_REASON = 123
"""Bytes of UTF-8 in the reason of a close frame (RFC 6455, 5.5)."""

NORMAL, GOING_AWAY, UNSUPPORTED, LOST, INVALID_DATA, POLICY, INTERNAL = 1000, 1001, 1003, 1006, 1007, 1008, 1011
"""Codes of close frames (RFC 6455, 7.4.1)."""


class SocketClosed(TinysvcError):
    """The WebSocket is closed or lost. A handler need not catch it.

    Attributes:
        code (int): Code of the close frame (RFC 6455, 7.4); 1006 if the connection was lost without one.
        reason (str): Text of the close frame.

    Example:
        ```python
        from tinysvc import SocketClosed, WebSocket, io_route

        @io_route("/upload")
        async def upload(socket: WebSocket) -> None:
            received = []
            try:
                while True:
                    received.append(await socket.receive_bytes())
            except SocketClosed as error:
                print(f"{len(received)} messages, then {error.code}")
        ```
    """

    status = 499

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the WebSocket was closed with code {self.code}" + (f": {self.reason}" if self.reason else "")


class UpgradableConnection(Protocol):
    """What a WebSocket needs of its HTTP connection (`tinysvc.http.Connection`)."""

    transport: asyncio.Transport
    write_paused: bool
    disconnected: bool
    task: asyncio.Task[None]

    @property
    def settings(self) -> Settings: ...

    def upgrade(self, protocol: SocketProtocol) -> bytes: ...
    def expect_within(self, seconds: float) -> None: ...
    async def drain(self) -> None: ...


class SocketProtocol(asyncio.Protocol):
    """The asyncio protocol of a connection after its upgrade, and the state of its WebSocket."""

    __slots__ = (
        "_awaits_pong", "_connection_ended", "_events", "_flow_paused", "_fragment_opcode", "_fragments", "_loop",
        "_messages", "_size", "_unparsed", "_waiter", "_write_ended", "code", "connection", "frames", "handler_ended",
        "reason", "transport",
    )  # fmt: skip

    def __init__(self, connection: UpgradableConnection, frames: Any) -> None:
        self.connection = connection
        self.frames = frames
        self.transport = connection.transport
        self._loop = asyncio.get_running_loop()
        self.code = 0  # of the close frame; 0 while the socket is open
        self.reason = ""
        self._messages: deque[str | bytes] = deque()  # received, not yet taken by the handler
        self._size = 0  # of these messages
        self._fragments: bytearray | None = None  # of a message that is not complete
        self._fragment_opcode = 0
        self._waiter: asyncio.Future[None] | None = None  # set while the handler waits for a message
        self._connection_ended: asyncio.Future[None] | None = None  # set while `wait_ended` waits
        self._write_ended = False
        self._unparsed = b""  # received, left for the next turn of the event loop
        self._flow_paused = False
        self._awaits_pong = False  # a ping was sent, and nothing has come from the client since
        self.handler_ended = False

    def start(self, response: bytes) -> None:
        """Write the 101 response and take over the connection, with the bytes that came behind the request."""
        if self.connection.disconnected:
            self.code = LOST
            return
        self.transport.write(response)
        self._events = cast(asyncio.Protocol, self.transport.get_protocol())
        received = self.connection.upgrade(self)
        self._schedule_ping()
        if received:
            self.data_received(received)

    def _schedule_ping(self) -> None:
        if interval := self.connection.settings.ping_interval:
            self.connection.expect_within(interval)

    # Called by the transport

    def data_received(self, data: bytes) -> None:
        self._awaits_pong = False
        if len(data) <= PARSE_SIZE and not self._unparsed:
            self._parse(data)
        else:
            self._unparsed += data
            self._parse_some()

    def _parse_some(self) -> None:
        """Parse a bounded part, then yield: a megabyte of one-byte frames would block the event loop for a second."""
        unparsed, frames = self._unparsed, 0
        position = 0
        while position < len(unparsed) and frames < MAX_FRAMES:
            frames += self._parse(unparsed[position : position + PARSE_SIZE])
            position += PARSE_SIZE
        self._unparsed = unparsed[position:]
        self._update_flow()
        if self._unparsed:
            self._loop.call_soon(self._parse_some)

    def _parse(self, data: bytes) -> int:
        """Parse the bytes and handle their frames. The number of frames is returned."""
        frames = self.frames
        frames.receive_data(data)
        events = frames.events_received()
        for frame in events:
            if not self.code:
                self._handle_frame(frame)
        if frames.writes:
            self._write()
        if frames.close_sent is not None and not self.code:
            self._set_closed(frames.close_rcvd or frames.close_sent)
        return len(events)

    def eof_received(self) -> bool:
        self._unparsed = b""
        self.frames.receive_eof()
        self._set_lost()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._unparsed = b""
        self._events.connection_lost(exc)
        self._set_lost()
        if self._connection_ended is not None:
            if not self._connection_ended.done():
                self._connection_ended.set_result(None)
        else:
            self._loop.call_later(GRACE, self._cancel_handler)

    def _cancel_handler(self) -> None:
        if not self.handler_ended:  # the task may now be closing the request's resources: do not cancel that
            self.connection.task.cancel()

    def pause_writing(self) -> None:
        self._events.pause_writing()
        self._update_flow()  # do not read from a client that does not read our pongs

    def resume_writing(self) -> None:
        self._events.resume_writing()
        self._update_flow()

    # Messages

    def _handle_frame(self, frame: Any) -> None:
        opcode, data = frame.opcode, frame.data
        if opcode > 2:  # a control frame: the library responds to it
            return
        if opcode:
            if frame.fin:
                self._queue(opcode, data)
                return
            self._fragment_opcode, self._fragments = opcode, bytearray(data)
        elif self._fragments is not None:
            self._fragments += data
            if frame.fin:
                fragments, self._fragments = self._fragments, None
                self._queue(self._fragment_opcode, fragments)

    def _queue(self, opcode: int, data: bytes | bytearray) -> None:
        if opcode == 1:
            try:
                message: str | bytes = str(data, "utf-8")
            except UnicodeDecodeError as error:
                self._fail(INVALID_DATA, f"{error.reason} at position {error.start}")
                return
        else:
            message = bytes(data)
        self._messages.append(message)
        self._size += len(message)
        if self._size > MAX_QUEUED_SIZE or len(self._messages) > MAX_QUEUED:
            self._update_flow()
        self._wake_receiver()

    def _wake_receiver(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def receive(self) -> str | bytes:
        messages = self._messages
        while not messages:
            if self.code:
                raise SocketClosed(self.code, self.reason)
            if self._waiter is not None:
                raise RuntimeError("another task is already waiting in receive(); let one task receive the messages")
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = messages.popleft()
        self._size -= len(message)
        if self._flow_paused:
            self._update_flow()
        return message

    def _update_flow(self) -> None:
        """Pause reading while the queue is full, bytes wait to be parsed, or the client does not read; else resume."""
        full = bool(
            self._size > MAX_QUEUED_SIZE
            or len(self._messages) > MAX_QUEUED
            or self.connection.write_paused
            or self._unparsed
        )
        if full != self._flow_paused and not self.connection.disconnected:
            self._flow_paused = full
            if full:
                self.transport.pause_reading()
            elif not self._write_ended:
                self.transport.resume_reading()

    async def send(self, message: str | bytes | bytearray | memoryview, *, text: bool = False) -> None:
        if self.transport.is_closing():  # it never pauses: a handler that only sends would block the event loop
            self._set_lost()
        if self.code:
            raise SocketClosed(self.code, self.reason)
        frames = self.frames
        if isinstance(message, str):
            frames.send_text(message.encode())
        elif isinstance(message, (bytes, bytearray, memoryview)):
            (frames.send_text if text else frames.send_binary)(message)
        else:
            raise TypeError(f"send() takes str or bytes, not {message!r}; use send_json() for any other value")
        self._write()
        if self.connection.write_paused:
            await self._drain()

    async def _drain(self) -> None:
        try:
            await self.connection.drain()
        except ConnectionError:
            self._set_lost()
            raise SocketClosed(self.code, self.reason) from None
        finally:
            self._schedule_ping()

    def _write(self) -> None:
        for data in self.frames.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self._end_writing()

    # Closing

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, unless the socket is closed.

        Raises:
            ValueError: If `code` may not be sent (RFC 6455, 7.4), or `reason` is longer than MAX_REASON.
        """
        from websockets.exceptions import ProtocolError

        if len(reason.encode()) > MAX_REASON:
            raise ValueError(f"the reason of a close frame has at most {MAX_REASON} bytes, not {len(reason.encode())}")
        if self.code:
            return
        self._messages.clear()  # resumes reading: the client's close frame must be read
        self._size = 0
        self._update_flow()
        try:
            self.frames.send_close(code, reason)
        except ProtocolError:
            text = f"the code of a close frame is 1000 to 1003, 1007 to 1014 or 3000 to 4999, not {code!r}"
            raise ValueError(text) from None
        self._write()
        self._set_closed(self.frames.close_sent)

    def _fail(self, code: int, reason: str) -> None:
        self.frames.fail(code, shortened_reason(reason))
        self._write()
        self._set_closed(self.frames.close_sent)

    def _set_closed(self, close: Any) -> None:
        """From now on the socket is closed. Its connection must end within some seconds."""
        self.code, self.reason = close.code, close.reason
        self.connection.expect_within(LINGER if self._write_ended else GRACE)
        self._wake_receiver()

    def _set_lost(self) -> None:
        """The client has disconnected. If it sent no close frame before, the code is LOST."""
        if not self.code:
            self.code = LOST
            self.connection.expect_within(GRACE)
        self._wake_receiver()

    def _end_writing(self) -> None:
        """Everything is written: send EOF and let the client close the connection."""
        self._write_ended = True
        if self.connection.disconnected:
            return
        if self.frames.close_rcvd is not None or not self.transport.can_write_eof():  # both have closed, or TLS
            self.transport.close()
            return
        self.transport.write_eof()
        if self._flow_paused:
            self.transport.resume_reading()  # closing with unread bytes is a reset: the close frame would be lost

    async def wait_ended(self) -> None:
        """Wait until the connection has ended; `expire` makes sure that it does."""
        if not self.connection.disconnected:
            if self._connection_ended is None:
                self._connection_ended = self._loop.create_future()
            await asyncio.shield(self._connection_ended)

    # Called by the HTTP connection

    def expire(self) -> None:
        """The time that was set with `expect_within` is over."""
        if self.code or (self._awaits_pong and not self._flow_paused):
            log.debug("%s: aborted, as the client did not respond in time", self.transport.get_extra_info("peername"))
            self.transport.abort()
        else:
            self._awaits_pong = True
            self.frames.send_ping(b"")
            self._write()
            self.connection.expect_within(self.connection.settings.ping_timeout)

    def go_away(self) -> None:
        """The server is draining: close the socket with 1001."""
        if not self.code:
            self.close(GOING_AWAY, "")


def shortened_reason(reason: str) -> str:
    """As much of the reason as fits into a close frame."""
    return reason.encode()[:MAX_REASON].decode(errors="ignore")
