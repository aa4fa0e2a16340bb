"""Starlette: one route that waits, one that computes in a ProcessPoolExecutor of two workers."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager

import work
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def wait(request: Request) -> JSONResponse:
    await asyncio.sleep(work.TURN)
    return JSONResponse({"waited": True})


async def compute(request: Request) -> JSONResponse:
    loop = asyncio.get_running_loop()
    return JSONResponse(await loop.run_in_executor(request.app.state.pool, work.compute))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    with ProcessPoolExecutor(2) as app.state.pool:
        yield


app = Starlette(routes=[Route("/wait", wait), Route("/compute", compute, methods=["POST"])], lifespan=lifespan)
