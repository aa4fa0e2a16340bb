"""A caller and its callee in one process: what `call` costs there."""

from __future__ import annotations

import time

import tinysvc_callee as callee
from tinysvc_callee import Order

from tinysvc import Service, call, io_route


@io_route("/cost", timeout=0)
async def cost(count: int) -> dict[str, float]:
    """CPU microseconds of a call of an io handler, and of awaiting its function."""
    order = Order(1, [1.5, 2.25])
    begin = time.process_time()
    for _ in range(count):
        await call(callee.price, order)
    between = time.process_time()
    for _ in range(count):
        await callee.price(order)
    end = time.process_time()
    return {"call": (between - begin) / count * 1e6, "await": (end - between) / count * 1e6}


service = Service(cost, callee.message, callee.price)
