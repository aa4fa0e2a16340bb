"""A service with handlers that misbehave beside handlers that work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import msgspec

import jobs
from tinysvc import Cookie, Header, HTTPError, Request, Response, cpu_resource, cpu_route, io_resource, io_route


@dataclass
class Features:
    values: list[float]
    name: str = ""


class Point(msgspec.Struct):
    x: int
    y: int


@io_resource
async def database() -> AsyncIterator[dict[str, str]]:
    yield {"key": "value"}


@cpu_resource
def model() -> Iterator[float]:
    yield 2.0


# Handlers that work


@io_route("/io/{number}")
async def io(number: int) -> dict[str, int]:
    await asyncio.sleep(0)
    return {"number": number}


@cpu_route("/cpu/{number}")
def cpu(number: int) -> dict[str, int]:
    return {"number": number}


@cpu_route("/predict", methods=["POST"])
def predict(features: Features, model: float) -> dict[str, Any]:
    return {"score": sum(features.values) * model, "name": features.name}


@io_route("/lookup")
async def lookup(database: dict[str, str], key: str = "key") -> str:
    return database[key]


@io_route("/everything/{name}", methods=["POST"])
async def everything(
    request: Request,
    name: str,
    point: Point,
    user_agent: Annotated[str, Header()],
    session: Annotated[str, Cookie()] = "none",
    limit: Annotated[int, msgspec.Meta(ge=1, le=9)] = 5,
    flag: bool = False,
) -> dict[str, Any]:
    return {
        "method": request.method,
        "name": name,
        "point": point,
        "agent": user_agent,
        "session": session,
        "limit": limit,
        "flag": flag,
    }


@cpu_route("/raw", methods=["POST"])
def raw(body: bytes, request: Request) -> Response:
    return Response(body[::-1], headers={"x-method": request.method}, content_type="text/x-reversed")


@cpu_route("/stream/{n}")
def stream(n: int) -> Iterator[dict[str, int]]:
    for i in range(n):
        yield {"i": i}


@cpu_route("/late-failure")
def late_failure() -> Iterator[str]:
    yield "a beginning"
    raise RuntimeError("no end")


@cpu_route("/early-failure")
def early_failure() -> Iterator[str]:
    raise HTTPError(418, "before the first word")
    yield ""


# Faults in a worker


@cpu_route("/fault/raise")
def fault_raise() -> NoReturn:
    raise RuntimeError("a secret")


@cpu_route("/fault/http-error")
def fault_http_error() -> NoReturn:
    raise HTTPError(409, "conflict in a worker", headers=[("x-why", "test")])


@cpu_route("/fault/hang", timeout=0.2)
def fault_hang() -> NoReturn:
    jobs.spin()


@cpu_route("/fault/exit")
def fault_exit() -> None:
    jobs.exit_now(3)


@cpu_route("/fault/segfault")
def fault_segfault() -> None:
    jobs.segfault()


@cpu_route("/fault/unencodable")
def fault_unencodable() -> object:
    return object()


@cpu_route("/fault/unpicklable")
def fault_unpicklable() -> object:
    return lambda: None


@cpu_route("/fault/picky")
def fault_picky() -> NoReturn:
    jobs.raise_picky()


@cpu_route("/fault/system-exit")
def fault_system_exit() -> NoReturn:
    jobs.raise_system_exit()


@cpu_route("/fault/fork")
def fault_fork(path: str) -> dict[str, int]:
    return {"child": jobs.fork_child_and_return(path)}


@cpu_route("/fault/fork-exit")
def fault_fork_exit(path: str) -> None:
    jobs.fork_child_and_exit(path)


@cpu_route("/fault/print")
def fault_print() -> str:
    print("printed in a worker\n" * 100)
    return "printed"


@cpu_route("/fault/garbage")
def fault_garbage() -> str:
    return jobs.write_garbage()


@cpu_route("/fault/signals")
def fault_signals() -> str:
    return jobs.change_signals_and_folder()


@cpu_route("/fault/recursion")
def fault_recursion() -> Any:
    return jobs.overflow()


@cpu_route("/fault/memory")
def fault_memory() -> NoReturn:
    jobs.raise_memory_error()


@cpu_route("/fault/header")
def fault_header() -> Response:
    return Response("x", headers={"x-a": "b\r\nset-cookie: c"})


# Faults on the loop


@io_route("/io-fault/raise")
async def io_fault_raise() -> NoReturn:
    raise RuntimeError("a secret")


@io_route("/io-fault/cancelled")
async def io_fault_cancelled() -> NoReturn:
    raise asyncio.CancelledError


@io_route("/io-fault/system-exit")
async def io_fault_system_exit() -> NoReturn:
    raise SystemExit(7)


@io_route("/io-fault/keyboard-interrupt")
def io_fault_keyboard_interrupt() -> NoReturn:
    raise KeyboardInterrupt


@io_route("/io-fault/unencodable")
async def io_fault_unencodable() -> object:
    return object()


@io_route("/io-fault/header")
async def io_fault_header() -> Response:
    return Response("x", headers={"x-a": "b\r\nset-cookie: c"})


# Handlers that wait for a file of the test


@cpu_route("/wait", timeout=0)
def wait(started: str, go: str) -> dict[str, int]:
    return {"pid": jobs.touch_and_wait(started, go)}


@cpu_route("/work", methods=["POST"], timeout=0)
def work(started: str, go: str, done: str) -> None:
    jobs.touch_and_wait(started, go)
    jobs.touch(done)


@io_route("/io-wait")
async def io_wait(started: str, go: str) -> str:
    jobs.touch(started)
    while not os.path.exists(go):
        await asyncio.sleep(0.002)
    return "done"
