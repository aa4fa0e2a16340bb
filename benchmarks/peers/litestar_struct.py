"""Litestar: msgspec Structs, the library that its own validation is made of; without OpenAPI and logging."""

from litestar import Litestar, post
from msgspec import Struct


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


@post("/orders", status_code=200)
async def place(data: Order) -> Receipt:
    charges = [Charge(line.sku, line.quantity, line.quantity * line.price) for line in data.lines]
    total = sum(charge.amount for charge in charges) * (1 - data.discount)
    return Receipt(data.number, data.customer, total, charges)


app = Litestar([place], openapi_config=None, logging_config=None)
