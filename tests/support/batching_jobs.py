"""Handlers of cpu routes for test_cpu_handlers.py, test_cpu_endpoints.py and test_batching.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

import jobs
from tinysvc import Header, HTTPError, Request, Response
from tinysvc.core.request_context import request_id, route_name
from tinysvc.core.sse import Event

calls: list[int] = []


@dataclass
class Features:
    x: int


def factor() -> int:
    return 10


def shared_pid() -> Iterator[int]:
    yield os.getpid()


def whoami(request: Request) -> list[str]:
    return [request.id, request_id.get(), route_name.get()]


def size_of(body: memoryview) -> dict[str, Any]:
    return {"size": len(body), "type": type(body).__name__, "ends": bytes(body[-3:]).decode()}


def copied(body: bytes) -> dict[str, Any]:
    return {"size": len(body), "type": type(body).__name__}


def as_json(features: Features) -> int:
    return features.x


def echo(body: memoryview) -> memoryview:
    return body


def assigned(body: bytes) -> Response:
    response = Response("fine", content_type="text/plain")
    response.headers = [("x-note", "\ud800" if body == b"x-note" else "good")]
    if body == b"content-type":
        response.content_type = "text/\ud800"
    return response


def all_assigned(body: list[bytes]) -> list[Response]:
    return [assigned(each) for each in body]


def fails() -> None:
    raise ValueError("no such value")


def refuses() -> None:
    raise HTTPError(418, "short and stout")


def wait(started: str, go: str) -> int:
    return jobs.touch_and_wait(started, go)


def crash() -> None:
    os._exit(3)


def pids(shared_pid: int) -> list[int]:
    return [shared_pid, os.getpid()]


def ticks(n: int) -> Iterator[Event]:
    for number in range(n):
        yield Event({"n": number}, id=str(number))


# With a batch


def score(features: list[Features], x_add: list[Annotated[int, Header()]], factor: int) -> list[dict[str, int]]:
    """What it was given, and with how many others."""
    calls.append(len(features))
    return [{"y": f.x * factor + add, "of": len(features)} for f, add in zip(features, x_add, strict=True)]


def picky(features: list[Features]) -> list[Any]:
    """Negative: raises for all; 0: its own error; 1: a refusal; 2: cannot be encoded; 3: a stream."""
    calls.append(len(features))
    if any(f.x < 0 for f in features):
        raise ValueError("a negative one")
    odd = [ZeroDivisionError("zero"), HTTPError(409, "one"), object(), iter([b"three"])]
    return [odd[f.x] if f.x < len(odd) else f.x for f in features]


def too_few(features: list[Features]) -> list[int]:
    calls.append(len(features))
    return [1]


def not_a_list(bodies: list[bytes]) -> str:
    return "x" * len(bodies)


def a_set(bodies: list[bytes]) -> set[bytes]:
    return {b"", b"x"}


@dataclass
class Odd:
    """What an author's own check may do."""

    x: int

    def __post_init__(self) -> None:
        if self.x == 1:
            raise RuntimeError("an odd one")
        if self.x == 2:
            raise MemoryError


def odd(odds: list[Odd]) -> list[int]:
    return [each.x for each in odds]


def array(features: list[Features]) -> Any:
    return np.array([f.x for f in features]) / 2


def exhausted(bodies: list[bytes]) -> list[int]:
    raise MemoryError


def whole_request(request: list[Request], name: list[str]) -> list[Response]:
    return [
        Response([r.method, n, request_id.get(), route_name.get()], 201) for r, n in zip(request, name, strict=True)
    ]


def sizes(bodies: list[memoryview]) -> list[bytes]:
    return [bytes(body[-1:]) * len(body) for body in bodies]


def waits(bodies: list[bytes]) -> list[bytes]:
    """Each body is "started go"; the first one's are touched and waited for."""
    started, go = bodies[0].decode().split()
    jobs.touch_and_wait(started, go)
    return bodies


def dies(bodies: list[bytes]) -> list[bytes]:
    """Note each call in the file that the first body names, and crash."""
    with open(bodies[0], "a") as file:
        file.write("called ")
    os._exit(3)
