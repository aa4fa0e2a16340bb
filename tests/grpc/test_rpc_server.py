"""rpc_server.py: where it listens, its limits, and its drain."""

from __future__ import annotations

import asyncio
import os
import stat
from collections import Counter
from pathlib import Path

import pytest

import grpc
import rpc_app
from rpc_ends import rpc_client, rpc_server
from system import until
from tinysvc import Handler, Request, Response, Service
from tinysvc.core.errors import ConfigurationError
from tinysvc.grpc.rpc_server import RpcServer

Code = grpc.StatusCode


@pytest.mark.asyncio
async def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    service = Service(rpc_app.hello)
    async with rpc_server(service, grpc=f"unix:{path}", unix_mode="600") as first:
        assert first.grpc_addresses == [f"unix:{path}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with rpc_client(first) as client:
            assert await client.call(rpc_app.hello, name="Ada") == "hello Ada"
            # Another version takes the path over, as in a reload.
            async with rpc_server(service, grpc=f"unix:{path}") as second, rpc_client(second) as other:
                assert await other.call(rpc_app.hello, name="Bob") == "hello Bob"
                assert await client.call(rpc_app.hello, name="Cyd") == "hello Cyd"
    assert os.listdir(tmp_path) == []


@pytest.mark.asyncio
async def test_older_server_leaves_the_socket_of_a_newer_one(tmp_path: Path) -> None:
    path = tmp_path / "rpc.sock"
    service = Service(rpc_app.hello)
    async with rpc_server(service, grpc=f"unix:{path}") as first:
        server = first._grpc and first._grpc._server
        assert isinstance(server, RpcServer)
        os.rename(path, tmp_path / "away")
        path.write_text("of another")
    assert path.read_text() == "of another"


@pytest.mark.asyncio
async def test_taken_address_is_refused(tmp_path: Path) -> None:
    async with rpc_server(Service(rpc_app.hello)) as first:
        with pytest.raises(ConfigurationError, match="another process does"):
            await rpc_server(Service(rpc_app.hello), grpc=first.grpc_addresses[0]).__aenter__()
    with pytest.raises(ConfigurationError, match=r"^cannot listen on unix:.*: there is no folder .*/no; create it"):
        await rpc_server(Service(rpc_app.hello), grpc=f"unix:{tmp_path}/no/folder").__aenter__()


@pytest.mark.asyncio
async def test_limits() -> None:
    service = Service(rpc_app.big, rpc_app.stuck, rpc_app.item)
    options = {"max_body_size": 1000, "max_header_size": 1000, "max_connections": 2, "max_body_memory": 1500}
    async with rpc_server(service, **options) as server, rpc_client(server) as client:
        assert len(await client.call(rpc_app.big, data=b"x" * 900)) == 1800
        assert (await client.error(rpc_app.big, data=b"x" * 2000)).code() is Code.RESOURCE_EXHAUSTED
        long = {"metadata": (("x-user", "x" * 2000),)}
        assert (await client.error(rpc_app.item, long, item=rpc_app.Item("pen"))).code() is Code.RESOURCE_EXHAUSTED
        assert server._grpc is not None
        calls = server._grpc._server.calls
        calls.message_bytes += 1500
        error = await client.error(rpc_app.big, data=b"x")
        assert (error.code(), error.details()) == (
            Code.UNAVAILABLE,
            "The messages of running calls fill the memory for them.",
        )
        calls.message_bytes -= 1500
        running = [client.begin(rpc_app.stuck, {"name": "it"}) for _ in range(2)]
        await until(lambda: calls.running == 2)
        error = await client.error(rpc_app.big, data=b"x")
        assert (error.code(), error.details()) == (Code.UNAVAILABLE, "The server already handles 2 calls, its limit.")
        assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "1000"
        for call in running:
            call.cancel()


@pytest.mark.asyncio
async def test_body_limit_of_a_route_holds_beside_a_larger_one() -> None:
    service = Service(rpc_app.big, rpc_app.small)
    async with rpc_server(service, max_body_size=1000) as server, rpc_client(server) as client:
        assert await client.call(rpc_app.small, data=b"x" * 5000) == 5000
        assert (await client.error(rpc_app.big, data=b"x" * 2000)).code() is Code.RESOURCE_EXHAUSTED


@pytest.mark.asyncio
async def test_middleware_guards_calls_and_responds_with_errors_only(caplog: pytest.LogCaptureFixture) -> None:
    async def guard(request: Request, call_next: Handler) -> Response:
        match request.headers.get("x-user"):
            case None:
                return Response("who are you?", 401)
            case "odd":
                return Response("content of its own")
        response = await call_next(request)
        response.add_header("x-seen", request.path)
        return response

    async with rpc_server(Service(rpc_app.hello, middleware=[guard])) as server, rpc_client(server) as client:
        error = await client.error(rpc_app.hello, name="Ada")
        assert (error.code(), error.details()) == (Code.UNAUTHENTICATED, "who are you?")
        call = client.begin(rpc_app.hello, {"name": "Ada"}, metadata=(("x-user", "Ada"),))
        await call
        assert dict(await call.trailing_metadata())["x-seen"] == "/hello/Ada"
        odd = {"metadata": (("x-user", "odd"),)}
        assert (await client.error(rpc_app.hello, odd, name="Ada")).code() is Code.INTERNAL
    assert "responded with a 200 of text/plain" in caplog.text


@pytest.mark.asyncio
async def test_client_is_the_one_that_a_trusted_proxy_reports(tmp_path: Path) -> None:
    sent = {"metadata": (("x-forwarded-for", "192.0.2.7"),)}
    for place, trusted in (("127.0.0.1:0", "127.0.0.1"), (f"unix:{tmp_path}/rpc.sock", "unix")):
        options = {"proxy_headers": trusted, "grpc": place}
        async with rpc_server(Service(rpc_app.seen), **options) as server, rpc_client(server) as client:
            assert "192.0.2.7" in (await client.call(rpc_app.seen, sent))["client"]
    async with rpc_server(Service(rpc_app.seen)) as server, rpc_client(server) as client:
        assert "127.0.0.1" in (await client.call(rpc_app.seen, sent))["client"]


@pytest.mark.asyncio
async def test_drain_lets_calls_finish_and_refuses_new_ones() -> None:
    rpc_app.happened.clear()
    async with rpc_server(Service(rpc_app.finished)) as server, rpc_client(server) as client:
        running = asyncio.ensure_future(client.call(rpc_app.finished, name="it"))
        await until(lambda: "it began" in rpc_app.happened)
        assert server._grpc is not None
        draining = asyncio.create_task(server._grpc.drain(20))
        assert await running is None
        assert await draining == 0
        assert (await client.error(rpc_app.finished, name="late")).code() is Code.UNAVAILABLE


@pytest.mark.asyncio
async def test_drain_under_load_cancels_no_call() -> None:
    """A call gets its reply, or UNAVAILABLE where it has not begun: a client may repeat it elsewhere."""
    ends = Counter[object]()
    async with rpc_server(Service(rpc_app.hello)) as server, rpc_client(server) as client:
        server_grpc = server._grpc
        assert server_grpc is not None

        async def caller() -> None:
            while True:
                try:
                    await client.call(rpc_app.hello, name="it")
                    ends["ok"] += 1
                except grpc.aio.AioRpcError as error:
                    ends[error.code()] += 1
                    return

        callers = [asyncio.create_task(caller()) for _ in range(40)]
        await until(lambda: ends["ok"] > 100)
        assert await server_grpc.drain(20) == 0
        await asyncio.gather(*callers)
    assert set(ends) == {"ok", Code.UNAVAILABLE}


@pytest.mark.asyncio
async def test_drain_ends_what_does_not_finish(caplog: pytest.LogCaptureFixture) -> None:
    """A job, a handler on the loop and a stream: UNAVAILABLE, so that the client goes elsewhere."""
    rpc_app.happened.clear()
    service = Service(rpc_app.stuck, rpc_app.endless, rpc_app.sleeps)
    async with rpc_server(service, shutdown_timeout=1.0) as server, rpc_client(server) as client:
        ends = [
            asyncio.ensure_future(client.error(rpc_app.endless)),
            asyncio.ensure_future(client.error(rpc_app.stuck, name="it")),
            asyncio.ensure_future(client.error(rpc_app.sleeps, seconds=60.0)),
        ]
        await until(lambda: "it began" in rpc_app.happened)
        stopping = asyncio.create_task(_leave(server))
        assert [(await each).code() for each in ends] == [Code.UNAVAILABLE] * 3
        await stopping
    assert "it cancelled" in rpc_app.happened


async def _leave(server: object) -> None:
    await server._drain(server._connections)  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "important.txt"
    path.write_text("important")
    with pytest.raises(ConfigurationError, match="is no socket"):
        await rpc_server(Service(rpc_app.hello), grpc=f"unix:{path}").__aenter__()
    assert path.read_text() == "important"


@pytest.mark.asyncio
async def test_no_reflection_without_docs() -> None:
    async with rpc_server(Service(rpc_app.hello), docs=False) as server, rpc_client(server) as client:
        listing = client.channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in listing(iter([b""])):
                pass
        assert caught.value.code() is Code.UNIMPLEMENTED
