"""The stock. A streaming service: alone, `python -m tinysvc examples/office/stock.py --port 8002`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio

from tinysvc import io_route

from .pricing import Basket

SHELVES = {"pen": "A1", "lamp": "B7", "desk": "hall 3"}
WALK = 0.15
"""Seconds from one shelf to the next."""


@dataclass
class Picked:
    item: str
    count: int
    shelf: str


@io_route("/pick", methods=["POST"])
async def pick(basket: Basket) -> AsyncIterator[Picked]:
    """Yield each item when it has been picked."""
    for item, count in basket.items.items():
        await anyio.sleep(WALK)
        yield Picked(item, count, SHELVES[item])


@io_route("/process", idempotent=True)
async def process() -> int:
    """The process id of this service."""
    return os.getpid()
