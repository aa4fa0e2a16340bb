"""running.py: what stands around a handler, and in which order. The rest is test_service.py's."""

from __future__ import annotations

import pytest

from tinysvc import HTTPError, Request, Response, Service, io_resource, io_route
from tinysvc.messages import Handler
from tinysvc.running import at_work
from tinysvc.settings import Settings

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
