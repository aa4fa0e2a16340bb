"""Routes in several pools, for test_service.py and test_main.py. What they wait for is a file that the test makes."""

from __future__ import annotations

import os

import jobs
from tinysvc import cpu_resource, cpu_route, io_route

opened: list[str] = []


@cpu_resource
def curriculum() -> str:
    opened.append("curriculum")
    return "curriculum"


@cpu_resource(shared=True)
def forkserver() -> int:
    """The process that a shared resource is opened in."""
    return os.getpid()


@cpu_resource
def broken() -> None:
    raise OSError("no model")


@io_route("/io")
async def io() -> str:
    return "io"


@cpu_route("/quick")
def quick() -> dict[str, object]:
    return {"pid": os.getpid(), "opened": opened}


@cpu_route("/train", pool="training", timeout=0)
def train(started: str, go: str, curriculum: str) -> int:
    return jobs.touch_and_wait(started, go)


@cpu_route("/trained", pool="training")
def trained(curriculum: str) -> dict[str, object]:
    return {"pid": os.getpid(), "opened": opened}


@cpu_route("/narrow", limit=1, timeout=0)
def narrow(started: str, go: str) -> int:
    return jobs.touch_and_wait(started, go)


@cpu_route("/wide", limit=99)
def wide() -> str:
    return "wide"


@cpu_route("/shared")
def shared(forkserver: int) -> dict[str, int]:
    return {"opened_in": forkserver, "pid": os.getpid()}


@cpu_route("/never", pool="training")
def never(broken: None) -> None: ...


@cpu_route("/measure", methods=["POST"], max_body_size=7)
def measure(body: bytes) -> int:
    return len(body)
