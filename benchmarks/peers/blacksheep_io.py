"""BlackSheep: the io routes; orjson, and Responses made of its bytes."""

import orjson
from blacksheep import Application, Content, Response, get

BLOB = b"x" * 65536

app = Application()


def json(value: object) -> Response:
    return Response(200, None, Content(b"application/json", orjson.dumps(value)))


@get("/json")
async def message() -> Response:
    return json({"message": "hello", "answer": 42})


@get("/items/{item}")
async def find(item: int, limit: int, q: str) -> Response:
    return json({"item": item, "limit": limit, "q": q})


@get("/blob")
async def blob() -> Response:
    return Response(200, None, Content(b"application/octet-stream", BLOB))
