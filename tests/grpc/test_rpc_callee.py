"""rpc_callee.py: arguments as messages, and replies as results; runtime/test_calls.py calls handlers of all kinds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated, Any

import pytest

import called_app as app
from http_ends import on_loop
from rpc_ends import rpc_client, rpc_server
from tinysvc import Header, Request, Service, call, cpu_route, io_route
from tinysvc.binding.replies import UnreadableReply
from tinysvc.core.errors import ConfigurationError, HTTPError
from tinysvc.core.headers import Headers
from tinysvc.core.settings import Settings
from tinysvc.grpc.rpc_callee import callee_messages
from tinysvc.runtime.running_service import at_work
from tinysvc.service.routes import route_of


@io_route("/summed", methods=["POST"])
async def summed(points: AsyncIterator[app.Point], x_by: Annotated[int, Header()] = 1) -> float:
    return sum([point.x * x_by async for point in points])


@io_route("/echoed", methods=["POST"])
async def echoed(points: AsyncIterator[app.Point]) -> AsyncIterator[app.Point]:
    async for point in points:
        yield point


@io_route("/unused-here")
async def unused_here() -> None: ...


def messages_of(function: Any) -> Any:
    route = route_of(function)
    assert route is not None
    return callee_messages(function, route)


def test_request_names_the_method_and_has_headers_as_metadata() -> None:
    writer = messages_of(app.places).writer
    arguments = writer.arguments((7, "a"), {"words": ["x"], "x_colour": app.Colour.RED, "session": "s"})
    sent = writer.write(arguments)
    assert (sent.method, sent.target) == ("POST", "/called_app.CalledApp/Places")
    assert sorted(sent.headers) == [("cookie", "session=s"), ("x-colour", "red")]
    assert isinstance(sent.body, bytes)
    assert sent.can_repeat


def test_body_of_a_handler_that_takes_the_request_is_for_http_only() -> None:
    writer = messages_of(app.context).writer
    with pytest.raises(TypeError, match="takes no body over gRPC"):
        writer.write(writer.arguments((), {"body": b"x"}))


def test_reply_that_is_no_message_is_unreadable() -> None:
    with pytest.raises(UnreadableReply):
        messages_of(app.moved).reader.value(200, "", b"\xff", Headers())


def test_handler_that_only_http_serves_names_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match=r"its result is a Response; give its service an address of HTTP"):
        messages_of(app.response)


@on_loop
async def test_streams_of_requests_travel() -> None:
    async def points() -> AsyncIterator[app.Point]:
        for x in (1, 2):
            yield app.Point(x)

    async def wrong() -> AsyncIterator[Any]:
        yield app.Point(1)
        yield "no point"

    async with rpc_server(Service(summed, echoed)) as server:
        settings = Settings(services=f"test_rpc_callee=grpc://{server.grpc_addresses[0]}")
        async with at_work(Service(unused_here), settings, find_messages=callee_messages):
            assert await call(summed, points()) == 3
            assert await call(summed, [app.Point(4)], x_by=2) == 8
            assert [each async for each in call.stream(echoed, points())] == [app.Point(1), app.Point(2)]
            with pytest.raises(Exception, match="cannot be sent over gRPC"):
                await call(summed, wrong())


@io_route("/passes-on", methods=["POST"])
async def passes_on(word: str = "") -> dict[str, Any]:
    return await call(app.context)


@cpu_route("/passes-on-in-worker", methods=["POST"])
def passes_on_in_worker(word: str = "") -> dict[str, Any]:
    return call.wait(app.context)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@on_loop
async def test_time_and_id_travel_from_grpc_to_the_next_hop(protocol: str) -> None:
    async with rpc_server(Service(app)) as last:
        address = last.url if protocol == "http" else f"grpc://{last.grpc_addresses[0]}"
        front = Service(passes_on, passes_on_in_worker)
        async with rpc_server(front, services=f"called_app={address}") as server, rpc_client(server) as client:
            for function in (passes_on, passes_on_in_worker):
                options = {"timeout": 7, "metadata": [("x-request-id", "of-the-client")]}
                found = await client.call(function, options)
                assert 0 < found["left"] <= 7.5
                assert (found["id"], found["x-call-hops"]) == ("of-the-client", "1")
            request = Request("POST", "/passes-on", headers=Headers([(b"x-request-id", b"of-http")]))
            request.time_limit = monotonic() + 7
            response = await server.running.handle(request)
            assert b'"x-call-hops":"1"' in bytes(response.content)


@io_route("/checked", methods=["POST"])
async def checked(request: Request, n: int) -> int:
    raise HTTPError(409, "It is taken.", headers=[("x-other", "1")])


@on_loop
async def test_service_outside_of_a_server_cannot_call_over_grpc() -> None:
    async with at_work(Service(unused_here), Settings(services="test_rpc_callee=grpc://127.0.0.1:1")):
        with pytest.raises(ConfigurationError, match="outside of a tinysvc server"):
            await call(checked, 1)
