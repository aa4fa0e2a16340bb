"""Compress the responses of handlers on the event loop for clients that accept it. A thread compresses large content.

Off by default: if a response has both a secret and data of the client, its compressed length leaks the secret (BREACH).
The worker compresses the responses of a cpu route: see cpu_endpoints.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from anyio.to_thread import run_sync

from ..core.requests import Request
from ..core.responses import Handler, Response
from ..wire.codings import Coding, begin_compression, compress, restore_tags

ON_LOOP = 16 * 1024
"""Bytes up to which content is compressed on the event loop: that blocks it for 0.3 ms; a thread costs as much."""


def compressed(handler: Handler) -> Handler:
    """The handler, with its responses in the best coding that the client accepts."""

    async def handle(request: Request) -> Response:
        restore_tags(request)
        response = await handler(request)
        content = response.content
        if isinstance(content, (bytes, memoryview, AsyncIterator)):
            coding = begin_compression(request, response)
            if coding is not None:
                response.content = (
                    CompressedStream(coding, content)
                    if isinstance(content, AsyncIterator)
                    else await _run(partial(compress, coding, content), len(content))
                )
        return response

    return handle


async def _run(work: partial[bytes], size: int) -> bytes:
    return work() if size <= ON_LOOP else await run_sync(work)


class CompressedStream:
    """A compressed stream. Each item is flushed, so that the client gets it at once."""

    def __init__(self, coding: Coding, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._compressor = coding.compressor()
        self._flush_block = coding.flush_block
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
            return self._compressor.flush()
        return await _run(partial(self._compress, piece), len(piece))

    def tail(self) -> bytes:
        """The last bytes of the coding, for a stream that the server ends."""
        if self._ended:
            return b""
        self._ended = True
        return self._compressor.flush()

    def _compress(self, piece: bytes) -> bytes:
        return self._compressor.compress(piece) + self._flush_block(self._compressor)

    async def aclose(self) -> None:
        close: Any = getattr(self._pieces, "aclose", None)
        if close is not None:
            await close()
