"""Results of jobs in the server: a small value with bytes, a mapping of an arena, or a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from msgspec import Struct

from ..core.errors import RemoteError
from .frames import unpickle_pieces

STREAM_HIGH_WATER = 256 * 1024
"""Unread bytes of a stream after which the server stops reading its worker's socket, so its generator waits."""


class JobReply(Struct):
    """The result of a job: the program's small value, and its body: bytes, a mapping of a big one, or a stream."""

    meta: Any
    body: bytes | memoryview | JobStream


class Source(Protocol):
    """A transport that can stop the sender of a stream."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class JobStream:
    """The pieces that a job yields, as an async iterator. `aclose` before its end kills the job."""

    def __init__(self, source: Source, abandon: Callable[[], None]) -> None:
        self._source = source
        self._abandon = abandon
        self._pieces: deque[bytes] = deque()
        self._held = 0  # bytes in _pieces
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self._on_end: Callable[[Exception | None], object] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > STREAM_HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause_reading()
        self._wake()

    def end(self, error: Exception | None) -> None:
        """No more pieces come. The source may serve other jobs from now on."""
        if self._ended:
            return
        self._ended, self._error = True, error
        if self._on_end is not None:
            self._on_end(error)
        self._resume()
        self._wake()

    def call_at_end(self, function: Callable[[Exception | None], object]) -> None:
        """Call `function` once, with the error or None, when no more pieces come: at once if the stream has ended."""
        if self._ended:
            function(self._error)
        else:
            self._on_end = function

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._source.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._pieces:
            if self._ended:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._held -= len(piece)
        if self._held < STREAM_HIGH_WATER // 2:
            self._resume()
        return piece

    def abandon(self, error: Exception) -> None:
        """Let the source stop, and the reader get `error`."""
        if not self._ended:
            self._abandon()
            self.end(error)

    async def aclose(self) -> None:
        self._pieces.clear()
        if not self._ended:
            self._abandon()


def settle(future: asyncio.Future[JobReply], outcome: JobReply | Exception) -> None:
    """Give the outcome of a job to its caller, unless the caller has cancelled the future."""
    if future.done():
        pass
    elif isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def unpickled(reply: JobReply) -> Any:
    """The result of a function call, from its pickle. RemoteError if it cannot be unpickled."""
    assert not isinstance(reply.body, JobStream)
    try:
        return unpickle_pieces(reply.meta, reply.body)
    except BaseException as error:  # SystemExit, raised in unpickling, would end the loop
        raise RemoteError(type(error).__name__, f"the result cannot be unpickled: {error}", "") from error
