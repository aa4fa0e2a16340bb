"""The first service of a chain of three: each route calls the route of this name in the second."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import chain_second
import chain_third
from tinysvc import budget, call, io_route


@io_route("/stuck", methods=["GET", "POST"])
async def stuck(key: str) -> str:
    return await call(chain_second.stuck, key)


@io_route("/stuck-again", methods=["POST"])
async def stuck_idempotent(key: str) -> str:
    return await call(chain_second.stuck_idempotent, key)


@io_route("/in-time", methods=["POST"])
async def in_time(key: str, seconds: float) -> str:
    """Give the chain so many seconds."""
    async with budget(seconds):
        return await call(chain_second.stuck, key)


@io_route("/quick", methods=["POST"])
async def quick(key: str) -> str:
    return await call(chain_second.quick, key)


@io_route("/numbers", methods=["POST"])
async def numbers(key: str) -> AsyncIterator[int]:
    async for number in call.stream(chain_second.numbers, key):
        yield number


@io_route("/status/{status}", methods=["POST"])
async def fail(status: int, key: str) -> str:
    return await call(chain_second.fail, status, key)


@io_route("/slow", methods=["POST"])
async def slow(key: str) -> str:
    return await call(chain_second.slow, key)


@io_route("/hedged", methods=["POST"])
async def hedged(key: str) -> str:
    return await call(chain_third.hedged, key)


@io_route("/pid-of-third")
async def pid_of_third() -> int:
    """One call, to one of the replicas of the third."""
    return await call(chain_third.pid)


@io_route("/pid")
async def pid() -> int:
    return os.getpid()
