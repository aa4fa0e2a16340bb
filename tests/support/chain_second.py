"""The second service of a chain of three: each route calls the route of this name in the third."""

from __future__ import annotations

from collections.abc import AsyncIterator

import chain_third
from chain_marks import count
from tinysvc import call, io_route


@io_route("/stuck", methods=["POST"])
async def stuck(key: str) -> str:
    return await call(chain_third.stuck, key)


@io_route("/stuck-again", methods=["POST"], idempotent=True)
async def stuck_idempotent(key: str) -> str:
    count(f"{key}.second")
    return await call(chain_third.stuck_idempotent, key)


@io_route("/quick", methods=["POST"])
async def quick(key: str) -> str:
    return await call(chain_third.quick, key)


@io_route("/numbers", methods=["POST"])
async def numbers(key: str) -> AsyncIterator[int]:
    async for number in call.stream(chain_third.numbers, key):
        yield number


@io_route("/status/{status}", methods=["POST"], idempotent=True)
async def fail(status: int, key: str) -> str:
    count(f"{key}.second")
    return await call(chain_third.fail, status, key)


@io_route("/slow", methods=["POST"], idempotent=True)
async def slow(key: str) -> str:
    return await call(chain_third.slow, key)
