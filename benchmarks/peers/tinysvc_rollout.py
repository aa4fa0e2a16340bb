"""A service with an io route, a cpu route and a stream, for rolling restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tinysvc import cpu_route, io_route


@io_route("/io")
async def io() -> dict[str, int]:
    await asyncio.sleep(0.01)
    return {"answer": 42}


@cpu_route("/cpu", methods=["POST"])
def cpu(numbers: list[int]) -> int:
    return sum(sum(range(number)) for number in numbers)


@io_route("/stream")
async def stream() -> AsyncIterator[bytes]:
    """A download. A stream of JSON lines or of events may be endless: a drain ends it."""
    for number in range(5):
        await asyncio.sleep(0.02)
        yield b"%d\n" % number
    yield b"end\n"
