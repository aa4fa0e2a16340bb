"""Bytes that a connection has received and its task has not taken, with back-pressure on the client."""

from __future__ import annotations

import asyncio
from typing import Protocol

READ_SIZE = 64 * 1024
"""Bytes of pipelined requests that are looked at in one turn of the loop."""

PIECE_OVERHEAD = 128
"""Bytes that a held piece counts beyond its own, as an object does: a thousand small pieces would cost too much."""


class Buffered(Protocol):
    """The state of a connection: the server's or the client's side."""

    buffer: bytes
    """The bytes that were received and not taken."""

    def receive(self, data: bytes) -> None:
        """Add the bytes to the buffer."""


class Inbox:
    """The bytes for one task. `wire` gets them in portions of READ_SIZE.

    `at_end`: no more bytes come. `ended`: no further request is taken, as no more bytes come, a deadline has passed or
    the server drains. `out_of_time`: a deadline has passed while the task did not wait.
    """

    __slots__ = ("_limit", "_size", "_wire", "at_end", "ended", "held", "out_of_time", "transport", "waiter")

    def __init__(self, wire: Buffered, limit: int) -> None:
        self.transport: asyncio.Transport
        self._wire = wire
        self._limit = limit  # bytes that are held before reading pauses
        self.held: list[bytes] = []  # pieces that the wire has not got
        self._size = 0
        self.at_end = self.ended = False
        self.out_of_time = False
        self.waiter: asyncio.Future[bool] | None = None  # of the task, while it waits for bytes

    @property
    def has_bytes(self) -> bool:
        """Whether bytes have come that were not taken."""
        return bool(self._wire.buffer or self.held)

    @property
    def size(self) -> int:
        """Bytes that are held, without those in the buffer."""
        return sum(map(len, self.held))

    def put(self, data: bytes) -> None:
        """Bytes have come: they go to the task if it waits for them, and are held otherwise, as are many at once."""
        waiter, self.waiter = self.waiter, None
        if waiter is None or len(data) > READ_SIZE:
            self.hold(data)
        else:
            wire = self._wire
            wire.buffer = wire.buffer + data if wire.buffer else data
        if waiter is not None and not waiter.done():
            waiter.set_result(True)

    def hold(self, data: bytes) -> None:
        """Keep `data` until the task asks for more."""
        if data:
            self.held.append(data)
            self._size += len(data) + PIECE_OVERHEAD
            if self._size > self._limit and not self.transport.is_closing():
                self.transport.pause_reading()

    def take(self) -> bytes:
        """All that is held."""
        data = b"".join(self.held)  # one piece, as is usual, is not copied
        paused = self._size > self._limit
        self.held.clear()
        self._size = 0
        if paused and not self.transport.is_closing():
            self.transport.resume_reading()
        return data

    def fill_buffer(self) -> bool:
        """Give the wire its next portion of the held bytes. False if there are none."""
        if not self.held:
            return False
        data = self.take()
        self._wire.receive(data[:READ_SIZE])
        self.hold(data[READ_SIZE:])
        return True

    def bound_buffer(self) -> None:
        """Hold all but READ_SIZE bytes: many bytes may come with the end of a body."""
        buffer = self._wire.buffer
        if len(buffer) > READ_SIZE:
            self._wire.buffer = buffer[:READ_SIZE]
            self.hold(buffer[READ_SIZE:] + self.take())

    def take_all(self) -> bytes:
        """The buffer and all that is held."""
        data = self._wire.buffer + self.take()
        self._wire.buffer = b""
        return data

    def end(self) -> None:
        """No more bytes come."""
        self.at_end = self.ended = True
        if waiter := self._pending_waiter():
            waiter.set_result(False)

    def interrupt(self) -> None:
        """The deadline has passed: the task gets a TimeoutError where it waits for bytes, or where it will."""
        self.ended = True
        if self.waiter is None:
            self.out_of_time = True
        else:
            self.fail(TimeoutError())

    def fail(self, error: Exception) -> None:
        """Raise `error` where the task waits for bytes."""
        if waiter := self._pending_waiter():
            waiter.set_exception(error)

    def _pending_waiter(self) -> asyncio.Future[bool] | None:
        """The waiter of the task, if it still waits: it is settled once."""
        waiter, self.waiter = self.waiter, None
        return None if waiter is None or waiter.done() else waiter

    def is_awaited(self) -> bool:
        """Whether the task waits for bytes, and none have come."""
        return self.waiter is not None and not self.waiter.done() and not self._wire.buffer

    def check_time(self) -> None:
        """TimeoutError if the deadline has passed while the task did not wait for bytes."""
        if self.out_of_time:
            self.out_of_time = False
            raise TimeoutError

    async def read(self, loop: asyncio.AbstractEventLoop) -> bytes:
        """The bytes that have come, else those that come next; b"" at the end. TimeoutError at the deadline."""
        self.check_time()
        if not (self.has_bytes or self.at_end):
            self.waiter = loop.create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None
        data, self._wire.buffer = self._wire.buffer or self.take(), b""
        return data
