"""The clients in the part `calls`, all in a process like this one: the same loop, the same encoder and decoder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
import tinysvc_callee as callee
from tinysvc_callee import Order, Price

from tinysvc import HTTPError, call, io_route

Ask = Callable[[Order], Awaitable[Price]]
HEADERS = {"content-type": "application/json"}
ENCODE = msgspec.json.Encoder().encode
DECODE = msgspec.json.Decoder(Price).decode


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/rate/{kind}", timeout=0)
async def rate(
    kind: Literal["tinysvc", "aiohttp", "httpx"], port: int, seconds: float, flight: int
) -> dict[str, float]:
    """Call the callee in `flight` tasks for so many seconds: the number of calls, their time, and our CPU time."""
    async with CLIENTS[kind](f"http://127.0.0.1:{port}/price") as ask:
        await asyncio.gather(*(repeated(ask, number, time.perf_counter() + seconds / 10) for number in range(flight)))
        begin, cpu = time.perf_counter(), time.process_time()
        counts = await asyncio.gather(*(repeated(ask, number, begin + seconds) for number in range(flight)))
        return {"count": sum(counts), "seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu}


async def repeated(ask: Ask, number: int, end: float) -> int:
    order, count = Order(number, [1.5, 2.25, number]), 0
    while time.perf_counter() < end:
        price = await ask(order)
        if price.number != number or price.total != 3.75 + number:
            raise HTTPError(500, f"the price of another order came: {price}")
        count += 1
    return count


@asynccontextmanager
async def tinysvc_client(url: str) -> AsyncIterator[Ask]:
    """The address is in the setting `services`."""

    async def ask(order: Order) -> Price:
        return await call(callee.price, order)

    yield ask


@asynccontextmanager
async def aiohttp_client(url: str) -> AsyncIterator[Ask]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=HEADERS) as session:

        async def ask(order: Order) -> Price:
            async with session.post(url, data=ENCODE(order)) as answer:
                answer.raise_for_status()
                return DECODE(await answer.read())

        yield ask


@asynccontextmanager
async def httpx_client(url: str) -> AsyncIterator[Ask]:
    import httpx

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None), headers=HEADERS) as client:

        async def ask(order: Order) -> Price:
            answer = await client.post(url, content=ENCODE(order))
            answer.raise_for_status()
            return DECODE(answer.content)

        yield ask


CLIENTS = {"tinysvc": tinysvc_client, "aiohttp": aiohttp_client, "httpx": httpx_client}
