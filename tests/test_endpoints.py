"""endpoints.py: a worker's program, called in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

import faulty
from tinysvc import Request, Response
from tinysvc.endpoints import Endpoint, cpu_program
from tinysvc.worker import Handle

NOBODY = [["127.0.0.1", 1], "/a/socket", "http"]
opened: list[str] = []


def weight() -> Iterator[int]:
    opened.append("opened")
    yield 3
    opened.append("closed")


def double(body: bytes, weight: int) -> Any:
    return {"size": len(body) * weight}


def whose(request: Request) -> Response:
    return Response([request.client, request.server, request.method, request.headers["x"]], 201, {"x-a": "b"})


@pytest.fixture
def handle() -> Iterator[Handle]:
    endpoints = [
        Endpoint(double, (), {"weight": weight}),
        Endpoint(whose, (), {}),
        Endpoint(faulty.cpu, ("number",), {}),
        Endpoint(faulty.stream, ("n",), {}),
        Endpoint(faulty.fault_http_error, (), {}),
    ]
    with cpu_program(endpoints) as handle:
        yield handle


def meta(endpoint: int, **path: str) -> list[Any]:
    return [endpoint, "POST", "/", "", path, [[b"x", b"y"]], NOBODY]


def test_a_resource_is_opened_once_and_closed(handle: Handle) -> None:
    assert handle(meta(0), b"ab") == ((200, "application/json", []), b'{"size":6}')
    assert opened == ["opened"]


def test_the_resource_was_closed() -> None:
    with cpu_program([Endpoint(double, (), {"weight": weight})]):
        pass
    assert opened[-1] == "closed"


def test_the_request_is_whole(handle: Handle) -> None:
    (status, content_type, headers), body = handle(meta(1), b"")
    assert (status, content_type, headers) == (201, "application/json", [("x-a", "b")])
    assert orjson.loads(bytes(body)) == [["127.0.0.1", 1], "/a/socket", "POST", "y"]  # type: ignore[arg-type]


def test_faults_of_the_request_and_errors_are_answers(handle: Handle) -> None:
    assert handle(meta(2, number="7"), b"").body == b'{"number":7}'
    assert handle(meta(2, number="x"), b"").meta[0] == 422
    assert handle(meta(4), b"").meta == (409, "application/problem+json", [("x-why", "test")])


def test_a_generator_is_a_stream(handle: Handle) -> None:
    reply = handle(meta(3, n="2"), b"")
    assert reply.meta[1] == "application/x-ndjson"
    assert list(reply.body) == [b'{"i":0}\n', b'{"i":1}\n']
