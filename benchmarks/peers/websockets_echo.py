"""The websockets library's own server on uvloop, without compression: an echo."""

from __future__ import annotations

import asyncio
import json
import sys
from http import HTTPStatus

import uvloop
from websockets.asyncio.server import Request, Response, ServerConnection, serve


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


def answer(connection: ServerConnection, request: Request) -> Response | None:
    """What shows that it is there."""
    if request.path == "/json":
        return connection.respond(HTTPStatus.OK, json.dumps({"message": "hello", "answer": 42}))
    return None


async def main() -> None:
    async with serve(echo, "127.0.0.1", int(sys.argv[1]), process_request=answer, compression=None):
        await asyncio.Event().wait()


uvloop.run(main())
