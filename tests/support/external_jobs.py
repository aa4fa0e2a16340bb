"""A program and a service for other executors: results, faults, and notes of opened and closed resources."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import jobs
from tinysvc import HTTPError, Request, cpu_resource, cpu_route
from tinysvc.pool.program import JobFunction, Reply


@contextmanager
def noted(folder: str, what: str) -> Iterator[None]:
    note(folder, f"{what} opened")
    yield
    note(folder, f"{what} closed")


def note(folder: str, text: str) -> None:
    with open(os.path.join(folder, text.replace(" ", "-")), "a") as file:
        file.write(f"{os.getpid()}\n")


class Program:
    """`meta` is the name of an action and its arguments."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def preload(self) -> Any:
        return noted(self.folder, "shared")

    @contextmanager
    def __call__(self) -> Iterator[JobFunction]:
        with noted(self.folder, "own"):
            yield partial(handle, self.folder)


def handle(folder: str, meta: Any, body: bytes) -> Reply:
    action, *arguments = meta
    return ACTIONS[action](body, *arguments)


def upper(body: bytes) -> Reply:
    return Reply(("upper", os.getpid()), body.upper())


def view(body: bytes) -> Reply:
    return Reply(None, memoryview(body)[::-1])


def stream(body: bytes) -> Reply:
    return Reply("stream", (body for _ in range(3)))


def late_failure(body: bytes) -> Reply:
    def pieces() -> Iterator[bytes]:
        yield body
        jobs.raise_picky()

    return Reply(None, pieces())


def wait(body: bytes, started: str, go: str) -> Reply:
    return Reply(jobs.touch_and_wait(started, go), body)


def raising(function: Callable[[], Any]) -> Callable[[bytes], Reply]:
    return lambda body: Reply(function(), body)


def raise_(message: str) -> NoReturn:
    raise ValueError(message)


ACTIONS: dict[str, Callable[..., Reply]] = {
    "upper": upper,
    "view": view,
    "stream": stream,
    "late failure": late_failure,
    "wait": wait,
    "ValueError": raising(jobs.raise_value_error),
    "picky": raising(jobs.raise_picky),
    "bad str": raising(jobs.raise_bad_str),
    "SystemExit": raising(jobs.raise_system_exit),
    "KeyboardInterrupt": raising(jobs.raise_keyboard_interrupt),
    "surrogate": raising(partial(raise_, "\udcff x")),
    "unencodable": raising(object),
    "segfault": raising(jobs.segfault),
}


@contextmanager
def failing_program() -> Iterator[JobFunction]:
    raise RuntimeError("the resource cannot be opened")
    yield


# The same jobs as a service


@cpu_resource
def weights() -> Iterator[list[int]]:
    yield [2, 3]


@cpu_resource(shared=True)
def table() -> Iterator[dict[str, str]]:
    yield {"key": "value"}


@cpu_route("/sum", methods=["POST"])
def total(values: list[int], weights: list[int]) -> dict[str, int]:
    return {"sum": sum(weight * value for weight, value in zip(weights, values, strict=True))}


@cpu_route("/lookup/{key}")
def lookup(key: str, table: dict[str, str], request: Request) -> dict[str, str]:
    if key not in table:
        raise HTTPError(404, f"no {key}", headers=[("x-method", request.method)])
    return {"value": table[key]}


@cpu_route("/count/{n}")
def count(n: int) -> Iterator[str]:
    yield from map(str, range(n))


@cpu_route("/fail")
def fail() -> NoReturn:
    jobs.raise_value_error()


@cpu_route("/wait", timeout=0.5)
def wait_for(go: str) -> int:
    return jobs.wait_for(go)
