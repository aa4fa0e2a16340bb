"""page_guard.py: an io resource decides about requests to pages of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import pytest

from tinysvc import (
    ConfigurationError,
    Header,
    HTTPError,
    Request,
    Response,
    Service,
    cpu_resource,
    io_resource,
    io_route,
)
from tinysvc.core.headers import Headers
from tinysvc.core.settings import Settings
from tinysvc.runtime.page_guard import guard_plan
from tinysvc.runtime.running_service import at_work

events: list[str] = []


@io_resource
async def names() -> list[str]:
    events.append("names")
    return ["ada"]


@io_resource
async def member(names: list[str], x_name: Annotated[str, Header()] = "") -> AsyncIterator[str]:
    if x_name not in names:
        raise HTTPError(403, "Members only.")
    events.append("open")
    yield x_name
    events.append("closed")


@cpu_resource
def model() -> int:
    return 1


@io_route("/")
async def root(names: list[str]) -> str:
    return "root"


async def secret(request: Request) -> Response:
    events.append("page")
    return Response(b"secret")


@pytest.mark.asyncio
async def test_guard_opens_and_closes_before_the_page_responds() -> None:
    events.clear()
    async with at_work(Service(root, names, member), Settings(dashboard_guard="member")) as running:
        assert running.page_guard is not None
        page = running.page_guard(secret)
        assert (await page(Request("GET", "/", headers=Headers([(b"x-name", b"ada")])))).content == b"secret"
        assert events == ["names", "open", "closed", "page"]  # the server's resources are opened once
        with pytest.raises(HTTPError, match="Members only"):
            await page(Request("GET", "/"))
        assert events[4:] == []


def test_guard_of_an_inner_service_is_found() -> None:
    inner = Service(root, names, member, prefix="/inner")
    assert list(guard_plan(Service(inner), "member", "dashboard_guard").request_resources) == ["member"]


@pytest.mark.parametrize(
    ("name", "reason"), [("nothing", "no @io_resource"), ("model", "no @io_resource"), ("names", "takes nothing")]
)
def test_guard_that_cannot_refuse_is_a_mistake(name: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        guard_plan(Service(root, names, member, model), name, "dashboard_guard")
