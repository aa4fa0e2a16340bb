"""Responses on their way out: whole, in slices, from a file or as a stream; as fast as the client reads them.

`wire/connection.py` decides about the bytes. Here they are written, and writing waits while the client does not read.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from fcntl import ioctl
from math import inf
from termios import TIOCOUTQ
from typing import Any, Protocol

from ..core.errors import JobAbandoned, ProtocolError
from ..core.requests import Request
from ..core.responses import ENDLESS_TYPES, EVENTS, FileContent, Response, close_content
from ..core.shutdown import DRAINED
from ..core.tracebacks import author_traceback, indented, observe_error
from .bodies import COPY_SIZE
from .connection import ServerConnection, has_no_body
from .sendfile import FileCutShort, FileSink, send_file

log = logging.getLogger("tinysvc.http")

SEPARATE_WRITE = 64 * 1024
"""Bytes: a longer body is written after its head, not copied behind it."""

HEARTBEAT = 15.0
"""Seconds after which a silent stream of events gets a comment, as the standard advises (WHATWG HTML, 9.2.7)."""


class SharedState(Protocol):
    """The state that all connections of a server share."""

    date_lines: bytes
    """The last lines of each head."""
    draining: bool


class Sender(FileSink, Protocol):
    """The connection that a response is sent by."""

    wire: ServerConnection
    task: asyncio.Task[None]
    deadline: float
    stream: OutgoingStream | None

    @property
    def server(self) -> SharedState: ...

    def ignore_disconnect(self) -> None: ...
    def expect_within(self, seconds: float) -> None: ...


async def send(sender: Sender, request: Request, response: Response) -> None:
    """Send any response. ConnectionError if the client disconnects; UnencodableResult before anything is written."""
    content = response.content
    if isinstance(content, (bytes, memoryview)):
        rest = _write_whole(sender, request, response, content)
        if rest:
            await _send_slices(sender, rest)
    elif isinstance(content, FileContent):
        await _send_file(sender, request, response, content)
    else:
        await OutgoingStream(sender, request, content).send(response)


def _write_whole(
    sender: Sender, request: Request, response: Response, content: bytes | memoryview
) -> memoryview | None:
    """Write the head, and the body if it is small. Returns the body if it is still to be written."""
    wire, transport, date_lines = sender.wire, sender.transport, sender.server.date_lines
    if has_no_body(response.status):
        transport.write(wire.head(request, response, b"", date_lines))
        return None
    if type(content) is memoryview:
        content = content.cast("B")
    size = len(content)
    head = wire.head(request, response, b"content-length: %d\r\n" % size, date_lines)
    if request.method == "HEAD":
        transport.write(head)
        return None
    if size < SEPARATE_WRITE:
        transport.write(head + content)
        return None
    transport.write(head)
    return memoryview(content)


async def _send_slices(sender: Sender, content: memoryview) -> None:
    """A big body, as fast as the client reads it: the transport never has more than a slice, nor a copy of one."""
    sender.ignore_disconnect()  # the handler has ended; a client that only half-closes still reads
    for piece in _slices(content):
        if sender.disconnected:
            raise ConnectionResetError("the client disconnected in the middle of a response")
        sender.transport.write(piece)
        if sender.write_paused:
            await sender.drain()
        else:
            await asyncio.sleep(0)


async def _send_file(sender: Sender, request: Request, response: Response, content: FileContent) -> None:
    never_a_body = has_no_body(response.status)
    framing = b"" if never_a_body else b"content-length: %d\r\n" % content.size
    try:
        sender.transport.write(sender.wire.head(request, response, framing, sender.server.date_lines))
        if not never_a_body and request.method != "HEAD":
            sender.ignore_disconnect()  # as above
            await send_file(sender, content)
    except FileCutShort as error:
        observe_error(error)
        log.error("%r (%s): the response was cut off: %s", request, request.id, error)
        sender.transport.abort()
        raise ConnectionAbortedError("the file failed") from error
    finally:
        content.file.close()


class OutgoingStream:
    """A response whose pieces come one after the other.

    A stream of events or lines is *live*: it may have no end, and a drain ends it in order. While a stream of events is
    silent, the connection's deadline calls `beat`.
    """

    __slots__ = ("_content", "_heartbeat", "_is_live", "_request", "_sender", "is_ending")

    def __init__(self, sender: Sender, request: Request, content: AsyncIterator[bytes]) -> None:
        self._sender = sender
        self._request = request
        self._content = content
        self._heartbeat = b""
        self._is_live = False
        self.is_ending = False  # the server drains

    async def send(self, response: Response) -> None:
        """Send the stream, as long as it has declared; else chunked, or until the connection's end on HTTP/1.0."""
        sender, wire, request = self._sender, self._sender.wire, self._request
        try:
            sender.transport.write(wire.begin_stream(request, response, sender.server.date_lines))
            if has_no_body(response.status) or request.method == "HEAD":
                return
            if not wire.has_declared_length:
                self._is_live = response.content_type in ENDLESS_TYPES
                if response.content_type == EVENTS:
                    self._heartbeat = bytes(wire.piece(b":\n\n"))
                    sender.expect_within(HEARTBEAT)
            sender.stream = self
            await self._send_pieces()
            if sender.disconnected:  # nothing is wrong with the stream, and a write would fail
                raise ConnectionResetError("the client disconnected before the end of a stream")
            self._write_end()
        except asyncio.CancelledError:
            if not self.is_ending or sender.transport.is_closing():
                sender.transport.abort()
                raise
            sender.task.uncancel()
            self._write_end()
        except ConnectionError:
            sender.transport.abort()
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # no handler ends the server
            self._cut_off(error)
            raise ConnectionAbortedError("the stream failed") from error
        finally:
            sender.stream, sender.deadline = None, inf
            await close_content(self._content)

    async def _send_pieces(self) -> None:
        sender, wire = self._sender, self._sender.wire
        async for piece in self._content:
            # A closing transport takes no bytes and never pauses: a stream that does not wait would hold the loop.
            if sender.disconnected or sender.transport.is_closing():
                raise ConnectionResetError("the client disconnected in the middle of a stream")
            wire.count(len(piece))
            part: Any
            for part in (piece,) if len(piece) <= COPY_SIZE else _slices(piece):
                if part:
                    sender.transport.write(wire.piece(part))
                    if sender.write_paused:
                        await sender.drain()
            if self._heartbeat:
                sender.expect_within(HEARTBEAT)
            if self._is_live and sender.server.draining:
                break

    def _write_end(self) -> None:
        """Write the end of a stream. A compressed stream that a drain ends still holds some bytes."""
        content, wire, transport = self._content, self._sender.wire, self._sender.transport
        if tail := content.tail() if hasattr(content, "tail") else b"":
            wire.count(len(tail))
            transport.write(wire.piece(tail))
        if end := wire.end_of_stream():
            transport.write(end)

    def _cut_off(self, error: BaseException) -> None:
        request = self._request
        if not isinstance(error, (ProtocolError, JobAbandoned)):  # these are the client's: a bad body, a disconnect
            observe_error(error)
            text = indented(author_traceback(error))
            log.error("%r (%s): the stream failed half-way and was cut off: %s", request, request.id, text)
        self._sender.transport.abort()

    def beat(self) -> bool:
        """Send a comment if this is a stream of events."""
        if self._heartbeat:
            self._sender.transport.write(self._heartbeat)
            self._sender.expect_within(HEARTBEAT)
        return bool(self._heartbeat)

    def end(self) -> None:
        """Close a live stream in order, as the server drains: the generator, then the response."""
        if self._is_live and not self.is_ending:
            self.is_ending = True
            self._sender.task.cancel(DRAINED)


def unread_bytes(transport: asyncio.Transport) -> int:
    """Bytes of responses that the client's side has not got: here, and in the kernel's buffer, which is big."""
    size = transport.get_write_buffer_size()
    try:
        waiting = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
    except (OSError, AttributeError):  # the number is unknown over TLS, or the socket is closed
        return size
    return size + int.from_bytes(waiting, sys.byteorder)


def _slices(content: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(content)
    return (view[start : start + COPY_SIZE] for start in range(0, len(view), COPY_SIZE))
