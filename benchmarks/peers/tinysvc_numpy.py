"""tinysvc: a service that imports numpy, with a job that reports its process."""

from typing import Any

import numpy
import work

from tinysvc import cpu_route, io_route


@io_route("/json")
async def message() -> dict[str, object]:
    return {"message": "hello", "answer": 42}


@cpu_route("/noop", methods=["POST"])
def noop(document: dict[str, Any]) -> dict[str, Any]:
    return document


@cpu_route("/sum", methods=["POST"])
def total(values: list[float]) -> float:
    return float(numpy.sum(values))


@cpu_route("/hold", methods=["POST"])
def hold(pid_file: str) -> None:
    work.hold(pid_file)
