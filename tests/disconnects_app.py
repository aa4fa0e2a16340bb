"""Answers that begin, wait for a file and go on, for clients that disconnect meanwhile (test_disconnects.py)."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from tinysvc import (
    Event,
    Request,
    Response,
    Service,
    cpu_route,
    io_resource,
    io_route,
)

BEGINNING = "beginning"
BIG = base64.b64encode(os.urandom(75_000)).decode()
"""It does not get much shorter where it is compressed."""
METHODS = ["GET", "POST"]

CallNext = Callable[[Request], Awaitable[Response]]


async def waited(go: str) -> None:
    while not os.path.exists(go):
        await asyncio.sleep(0.005)


def waited_in_thread(go: str) -> None:
    while not os.path.exists(go):
        time.sleep(0.005)


async def pieces(go: str, more: bool) -> AsyncIterator[str]:
    """The beginning; when the file `go` is there the end, or `more` without an end."""
    yield BEGINNING
    await waited(go)
    while more:
        yield BIG


def thread_pieces(go: str, more: bool) -> Iterator[str]:
    yield BEGINNING
    waited_in_thread(go)
    while more:
        yield BIG


@io_route("/stream", methods=METHODS)
async def stream(go: str, more: bool) -> AsyncIterator[str]:
    async for piece in pieces(go, more):
        yield piece


@io_route("/thread-stream", methods=METHODS)
def thread_stream(go: str, more: bool) -> Iterator[str]:
    yield from thread_pieces(go, more)


@io_route("/events", methods=METHODS)
async def events(go: str, more: bool) -> AsyncIterator[Event]:
    async for piece in pieces(go, more):
        yield Event(piece)


@io_route("/lines", methods=METHODS)
async def lines(go: str, more: bool) -> AsyncIterator[dict[str, str]]:
    async for piece in pieces(go, more):
        yield {"piece": piece}


@io_route("/thread-lines", methods=METHODS)
def thread_lines(go: str, more: bool) -> Iterator[dict[str, str]]:
    for piece in thread_pieces(go, more):
        yield {"piece": piece}


@io_route("/declared", methods=METHODS)
async def declared(go: str, more: bool) -> Response:
    size = len(BEGINNING) + (100_000 * len(BIG) if more else 0)
    packed = (piece.encode() async for piece in pieces(go, more))
    return Response(packed, headers={"content-length": str(size)})


@io_resource
async def opened(request: Request) -> AsyncIterator[None]:
    yield


@io_resource
def opened_in_thread(request: Request) -> Iterator[None]:
    yield


@io_route("/with-resources", methods=METHODS)
async def with_resources(go: str, more: bool, opened: None, opened_in_thread: None) -> AsyncIterator[str]:
    async for piece in pieces(go, more):
        yield piece


@cpu_route("/cpu-stream", methods=METHODS)
def cpu_stream(go: str, more: bool) -> Iterator[str]:
    yield from thread_pieces(go, more)


@cpu_route("/cpu-lines", methods=METHODS)
def cpu_lines(go: str, more: bool) -> Iterator[dict[str, str]]:
    for piece in thread_pieces(go, more):
        yield {"piece": piece}


@cpu_route("/cpu-events", methods=METHODS)
def cpu_events(go: str, more: bool) -> Iterator[Event]:
    for piece in thread_pieces(go, more):
        yield Event(piece)


async def passing(request: Request, call_next: CallNext) -> Response:
    return await call_next(request)


async def wrapping(request: Request, call_next: CallNext) -> Response:
    response = await call_next(request)
    content: Any = response.content

    async def wrapped() -> AsyncIterator[bytes]:
        async for piece in content:
            yield piece

    response.content = wrapped()
    return response


@io_route("/bytes", methods=METHODS)
async def whole(go: str, more: bool) -> bytes:
    await waited(go)
    return bytes(64 * 1024 * 1024 if more else 1)


@io_route("/alive")
async def alive() -> str:
    return "alive"


STREAMS = [
    stream,
    thread_stream,
    events,
    lines,
    thread_lines,
    declared,
    with_resources,
    cpu_stream,
    cpu_lines,
    cpu_events,
]
ALL = [*STREAMS, whole, opened, opened_in_thread]

service = Service(
    *(*ALL, alive),
    Service(*ALL, prefix="/passed", middleware=[passing]),
    Service(*ALL, prefix="/wrapped", middleware=[wrapping]),
)
