"""Orders. The io service that calls the two others. Alone, it needs their addresses:

    export TINYSVC_SERVICES='pricing=http://127.0.0.1:8001 stock=http://127.0.0.1:8002'
    python -m tinysvc examples/office/orders.py

Each function of the others is called as if it were here. Where it runs, is a setting.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinysvc import Query, Response, TinysvcError, budget, call, io_route

from . import pricing, stock
from .pricing import Basket, Mood
from .stock import Picked

PATIENCE = 1.0
"""Seconds that a price may take."""

PAGE = Path(__file__).with_name("page.html").read_text()


@dataclass
class Receipt:
    total: float
    picked: list[Picked]


@io_route("/order", methods=["POST"], timeout=5.0)
async def order(basket: Basket, mood: Annotated[Mood, Query()] = "usual") -> Receipt:
    """Place an order. A call that fails becomes the response: 502, 503 or 504."""
    async with budget(PATIENCE):
        quote = await call(pricing.quote, basket, mood)
    return Receipt(quote.total, [picked async for picked in call.stream(stock.pick, basket)])


# The page: the same, step by step


@dataclass
class Step:
    milliseconds: int
    service: str
    text: str
    failed: bool = False


@io_route("/walk", methods=["POST"])
async def walk(basket: Basket, mood: Annotated[Mood, Query()] = "usual") -> AsyncIterator[Step]:
    """Place an order, and yield each step of its path through the services as it happens."""
    begin, service = time.monotonic(), "orders"

    def step(text: str, *, failed: bool = False) -> Step:
        return Step(round((time.monotonic() - begin) * 1000), service, text, failed)

    try:
        yield step("takes the order")
        service = "pricing"
        yield step(f"has {PATIENCE:g} s to compute a price")
        async with budget(PATIENCE):
            quote = await call(pricing.quote, basket, mood)
        yield step(f"process {quote.process} asks for {quote.total:.2f}")
        service = "stock"
        async for picked in call.stream(stock.pick, basket):
            yield step(f"{picked.item}, {picked.count} of them, from {picked.shelf}")
        service = "orders"
        yield step("sends the receipt")
    except TinysvcError as error:
        yield step(f"{error.status}: {error}", failed=True)


@io_route("/processes")
async def processes() -> dict[str, str]:
    """The process of each service, or the error of a call to it."""

    async def found(process: Callable[[], Awaitable[int]]) -> str:
        try:
            async with budget(0.3):
                return f"process {await call(process)}"
        except TinysvcError as error:
            return f"{error.status}: {error}"

    return {
        "orders": f"process {os.getpid()}",
        "pricing": await found(pricing.process),
        "stock": await found(stock.process),
    }


@io_route("/")
async def page() -> Response:
    """The page that shows the path of an order."""
    return Response(PAGE, content_type="text/html; charset=utf-8")
