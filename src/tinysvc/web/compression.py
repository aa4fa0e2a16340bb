"""Answers compressed for clients that accept it, around handlers on the event loop. What is big is done in a thread.

Off by default: an answer that holds a secret beside what the client has sent tells of the secret by its length
(BREACH). A cpu route's answers are compressed by its worker: see endpoints.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from anyio.to_thread import run_sync

from ..core.requests import Request
from ..core.responses import Handler, Response
from ..wire.codings import Coding, begin_compression, compress

ON_LOOP = 16 * 1024
"""Bytes that are compressed where they are: the loop is held for some 0.3 ms, and a thread costs as much."""


def compressed(handler: Handler) -> Handler:
    """`handler`, with answers in the best coding that the client accepts."""

    async def handle(request: Request) -> Response:
        request.compresses = True
        response = await handler(request)
        content = response.content
        if isinstance(content, (bytes, memoryview, AsyncIterator)):
            coding = begin_compression(request, response)
            if coding is not None:
                response.content = (
                    PackedStream(coding, content)
                    if isinstance(content, AsyncIterator)
                    else await _done(partial(compress, coding, content), len(content))
                )
        return response

    return handle


async def _done(work: partial[bytes], size: int) -> bytes:
    return work() if size <= ON_LOOP else await run_sync(work)


class PackedStream:
    """A stream, compressed; each piece is sent on at once."""

    def __init__(self, coding: Coding, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._packer = coding.compressor()
        self._send_on = coding.flush_block
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            self._ended = True
            return self._packer.flush()
        return await _done(partial(self._pack, piece), len(piece))

    def tail(self) -> bytes:
        """The end of the coding, where the stream is ended from outside."""
        if self._ended:
            return b""
        self._ended = True
        return self._packer.flush()

    def _pack(self, piece: bytes) -> bytes:
        return self._packer.compress(piece) + self._send_on(self._packer)

    async def aclose(self) -> None:
        close: Any = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()
