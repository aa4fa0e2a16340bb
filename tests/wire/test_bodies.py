"""wire/bodies.py over real sockets: whole and streamed bodies, the memory they hold, and their timeouts."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop

from http_ends import (
    BIG,
    GUARD,
    Client,
    P,
    ReceivedResponse,
    Server,
    echo,
    get,
    ok,
    on_loop,
    post,
    post_chunked,
    responding,
    serving,
)
from tinysvc.core.errors import ProtocolError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Handler, Response
from tinysvc.core.settings import Settings
from tinysvc.wire.bodies import MAX_DISCARD
from tinysvc.wire.inbox import READ_SIZE

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize("framing", [post, post_chunked])
@on_loop
async def test_big_bodies_arrive_and_return(framing: Callable[[bytes], bytes]) -> None:
    body = bytes(range(256)) * 20_000
    async with serving(echo) as server, server.client() as client:
        for _ in range(2):
            assert (await client.ask(framing(body))).body == body


@on_loop
async def test_body_in_a_million_chunks_arrives() -> None:
    async with serving(echo) as server, server.client() as client:
        data = get("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n" * 2**20 + b"0\r\n\r\n"
        assert len((await client.ask(data)).body) == 2**20


def on_any_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on uvloop, and on asyncio's own loop: they read in ways of their own."""

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(GUARD):
            await test(*args, **kwargs)

    @pytest.mark.parametrize("run_in", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
    def run(run_in: Callable[[Coroutine[Any, Any, None]], None], *args: P.args, **kwargs: P.kwargs) -> None:
        run_in(guarded(*args, **kwargs))

    own = inspect.Parameter("run_in", inspect.Parameter.KEYWORD_ONLY)
    named: Any = run
    named.__signature__ = inspect.Signature([*inspect.signature(test).parameters.values(), own])
    return cast("Callable[..., None]", named)


@on_any_loop
async def test_long_body_ends_at_its_declared_length() -> None:
    body, behind = BIG * 4, 2 * READ_SIZE // len(get("/behind"))
    async with serving(echo) as server, server.client() as client:
        for _ in range(2):
            client.send(post(body) + get("/behind") + post(body) + get("/behind") * behind)
            assert (await client.response()).body == body
            assert (await client.response()).body == b""
            assert (await client.response()).body == body
            for _ in range(behind):
                assert (await client.response()).body == b""


@on_any_loop
async def test_long_body_arrives_in_small_pieces() -> None:
    async with serving(echo) as server, server.client() as client:
        client.send(get("/", f"Content-Length: {len(BIG)}", method="POST"))
        for start in range(0, len(BIG), 10_007):
            client.send(BIG[start : start + 10_007])
            await asyncio.sleep(0)
        assert (await client.response()).body == BIG


@on_any_loop
async def test_body_after_a_partial_stream_is_an_error() -> None:
    async def handler(request: Request) -> Response:
        stream = request.stream()
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match="a part of the request's body was streamed before and is not kept"):
            await request.body()
        with pytest.raises(RuntimeError, match="was streamed before"):
            await anext(request.stream())
        return Response(b"refused")

    async with serving(handler) as server:
        for content in (b"small", BIG):
            for framing in (post, post_chunked):
                async with server.client() as client:
                    assert (await client.ask(framing(content))).body == b"refused"


