"""tinysvc: a file of a mebibyte, an echo over WebSocket, and a message a second for each stream and socket."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from tinysvc import Event, EventStream, WebSocket, io_route
from tinysvc.web.static import StaticFiles

files = StaticFiles(os.environ.get("BENCH_FOLDER", "."), prefix="/files")


@io_route("/json")
async def answer() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/echo")
async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)


@io_route("/events")
async def events() -> EventStream:
    async def each_second() -> AsyncIterator[Event]:
        number = 0
        while True:
            number += 1
            yield Event({"number": number})
            await asyncio.sleep(1)

    return EventStream(each_second())


@io_route("/socket")
async def each_second(socket: WebSocket) -> None:
    number = 0
    while True:
        number += 1
        await socket.send_json({"number": number})
        await asyncio.sleep(1)
