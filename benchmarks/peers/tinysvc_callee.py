"""The service that is called in the part `calls`: a small typed order in, its price out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tinysvc import Pool, Request, Response, Service, cpu_route, io_route

WORKERS, SLEEP = 2, 0.02
"""Capacity of `busy`: WORKERS / SLEEP jobs a second. They sleep, so that two cores can serve them all."""

counts: Counter[str] = Counter()


@dataclass
class Order:
    number: int
    lines: list[float]


@dataclass
class Price:
    number: int
    total: float


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/price", methods=["POST"], idempotent=True)
async def price(order: Order) -> Price:
    return Price(order.number, sum(order.lines))


@cpu_route("/busy", methods=["POST"], idempotent=True, pool="few")
def busy(order: Order) -> Price:
    time.sleep(SLEEP)
    return Price(order.number, sum(order.lines))


@io_route("/counts")
async def counted() -> dict[str, int]:
    """Requests for each path so far."""
    return dict(counts)


async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    counts[request.path] += 1
    return await call_next(request)


busy_service = Service(busy, pools={"few": Pool(workers=WORKERS, queue_size=WORKERS)}, middleware=[count])
service = Service(message, price, counted, busy_service)
