"""The documents of the typed peers: an order and its receipt, declared once for every kind of class.

A peer names its kind: a base class (pydantic's BaseModel, msgspec's Struct) or a decorator (dataclass).
"""

from collections.abc import Callable
from typing import Any


def declare(base: type = object, decorator: Callable[[type], type] = lambda cls: cls) -> tuple[Any, Any, Any]:
    """Return the types Order and Receipt, and the function that makes the receipt of an order."""

    @decorator
    class Line(base):
        sku: str
        name: str
        quantity: int
        price: float
        gift: bool

    @decorator
    class Order(base):
        number: int
        customer: str
        email: str
        discount: float
        express: bool
        note: str | None
        lines: list[Line]

    @decorator
    class Charge(base):
        sku: str
        quantity: int
        amount: float

    @decorator
    class Receipt(base):
        number: int
        customer: str
        total: float
        charges: list[Charge]

    def receipt_of(order: Any) -> Any:
        charges = [
            Charge(sku=each.sku, quantity=each.quantity, amount=each.quantity * each.price) for each in order.lines
        ]
        total = sum(charge.amount for charge in charges) * (1 - order.discount)
        return Receipt(number=order.number, customer=order.customer, total=total, charges=charges)

    return Order, Receipt, receipt_of