@asynccontextmanager
async def half_sent(server: Server) -> AsyncIterator[Client]:
    """A client whose long body has come to the middle, and is waited for."""
    async with server.client() as client:
        client.send(get("/", f"Content-Length: {len(BIG)}", method="POST") + BIG[: len(BIG) // 2])
        while not any(c.body and c.body._body.received == len(BIG) // 2 for c in server.connections.open):
            await asyncio.sleep(0)
        yield client


@on_any_loop
async def test_stalled_long_body_gets_408() -> None:
    async with serving(echo) as server, half_sent(server) as client:
        server.only.expire(server.connections.now)
        answer = await client.response()
        assert (answer.status, answer.closes) == (408, True)
        assert await client.closed()


@on_any_loop
async def test_every_piece_of_a_long_body_restarts_the_timeout() -> None:
    async with serving(echo) as server, half_sent(server) as client:
        server.only.deadline = 0.0
        client.send(BIG[len(BIG) // 2 :][:1])
        while not server.only.deadline:
            await asyncio.sleep(0)
        assert server.only.deadline > server.connections.now
        assert (await client.ask(BIG[len(BIG) // 2 + 1 :])).body == BIG


@pytest.mark.parametrize("how", ["end", "reset"])
@on_any_loop
async def test_truncated_long_body_raises_400_in_the_handler(how: str) -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def notes(request: Request) -> Response:
        for _ in range(2):
            try:
                await request.body()
            except ProtocolError as error:
                seen.put_nowait(error.status)
        return Response(b"")

    async with serving(notes) as server, half_sent(server) as client:
        if how == "reset":
            client.reset()
        else:
            client.writer.write_eof()
        assert [await seen.get(), await seen.get()] == [400, 400]


@pytest.mark.parametrize("framing", [post, post_chunked])
@on_any_loop
async def test_cancelled_read_of_a_long_body_can_be_repeated(framing: Callable[[bytes], bytes]) -> None:
    data, gave_up = framing(BIG), asyncio.Event()

    async def impatient(request: Request) -> Response:
        reading = asyncio.ensure_future(request.body())
        while server.connections.body_memory < len(BIG) // 3:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
        gave_up.set()
        return await echo(request)

    async with serving(impatient) as server, server.client() as client:
        client.send(data[: len(data) // 2])
        await gave_up.wait()
        assert (await client.ask(data[len(data) // 2 :])).body == BIG


@on_any_loop
async def test_unread_body_stays_with_the_client() -> None:
    called, read = asyncio.Event(), asyncio.Event()

    async def reads_late(request: Request) -> Response:
        called.set()
        await read.wait()
        return await echo(request)

    async with serving(reads_late) as server, server.client() as client:
        client.send(post(BIG * 3))
        await called.wait()
        while server.only.transport.is_reading():
            await asyncio.sleep(0)
        assert server.only.inbox.size <= Settings().max_pipelined + 256 * 1024  # what a loop reads at once
        read.set()
        assert (await client.response()).body == BIG * 3


@on_loop
async def test_held_small_pieces_count_more_than_their_bytes() -> None:
    called, read = asyncio.Event(), asyncio.Event()

    async def reads_late(request: Request) -> Response:
        called.set()
        await read.wait()
        return await echo(request)

    async with serving(reads_late) as server, server.client() as client:
        client.send(get("/", "Content-Length: 100000", method="POST"))
        await called.wait()
        count = 0
        while server.only.transport.is_reading():
            server.only.inbox.put(b"ab")
            count += 1
        assert count < 2000
        read.set()
        assert (await client.ask(b"ab" * (50_000 - count))).body == b"ab" * 50_000


@on_loop
async def test_drain_waits_for_an_arriving_body() -> None:
    async with serving(echo) as server, half_sent(server) as client:
        draining = asyncio.ensure_future(server.connections.drain(GUARD))
        await asyncio.sleep(0)
        assert not draining.done()
        answer = await client.ask(BIG[len(BIG) // 2 :])
        assert (answer.body, answer.closes) == (BIG, True)
        assert await draining


# How much memory all bodies take


ROOM = 3 * len(BIG) // 2
"""For one long body, not for two."""


def refused_for_memory(answer: ReceivedResponse) -> bool:
    return (answer.status, answer.fields.get("retry-after"), answer.closes) == (503, "1", True)


async def count(request: Request) -> Response:
    return Response(b"%d" % sum([len(piece) async for piece in request.stream(kept=True)]))


@pytest.mark.parametrize("handler", [echo, count])
@on_any_loop
async def test_declared_length_without_room_gets_503(handler: Handler) -> None:
    async with serving(handler, max_body_memory=ROOM) as server, half_sent(server) as first, server.client() as second:
        assert refused_for_memory(await second.ask(get("/", f"Content-Length: {ROOM}", method="POST")))
        assert await second.closed()
        assert (await first.ask(BIG[len(BIG) // 2 :])).status == 200
        assert (await first.ask(post(BIG))).status == 200
        assert server.connections.body_memory == 0


@pytest.mark.parametrize("handler", [echo, count])
@on_any_loop
async def test_body_gets_503_if_its_room_is_taken_meanwhile(handler: Handler) -> None:
    async with serving(handler, max_body_memory=ROOM) as server, half_sent(server) as first, server.client() as second:
        second.send(get("/", f"Content-Length: {len(BIG)}", method="POST") + BIG[:-1])
        first.send(BIG[len(BIG) // 2 : -1])
        answers = {asyncio.ensure_future(client.response()): client for client in (first, second)}
        done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert refused_for_memory(done.pop().result())
        served = waiting.pop()
        answers[served].send(BIG[-1:])
        assert (await served).status == 200


@on_any_loop
async def test_chunked_body_without_room_gets_503() -> None:
    async with serving(echo, max_body_memory=ROOM) as server, server.client() as first, server.client() as second:
        assert refused_for_memory(await first.ask(post_chunked(BIG, BIG)))
        assert (await second.ask(post_chunked(BIG))).body == BIG


@on_loop
async def test_memory_is_released_at_the_end_of_the_request() -> None:
    answer = asyncio.Event()

    async def slow(request: Request) -> Response:
        body = await request.body()
        await answer.wait()
        return Response(body)

    async with serving(slow, max_body_memory=ROOM) as server, server.client() as first, server.client() as second:
        first.send(post(BIG))
        while server.connections.body_memory < len(BIG):
            await asyncio.sleep(0)
        assert refused_for_memory(await second.ask(post(BIG)))
        answer.set()
        assert (await first.response()).body == BIG
        assert (await first.ask(post(BIG))).body == BIG
        while server.connections.body_memory:
            await asyncio.sleep(0)


@on_any_loop
async def test_memory_is_released_at_a_disconnect() -> None:
    async with serving(echo, max_body_memory=ROOM) as server, half_sent(server) as client:
        assert server.connections.body_memory == len(BIG) // 2
        task = server.only.task
        client.reset()
        await task
        assert server.connections.body_memory == 0


@on_loop
async def test_discarded_body_needs_no_room() -> None:
    async with serving(ok, max_body_memory=1) as server, server.client() as client:
        for _ in range(2):
            assert not (await client.ask(post(bytes(MAX_DISCARD)))).closes


@on_loop
async def test_streamed_body_needs_no_room() -> None:
    async def through(request: Request) -> Response:
        return Response(b"%d" % sum([len(piece) async for piece in request.stream()]))

    async with serving(through, max_body_memory=1) as server, server.client() as client:
        assert (await client.ask(post(BIG))).body == b"%d" % len(BIG)
        assert (await client.ask(post_chunked(BIG))).body == b"%d" % len(BIG)


# The expectation


@on_loop
async def test_100_is_sent_when_the_handler_reads() -> None:
    read = asyncio.Event()

    async def reads_late(request: Request) -> Response:
        await read.wait()
        return await echo(request)

    async with serving(reads_late) as server, server.client() as client:
        client.send(get("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        while not server.connections.open or not server.only.request:
            await asyncio.sleep(0)
        assert server.only.transport.get_write_buffer_size() == 0
        read.set()
        assert (await client.response()).status == 100
        assert (await client.ask(b"hello")).body == b"hello"
        assert (await client.ask(post(b"again"))).body == b"again"


@on_loop
async def test_100_is_never_sent_within_a_response() -> None:
    async def back(request: Request) -> Response:
        return Response(request.stream(), headers={"content-length": "5"})

    async with serving(back) as server, server.client() as client:
        client.send(get("/", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close\r\n" in head  # who knows whether the body will come?
        client.send(b"hello")
        assert await client.reader.read() == b"hello"


@pytest.mark.parametrize("status", [200, 403])
@on_loop
async def test_100_is_not_sent_for_an_unread_body(status: int) -> None:
    async with serving(responding(lambda: Response(b"no", status))) as server, server.client() as client:
        answer = await client.ask(get("/", "Expect: 100-continue", "Content-Length: 5", method="POST"))
        assert (answer.status, answer.closes) == (status, True)
        client.send(b"hello" + get())  # too late: whether this is a body or not cannot be known
        assert await client.closed()


@pytest.mark.parametrize(
    "data",
    [
        get("/", "Content-Length: 101", method="POST") + b"a",
        get("/", "Content-Length: 101", "Expect: 100-continue", method="POST"),
        get("/", "Transfer-Encoding: chunked", method="POST") + b"65\r\n",
    ],
)
@on_loop
async def test_413_does_not_wait_for_the_body(data: bytes) -> None:
    async with serving(echo, max_body_size=100) as server, server.client() as client:
        answer = await client.ask(data)
        assert (answer.status, answer.closes) == (413, True)
        assert await client.closed()


@on_loop
async def test_client_that_continues_to_send_receives_the_413() -> None:
    async with serving(echo, max_body_size=100) as server, server.client() as client:
        client.send(get("/", "Content-Length: 50000000", method="POST"))
        for _ in range(20):
            client.send(bytes(50_000))
        assert (await client.response()).status == 413


@pytest.mark.parametrize("framing", [post, post_chunked])
@on_loop
async def test_unread_body_is_discarded(framing: Callable[[bytes], bytes]) -> None:
    async with serving(ok) as server, server.client() as client:
        for _ in range(2):
            assert not (await client.ask(framing(bytes(MAX_DISCARD)))).closes


@on_loop
async def test_long_unread_body_closes_the_connection() -> None:
    async with serving(ok) as server, server.client() as client:
        answer = await client.ask(post(bytes(MAX_DISCARD + 1)))
        assert (answer.status, answer.body, answer.closes) == (200, b"ok", True)
        assert await client.closed()


@on_loop
async def test_long_unread_chunked_body_closes_the_connection() -> None:
    async with serving(ok) as server, server.client() as client:
        answer = await client.ask(post_chunked(*[bytes(MAX_DISCARD // 2)] * 3))
        assert answer.status == 200
        assert await client.closed()


@on_loop
async def test_unread_body_after_a_refusal_closes_the_connection() -> None:
    async with serving(responding(lambda: Response(b"no", 403))) as server, server.client() as client:
        answer = await client.ask(get("/", "Content-Length: 5", method="POST"))
        assert (answer.status, answer.closes) == (403, True)


@pytest.mark.parametrize("how", ["end", "reset"])
@on_loop
async def test_truncated_body_raises_400_in_the_handler(how: str) -> None:
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def notes(request: Request) -> Response:
        for _ in range(2):  # and it stays one
            try:
                await request.body()
            except ProtocolError as error:
                seen.put_nowait(error.status)
        return Response(b"")

    async with serving(notes) as server, server.client() as client:
        client.send(get("/", "Content-Length: 5", method="POST") + b"hel")
        while not server.connections.open or not server.only.body:
            await asyncio.sleep(0)
        if how == "reset":
            client.reset()
        else:
            client.writer.write_eof()
        assert [await seen.get(), await seen.get()] == [400, 400]


@on_loop
async def test_body_truncated_by_a_reset_gets_no_response() -> None:
    async with serving(echo) as server, server.client() as client:
        client.send(get("/", "Content-Length: 5", method="POST") + b"hel")
        while not server.connections.open or not server.only.body:
            await asyncio.sleep(0)
        task = server.only.task
        client.reset()
        await task


@on_loop
async def test_handler_that_ignores_a_bad_body_still_closes_the_connection() -> None:
    async def forgives(request: Request) -> AsyncIterator[bytes]:
        try:
            await request.body()
        except ProtocolError as error:
            yield str(error.status).encode()

    async def handler(request: Request) -> Response:
        return Response(forgives(request))

    async with serving(handler) as server, server.client() as client:
        data = get("/", "Transfer-Encoding: chunked", method="POST")
        assert (await client.ask(data + b"zz\r\n" + get("/smuggled"))).body == b"400"
        assert await client.closed()


@on_loop
async def test_cancelled_read_can_be_repeated() -> None:
    gave_up = asyncio.Event()

    async def impatient(request: Request) -> Response:
        try:
            async with asyncio.timeout(0):
                await request.body()
        except TimeoutError:
            gave_up.set()
        return await echo(request)

    async with serving(impatient) as server, server.client() as client:
        client.send(get("/", "Content-Length: 5", method="POST"))
        await gave_up.wait()
        assert (await client.ask(b"hello")).body == b"hello"


# Time


@on_loop
async def test_missing_body_gets_408() -> None:
    async with serving(echo, body_timeout=0.01) as server, server.client() as client:
        answer = await client.ask(get("/", "Content-Length: 5", method="POST") + b"hel")
        assert (answer.status, answer.closes) == (408, True)
        assert await client.closed()


def tick(server: Server, seconds: float = 1.0) -> None:
    """Let time pass: the clock of connections goes once a second, when they are looked at."""
    server.connections.now += seconds
    for connection in [c for c in server.connections.open if c.deadline < server.connections.now]:
        connection.expire(server.connections.now)


async def dripped(server: Server, client: Client, size: int, rate: int) -> int:
    """The bytes of a body that could be sent, at this rate per second, before a response came."""
    client.send(get("/", f"Content-Length: {size}", method="POST"))
    answer = asyncio.ensure_future(client.response())
    sent = 0
    while sent < size and not answer.done():
        client.send(bytes(rate))
        sent += rate
        while (
            server.connections.open
            and not answer.done()
            and server.only.body
            and server.only.body._body.received < sent
        ):
            await asyncio.sleep(0)
        tick(server)
        for _ in range(10):
            await asyncio.sleep(0)
    assert (await answer).status == (200 if sent == size else 408)
    return sent


@pytest.mark.parametrize("size", [100_000, 1_000_000])  # the long one is received into its place
@on_any_loop
async def test_dripping_body_gets_408(size: int) -> None:
    async with serving(echo, body_timeout=30, min_body_rate=500) as server, server.client() as client:
        assert 30 * 100 <= await dripped(server, client, size, 100) < 45 * 100
        assert await client.closed()


@on_loop
async def test_slow_body_above_the_minimum_rate_arrives() -> None:
    async with serving(echo, body_timeout=5, min_body_rate=500) as server, server.client() as client:
        assert await dripped(server, client, 50_000, 500) == 50_000
    async with serving(echo, body_timeout=5, min_body_rate=0) as server, server.client() as client:
        assert await dripped(server, client, 50, 1) == 50


@on_loop
async def test_slow_handler_does_not_use_the_time_of_the_client() -> None:
    read = asyncio.Event()

    async def slow(request: Request) -> Response:
        stream = request.stream()
        first = await anext(stream)
        await read.wait()
        return Response(first + b"".join([piece async for piece in stream]))

    async with serving(slow, body_timeout=5) as server, server.client() as client:
        client.send(get("/", "Content-Length: 5", method="POST") + b"he")
        while not (server.connections.open and server.only.body and server.only.body._body.received):
            await asyncio.sleep(0)
        for _ in range(100):
            tick(server)
        read.set()
        assert (await client.ask(b"llo")).body == b"hello"


@on_loop
async def test_missing_unread_body_closes_without_a_second_response() -> None:
    async with serving(ok, body_timeout=0.01) as server, server.client() as client:
        assert (await client.ask(get("/", "Content-Length: 5", method="POST") + b"hel")).status == 200
        assert await client.closed()
