"""tinysvc: an order in, a receipt out, both dataclasses."""

from dataclasses import dataclass

import orders

from tinysvc import io_route

Order, Receipt, receipt_of = orders.declare(decorator=dataclass)


@io_route("/orders", methods=["POST"])
async def place(order: Order) -> Receipt:
    return receipt_of(order)
