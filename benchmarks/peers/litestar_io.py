"""Litestar: the io routes; without OpenAPI and logging."""

from litestar import Litestar, get

BLOB = b"x" * 65536


@get("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@get("/items/{item:int}")
async def find(item: int, limit: int, q: str) -> dict[str, object]:
    return {"item": item, "limit": limit, "q": q}


@get("/blob", media_type="application/octet-stream")
async def blob() -> bytes:
    return BLOB


app = Litestar([message, find, blob], openapi_config=None, logging_config=None)
