"""running_service.py: a service without a server. Its handlers are tested in test_route_handlers.py."""

from __future__ import annotations

import pytest

from tinysvc import ConfigurationError, Request, Response, Service, io_route
from tinysvc.core.responses import Handler
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work


@pytest.mark.asyncio
async def test_running_service_handles_requests_without_a_socket() -> None:
    @io_route("/hello")
    async def hello() -> str:
        return "hello"

    async with at_work(Service(hello), Settings()) as running:
        assert (await running(Request("GET", "/hello"))).content == b"hello"
        assert (await running(Request("GET", "/other"))).status == 404


@pytest.mark.asyncio
async def test_request_without_a_route_passes_the_nearest_middleware() -> None:
    async def named(request: Request, call_next: Handler) -> Response:
        response = await call_next(request)
        response.headers.append(("x-service", "inner"))
        return response

    @io_route("/hello")
    async def hello() -> str:
        return "hello"

    inner = Service(hello, prefix="/inner", middleware=[named])
    async with at_work(Service(inner), Settings()) as running:
        inside, outside = [await running(Request("GET", path)) for path in ("/inner/other", "/innermost")]
    assert (inside.status, inside.headers[-1]) == (404, ("x-service", "inner"))
    assert (outside.status, ("x-service", "inner") in outside.headers) == (404, False)


@pytest.mark.asyncio
async def test_two_functions_of_one_path_are_refused() -> None:
    async def one() -> None: ...

    async def other() -> None: ...

    with pytest.raises(ConfigurationError, match="one"):
        async with at_work(Service(io_route("/")(one), io_route("/")(other)), Settings()):
            pass
