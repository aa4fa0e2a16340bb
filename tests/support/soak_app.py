"""The service that is put under load for long (benchmarks/soak.py), and that streams without end (test_streaming.py).

Every way through the server has a route. All blocks of a stream carry their number, so that one that is lost, doubled
or moved changes the checksum.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from tinysvc import (
    Batch,
    Event,
    EventStream,
    Form,
    HTTPError,
    Pool,
    Request,
    Response,
    Service,
    UploadFile,
    WebSocket,
    cpu_route,
    io_route,
)
from tinysvc.web.static import StaticFiles

BLOCK = 64 * 1024
ANY_SIZE = 1 << 40

_FILLING = bytes(range(256)) * (BLOCK // 256 - 1) + bytes(248)


def block(number: int) -> bytes:
    """The block of this number: 64 KiB, different from all others."""
    return number.to_bytes(8, "big") + _FILLING


@lru_cache(maxsize=64)
def checksum(blocks: int) -> int:
    """The CRC of a stream of this many blocks."""
    crc = 0
    for number in range(blocks):
        crc = zlib.crc32(block(number), crc)
    return crc


class Gate:
    """Count the bytes that stream through the service, and stop them at a limit that the test raises step by step."""

    def __init__(self) -> None:
        self.limit = ANY_SIZE
        self.streamed = 0  # bytes of the last upload or download
        self.open = 0  # running generators and readers
        self._raised = asyncio.Event()

    def raise_to(self, limit: int) -> None:
        self.limit = limit
        self._raised.set()

    async def pass_on(self, size: int) -> None:
        """Count more bytes; wait while the limit is reached."""
        self.streamed += size
        while self.streamed > self.limit:
            self._raised.clear()
            await self._raised.wait()


gate = Gate()

# Io routes


@io_route("/io/state")
async def state() -> dict[str, int]:
    return {"streamed": gate.streamed, "open": gate.open}


@io_route("/io/census")
async def census() -> dict[str, int]:
    """What must not grow: tasks, generators and readers at work, and all objects that the collector knows.

    And nothing is kept for later: what the C library keeps of the memory of big bodies comes and goes by megabytes.
    """
    gc.collect()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return {"tasks": len(asyncio.all_tasks()), "open": gate.open, "objects": len(gc.get_objects())}


@io_route("/io/limit/{size}", methods=["POST"])
async def set_limit(size: int) -> None:
    gate.raise_to(size)


@io_route("/io/upload", methods=["POST"], max_body_size=ANY_SIZE)
async def io_upload(request: Request) -> dict[str, int]:
    """Read the body as fast as the gate allows; return its size and CRC."""
    crc, size, gate.streamed = 0, 0, 0
    gate.open += 1
    try:
        async for piece in request.stream():
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            await gate.pass_on(len(piece))
    finally:
        gate.open -= 1
    return {"size": size, "crc": crc}


@io_route("/io/unread", methods=["POST"], max_body_size=ANY_SIZE)
async def unread() -> dict[str, int]:
    """Wait for the gate, and never read the body."""
    gate.streamed = 0
    gate.open += 1
    try:
        await gate.pass_on(1)
    finally:
        gate.open -= 1
    return {"size": 0}


@io_route("/io/download/{blocks}")
async def io_download(blocks: int) -> AsyncIterator[bytes]:
    gate.streamed = 0
    gate.open += 1
    try:
        for number in range(blocks):
            yield block(number)
            await gate.pass_on(BLOCK)
    finally:
        gate.open -= 1


@io_route("/io/declared/{blocks}")
async def io_declared(blocks: int) -> Response:
    """Like download, with a declared length."""
    return Response(io_download(blocks), headers={"content-length": str(blocks * BLOCK)})


@io_route("/thread/download/{blocks}")
def thread_download(blocks: int) -> Iterator[bytes]:
    gate.streamed = 0
    gate.open += 1
    try:
        for number in range(blocks):
            yield block(number)
            gate.streamed += BLOCK
    finally:
        gate.open -= 1


@io_route("/io/wait/{milliseconds}")
async def wait(milliseconds: int) -> dict[str, int]:
    await asyncio.sleep(milliseconds / 1000)
    return {"waited": milliseconds}


@io_route("/thread/wait/{milliseconds}")
def wait_in_thread(milliseconds: int) -> dict[str, int]:
    time.sleep(milliseconds / 1000)
    return {"waited": milliseconds}


@io_route("/", methods=["GET", "POST"])
async def root(request: Request) -> dict[str, int]:
    """The target of malformed requests: read their bodies."""
    return {"size": len(await request.body())}


@dataclass
class Order:
    number: int
    lines: list[float]


@io_route("/io/order", methods=["POST"])
async def io_order(order: Order) -> dict[str, float]:
    return {"number": order.number, "sum": sum(order.lines)}


@io_route("/io/fields", methods=["POST"])
async def io_fields(order: Annotated[Order, Form()]) -> dict[str, float]:
    return {"number": order.number, "sum": sum(order.lines)}


def of_file(file: UploadFile, note: str) -> dict[str, int | str]:
    """Read an uploaded file in pieces; return its size and CRC, and the other field."""
    crc, size = 0, 0
    while piece := file.read(BLOCK):
        crc, size = zlib.crc32(piece, crc), size + len(piece)
    return {"size": size, "crc": crc, "note": note}


@io_route("/io/form", methods=["POST"], max_body_size=ANY_SIZE)
async def io_form(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, int | str]:
    return of_file(file, note)


async def io_numbers(count: int, pause: float) -> AsyncIterator[int]:
    gate.open += 1
    try:
        for number in range(count):
            yield number
            await asyncio.sleep(pause)
    finally:
        gate.open -= 1


def numbers(count: int, pause: float) -> Iterator[int]:
    gate.open += 1
    try:
        for number in range(count):
            yield number
            time.sleep(pause)
    finally:
        gate.open -= 1


@io_route("/io/events/{count}")
async def io_events(count: int, pause: float = 0) -> EventStream:
    return EventStream(Event({"n": number}, id=str(number)) async for number in io_numbers(count, pause))


@io_route("/thread/events/{count}")
def thread_events(count: int, pause: float = 0) -> EventStream:
    return EventStream(Event({"n": number}, id=str(number)) for number in numbers(count, pause))


@io_route("/io/lines/{count}")
async def io_lines(count: int, pause: float = 0) -> AsyncIterator[dict[str, int]]:
    async for number in io_numbers(count, pause):
        yield {"n": number}


@io_route("/thread/lines/{count}")
def thread_lines(count: int, pause: float = 0) -> Iterator[dict[str, int]]:
    for number in numbers(count, pause):
        yield {"n": number}


@io_route("/io/socket")
async def echo(socket: WebSocket) -> None:
    """Echo every message."""
    gate.open += 1
    try:
        async for message in socket:
            await socket.send(message)
    finally:
        gate.open -= 1


files = StaticFiles(os.environ.get("SOAK_FILES", os.path.dirname(__file__)), prefix="/files")

# Cpu routes


@cpu_route("/cpu/order", methods=["POST"])
def cpu_order(order: Order) -> dict[str, float]:
    return {"number": order.number, "sum": sum(order.lines)}


@cpu_route("/cpu/upload", methods=["POST"], timeout=60)
def cpu_upload(body: bytes) -> dict[str, int]:
    return {"size": len(body), "crc": zlib.crc32(body)}


@cpu_route("/cpu/echo", methods=["POST"], timeout=60)
def cpu_echo(body: memoryview) -> memoryview:
    return body


@cpu_route("/cpu/download/{blocks}", timeout=0, pool="streams")
def cpu_download(blocks: int) -> Iterator[bytes]:
    return map(block, range(blocks))


@cpu_route("/cpu/fields", methods=["POST"])
def cpu_fields(order: Annotated[Order, Form()]) -> dict[str, float]:
    return {"number": order.number, "sum": sum(order.lines)}


@cpu_route("/cpu/form", methods=["POST"], timeout=60)
def cpu_form(file: UploadFile, note: Annotated[str, Form()]) -> dict[str, int | str]:
    return of_file(file, note)


@cpu_route("/cpu/events/{count}", timeout=0, pool="streams")
def cpu_events(count: int, pause: float = 0) -> EventStream:
    return EventStream(Event({"n": number}, id=str(number)) for number in numbers(count, pause))


@cpu_route("/cpu/lines/{count}", timeout=0, pool="streams")
def cpu_lines(count: int, pause: float = 0) -> Iterator[dict[str, int]]:
    for number in numbers(count, pause):
        yield {"n": number}


@cpu_route("/cpu/burn/{milliseconds}")
def burn(milliseconds: int) -> dict[str, int]:
    end = time.process_time() + milliseconds / 1000
    while time.process_time() < end:
        pass
    return {"burnt": milliseconds}


@cpu_route("/cpu/late/{milliseconds}", timeout=0.2)
def late(milliseconds: int) -> dict[str, int]:
    time.sleep(milliseconds / 1000)
    return {"slept": milliseconds}


@cpu_route("/cpu/narrow/{milliseconds}", pool="narrow")
def narrow(milliseconds: int) -> dict[str, int]:
    time.sleep(milliseconds / 1000)
    return {"slept": milliseconds}


@cpu_route("/cpu/teapot")
def teapot() -> None:
    raise HTTPError(418, "A teapot makes no coffee.")


@cpu_route("/cpu/batch", methods=["POST"], batch=Batch(size=8, wait=0.005))
def batch(items: list[list[float]]) -> list[float]:
    return [sum(values) for values in items]


service = Service(sys.modules[__name__], pools={"narrow": Pool(workers=1, queue_size=2), "streams": Pool(workers=2)})
