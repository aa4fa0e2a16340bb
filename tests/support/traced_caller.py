"""A service that calls traced_app over the network."""

from __future__ import annotations

from tinysvc import call, io_route
from traced_app import square


@io_route("/far")
async def far() -> int:
    return await call(square, 7)
