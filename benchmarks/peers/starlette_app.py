"""Starlette with orjson, as its documentation shows; CPU work goes to a ProcessPoolExecutor of two workers."""

import asyncio
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


class OrjsonResponse(JSONResponse):
    def render(self, content: Any) -> bytes:
        return orjson.dumps(content)


async def message(request: Request) -> OrjsonResponse:
    return OrjsonResponse({"message": "hello", "answer": 42})


async def noop(request: Request) -> OrjsonResponse:
    document = orjson.loads(await request.body())
    loop = asyncio.get_running_loop()
    return OrjsonResponse(await loop.run_in_executor(request.app.state.pool, work.noop, document))


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
    with ProcessPoolExecutor(2) as app.state.pool:
        yield


app = Starlette(
    routes=[
        Route("/json", message),
        Route("/noop", noop, methods=["POST"]),
        Route("/burn", burn, methods=["POST"]),
        Route("/echo", echo, methods=["POST"]),
        Route("/echo-here", echo_here, methods=["POST"]),
        Route("/held", held),
        Route("/endless", endless),
        Route("/hold", hold, methods=["POST"]),
    ],
    lifespan=lifespan,
)
