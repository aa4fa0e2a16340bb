"""tinysvc: an order in, a receipt out, both msgspec Structs."""

from msgspec import Struct

from tinysvc import io_route


class Line(Struct):
    sku: str
    name: str
    quantity: int
    price: float
    gift: bool


class Order(Struct):
    number: int
    customer: str
    email: str
    discount: float
    express: bool
    note: str | None
    lines: list[Line]


class Charge(Struct):
    sku: str
    quantity: int
    amount: float


class Receipt(Struct):
    number: int
    customer: str
    total: float
    charges: list[Charge]


@io_route("/orders", methods=["POST"])
async def place(order: Order) -> Receipt:
    charges = [Charge(line.sku, line.quantity, line.quantity * line.price) for line in order.lines]
    total = sum(charge.amount for charge in charges) * (1 - order.discount)
    return Receipt(order.number, order.customer, total, charges)
