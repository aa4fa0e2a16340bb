"""Litestar: msgspec Structs, the types of its own validation library; without OpenAPI and logging."""

import orders
from litestar import Litestar, post
from msgspec import Struct

Order, Receipt, receipt_of = orders.declare(Struct)


@post("/orders", status_code=200)
async def place(data: Order) -> Receipt:
    return receipt_of(data)


app = Litestar([place], openapi_config=None, logging_config=None)
