"""A service that calls handlers of called_app.py in every way in which code can name them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import called_app
import tinysvc
from called_app import counted
from tinysvc import call, cpu_route, io_resource, io_route


@io_resource
async def opened() -> int:
    return await call(called_app.chain, 0)


@io_route("/plain")
async def plain(opened: int) -> object:
    return await call(called_app.moved, called_app.Point(opened))


@io_route("/streams")
async def streams() -> AsyncIterator[called_app.Point]:
    async for point in call.stream(counted, called_app.Point(1), to=1):
        yield point


@cpu_route("/waits")
def waits() -> object:
    return call.wait(called_app.text, "x")


@io_route("/forwards")
async def forwards() -> object:
    return await call.forwarding("authorization")(called_app.now)


@io_route("/dotted")
async def dotted() -> object:
    return await helper()


async def helper() -> object:
    return await tinysvc.call(called_app.row, {})


@io_route("/unserved")
async def unserved() -> object:
    return await call(called_app.limited)


@io_route("/hidden")
async def hidden() -> object:
    function = called_app.slow
    return await call(function, "x")
