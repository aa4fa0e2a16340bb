"""ASGI without a framework: the cost of uvicorn itself."""

from typing import Any
from urllib.parse import parse_qs

import orjson

BLOB = b"x" * 65536


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    path, content_type = scope["path"], b"application/json"
    if path == "/json":
        body = orjson.dumps({"message": "hello", "answer": 42})
    elif path == "/blob":
        body, content_type = BLOB, b"application/octet-stream"
    else:
        query = parse_qs(scope["query_string"].decode())
        item = int(path.removeprefix("/items/"))
        body = orjson.dumps({"item": item, "limit": int(query["limit"][0]), "q": query["q"][0]})
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
