"""The last service of a chain of three. Its jobs are in C code that ignores signals, and never end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

from chain_marks import count, is_marked, mark
from tinysvc import HTTPError, cpu_route, io_route


def compute_forever() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    sum(range(1 << 62))


@cpu_route("/stuck", methods=["POST"], timeout=60)
def stuck(key: str) -> str:
    mark(key, os.getpid())
    compute_forever()
    return key


@cpu_route("/stuck-again", methods=["POST"], timeout=60, idempotent=True)
def stuck_idempotent(key: str) -> str:
    count(f"{key}.starts")
    mark(key, os.getpid())
    compute_forever()
    return key


@cpu_route("/hedged", methods=["POST"], timeout=60, idempotent=True, hedge=0.05)
def hedged(key: str) -> str:
    """The first execution never ends; the second one returns."""
    if is_marked(f"{key}.loser"):
        return key
    mark(f"{key}.loser", os.getpid())
    compute_forever()
    return key


@cpu_route("/quick", methods=["POST"], timeout=60)
def quick(key: str) -> str:
    mark(key, os.getpid())
    return key


@io_route("/numbers", methods=["POST"])
async def numbers(key: str) -> AsyncIterator[int]:
    """Yield a number every few milliseconds, without an end."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            mark(key, number)
            await asyncio.sleep(0.005)
    finally:
        mark(f"{key}.closed")


@io_route("/status/{status}", methods=["POST"], idempotent=True)
async def fail(status: int, key: str) -> str:
    count(key)
    if status >= 400:
        raise HTTPError(status, "as asked")
    return key


@io_route("/pid", idempotent=True)
async def pid() -> int:
    return os.getpid()


@io_route("/slow", methods=["POST"], idempotent=True)
async def slow(key: str) -> str:
    """Wait until the test says so."""
    count(f"{key}.starts")
    mark(key, os.getpid())
    while not is_marked(f"{key}.go"):
        await asyncio.sleep(0.005)
    return key
