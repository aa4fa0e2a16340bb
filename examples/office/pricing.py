"""Prices. A cpu service: alone, `python -m tinysvc examples/office/pricing.py --port 8001`."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from tinysvc import Query, cpu_route, io_route

COST = {"pen": 1.2, "lamp": 24.0, "desk": 180.0}
ROUNDS = 20_000

Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]


@dataclass
class Basket:
    items: dict[Literal["pen", "lamp", "desk"], Count]


@dataclass
class Quote:
    total: float
    process: int


Mood = Literal["usual", "slow", "dies"]


@cpu_route("/quote", methods=["POST"], timeout=10.0, idempotent=True)
def quote(basket: Basket, mood: Annotated[Mood, Query()] = "usual") -> Quote:
    """Compute a price that covers the cost in 95 of 100 simulated years. `mood` makes the service misbehave."""
    if mood == "slow":
        time.sleep(8)
    if mood == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    cost = sum(COST[item] * count for item, count in basket.items.items())
    years = sorted(cost * random.gauss(1.0, 0.1) for _ in range(ROUNDS))
    return Quote(round(years[ROUNDS * 95 // 100], 2), os.getpid())


@io_route("/process", idempotent=True)
async def process() -> int:
    """The process id of this service."""
    return os.getpid()
