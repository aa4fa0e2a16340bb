"""Sanic on its own server with uvloop, in one process, orjson as its documentation names it, no access log."""

import sys

import orjson
from sanic import HTTPResponse, Request, Sanic, json, raw

BLOB = b"x" * 65536

app = Sanic("bench", dumps=orjson.dumps, configure_logging=False)


@app.get("/json")
async def message(request: Request) -> HTTPResponse:
    return json({"message": "hello", "answer": 42})


@app.get("/items/<item:int>")
async def find(request: Request, item: int) -> HTTPResponse:
    return json({"item": item, "limit": int(request.args.get("limit")), "q": request.args.get("q")})


@app.get("/blob")
async def blob(request: Request) -> HTTPResponse:
    return raw(BLOB)


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), single_process=True, access_log=False, motd=False)
