"""Responses that begin, wait for a file and continue, for the disconnects of test_disconnects.py."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from tinysvc import Event, Request, Response, Service, WebSocket, cpu_route, io_resource, io_route
from tinysvc.core.form_data import FormData

BEGINNING = "beginning"
BIG = base64.b64encode(os.urandom(75_000)).decode()
"""Random, because compression must not make it much shorter."""
METHODS = ["GET", "POST"]

CallNext = Callable[[Request], Awaitable[Response]]


async def waited(go: str) -> None:
    while not os.path.exists(go):
        await asyncio.sleep(0.005)


def waited_in_thread(go: str) -> None:
    while not os.path.exists(go):
        time.sleep(0.005)


async def pieces(go: str, more: bool) -> AsyncIterator[str]:
    """Yield the beginning; once the file `go` exists, yield the end or, with `more`, pieces without end."""
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
    if not hasattr(content, "__aiter__"):
        return response

    async def wrapped() -> AsyncIterator[bytes]:
        async for piece in content:
            yield piece

    response.content = wrapped()
    return response


@io_route("/socket")
async def socket(socket: WebSocket, go: str, more: bool) -> None:
    await socket.send(BEGINNING)
    await waited(go)
    while more:
        await socket.send(BIG)
    await socket.receive()


@io_route("/socket-that-reads")
async def socket_that_reads(socket: WebSocket, go: str, more: bool) -> None:
    await socket.send(BEGINNING)
    async for message in socket:
        await socket.send(message)


# Responses of one piece, sent at once or after the disconnect


@io_route("/bytes", methods=METHODS)
async def whole(go: str, more: bool) -> bytes:
    await waited(go)
    return bytes(64 * 1024 * 1024 if more else 1)


@io_route("/thread-bytes", methods=METHODS)
def thread_bytes(go: str, more: bool, opened: None, opened_in_thread: None) -> bytes:
    waited_in_thread(go)
    return bytes(64 * 1024 * 1024 if more else 1)


@cpu_route("/cpu-bytes", methods=METHODS)
def cpu_bytes(go: str, more: bool) -> bytes:
    waited_in_thread(go)
    return bytes(32 * 1024 * 1024 if more else 1)


# Request bodies that stay incomplete


@io_route("/body", methods=["POST"])
async def body(body: bytes) -> int:
    return len(body)


@io_route("/form", methods=["POST"])
def form(form: FormData) -> int:
    return len(form.fields)


@io_route("/read", methods=["POST"])
async def read(request: Request) -> int:
    return sum([len(piece) async for piece in request.stream()])


@io_route("/echo", methods=["POST"])
async def echo(request: Request) -> AsyncIterator[bytes]:
    yield BEGINNING.encode()
    async for piece in request.stream():
        yield piece


@cpu_route("/cpu-body", methods=["POST"])
def cpu_body(body: bytes) -> int:
    return len(body)


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
SOCKETS = [socket, socket_that_reads]
WHOLE = [whole, thread_bytes, cpu_bytes]
BODIES = [body, form, read, echo, cpu_body]
RESOURCES = [opened, opened_in_thread]
ALL = [*STREAMS, *SOCKETS, *WHOLE, *BODIES]

service = Service(
    *(*ALL, *RESOURCES, alive),
    Service(*ALL, *RESOURCES, prefix="/passed", middleware=[passing]),
    Service(*STREAMS, *WHOLE, *RESOURCES, prefix="/wrapped", middleware=[wrapping]),
)
