"""tinysvc: an order in, a receipt out, both dataclasses."""

from dataclasses import dataclass

from tinysvc import io_route


@dataclass
class Line:
    sku: str
    name: str
    quantity: int
    price: float
    gift: bool


@dataclass
class Order:
    number: int
    customer: str
    email: str
    discount: float
    express: bool
    note: str | None
    lines: list[Line]


@dataclass
class Charge:
    sku: str
    quantity: int
    amount: float


@dataclass
class Receipt:
    number: int
    customer: str
    total: float
    charges: list[Charge]


@io_route("/orders", methods=["POST"])
async def place(order: Order) -> Receipt:
    charges = [Charge(line.sku, line.quantity, line.quantity * line.price) for line in order.lines]
    total = sum(charge.amount for charge in charges) * (1 - order.discount)
    return Receipt(order.number, order.customer, total, charges)
