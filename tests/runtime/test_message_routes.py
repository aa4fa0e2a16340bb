"""message_routes.py: a running service whose routes take messages, too. Through real gRPC: tests/grpc/."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from json_codec import JsonCodec
from tinysvc import Request, Service, cpu_route, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.messages import Messages
from tinysvc.runtime.running_service import at_work
from tinysvc.service.plan import Plan


@io_route("/twice", methods=["POST"])
async def twice(text: str) -> str:
    return text * 2


@cpu_route("/size", methods=["POST"])
def size(text: str) -> int:
    return len(text)


@io_route("/other")
async def other() -> str:
    return "other"


def messages_of(plans: Sequence[Plan]) -> dict[Plan, Messages]:
    return {plan: Messages(JsonCodec()) for plan in plans if plan.path != "/other"}


@pytest.mark.asyncio
async def test_routes_are_served_by_messages_beside_http() -> None:
    service = Service(twice, size, other)
    async with at_work(service, Settings(cpu_workers=1), messages_of=messages_of) as running:
        by_path = {route.plan.path: route for route in running.messages.routes}
        assert set(by_path) == {"/twice", "/size"}
        request = Request("POST", "/", body=b'{"text": "ab"}')
        assert (await by_path["/twice"].handler(request)).content == b'result "abab"'
        assert (await by_path["/size"].handler(request)).content == b"result 2"
        assert (await running.handle(Request("POST", "/size", "text=abc"))).content == b"3"
        error = running.respond_to_error(KeyError("secret"), request)
        assert (error.status, b"secret" in error.content) == (500, False)
        assert running.is_ready()
