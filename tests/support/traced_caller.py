"""A service that calls traced_app over the network."""

from __future__ import annotations

from tinysvc import call, io_route
from traced_app import refuses_in_worker, square


@io_route("/far")
async def far() -> int:
    return await call(square, 7)


@io_route("/far-refused")
async def far_refused() -> None:
    await call(refuses_in_worker)
