"""Handlers of every kind for the tests of budgets; `path` names a file that shows how far a handler has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tinysvc import Background, Batch, Handler, Request, Response, cpu_route, io_resource, io_route, seconds_left

SLOW = 30.0
METHODS = ["GET", "POST"]


@io_route("/io", methods=METHODS)
async def io(path: str) -> None:
    await note(path)


async def note(path: str) -> None:
    Path(path).write_text("started")
    try:
        await asyncio.sleep(SLOW)
    finally:
        Path(path).write_text("ended")


@io_route("/io-body", methods=["POST"])
async def io_body(request: Request, body: bytes) -> None:
    await asyncio.sleep(SLOW)


@io_route("/io-thread", methods=METHODS)
def io_thread(path: str) -> None:
    Path(path).write_text("started")
    time.sleep(0.3)


@io_resource
def reader(request: Request) -> str:
    return request.method


@io_route("/io-resource", methods=METHODS)
async def io_resource_of_request(path: str, reader: str) -> None:
    await note(path)


@io_route("/io-timeout", timeout=0.05)
async def io_timeout() -> None:
    await asyncio.sleep(SLOW)


@io_route("/io-long-timeout", timeout=SLOW)
async def io_long_timeout() -> None:
    await asyncio.sleep(SLOW)


@io_route("/io-finish", methods=METHODS, on_disconnect="finish")
async def io_finish(path: str) -> None:
    Path(path).write_text("started")
    await asyncio.sleep(0.3)
    Path(path).write_text("finished")


@io_route("/io-stream")
async def io_stream(request: Request) -> AsyncIterator[str]:
    await asyncio.sleep(SLOW)
    yield "late"


@cpu_route("/cpu", methods=METHODS)
def cpu(path: str) -> None:
    Path(path).write_text("started")
    time.sleep(SLOW)
    Path(path).write_text("ended")


@cpu_route("/cpu-resource", methods=METHODS)
def cpu_resource_of_request(path: str, reader: str) -> None:
    time.sleep(SLOW)


@cpu_route("/cpu-finish", methods=METHODS, on_disconnect="finish")
def cpu_finish(path: str) -> None:
    Path(path).write_text("started")
    time.sleep(0.3)
    Path(path).write_text("finished")


@cpu_route("/cpu-timeout", timeout=0.05)
def cpu_timeout() -> None:
    time.sleep(SLOW)


@cpu_route("/cpu-batch", methods=METHODS, batch=Batch(4, 0.001))
def cpu_batch(path: list[str]) -> list[None]:
    time.sleep(SLOW)
    return [None] * len(path)


@cpu_route("/cpu-cache", cache=10)
def cpu_cache(path: str) -> None:
    time.sleep(SLOW)


@cpu_route("/cpu-left")
def cpu_left(request: Request) -> list[float | None]:
    return [seconds_left(), request.budget]


@cpu_route("/cpu-left-endless", timeout=0)
def cpu_left_endless(request: Request) -> list[float | None]:
    return [seconds_left(), request.budget]


@io_route("/io-left")
async def io_left(request: Request) -> list[float | None]:
    return [seconds_left(), request.budget]


@io_route("/io-left-timeout", timeout=20)
async def io_left_timeout(request: Request) -> list[float | None]:
    return [seconds_left(), request.budget]


@io_route("/io-left-stream", timeout=20)
async def io_left_stream() -> AsyncIterator[list[float | None]]:
    async def pieces() -> AsyncIterator[list[float | None]]:
        yield [seconds_left()]
        yield [seconds_left()]

    return pieces()


@io_route("/background")
async def background(path: str, background: Background) -> None:
    async def left() -> None:
        Path(path).write_text(repr(seconds_left()))

    background.add(left)


async def telling(request: Request, call_next: Handler) -> Response:
    left = seconds_left()
    response = await call_next(request)
    response.add_header("x-left", repr(left))
    return response


@io_route("/in-middleware", middleware=[telling])
async def in_middleware() -> float | None:
    return seconds_left()
