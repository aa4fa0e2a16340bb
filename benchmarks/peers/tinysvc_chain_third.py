"""tinysvc: the last service of a chain of three. It computes."""

from __future__ import annotations

import chain_job

from tinysvc import cpu_route, io_route


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@cpu_route("/compute", methods=["POST"], timeout=60)
def compute(key: str) -> str:
    return chain_job.compute(key)
