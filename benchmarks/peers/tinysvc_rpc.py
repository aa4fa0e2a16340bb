"""The service of the part `grpc`: nothing, a typed message of 1 KiB, and nothing in a worker."""

from __future__ import annotations

from dataclasses import dataclass

from tinysvc import cpu_route, io_route


@dataclass
class Line:
    name: str
    count: int
    price: float


@dataclass
class Order:
    number: int
    customer: str
    lines: list[Line]


@dataclass
class Receipt:
    number: int
    total: float


@io_route("/nothing", methods=["POST"])
async def nothing() -> None: ...


@io_route("/receipt", methods=["POST"])
async def receipt(order: Order) -> Receipt:
    return Receipt(order.number, sum(line.count * line.price for line in order.lines))


@cpu_route("/compute", methods=["POST"])
def compute() -> None: ...
