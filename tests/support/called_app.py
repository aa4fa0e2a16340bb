"""A service whose handlers are called by others: test_calls.py calls each here, and over the network."""

from __future__ import annotations

import asyncio
import enum
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict
from uuid import UUID

import msgspec
import pydantic

from tinysvc import (
    Batch,
    Bearer,
    Cookie,
    Event,
    EventStream,
    Form,
    Header,
    HTTPError,
    Query,
    Request,
    Response,
    UploadFile,
    call,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
    request_id,
    seconds_left,
)

SLOW = 30.0


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = field(default_factory=list)


class Order(msgspec.Struct):
    number: int
    at: datetime
    price: Decimal
    colour: Colour = Colour.RED


class Model(pydantic.BaseModel):
    name: str
    when: datetime
    sizes: list[int] = []


class Row(TypedDict):
    key: UUID
    length: timedelta


@io_resource
def factor() -> int:
    return 3


@cpu_resource
def weight() -> int:
    return 5


@io_resource
def agent(request: Request) -> str:
    return request.headers.get("x-call-hops", "")


# Arguments and results


@io_route("/io/{number}/{rest:path}")
async def places(
    number: int,
    rest: str,
    words: Annotated[list[str], Query("q")],
    x_colour: Annotated[Colour, Header()],
    session: Annotated[str, Cookie()] = "",
    at: datetime | None = None,
    flag: bool = False,
) -> dict[str, Any]:
    return written(number, rest, words, x_colour, session, at, flag)


def written(
    number: int, rest: str, words: list[str], colour: Colour, session: str, at: datetime | None, flag: bool
) -> dict[str, Any]:
    return {
        "number": number,
        "rest": rest,
        "words": words,
        "colour": colour.value,
        "session": session,
        "at": at.isoformat() if at else None,
        "flag": flag,
    }


@cpu_route("/cpu/{number}/{rest:path}")
def cpu_places(
    number: int,
    rest: str,
    words: Annotated[list[str], Query("q")],
    x_colour: Annotated[Colour, Header()],
    session: Annotated[str, Cookie()] = "",
    at: datetime | None = None,
    flag: bool = False,
) -> dict[str, Any]:
    return written(number, rest, words, x_colour, session, at, flag)


@io_route("/point", methods=["POST"])
async def moved(point: Point, factor: int, by: float = 1.0) -> Point:
    return Point(point.x + by, point.y * factor, [*point.tags, "moved"])


@io_route("/thread", methods=["POST"])
def moved_in_thread(point: Point, factor: int) -> Point:
    return Point(point.x * factor, point.y)


@cpu_route("/cpu-point", methods=["POST"])
def cpu_moved(weight: int, point: Point, by: float = 1.0) -> Point:
    return Point(point.x + by, point.y * weight)


@io_route("/order", methods=["POST"])
async def ordered(order: Order) -> Order:
    return msgspec.structs.replace(order, at=order.at + timedelta(days=1))


@cpu_route("/cpu-order", methods=["POST"])
def cpu_ordered(order: Order) -> list[Order]:
    return [order, msgspec.structs.replace(order, number=order.number + 1)]


@io_route("/model", methods=["POST"])
async def modelled(model: Model) -> Model:
    return model.model_copy(update={"sizes": [*model.sizes, 1]})


@cpu_route("/cpu-model", methods=["POST"])
def cpu_modelled(model: Model) -> Model:
    return model


@io_route("/row", methods=["POST"])
async def row(row: Row) -> Row:
    return row


@io_route("/maybe/{number}")
async def maybe(number: int) -> Point | None:
    return Point(number) if number else None


@io_route("/now")
async def now() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@io_route("/text")
async def text(word: str) -> str:
    return f"{word} ☃"


@io_route("/nothing", methods=["DELETE"])
async def nothing() -> None: ...


@io_route("/bytes", methods=["POST"])
async def raw(body: bytes) -> bytes:
    return body[::-1]


@cpu_route("/cpu-bytes", methods=["POST"])
def cpu_raw(body: memoryview) -> bytes:
    return bytes(body)[::-1]


@io_route("/response", methods=["POST"])
async def response(body: bytes) -> Response:
    return Response(body, 201, {"x-own": "1"}, content_type="image/x-own")


@io_route("/upload", methods=["POST"])
async def upload(title: Annotated[str, Form()], photo: UploadFile, more: list[UploadFile]) -> list[Any]:
    return [title, photo.filename, photo.content_type, photo.size, len(more), photo.read(4).decode()]


@cpu_route("/cpu-upload", methods=["POST"])
def cpu_upload(title: Annotated[str, Form()], photo: UploadFile) -> list[Any]:
    return [title, photo.filename, photo.size]


