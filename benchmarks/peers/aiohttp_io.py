"""aiohttp's own server on uvloop, orjson in place of its slower default, no access log."""

import asyncio
import sys

import orjson
import uvloop
from aiohttp import web

BLOB = b"x" * 65536


def json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type="application/json")


async def message(request: web.Request) -> web.Response:
    return json({"message": "hello", "answer": 42})


async def find(request: web.Request) -> web.Response:
    item, query = int(request.match_info["item"]), request.query
    return json({"item": item, "limit": int(query["limit"]), "q": query["q"]})


async def blob(request: web.Request) -> web.Response:
    return web.Response(body=BLOB, content_type="application/octet-stream")


async def main(port: int) -> None:
    app = web.Application()
    app.add_routes([web.get("/json", message), web.get("/items/{item}", find), web.get("/blob", blob)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


uvloop.run(main(int(sys.argv[1])))
