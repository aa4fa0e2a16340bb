"""A service that is called by gRPC in tests. Workers import it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tinysvc import (
    Background,
    Batch,
    Bearer,
    Header,
    HTTPError,
    Query,
    Request,
    cpu_resource,
    cpu_route,
    io_resource,
    io_route,
    request_id,
    seconds_left,
)

happened: list[str] = []
"""What handlers on the loop have noted."""


@dataclass
class Item:
    name: str
    count: int = 1


@io_route("/hello/{name}")
async def hello(name: str, times: int = 1) -> str:
    return f"hello {name}" * times


@io_route("/items", methods=["POST"])
async def item(item: Item, x_user: Annotated[str, Header()] = "") -> Item:
    return Item(item.name + x_user, item.count + 1)


@io_route("/nothing")
async def nothing() -> None: ...


@io_route("/plain")
def plain(text: str) -> str:
    return text.upper()


@io_route("/seen")
async def seen(request: Request, text: str = "") -> dict[str, str]:
    left = seconds_left()
    return {
        "method": request.method,
        "path": request.path,
        "client": str(request.client),
        "left": "" if left is None else f"{left:.0f}",
        "id": request_id.get(),
        "tags": request.headers.get("x-tags", ""),
    }


@io_route("/seen/{name}")
async def seen_path(name: str, request: Request, more: str = "") -> dict[str, str]:
    return {"path": request.raw_path, "query": request.raw_query, "name": (request.path_params or {})["name"]}


@io_route("/refused/{status}")
async def refused(status: int, code: str = "") -> None:
    headers = [("grpc-status", code)] if code else []
    raise HTTPError(status, f"refused with {status}", headers=[*headers, ("retry-after", "3"), ("x-why", "because")])


@io_route("/fails")
async def fails() -> None:
    raise KeyError("secret")


@io_route("/stuck", methods=["POST"])
async def stuck(name: str) -> None:
    try:
        happened.append(f"{name} began")
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        happened.append(f"{name} cancelled")
        raise


@io_route("/finished", methods=["POST"], on_disconnect="finish")
async def finished(name: str) -> None:
    happened.append(f"{name} began")
    await asyncio.sleep(0.3)
    happened.append(f"{name} finished")


@io_route("/limited", limit=1)
async def limited() -> None:
    happened.append("limited")
    await asyncio.sleep(60)


@io_route("/late", timeout=0.05)
async def late() -> None:
    await asyncio.sleep(60)


@io_route("/numbers/{count}")
async def numbers(count: int) -> AsyncIterator[int]:
    try:
        for number in range(count):
            yield number
            await asyncio.sleep(0)
    finally:
        happened.append("numbers closed")


@io_route("/lines/{count}")
def lines(count: int) -> Iterator[str]:
    for number in range(count):
        yield str(number)


@io_route("/breaks")
async def breaks() -> AsyncIterator[int]:
    yield 1
    raise KeyError("secret")


@io_route("/exits")
async def exits() -> AsyncIterator[int]:
    yield 1
    raise SystemExit(3)


@io_route("/endless")
async def endless() -> AsyncIterator[int]:
    number = 0
    while True:
        yield number
        number += 1
        await asyncio.sleep(0.01)


@io_route("/sums", methods=["POST"])
async def total(items: AsyncIterator[Item], x_start: Annotated[int, Header()] = 0) -> int:
    return x_start + sum([each.count async for each in items])


@io_route("/doubles", methods=["POST"])
async def doubles(numbers: AsyncIterator[int]) -> AsyncIterator[int]:
    async for number in numbers:
        yield 2 * number


@io_route("/first", methods=["POST"])
async def first(numbers: AsyncIterator[int]) -> int:
    return await anext(numbers)


@io_resource
async def user(token: Annotated[str, Bearer()]) -> AsyncIterator[str]:
    if token != "right":
        raise HTTPError(401, "unknown token")
    yield "Ada"
    happened.append("closing")
    await asyncio.sleep(0.2)
    happened.append("committed")


@io_route("/whoami")
async def whoami(user: str) -> str:
    happened.append("whoami")
    return user


@cpu_route("/work", methods=["POST"])
def whoami_cpu(user: str, number: int) -> str:
    return f"{user} {number}"


@io_resource
async def tenant(shop: Annotated[str, Query()]) -> str:
    return shop.upper()


@io_route("/orders", methods=["POST"])
async def orders(tenant: str, count: int) -> str:
    return f"{tenant} {count}"


@io_route("/tasks", methods=["POST"])
async def tasks(name: str, background: Background) -> str:
    async def later() -> None:
        happened.append(f"{name} ran later")

    background.add(later)
    return name


# Workers


@cpu_resource
def factor() -> int:
    return 2


@cpu_route("/double", methods=["POST"])
def double(item: Item, factor: int) -> Item:
    return Item(item.name, item.count * factor)


@cpu_route("/pid")
def pid() -> int:
    return os.getpid()


@cpu_route("/divide")
def divide(a: int, b: int = 1) -> float:
    return a / b


@cpu_route("/sleeps", methods=["POST"])
def sleeps(seconds: float, mark: str = "") -> None:
    if mark:
        Path(mark).write_text(str(os.getpid()))
    time.sleep(seconds)


@cpu_route("/pieces/{count}")
def pieces(count: int) -> Iterator[Item]:
    for number in range(count):
        yield Item("", number)


@cpu_route("/dies")
def dies() -> None:
    os._exit(3)


@cpu_route("/squares", methods=["POST"], batch=Batch(size=8, wait=0.05))
def squares(number: list[int]) -> list[int]:
    return [each * each for each in number]


@cpu_route("/cached", cache=60)
def cached(number: int) -> str:
    return f"{number} {time.monotonic()}"


@cpu_route("/big", methods=["POST"])
def big(data: bytes) -> bytes:
    return data * 2


@cpu_route("/refuses")
def refuses() -> None:
    raise HTTPError(409, "taken")


@io_route("/page")
async def page(request: Request) -> str:
    """Only HTTP has it."""
    return "page"


@cpu_route("/small", methods=["POST"], max_body_size=10_000)
def small(data: bytes) -> int:
    return len(data)


@io_route("/floods")
async def floods() -> AsyncIterator[bytes]:
    while True:
        happened.append("piece")
        yield b"x" * 100_000


@io_route("/guarded/{count}")
async def guarded(user: str, count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"{user} {number}"


@io_route("/gives_up")
async def gives_up(status: int) -> AsyncIterator[int]:
    yield 1
    raise HTTPError(status, "no more")


@cpu_route("/gives_up_in_a_worker")
def gives_up_in_a_worker(status: int) -> Iterator[int]:
    yield 1
    raise HTTPError(status, "no more")


@io_route("/slow-size", methods=["POST"])
async def slow_size(data: bytes) -> int:
    await asyncio.sleep(0.3)
    return len(data)