@io_route("/form", methods=["POST"])
async def whole_form(point: Annotated[Point, Form()]) -> Point:
    return point


@io_route("/sized", methods=["POST"])
async def sized(request: Request) -> int:
    return sum([len(piece) async for piece in request.stream()])


@cpu_route("/doubled", methods=["POST"], batch=Batch(4, 0.001))
def doubled(point: list[Point]) -> list[float]:
    return [each.x * 2 for each in point]


@cpu_route("/cached/{n}", cache=60)
def cached(n: int) -> list[int]:
    return [n, time.monotonic_ns()]


@io_route("/token")
async def token(token: Annotated[str, Bearer()]) -> str:
    return token


@io_route("/context")
async def context(request: Request, agent: str, word: str = "") -> dict[str, Any]:
    names = ("traceparent", "tracestate", "authorization", "x-call-hops")
    return {
        "id": request_id.get(),
        "left": seconds_left(),
        "agent": agent,
        **{name: request.headers.get(name) for name in names},
    }


@cpu_route("/cpu-context")
def cpu_context(request: Request, word: str = "") -> dict[str, Any]:
    return {"id": request_id.get(), "left": seconds_left(), "hops": request.headers.get("x-call-hops")}


# Errors


async def raised(how: str) -> None:
    raise_one(how)


def raise_one(how: str) -> None:
    if how == "404":
        raise HTTPError(404, "There is no such thing.", headers=[("retry-after", "7"), ("set-cookie", "a=b")])
    if how == "503":
        raise HTTPError(503, "Not now.", headers=[("retry-after", "7")])
    if how == "500":
        raise HTTPError(500, "Broken.")
    raise RuntimeError("secret")


@io_route("/raises/{how}")
async def raises(how: str) -> None:
    raise_one(how)


@io_route("/raises-in-thread/{how}")
def raises_in_thread(how: str) -> None:
    raise_one(how)


@cpu_route("/cpu-raises/{how}")
def cpu_raises(how: str) -> None:
    raise_one(how)


@cpu_route("/cpu-exits")
def cpu_exits() -> None:
    os._exit(3)


@io_route("/refuses")
async def refuses() -> Response:
    return Response({"why": "no"}, 409)


# Time


@io_route("/slow", methods=["POST"])
async def slow(path: str) -> None:
    Path(path).write_text("started")
    try:
        await asyncio.sleep(SLOW)
    finally:
        Path(path).write_text("ended")


@io_route("/slow-request", methods=["POST"])
async def slow_request(request: Request, path: str) -> None:
    await slow(path)


@cpu_route("/cpu-slow", methods=["POST"])
def cpu_slow(path: str) -> None:
    Path(path).write_text(f"started {os.getpid()}")
    time.sleep(SLOW)
    Path(path).write_text("ended")


@io_route("/limited", timeout=0.05)
async def limited() -> None:
    await asyncio.sleep(SLOW)


@cpu_route("/cpu-limited", timeout=0.2)
def cpu_limited() -> None:
    time.sleep(SLOW)


# Streams


@io_route("/counted", methods=["POST"])
async def counted(point: Point, to: int) -> AsyncIterator[Point]:
    for n in range(to):
        yield Point(point.x + n)


@cpu_route("/cpu-counted")
def cpu_counted(to: int) -> Iterator[Point]:
    for n in range(to):
        yield Point(n)


@io_route("/events")
async def events(to: int) -> AsyncIterator[Event]:
    for n in range(to):
        yield Event(f"line {n}\nand more", event="tick", id=str(n), retry=5 if n else None)


@io_route("/event-stream")
async def event_stream() -> EventStream:
    async def made() -> AsyncIterator[Event]:
        yield Event("only")

    return EventStream(made())


@io_route("/words")
async def words(to: int) -> AsyncIterator[str]:
    for n in range(to):
        yield f"☃{n} "


@io_route("/pieces")
async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(10):
        yield b"x" * size


@io_route("/broken")
async def broken() -> AsyncIterator[Point]:
    yield Point(1)
    await asyncio.sleep(0.01)
    raise RuntimeError("half-way")


@io_route("/endless")
async def endless(path: str, size: int = 1) -> AsyncIterator[list[int]]:
    n = 0
    try:
        while True:
            yield [n] * size
            n += 1
            Path(path).write_text(f"{n}")
            await asyncio.sleep(0)
    finally:
        Path(path).write_text("closed")


@io_route("/left-in-stream")
async def left_in_stream() -> AsyncIterator[float | None]:
    yield seconds_left()


# Chains


@io_route("/chain/{n}")
async def chain(n: int) -> int:
    return n if n == 0 else await call(chain, n - 1) + 1
