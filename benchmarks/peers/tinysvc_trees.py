"""tinysvc: the routes by which two of its trees are compared. Both trees must be able to serve it."""

from dataclasses import dataclass

import orders

from tinysvc import cpu_route, io_route

Order, Receipt, receipt_of = orders.declare(decorator=dataclass)
BLOB = b"x" * 65536


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/items/{item}")
async def find(item: int, limit: int, q: str) -> dict[str, object]:
    return {"item": item, "limit": limit, "q": q}


@io_route("/orders", methods=["POST"])
async def place(order: Order) -> Receipt:
    return receipt_of(order)


@io_route("/blob")
async def blob() -> bytes:
    return BLOB


@cpu_route("/noop")
def noop() -> None:
    return None


@cpu_route("/echo", methods=["POST"], timeout=60)
def echo(body: memoryview) -> memoryview:
    return body
