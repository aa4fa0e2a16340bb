"""All connections of a server: their limit, and their end when the server drains."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from http_ends import (
    GUARD,
    Stream,
    connected,
    echo,
    forever,
    get,
    ok,
    on_loop,
    post,
    serving,
    streaming,
    until_the_end,
)
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.server.connections import MAX_TURNED_AWAY

pytestmark = pytest.mark.usefixtures("quiet")


@on_loop
async def test_oldest_idle_connection_makes_room() -> None:
    async with serving(ok, max_connections=2) as server, server.client() as a, server.client() as b:
        await a.ask(get())
        await b.ask(get())
        async with server.client() as c:
            assert await a.closed()
            assert (await b.ask(get())).status == 200
            assert (await c.ask(get())).status == 200


@on_loop
async def test_each_new_connection_replaces_an_idle_one() -> None:
    async with serving(ok, max_connections=2) as server, server.client() as a, server.client() as b:
        await a.ask(get())
        await b.ask(get())
        async with connected(server), connected(server):  # before either place is free
            assert await a.closed()
            assert await b.closed()


@on_loop
async def test_connection_with_a_new_request_is_not_idle() -> None:
    async with serving(ok) as server, server.client() as client:
        await client.ask(get())
        server.only.inbox.put(get())  # and in the same turn of the loop
        assert not server.only.end_when_idle()
        assert (await client.response()).status == 200
        assert (await client.ask(get())).status == 200


@on_loop
async def test_flood_of_connections_is_closed_without_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.http.LINGER", 60.0)  # on a busy machine the first would end before the last comes
    async with serving(echo, max_connections=1) as server, server.client() as first:
        first.send(get("/", "Content-Length: 5", method="POST"))
        while not (server.connections.open and server.only.body):
            await asyncio.sleep(0)
        async with contextlib.AsyncExitStack() as stack:
            more = [await stack.enter_async_context(server.client()) for _ in range(MAX_TURNED_AWAY + 3)]
            assert await more[-1].closed()
            assert len(server.connections.open) <= MAX_TURNED_AWAY + 1
            assert (await more[0].ask(get())).status == 503
        assert (await first.ask(b"hello")).body == b"hello"


@on_loop
async def test_too_many_connections_get_503() -> None:
    called, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        await leave.wait()
        return Response(b"ok")

    async with serving(slow, max_connections=1) as server, server.client() as a:
        a.send(get())
        await called.wait()
        async with server.client() as b:
            answer = await b.ask(get())
            assert (answer.status, answer.closes) == (503, True)
            assert answer.fields["retry-after"] == "1"
            assert answer.fields["x-request-id"] in answer.body.decode()
        async with server.client() as c:  # says nothing
            assert await c.closed()
        leave.set()
        assert (await a.response()).status == 200


# The end


@on_loop
async def test_drain_closes_idle_connections_at_once_and_silent_ones_soon() -> None:
    async with serving(ok) as server, server.client() as idle, server.client() as silent:
        await idle.ask(get())
        while len(server.connections.open) < 2:
            await asyncio.sleep(0)
        assert await server.connections.drain(GUARD)
        assert await idle.closed()
        assert await silent.closed()


@on_loop
async def test_drain_tells_idle_services_that_nothing_will_be_started() -> None:
    """A request of a service may be on its way: it must not be lost without a word."""
    async with serving(ok) as server, server.client() as service:
        assert (await service.ask(get("/", "request-timeout: 5s"))).status == 200
        draining = asyncio.ensure_future(server.connections.drain(GUARD))
        await asyncio.sleep(0)
        answer = await service.ask(get())  # it crosses the response
        assert (answer.status, answer.closes) == (503, True)
        assert json.loads(answer.body)["started"] is False
        assert await service.closed()
        service.writer.close()
        assert await draining


@on_loop
async def test_connection_accepted_before_the_drain_is_served() -> None:
    async with serving(ok) as server, server.client() as new:
        while not server.connections.open:
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(server.connections.drain(GUARD))
        await asyncio.sleep(0)
        answer = await new.ask(get())
        assert (answer.status, answer.closes) == (200, True)
        assert await draining


@on_loop
async def test_drain_does_not_wait_for_a_refused_client() -> None:
    async with serving(ok) as server, server.client() as refused:
        await refused.ask(b"GET\r\n\r\n")
        assert repr(server.only).endswith(" closing, 0 requests>")
        before = server.connections.now
        assert await server.connections.drain(GUARD)
        assert server.connections.now == before  # not even one sweep


@on_loop
async def test_drain_lets_a_request_under_way_finish() -> None:
    called, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        await leave.wait()
        return Response(b"ok")

    async with serving(slow) as server, server.client() as client, server.client() as begun:
        begun.send(get()[:-2])
        client.send(get())
        await called.wait()
        while any(c.phase == 1 and not c.wire.buffer for c in server.connections.open):
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(server.connections.drain(GUARD))
        await asyncio.sleep(0)
        answer = await begun.ask(b"x-request-id: mine\r\n\r\n")
        assert (answer.status, answer.closes) == (503, True)
        assert answer.fields["x-request-id"] == "mine"
        assert b'"request_id":"mine"' in answer.body
        assert not draining.done()
        leave.set()
        answer = await client.response()
        assert (answer.status, answer.closes) == (200, True)
        assert await draining


@on_loop
async def test_drain_closes_after_a_response_that_has_begun() -> None:
    more = asyncio.Event()
    stream = Stream(b"first", last=more.wait)
    async with streaming(stream) as server, server.client() as client:
        client.send(get())
        await client.reader.readuntil(b"first\r\n")
        draining = asyncio.ensure_future(server.connections.drain(GUARD))
        await asyncio.sleep(0)
        more.set()
        assert await until_the_end(client) == b"0\r\n\r\n"
        assert await draining


@on_loop
async def test_drain_gives_up_after_its_time_and_abort_ends_the_rest() -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        try:
            await forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with serving(slow) as server, server.client() as client:
        client.send(post(b""))
        await called.wait()
        assert not await server.connections.drain(0)
        assert repr(server.only).endswith(" handling, 1 requests>")
        server.connections.abort()
        await cancelled.wait()
        assert await client.closed()


@on_loop
async def test_drain_without_connections_ends_at_once() -> None:
    async with serving(ok) as server:
        assert await server.connections.drain(0)
