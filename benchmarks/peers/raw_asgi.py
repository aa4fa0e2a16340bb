"""ASGI without a framework: what uvicorn itself costs."""

from typing import Any

import orjson

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    body = orjson.dumps({"message": "hello", "answer": 42})
    headers = [*START["headers"], (b"content-length", b"%d" % len(body))]
    await send({**START, "headers": headers})
    await send({"type": "http.response.body", "body": body})
