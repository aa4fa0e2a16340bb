"""Starlette with orjson, as its documentation shows; CPU work in a ProcessPoolExecutor of 2 workers, or $WORKERS."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import orjson
import work
from heartbeat import Heartbeat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

BLOB = b"x" * 65536


class OrjsonResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


async def message(request: Request) -> OrjsonResponse:
    return OrjsonResponse({"message": "hello", "answer": 42})


async def find(request: Request) -> OrjsonResponse:
    query = request.query_params
    return OrjsonResponse({"item": request.path_params["item"], "limit": int(query["limit"]), "q": query["q"]})


async def blob(request: Request) -> Response:
    return Response(BLOB, media_type="application/octet-stream")


async def noop(request: Request) -> OrjsonResponse:
    document = orjson.loads(await request.body())
    loop = asyncio.get_running_loop()
    return OrjsonResponse(await loop.run_in_executor(request.app.state.pool, work.noop, document))


async def square(request: Request) -> OrjsonResponse:
    loop = asyncio.get_running_loop()
    return OrjsonResponse(
        await loop.run_in_executor(request.app.state.pool, work.square, request.path_params["number"])
    )


async def burn(request: Request) -> OrjsonResponse:
    document = orjson.loads(await request.body())
    loop = asyncio.get_running_loop()
    return OrjsonResponse(await loop.run_in_executor(request.app.state.pool, work.burn, document))


async def echo(request: Request) -> Response:
    loop = asyncio.get_running_loop()
    body = await request.body()
    return Response(await loop.run_in_executor(request.app.state.pool, work.echo, body))


async def echo_here(request: Request) -> Response:
    return Response(await request.body())


async def held(request: Request) -> OrjsonResponse:
    return OrjsonResponse(request.app.state.heartbeat.take())


async def endless(request: Request) -> OrjsonResponse:
    loop = asyncio.get_running_loop()
    return OrjsonResponse(await loop.run_in_executor(request.app.state.pool, work.endless))


async def hold(request: Request) -> OrjsonResponse:
    loop = asyncio.get_running_loop()
    pid_file = request.query_params["pid_file"]
    return OrjsonResponse(await loop.run_in_executor(request.app.state.pool, work.hold, pid_file))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.heartbeat = Heartbeat()
    with ProcessPoolExecutor(int(os.environ.get("WORKERS", "2"))) as app.state.pool:
        yield


app = Starlette(
    routes=[
        Route("/json", message),
        Route("/items/{item:int}", find),
        Route("/blob", blob),
        Route("/noop", noop, methods=["POST"]),
        Route("/square/{number:int}", square),
        Route("/burn", burn, methods=["POST"]),
        Route("/echo", echo, methods=["POST"]),
        Route("/echo-here", echo_here, methods=["POST"]),
        Route("/held", held),
        Route("/endless", endless),
        Route("/hold", hold, methods=["POST"]),
    ],
    lifespan=lifespan,
)
