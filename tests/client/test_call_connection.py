"""call_connection.py: one exchange with a server that answers well, badly, slowly or too soon."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from http_ends import on_loop
from raw_servers import OK, Peer, answers, calling, good, raw_server
from tinysvc.client.call_connection import HELD
from tinysvc.client.messages import Incoming
from tinysvc.core.call_errors import CallFailed, CallTimeout
from tinysvc.core.errors import HTTPError, UnencodableResult
from tinysvc.core.settings import Settings

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"


# Answers that are whole


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (OK, "ok"),
        (CHUNKED + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nt: u\r\n\r\n", "abc"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, "ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ],
)
@pytest.mark.parametrize("slowly", [False, True])
@on_loop
async def test_whole_answer_leaves_the_connection_for_the_next_call(response: bytes, body: str, slowly: bool) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            for byte in (response[i : i + 1] for i in range(len(response))) if slowly else [response]:
                peer.send(byte)
                await asyncio.sleep(0)

    async with raw_server(script) as server, calling(server) as caller:
        for _ in range(2):
            assert await caller.text() == body
        assert server.connections == 1


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "until the end"),
        (OK + b"HTTP/1.1 200 OK\r\n", "ok"),  # bytes that nothing has asked for
    ],
)
@on_loop
async def test_connection_that_ends_is_not_used_again(response: bytes, body: str) -> None:
    async with raw_server(answers(response, then="close"), good) as server, calling(server) as caller:
        assert await caller.text() == body
        assert await caller.text("POST") == "ok"
        assert server.connections == 2


@on_loop
async def test_answer_to_head_has_no_body() -> None:
    async with raw_server(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", OK)) as server:
        async with calling(server) as caller:
            assert [await caller.text("HEAD"), await caller.text()] == ["", "ok"]
        assert server.connections == 1


# Answers that are not


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\ncontent-le",
        LONG,
        CHUNKED,
        CHUNKED + b"5\r\nab",
        CHUNKED + b"2\r\nab\r\n",
        CHUNKED + b"2\r\nab\r\n0\r\n",
    ],
)
@on_loop
async def test_answer_that_is_cut_short_is_never_taken_for_whole(response: bytes, then: str) -> None:
    async with raw_server(answers(response, then=then)) as server, calling(server, server) as caller:
        with pytest.raises(CallFailed) as raised:
            await (await caller.send("GET")).body(100)
        assert raised.value.status == 502
        assert len(server.requests) == 1  # it is not repeated, though the call is idempotent


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x00",  # a TLS alert
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        CHUNKED + b"x\r\n",
        CHUNKED + b"2\r\nabc\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20,
    ],
)
@on_loop
async def test_malformed_answer_is_an_error(response: bytes) -> None:
    async with raw_server(answers(response)) as server, calling(server) as caller:
        with pytest.raises(CallFailed) as raised:
            await (await caller.send("GET")).body(100)
        assert raised.value.replica == str(server.address)
        assert len(server.requests) == 1


async def every_piece(incoming: Incoming) -> list[bytes]:
    return [piece async for piece in incoming]


@on_loop
async def test_stream_that_is_cut_in_the_middle_fails_where_it_is_read() -> None:
    async with raw_server(answers(CHUNKED + b"2\r\nab\r\n", then="reset")) as server, calling(server) as caller:
        incoming = await caller.send("GET")
        with pytest.raises(CallFailed) as raised:
            await every_piece(incoming)
        error = raised.value
        assert (error.service, error.replica, error.attempts) == ("callee", str(server.address), 1)
        assert error.answered == 200


@on_loop
async def test_slow_bytes_end_at_the_deadline() -> None:
    async def drips(peer: Peer) -> None:
        await peer.request()
        peer.send(CHUNKED)
        while True:
            peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    async with raw_server(drips) as server, calling(server) as caller:
        begin = monotonic()
        incoming = await caller.send("GET", within=0.15)
        with pytest.raises(CallTimeout, match="not whole"):
            await incoming.body(1000)
        assert 0.14 < monotonic() - begin < 1.0
        assert caller.replicas.every[0].breaker.failures == 0  # it has answered


# Requests


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@on_loop
async def test_streamed_body_is_chunked() -> None:
    async with raw_server(good) as server, calling(server) as caller:
        for _ in range(2):
            assert await caller.text("POST", lambda: pieces_of(b"abc", b"", b"d" * 20)) == "ok"
        assert server.requests[0].endswith(b"\r\n\r\n3\r\nabc\r\n14\r\n" + b"d" * 20 + b"\r\n0\r\n\r\n")
        assert server.connections == 1


@on_loop
async def test_header_with_a_line_end_is_not_sent() -> None:
    async with raw_server(good) as server, calling(server) as caller:
        with pytest.raises(UnencodableResult):
            await caller.send("GET", headers=[("x", "a\r\nb: c")])
        assert server.requests == []
        assert await caller.text() == "ok"


@on_loop
async def test_answer_before_the_end_of_the_request_stops_it() -> None:
    ended = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0)
        finally:
            ended.append(True)

    async def refuses(peer: Peer) -> None:
        await peer.head()
        peer.send(b"HTTP/1.1 413 X\r\ncontent-length: 3\r\n\r\nbig")
        await peer.closed()

    async with raw_server(refuses, good) as server, calling(server, max_body_size=10**9) as caller:
        incoming = await caller.send("POST", endless)
        assert (incoming.status, await incoming.body(10)) == (413, b"big")
        assert await caller.text() == "ok"
        assert server.connections == 2
    assert ended == [True]


@on_loop
async def test_both_bodies_can_be_streams_at_once() -> None:
    async def echoes(peer: Peer) -> None:
        await peer.head()
        peer.send(CHUNKED)
        while not (line := await peer.reader.readline()).startswith(b"0"):
            peer.send(line + await peer.reader.readexactly(int(line, 16) + 2))
        await peer.reader.readline()
        peer.send(b"0\r\n\r\n")
        await peer.closed()

    received: asyncio.Queue[bytes] = asyncio.Queue()

    async def sends_what_it_received() -> AsyncIterator[bytes]:
        yield b"1"
        for _ in range(5):
            yield await received.get() + b"!"

    async with raw_server(echoes) as server, calling(server) as caller:
        incoming = await caller.send("POST", sends_what_it_received)
        pieces = []
        async for piece in incoming:
            pieces.append(piece)
            received.put_nowait(piece)
        assert pieces[-1] == b"1!!!!!"


@on_loop
async def test_error_of_the_authors_iterator_is_the_error_of_the_call() -> None:
    async def fails() -> AsyncIterator[bytes]:
        yield b"x"
        raise ZeroDivisionError

    async def waits(peer: Peer) -> None:
        await peer.head()
        await peer.closed()

    async with raw_server(waits) as server, calling(server) as caller:
        with pytest.raises(ZeroDivisionError):
            await caller.send("POST", fails)
        assert caller.replicas.every[0].breaker.failures == 0


@on_loop
async def test_stream_longer_than_the_limit_is_not_sent() -> None:
    async with raw_server(good) as server, calling(server, max_body_size=1000) as caller:
        with pytest.raises(HTTPError, match="at most 1000"):
            await caller.send("POST", lambda: pieces_of(*[b"x" * 100] * 11))
        assert server.requests == []


# Back-pressure


@on_loop
async def test_callee_is_held_back_by_a_slow_reader() -> None:
    sent = 0

    async def floods(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(CHUNKED)
        for _ in range(400):
            peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await peer.writer.drain()
            sent += 65536
        peer.send(b"0\r\n\r\n")
        await peer.closed()

    async with raw_server(floods) as server, calling(server) as caller:
        incoming = await caller.send("GET")
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 400 * 65536  # the kernel's buffers hold some megabytes
        (connection,) = caller.replicas.every[0].connections.open
        assert connection.inbox.size <= HELD + 300_000
        received = 0
        async for piece in incoming:
            received += len(piece)
        assert received == 400 * 65536


@on_loop
async def test_generator_is_held_back_by_a_slow_callee() -> None:
    made = 0

    async def produces() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(400):
            made += 1
            yield b"x" * 65536

    async def reads_late(peer: Peer) -> None:
        await go.wait()
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received = received[-7:] + await peer.reader.read(1 << 20)
        peer.send(OK)
        await peer.closed()

    go = asyncio.Event()
    async with raw_server(reads_late) as server, calling(server, max_body_size=10**9) as caller:
        call = asyncio.create_task(caller.text("POST", produces))
        before = -1
        while before != made or not made:
            before = made
            await asyncio.sleep(0.1)
        assert made < 400
        go.set()
        assert await call == "ok"
        assert made == 400


# The end of a call


@on_loop
async def test_response_that_is_given_up_closes_its_connection() -> None:
    async with raw_server(answers(CHUNKED)) as server, calling(server) as caller:
        incoming = await caller.send("GET")
        await incoming.aclose()
        while server.open:
            await asyncio.sleep(0.001)


@on_loop
async def test_ended_connection_is_freed_without_the_garbage_collector() -> None:
    import weakref

    async with raw_server(good) as server, calling(server) as caller:
        await caller.text()
        (connection,) = caller.replicas.every[0].connections.open
        seen = weakref.ref(connection)
        gc.disable()
        try:
            caller.replicas.every[0].connections.discard(connection)
            del connection
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert seen() is None
        finally:
            gc.enable()


def test_limits_are_those_of_the_settings() -> None:
    assert Settings().max_body_size > HELD
