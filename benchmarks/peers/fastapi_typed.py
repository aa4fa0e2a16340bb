"""FastAPI: pydantic models, and a return type, by which it serialises in Rust."""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Line(BaseModel):
    sku: str
    name: str
    quantity: int
    price: float
    gift: bool


class Order(BaseModel):
    number: int
    customer: str
    email: str
    discount: float
    express: bool
    note: str | None
    lines: list[Line]


class Charge(BaseModel):
    sku: str
    quantity: int
    amount: float


class Receipt(BaseModel):
    number: int
    customer: str
    total: float
    charges: list[Charge]


@app.post("/orders")
async def place(order: Order) -> Receipt:
    charges = [Charge(sku=line.sku, quantity=line.quantity, amount=line.quantity * line.price) for line in order.lines]
    total = sum(charge.amount for charge in charges) * (1 - order.discount)
    return Receipt(number=order.number, customer=order.customer, total=total, charges=charges)
