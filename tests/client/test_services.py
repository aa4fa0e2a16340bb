"""services.py: the public side of the client, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from http_ends import on_loop, serving
from raw_servers import Peer, calling, good, is_silent, raw_server
from tinysvc.client.address import parse_address
from tinysvc.core.call_errors import CallFailed
from tinysvc.core.errors import ConfigurationError, HTTPError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


async def echo(request: Request) -> Response:
    return Response((await request.body()) or b"nothing", headers={"x-timeout": request.headers["request-timeout"]})


@on_loop
async def test_call_of_a_real_server() -> None:
    async with serving(echo) as server, calling(parse_address(f"http://127.0.0.1:{server.port}")) as caller:
        for body in (b"", b"abc", b"x" * 300_000):
            incoming = await caller.send("POST", body)
            assert incoming.status == 200
            assert await incoming.body(1_000_000) == (body or b"nothing")
            assert incoming.attempts == 1
            assert 9000 < int(incoming.headers["x-timeout"].removesuffix("ms")) <= 10_000
        assert server.only.wire.requests == 3  # one connection


@on_loop
async def test_too_large_body_is_not_sent() -> None:
    async with raw_server(good) as server, calling(server, max_body_size=10) as caller:
        with pytest.raises(HTTPError, match="at most 10 may be sent") as raised:
            await caller.send("POST", b"x" * 11)
        assert raised.value.status == 413
        assert server.connections == 0


@on_loop
async def test_close_ends_calls_under_way() -> None:
    """Those that wait for an answer, read a body, send one, or connect."""

    async def begins(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        await peer.closed()

    begun, ended = asyncio.Event(), []

    async def endless() -> AsyncIterator[bytes]:
        begun.set()
        try:
            while True:
                yield b"x"
                await asyncio.sleep(0.001)
        finally:
            ended.append(True)

    async def reads(peer: Peer) -> None:
        await peer.head()
        await peer.closed()

    async with raw_server(is_silent, begins, reads) as server, calling(server) as caller:
        calls = []
        for number, body in enumerate((b"", b"", endless), 1):
            calls.append(asyncio.create_task(caller.text("GET", body)))
            while server.connections < number or len(server.requests) < min(number, 2):
                await asyncio.sleep(0.001)
        await begun.wait()
        calls.append(asyncio.create_task(caller.text()))
        await asyncio.sleep(0)
        await caller.services.aclose()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert {isinstance(each, CallFailed) for each in results} == {True}, results
        assert ended == [True]
        while server.open:
            await asyncio.sleep(0.001)


@on_loop
async def test_unknown_service_names_the_remedy() -> None:
    async with raw_server(good) as server, calling(server) as caller:
        with pytest.raises(ConfigurationError, match="add other=http://host:port"):
            await caller.services.send("other", None, deadline=None, idempotent=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_stream", [False, True])
@on_loop
async def test_refusal_of_a_large_body_arrives(is_stream: bool) -> None:
    """The server answers and closes before it has read the body: no reset may take the answer away."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b"x" * 100_000

    async with serving(echo, max_body_size=1000) as server:
        address = parse_address(f"http://127.0.0.1:{server.port}")
        async with calling(address, max_body_size=10_000_000) as caller:
            for _ in range(5):
                incoming = await caller.send("POST", pieces if is_stream else b"x" * 8_000_000)
                assert incoming.status == 413
                assert b"1000" in await incoming.body(10_000)


@on_loop
async def test_call_on_an_idle_connection_makes_no_task_and_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(good) as server, calling(server) as caller:
        await caller.text()
        loop, made = asyncio.get_running_loop(), []
        for name in ("call_later", "call_at", "create_task", "run_in_executor"):
            monkeypatch.setattr(loop, name, lambda *args, **options: made.append(args))
        for _ in range(50):
            assert await caller.text("POST", b"x") == "ok"
        monkeypatch.undo()
        assert made == []
        assert server.connections == 1
