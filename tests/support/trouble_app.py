"""A service with routes for five kinds of trouble, and a resource that guards its dashboard."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Annotated

from tinysvc import Bearer, HTTPError, Remote, cpu_route, io_resource, io_route

TOKEN = "secret"
hoard: list[bytearray] = []
prices = Remote("prices")


@io_resource
async def operator(token: Annotated[str, Bearer()]) -> str:
    if token != TOKEN:
        raise HTTPError(403, "Operators only.")
    return "operator"


@io_resource
async def settings() -> dict[str, str]:
    return {}


@io_route("/fine")
async def fine() -> str:
    return "fine"


@io_route("/slow")
async def slow() -> str:
    await asyncio.sleep(1.1)
    return "slow"


@io_route("/block")
async def block() -> str:
    time.sleep(0.6)
    return "blocked"


@io_route("/broken")
async def broken() -> str:
    raise ValueError("<b>no</b> price")


@io_route("/quote")
async def quote() -> float:
    price: float = await prices.call("GET", "/price", float)
    return price


@cpu_route("/compute")
def compute(seconds: float) -> str:
    time.sleep(seconds)
    return "computed"


@cpu_route("/crash")
def crash(seconds: float = 0.0) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGSEGV)


@cpu_route("/leak")
def leak() -> int:
    hoard.append(bytearray(b"x") * 8_000_000)
    return len(hoard)
