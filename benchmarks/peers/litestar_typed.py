"""Litestar: dataclasses, which it validates with msgspec; without OpenAPI and logging."""

from dataclasses import dataclass

import orders
from litestar import Litestar, post

Order, Receipt, receipt_of = orders.declare(decorator=dataclass)


@post("/orders", status_code=200)
async def place(data: Order) -> Receipt:
    return receipt_of(data)


app = Litestar([place], openapi_config=None, logging_config=None)
