"""route_handlers.py: the options of a route stand around its handler in a fixed order."""

from __future__ import annotations

import pytest

from tinysvc import HTTPError, Request, Response, Service, io_resource, io_route
from tinysvc.core.responses import Handler
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work

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
async def test_order_of_options_around_a_handler() -> None:
    service = Service(handler, permission, middleware=[outer], error_handlers={PermissionError: refused})
    async with at_work(service, Settings()) as running:
        assert (await running(Request("POST", "/", body=b"12345"))).status == 403
        assert order == ["outer", "inner", "resource", "error handler", "answer 403"]
        order.clear()
        assert (await running(Request("POST", "/", body=b"123456"))).status == 413
        assert order == ["outer", "inner", "answer 413"]
