"""endless_streams.py: a drain ends streams that their clients would keep open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import grpc
from tinysvc.grpc.endless_streams import EndlessStreams


class FakeContext:
    def __init__(self) -> None:
        self.code: Any = None

    async def abort(self, code: Any, details: str) -> None:
        self.code = code


async def for_ever(messages: Any, context: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.asyncio
async def test_ended_stream_is_unavailable() -> None:
    streams, context = EndlessStreams(), FakeContext()
    task = asyncio.ensure_future(streams.around(for_ever)(None, context))
    await asyncio.sleep(0)
    streams.end()
    await task
    assert context.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.asyncio
async def test_cancelled_stream_is_cancelled() -> None:
    streams, context = EndlessStreams(), FakeContext()
    task = asyncio.ensure_future(streams.around(for_ever)(None, context))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert context.code is None
    streams.end()  # it is forgotten
