"""A service with one route of each kind, for the tests of its page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from tinysvc import (
    Bearer,
    Cookie,
    Event,
    EventStream,
    Form,
    Header,
    Query,
    Response,
    UploadFile,
    cpu_route,
    io_resource,
    io_route,
)


@dataclass
class Item:
    name: str
    count: int
    parts: list[Item] = field(default_factory=list)


@dataclass
class Order:
    """An order of items."""

    number: int
    items: list[Item]
    kind: Literal["gift", "own"]
    note: str | None = None


@dataclass
class Found:
    number: int
    words: list[str]
    order: str
    tenant: str


@io_route("/items/{number}")
async def find(
    number: int,
    words: Annotated[list[str], Query()] = [],  # noqa: B006
    order: Literal["up", "down"] = "up",
    x_tenant: Annotated[str, Header()] = "",
    session: Annotated[str, Cookie()] = "",
) -> Found:
    """Find an item. It is `found`:

    - by its number
    - by its words

    and not otherwise.
    """
    return Found(number, words, order, x_tenant)


@io_route("/orders", methods=["POST"])
async def order(order: Order) -> Order:
    """Take an order."""
    return order


@cpu_route("/square/{x}", timeout=10, limit=4)
def square(x: int) -> int:
    """Multiply it by itself."""
    return x * x


@io_route("/files", methods=["POST"])
async def upload(files: list[UploadFile], title: Annotated[str, Form()] = "") -> dict[str, int]:
    """Take files."""
    return {f"{title} {each.filename}": each.size for each in files}


@io_route("/names", methods=["POST"])
async def names(name: Annotated[str, Form()], age: Annotated[int, Form()] = 3) -> str:
    """Take a name."""
    return f"{name} is {age}"


@io_route("/raw", methods=["POST"])
async def raw(body: bytes) -> bytes:
    """Echo any bytes."""
    return body


@io_route("/files/{path:path}")
async def path(path: str) -> str:
    """A path with slashes."""
    return path


@io_route("/lines")
async def lines() -> AsyncIterator[dict[str, int]]:
    """Lines until the client disconnects."""
    number = 0
    while True:
        yield {"number": number}
        number += 1
        await asyncio.sleep(0.02)


@io_route("/events")
async def events(count: int = 3) -> EventStream:
    """Some events."""

    async def made() -> AsyncIterator[Event]:
        for number in range(count):
            yield Event(f"number {number}", event="tick")

    return EventStream(made())


@io_route("/picture")
async def picture() -> Response:
    """A picture."""
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20"><rect width="40" height="20"/></svg>'
    return Response(svg.encode(), content_type="image/svg+xml")


@io_resource
async def user(token: Annotated[str, Bearer()]) -> str:
    return token.upper()


@io_route("/me")
async def me(user: str) -> str:
    """The user of the token."""
    return user


@io_route("/odd", deprecated=True, summary="<script>document.title='broken'</script> \"it's\" & <b>bold</b>")
async def odd() -> str:
    return "<b>odd</b>"


@io_route("/version", methods=["HEAD"], tags=["about"])
async def version(x_ids: Annotated[list[str], Header()]) -> Response:
    return Response(headers=[("x-got", " ".join(x_ids))])


@io_route("/filter")
async def about(ids: list[list[int]], limit: Annotated[int, Meta(ge=1, le=9)] = 5) -> list[list[int]]:
    """Some of *them*, **as you like**: *args and **kwargs, `a*b`."""
    return ids[:limit]


@io_route("/items", methods=["POST"], tags=["stock"])
async def items(items: list[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item


@io_route("/maybe", methods=["POST"])
async def maybe(
    ids: Annotated[list[int] | None, Query()] = None,
    way: Literal["up", "down"] | None = None,
    photo: UploadFile | None = None,
) -> dict[str, Any]:
    return {"ids": ids, "way": way, "photo": photo and photo.size}


odd_parts = (version, about, items, maybe)

parts = (find, order, square, upload, names, raw, path, lines, events, picture, me, odd, user)
