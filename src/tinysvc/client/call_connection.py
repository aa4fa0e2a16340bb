"""One connection to a replica: the shell around wire/client_connection.py, for one exchange at a time.

    begin ──> receive_head ──> receive_piece ... b"" ──> may be reused if `end_exchange`

The task of the call waits for bytes in `wire/inbox.py`, which holds back the callee if they are not taken. The body of
a request that is not there as a whole is sent by a task of its own: the response may come before it ends.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Protocol, cast

from ..core.errors import HTTPError, ProtocolError
from ..core.responses import close_content
from ..core.settings import Settings
from ..core.units import KiB
from ..wire.client_connection import ClientConnection, ResponseHead
from ..wire.connection import IDLE
from ..wire.inbox import Inbox
from .messages import Outgoing
from .retries import AttemptFailed, Failure

HELD = 256 * KiB
"""Bytes of a response that are held for a slow reader, before the callee is held back."""

IDLE_LIMIT = 10.0
"""Seconds after which an idle connection is not used again. Servers close theirs later: this one after 15 seconds."""

IDLE_MARGIN = 1.0
"""Seconds that our limit is below that of a server which states its own."""

SEPARATE_WRITE = 64 * KiB
"""Bytes of a body that are not copied behind the head."""


class Owner(Protocol):
    """The replica that the connection belongs to."""

    def lose(self, connection: CallConnection) -> None:
        """The connection is closed, or no use any more."""

    def on_deadline(self, connection: CallConnection) -> None:
        """The deadline has passed."""


class CallConnection(asyncio.Protocol):
    """One connection to a replica."""

    def __init__(self, owner: Owner, host: str, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.owner = owner
        self.host = host
        self.settings = settings
        self.loop = loop
        self.wire = ClientConnection(settings)
        self.inbox = Inbox(self.wire, HELD)
        self.data_received = self.inbox.put  # type: ignore[method-assign]  # without a call between
        self.exchanges = 0  # that were begun
        self.idle_since = 0.0
        self.idle_limit = IDLE_LIMIT
        self.is_probe = False
        self.expired = False
        self.sender: asyncio.Task[None] | None = None  # of a body that is not there as a whole
        self._fault: Exception | None = None  # of that body
        self._write_paused = False
        self._drained: asyncio.Future[None] | None = None

    # Events of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.inbox.transport = self.transport

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake_sender()

    def eof_received(self) -> None:
        self.inbox.end()
        self._wake_sender()
        self.owner.lose(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.inbox.end()
        self._wake_sender()
        self.owner.lose(self)

    def _wake_sender(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # The request

    def begin(self, request: Outgoing, headers: list[tuple[str, str]], prefix: str) -> None:
        """Send the head of a request, and its body or the beginning of it."""
        self.exchanges += 1
        wire, body = self.wire, request.body
        target = prefix + request.target if prefix else request.target
        if isinstance(body, bytes):
            head = wire.begin_request(request.method, target, self.host, headers, len(body))
            wire.end_request()
            if len(body) < SEPARATE_WRITE:
                self.transport.write(head + body)
            else:
                self.transport.write(head)
                self.transport.write(body)
            return
        self.transport.write(wire.begin_request(request.method, target, self.host, headers, None))
        self.sender = self.loop.create_task(self._send(body()))

    async def _send(self, pieces: AsyncIterator[bytes]) -> None:
        wire, size, most = self.wire, 0, self.settings.max_body_size
        try:
            async for piece in pieces:
                size += len(piece)
                if size > most:
                    raise too_large(size, most)
                if self.transport.is_closing():
                    return
                if piece:
                    self.transport.write(wire.piece(piece))
                if self._write_paused:
                    await self._drain()
            if not self.transport.is_closing():
                self.transport.write(wire.end_request())
        except Exception as error:
            self._fault = error
            self.inbox.ended = True
            self.inbox.fail(error)
            self.transport.abort()
        finally:
            await close_content(pieces)

    async def _drain(self) -> None:
        self._drained = self.loop.create_future()
        await self._drained

    # The response

    async def receive_head(self) -> ResponseHead:
        """Wait for the head of the final response.

        Raises:
            AttemptFailed: There is none.
            TimeoutError: The deadline has passed.
        """
        wire, inbox = self.wire, self.inbox
        try:
            while True:
                if wire.buffer and (head := wire.next_response()) is not None:
                    if self.exchanges == 1:
                        self.idle_limit = _idle_limit(head.headers.get("keep-alive", ""))
                    return head
                if not inbox.fill_buffer():
                    await self._receive()
        except ProtocolError as error:
            raise AttemptFailed(Failure.CUT_SHORT, error.detail) from None

    async def _receive(self) -> None:
        """Wait for more bytes of the head or body."""
        inbox = self.inbox
        inbox.check_time()
        if inbox.ended:
            if self._fault is not None:
                raise self._fault
            if self.wire.incoming == IDLE and not self.wire.buffer:
                reused = self.exchanges > 1
                failure = Failure.IDLE_RACE if reused else Failure.NO_RESPONSE
                raise AttemptFailed(failure, f"{failure.value}.".capitalize())
            self.wire.receive_eof()
            return
        inbox.waiter = self.loop.create_future()
        try:
            await inbox.waiter
        finally:
            inbox.waiter = None

    async def receive_piece(self) -> bytes:
        """The next bytes of the body. Empty: `wire.body` is None, and the body was whole.

        Raises:
            AttemptFailed: The body is cut short or malformed.
            TimeoutError: The deadline has passed.
        """
        wire, inbox = self.wire, self.inbox
        try:
            while wire.body is not None:
                if wire.buffer or inbox.fill_buffer():
                    if piece := wire.take_piece():
                        return piece
                else:
                    await self._receive()
        except ProtocolError as error:
            raise AttemptFailed(Failure.CUT_SHORT, error.detail) from None
        return b""

    def is_whole(self) -> bool:
        """Whether the response has come whole. It is discarded."""
        try:
            return self.wire.next_response() is not None and self.wire.body is None
        except ProtocolError:
            return False

    def has_response(self) -> bool:
        """Whether any byte of a response has come."""
        return self.inbox.has_bytes or self.wire.incoming != IDLE

    def end_exchange(self) -> bool:
        """Whether the connection can be used again."""
        sender, self.sender = self.sender, None
        if sender is not None and not sender.done():
            sender.cancel()
        inbox = self.inbox
        return self.wire.end_exchange() and not (inbox.held or inbox.ended or self._write_paused)

    def descriptor(self) -> int:
        """The descriptor of the socket; -1 if it is closed."""
        sock = self.transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def is_usable(self) -> bool:
        """Whether an idle connection can be used: nothing has come on it."""
        return not (self.inbox.has_bytes or self.inbox.ended)

    def expire(self, now: float) -> None:
        self.owner.on_deadline(self)

    def interrupt(self) -> None:
        """Raise TimeoutError where the task waits."""
        self.expired = True
        self.inbox.interrupt()

    def close(self) -> None:
        """Close at once: the callee sees a disconnect."""
        sender, self.sender = self.sender, None
        if sender is not None and not sender.done():
            sender.cancel()
        self.inbox.end()
        self.transport.abort()

    def __repr__(self) -> str:
        return f"<CallConnection to {self.host}, {self.exchanges} exchanges, {self.wire!r}>"


def _idle_limit(keep_alive: str) -> float:
    """IDLE_LIMIT, or less if the server says that it closes idle connections sooner, as Node's does after 5 seconds."""
    found = re.search(r"\btimeout=([0-9]{1,6})\b", keep_alive)
    return IDLE_LIMIT if found is None else min(IDLE_LIMIT, max(0.0, int(found[1]) - IDLE_MARGIN))


def too_large(size: int, most: int) -> HTTPError:
    """The error for a body that is too large to be sent."""
    return HTTPError(413, f"The body of the call has {size} bytes or more; at most {most} may be sent (max_body_size).")
