"""Litestar: dataclasses, which it validates by msgspec too; without OpenAPI and logging."""

from dataclasses import dataclass

from litestar import Litestar, post


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


@post("/orders", status_code=200)
async def place(data: Order) -> Receipt:
    charges = [Charge(line.sku, line.quantity, line.quantity * line.price) for line in data.lines]
    total = sum(charge.amount for charge in charges) * (1 - data.discount)
    return Receipt(data.number, data.customer, total, charges)


app = Litestar([place], openapi_config=None, logging_config=None)
