"""tinysvc: the first service of a chain of three. It calls the second."""

from __future__ import annotations

import tinysvc_chain_second as second

from tinysvc import call, io_route


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@io_route("/compute", methods=["POST"])
async def compute(key: str) -> str:
    return await call(second.compute, key)
