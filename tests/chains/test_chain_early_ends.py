"""A client that disconnects at once: the end of its connection may arrive together with its request."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from http_ends import on_loop, serving
from tinysvc import Request, Response

pytestmark = pytest.mark.usefixtures("nothing_left")


@on_loop
async def test_disconnect_that_comes_with_the_request_cancels_the_handler() -> None:
    cancelled = 0

    async def handler(request: Request) -> Response:
        nonlocal cancelled
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return Response("late")

    async with serving(handler) as server, server.client():
        while not server.connections.open:
            await asyncio.sleep(0.001)
        events: Any = server.only.transport.get_protocol()
        events.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        events.eof_received()  # before the task of the connection runs again
        while not cancelled:
            await asyncio.sleep(0.001)
