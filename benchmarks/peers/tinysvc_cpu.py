"""tinysvc: io and cpu routes."""

from typing import Any

import work

from tinysvc import cpu_route, io_route


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@cpu_route("/noop", methods=["POST"])
def noop(document: dict[str, Any]) -> dict[str, Any]:
    return work.noop(document)


@cpu_route("/burn", methods=["POST"])
def burn(document: dict[str, Any]) -> dict[str, Any]:
    return work.burn(document)


@cpu_route("/endless", timeout=60)
def endless() -> None:
    work.endless()
