"""tinysvc: the io routes."""

from tinysvc import io_route

BLOB = b"x" * 65536


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/items/{item}")
async def find(item: int, limit: int, q: str) -> dict[str, object]:
    return {"item": item, "limit": limit, "q": q}


@io_route("/blob")
async def blob() -> bytes:
    return BLOB
