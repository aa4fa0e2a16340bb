"""running.py: what stands around a handler, and in which order. The rest is test_service.py's."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from system import wait_until
from tinysvc import HTTPError, Request, Response, Service, cpu_route, io_resource, io_route
from tinysvc.core.messages import Handler
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work
from tinysvc.testing import serving

order: list[str] = []


async def outer(request: Request, call_next: Handler) -> Response:
    order.append("outer")
    return await call_next(request)


async def inner(request: Request, call_next: Handler) -> Response:
    order.append("inner")
    response = await call_next(request)
    order.append(f"answer {response.status}")
    return response


def refused(request: Request, error: PermissionError) -> HTTPError:
    order.append("error handler")
    return HTTPError(403)


@io_resource
async def permission(request: Request) -> None:
    order.append("resource")
    raise PermissionError


@io_route("/", methods=["POST"], middleware=[inner], max_body_size=5)
async def handler(permission: None, body: bytes) -> None: ...


@pytest.mark.asyncio
async def test_the_order_around_a_handler() -> None:
    service = Service(handler, permission, middleware=[outer], error_handlers={PermissionError: refused})
    async with at_work(service, Settings()) as running:
        assert (await running(Request("POST", "/", body=b"12345"))).status == 403
        assert order == ["outer", "inner", "resource", "error handler", "answer 403"]
        order.clear()
        assert (await running(Request("POST", "/", body=b"123456"))).status == 413
        assert order == ["outer", "inner", "answer 413"]


@pytest.mark.asyncio
async def test_a_service_at_work_answers_without_a_socket() -> None:
    @io_route("/hello")
    async def hello() -> str:
        return "hello"

    async with at_work(Service(hello), Settings()) as running:
        assert (await running(Request("GET", "/hello"))).content == b"hello"
        assert (await running(Request("GET", "/other"))).status == 404


@io_route("/io/{kind}")
async def io_fails(kind: str) -> Any:
    return failing(kind)


@cpu_route("/cpu/{kind}")
def cpu_fails(kind: str) -> Any:
    return failing(kind)


@cpu_route("/slow", timeout=0.05)
def slow() -> None:
    time.sleep(60)


def failing(kind: str) -> Any:
    if kind == "raised":
        raise HTTPError(503, "later")
    if kind == "returned":
        return Response("later", 503)
    if kind == "encoded":
        return object()
    raise RuntimeError(kind)


PATHS = [f"/{side}/{kind}" for side in ("io", "cpu") for kind in ("raised", "returned", "encoded", "bug")]


def test_every_5xx_carries_the_id_of_its_request() -> None:
    with serving(Service(io_fails, cpu_fails, slow), cpu_workers=1, raise_errors=False) as url:
        for path in (*PATHS, "/slow"):
            answer = httpx.get(url + path, headers={"x-request-id": "mine"})
            assert answer.status_code >= 500
            assert answer.headers.get_list("x-request-id") == ["mine"]
            assert path.endswith("returned") or orjson.loads(answer.content)["request_id"] == "mine"
            assert httpx.get(url + path).headers["x-request-id"]
        assert "x-request-id" not in httpx.get(f"{url}/nowhere").headers


@cpu_route("/gated")
def gated(file: str) -> None:
    while not os.path.exists(file):
        time.sleep(0.005)


def test_the_503_of_a_full_queue_carries_the_id_of_its_request(tmp_path: Path) -> None:
    file = tmp_path / "go"

    def ask(name: str) -> httpx.Response:
        return httpx.get(f"{url}/gated", params={"file": str(file)}, headers={"x-request-id": name}, timeout=20)

    def queued() -> int:
        waiting: int = httpx.get(f"{url}/readyz").json()["pools"]["default"]["queued"]
        return waiting

    with (
        serving(Service(gated), cpu_workers=1, queue_size=1, raise_errors=False) as url,
        ThreadPoolExecutor() as threads,
    ):
        others = [threads.submit(ask, name) for name in ("first", "second")]
        wait_until(lambda: queued() == 1, "one runs and one waits")
        refused = ask("third")
        file.touch()
        assert [each.result().status_code for each in others] == [204, 204]
    assert (refused.status_code, refused.headers["x-request-id"]) == (503, "third")
    assert refused.json()["request_id"] == "third"
