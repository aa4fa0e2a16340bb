"""rpc_requests.py: metadata are headers, and a request makes them and its peer when they are asked for."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import grpc
import rpc_app
from rpc_ends import rpc_client, rpc_server
from system import until
from tinysvc import Handler, Request, Response, Service, io_route, request_id
from tinysvc.core.request_context import route_name
from tinysvc.core.requests import Peer
from tinysvc.grpc.rpc_requests import RpcRequest, header_lines, metadata_of, peer_of


def test_metadata_become_header_lines() -> None:
    lines = header_lines([("x-user", "Ada"), ("x-user", "Bob"), ("trace-bin", b"\x00\xff")])
    assert lines == [(b"x-user", b"Ada"), (b"x-user", b"Bob"), (b"trace-bin", b"AP8=")]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (("X-Artifact", "churn@8"), (("x-artifact", "churn@8"),)),
        (("trace-bin", "AP8"), (("trace-bin", b"\x00\xff"),)),
        (("trace-bin", "%"), ()),
        (("x-name", "Jörg"), ()),
        (("x~y", "1"), ()),
        (("content-length", "7"), ()),
        (("access-control-allow-origin", "*"), ()),
        (("grpc-status", "0"), ()),
    ],
)
def test_response_headers_become_metadata(header: tuple[str, str], expected: Any) -> None:
    """HTTP's own matters, and values that metadata cannot hold, are left out."""
    assert metadata_of([header]) == expected


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("other", ""),
    ],
)
def test_address_of_the_client(address: str, client: Any) -> None:
    assert peer_of(address, "https") == Peer(client, None, "https")
    assert peer_of("unix:", "http") == Peer("", "", "http")


def rpc_request(address: str = "ipv4:10.0.0.7:5000") -> RpcRequest:
    return RpcRequest("/items", b"message", (("x-request-id", "id-7"),), address, "https", 7.0, None)


def test_headers_and_peer_are_made_when_they_are_asked_for() -> None:
    request = rpc_request()
    assert (request.method, request.path, request.query, request.time_limit) == ("POST", "/items", {}, 7.0)
    assert (request.client, request.scheme) == (("10.0.0.7", 5000), "https")
    assert request.peer is request.peer
    assert request.headers is request.headers
    assert (request.id, request.headers["x-request-id"]) == ("id-7", "id-7")
    assert rpc_request("").peer == Peer(None, None, "https")
    with pytest.raises(AttributeError, match="'RpcRequest' object has no attribute 'other'"):
        _ = request.other  # type: ignore[attr-defined]


def test_request_has_every_attribute_of_a_request() -> None:
    request = rpc_request()
    assert [name for name in Request.__slots__ if not hasattr(request, name)] == []


def test_middleware_may_replace_headers_and_peer() -> None:
    request = rpc_request()
    request.peer = Peer("a", "b", "http", host="shop")
    assert (request.client, request.host) == ("a", "shop")


kept: list[Request] = []


@io_route("/keeps", methods=["POST"])
async def keeps(request: Request, text: str) -> str:
    kept.append(request)
    return text


@io_route("/keeps-on", methods=["POST"], on_disconnect="finish")
async def keeps_on(request: Request, text: str) -> None:
    kept.append(request)
    rpc_app.happened.append("keeps on")
    await asyncio.sleep(0.1)
    rpc_app.happened.append(f"kept on for {request.client[0]}")


@io_route("/keeps-for-long", methods=["POST"])
async def keeps_for_long(request: Request, text: str) -> None:
    kept.append(request)
    await asyncio.sleep(60)


@io_route("/logs", methods=["POST"])
async def logs(text: str) -> None:
    """It takes only the message, so nothing but the log line asks for its request."""
    log.info(text)


async def adds_the_client(request: Request, call_next: Handler) -> Response:
    response = await call_next(request)
    response.add_header("x-client", f"{request.client[0]} {request.headers['x-user']}")
    return response


log = logging.getLogger("shop")


@pytest.mark.asyncio
async def test_request_that_is_kept_has_headers_and_peer_after_the_end() -> None:
    kept.clear()
    metadata = {"metadata": (("x-user", "Ada"), ("x-request-id", "id-7"))}
    async with rpc_server(Service(keeps, keeps_on)) as server:
        async with rpc_client(server) as client:
            assert await client.call(keeps, metadata, text="a") == "a"
            call = client.begin(keeps_on, {"text": "b"}, **metadata)
            await until(lambda: "keeps on" in rpc_app.happened)
            call.cancel()
            await until(lambda: "kept on for 127.0.0.1" in rpc_app.happened)
        assert server._grpc is not None
        await until(lambda: server._grpc._server.calls.running == 0)  # type: ignore[union-attr]
    assert [(each.client[0], each.headers["x-user"], each.id) for each in kept] == [("127.0.0.1", "Ada", "id-7")] * 2


@pytest.mark.asyncio
async def test_log_line_of_a_handler_without_a_request_has_its_id(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shop")
    seen: list[tuple[str, str]] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((request_id.get(), route_name.get()))

    handler = Noting()
    log.addHandler(handler)
    try:
        async with rpc_server(Service(logs)) as server, rpc_client(server) as client:
            await client.call(logs, {"metadata": (("x-request-id", "id-8"),)}, text="sold")
            await client.call(logs, text="sold again")
    finally:
        log.removeHandler(handler)
    assert seen[0] == ("id-8", "RPC test_rpc_requests.TestRpcRequests/Logs")
    assert seen[1][0] not in ("", "id-8")


@pytest.mark.asyncio
async def test_middleware_sees_headers_and_peer() -> None:
    async with (
        rpc_server(Service(logs, middleware=[adds_the_client])) as server,
        rpc_client(server) as client,
    ):
        call = client.begin(logs, {"text": "a"}, metadata=(("x-user", "Ada"),))
        await call
        assert dict(await call.trailing_metadata())["x-client"] == "127.0.0.1 Ada"


@pytest.mark.asyncio
async def test_client_of_a_late_call_is_known(caplog: pytest.LogCaptureFixture) -> None:
    """grpcio itself often does not know it any more."""
    kept.clear()
    caplog.set_level(logging.INFO, "tinysvc.access")
    service = Service(rpc_app.endless, keeps_for_long)
    async with rpc_server(service, access_log=True) as server, rpc_client(server) as client:
        calls = [client.begin(rpc_app.endless, {}, timeout=0.2) for _ in range(10)]
        calls += [client.begin(keeps_for_long, {"text": "a"}, timeout=0.2) for _ in range(10)]
        for call in calls:
            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert server._grpc is not None
        await until(lambda: server._grpc._server.calls.running == 0)  # type: ignore[union-attr]
    lines = [each.getMessage() for each in caplog.records if "DEADLINE_EXCEEDED" in each.getMessage()]
    assert len(lines) == 20
    assert {line.split()[0] for line in lines} == {"127.0.0.1"}
    assert {each.client[0] for each in kept} == {"127.0.0.1"}
