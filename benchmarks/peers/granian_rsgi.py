"""Granian by its own, faster interface, RSGI, without a framework; the small JSON is fixed bytes."""

from typing import Any
from urllib.parse import parse_qs

import orjson

JSON, BYTES = [("content-type", "application/json")], [("content-type", "application/octet-stream")]
MESSAGE, BLOB = b'{"message":"hello","answer":42}', b"x" * 65536


async def app(scope: Any, protocol: Any) -> None:
    path = scope.path
    if path == "/json":
        protocol.response_bytes(status=200, headers=JSON, body=MESSAGE)
    elif path == "/blob":
        protocol.response_bytes(status=200, headers=BYTES, body=BLOB)
    else:
        query = parse_qs(scope.query_string)
        item = int(path.removeprefix("/items/"))
        body = orjson.dumps({"item": item, "limit": int(query["limit"][0]), "q": query["q"][0]})
        protocol.response_bytes(status=200, headers=JSON, body=body)
