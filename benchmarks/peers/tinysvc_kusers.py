"""tinysvc: one route that waits, one that computes."""

import asyncio

import work

from tinysvc import cpu_route, io_route


@io_route("/wait")
async def wait() -> dict[str, bool]:
    await asyncio.sleep(work.TURN)
    return {"waited": True}


@cpu_route("/compute", methods=["POST"])
def compute() -> dict[str, bool]:
    return work.compute()
