"""Starlette: a model for each worker of a ProcessPoolExecutor, by its initializer."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import big
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

model: Any = None


def initialize() -> None:
    global model
    model = big.load()


def compute() -> int:
    return big.total(model)


async def total(request: Request) -> JSONResponse:
    loop = asyncio.get_running_loop()
    return JSONResponse({"sum": await loop.run_in_executor(request.app.state.pool, compute)})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    with ProcessPoolExecutor(2, initializer=initialize) as app.state.pool:
        yield


app = Starlette(routes=[Route("/sum", total, methods=["POST"])], lifespan=lifespan)
