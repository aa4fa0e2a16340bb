"""Granian by its own, faster interface, RSGI: a fixed reply, so that nothing but the server is measured."""

from typing import Any

BODY = b'{"message":"hello","answer":42}'


async def app(scope: Any, protocol: Any) -> None:
    protocol.response_bytes(status=200, headers=[("content-type", "application/json")], body=BODY)
