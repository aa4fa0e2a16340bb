"""tinysvc: an order in, a receipt out, both msgspec Structs."""

import orders
from msgspec import Struct

from tinysvc import io_route

Order, Receipt, receipt_of = orders.declare(Struct)


@io_route("/orders", methods=["POST"])
async def place(order: Order) -> Receipt:
    return receipt_of(order)
