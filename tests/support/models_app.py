"""A service whose cpu resource loads an artifact: a folder with the file `number.txt`. What it holds decides what the
resource and the handlers do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from tinysvc import Artifact, Batch, Cache, Service, cpu_resource, cpu_route, io_route


def is_sane(number: int) -> bool:
    return number < 900


@cpu_resource(shared=True, check=is_sane)
def number(model: Annotated[Path, Artifact("churn@production")]) -> int:
    text = (model / "number.txt").read_text()
    if log := os.environ.get("MODELS_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{os.getpid()} {text}\n")
    if text == "memory":
        raise MemoryError("no room")
    return int(text)


@cpu_route("/number")
def serve_number(number: int) -> int:
    return number


@cpu_route("/cached", cache=Cache(60))
def serve_cached(number: int) -> int:
    return number


@cpu_route("/batched", methods=["POST"], batch=Batch(size=4, wait=0.001))
def serve_batch(items: list[int], number: int) -> list[int]:
    return [number + item for item in items]


@cpu_route("/stream")
def serve_stream(folder: str, number: int) -> Iterator[str]:
    yield f"{number}\n"
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    yield f"{number}\n"


@io_route("/io")
async def serve_io() -> str:
    return "io"


@io_route("/process")
async def serve_process() -> int:
    return os.getpid()


service = Service(serve_process, serve_number, serve_cached, serve_batch, serve_stream, serve_io, number)
