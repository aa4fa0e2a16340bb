"""tinysvc: routes that make one call each."""

from __future__ import annotations

import tinysvc_callee as callee
from tinysvc_callee import Order, Price

from tinysvc import call, io_route


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/price", methods=["POST"])
async def price(order: Order) -> Price:
    return await call(callee.price, order)


@io_route("/patient", methods=["POST"], timeout=0.5)
async def patient(order: Order) -> Price:
    """A call whose budget is half a second."""
    return await call(callee.price, order)


@io_route("/busy", methods=["POST"], timeout=0.5)
async def busy(order: Order) -> Price:
    return await call(callee.busy, order)
