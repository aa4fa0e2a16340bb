"""http.py over real sockets: answers, bodies, time, and who comes and goes. What is refused is in test_wire.py."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import inspect
import mmap
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import pytest
import uvloop

from http_ends import (
    GUARD,
    Answer,
    Client,
    P,
    Server,
    get,
    logged,
    on_loop,
    post,
    post_chunked,
    reset_on_close,
    serving,
)
from tinysvc.errors import ProtocolError
from tinysvc.http import (
    HANDLER,
    IDLE,
    MAX_DISCARD,
    READ_SIZE,
    SEPARATE_WRITE,
    SLICE,
    WRITE,
)
from tinysvc.messages import Handler, Request, Response
from tinysvc.settings import Settings

pytestmark = pytest.mark.usefixtures("quiet")

# Answers


async def ok(request: Request) -> Response:
    return Response(b"ok")


async def echo(request: Request) -> Response:
    return Response(await request.body())


def answering(make: Callable[[], Response]) -> Handler:
    async def handler(request: Request) -> Response:
        return make()

    return handler


@on_loop
async def test_headers_are_sent_as_they_are() -> None:
    made = Response(b"ok", headers=[("X-A", "1"), ("x-b", "caf\xe9\t")], content_type="text/plain")
    async with serving(answering(lambda: made)) as server, server.client() as client:
        for _ in range(2):
            fields = (await client.ask(get())).fields
            assert (fields["x-a"], fields["x-b"], fields["content-type"]) == ("1", "caf\xe9\t", "text/plain")


@on_loop
async def test_an_answer_says_how_long_it_is_and_when_it_was_made() -> None:
    async with serving(ok) as server, server.client() as client:
        answer = await client.ask(get())
        assert (answer.status, answer.body, answer.fields["content-length"]) == (200, b"ok", "2")
        assert "connection" not in answer.fields


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("streamed", [False, True])
@on_loop
async def test_some_statuses_never_have_a_body(status: int, streamed: bool) -> None:
    stream = Stream(b"not sent")

    def make() -> Response:
        return Response(stream if streamed else b"not sent", status)

    async with serving(answering(make)) as server, server.client() as client:
        for _ in range(2):
            assert (await client.ask(get())).status == status
        assert stream.closed == streamed


@on_loop
async def test_a_status_without_a_name_is_sent_without_one() -> None:
    async with serving(answering(lambda: Response(b"", 299))) as server, server.client() as client:
        assert (await client.ask(get())).status == 299


@on_loop
async def test_head_has_the_fields_of_get_and_no_body() -> None:
    async with serving(ok) as server, server.client() as client:
        client.send(get(method="HEAD") + get())
        assert (await client.answer(head=True)).fields["content-length"] == "2"
        assert (await client.answer()).body == b"ok"


@on_loop
async def test_http_1_0_is_told_that_the_connection_stays() -> None:
    async with serving(ok) as server, server.client() as client:
        answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert answer.fields["connection"] == "keep-alive"
        assert (await client.ask(b"GET / HTTP/1.0\r\n\r\n")).closes
        assert await client.closed()


def with_appended(name: str, value: str) -> Response:
    response = Response(b"ok", headers={"x-a": "1"})
    response.headers.append((name, value))
    return response


def with_content_type(value: str) -> Response:
    response = Response(b"ok")
    response.content_type = value
    return response


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_appended("x", "a\r\nset-cookie: b"),
        lambda: with_appended("x", "a\nset-cookie: b"),
        lambda: with_appended("x", "a\rset-cookie: b"),
        lambda: with_appended("x", "a\0"),
        lambda: with_appended("x", "\N{SNOWMAN}"),
        lambda: with_appended("x: a\r\nset-cookie", "b"),
        lambda: with_appended("", "a"),
        lambda: with_content_type("text/plain\r\nset-cookie: b"),
        lambda: with_content_type("text/plain\n\nbody"),
    ],
)
@on_loop
async def test_no_header_leaves_its_line(make: Callable[[], Response], caplog: pytest.LogCaptureFixture) -> None:
    async with serving(answering(make)) as server, server.client() as client:
        answer = await client.ask(get())
        assert answer.status == 500
        assert not {"x", "x-a", "set-cookie"} & answer.fields.keys()
        assert await client.closed()
    assert len(logged(caplog)) == 1


@on_loop
async def test_a_handler_that_raises_is_answered_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(request: Request) -> Response:
        raise LookupError("secret")

    async with serving(fails) as server, server.client() as client:
        answer = await client.ask(get())
        assert (answer.status, answer.closes) == (500, True)
        assert b"secret" not in answer.body
    assert "this is a bug in tinysvc" in logged(caplog)[0]


# Big answers

BIG = bytes(range(256)) * (9 * SLICE // 512 + 1)  # some slices, and half a one
SIZES = [0, 1, SEPARATE_WRITE - 1, SEPARATE_WRITE, SLICE, SLICE + 1, len(BIG)]


@contextmanager
def mapped(content: bytes) -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, max(1, len(content))) as mapping:
        mapping.write(content)
        yield mapping


@pytest.mark.parametrize("size", SIZES)
@on_loop
async def test_a_view_is_sent_like_bytes(size: int) -> None:
    with mapped(BIG[:size]) as mapping:
        handler = answering(lambda: Response(memoryview(mapping)[:size]))
        async with serving(handler) as server, server.client() as client:
            for _ in range(2):
                assert (await client.ask(get())).body == BIG[:size]
            client.send(get(method="HEAD") + get())
            assert (await client.answer(head=True)).fields["content-length"] == str(size)
            assert (await client.answer()).body == BIG[:size]


@on_loop
async def test_a_view_counts_its_bytes_whatever_they_mean() -> None:
    numbers = array.array("d", [1.0] * 100_000)
    async with serving(answering(lambda: Response(memoryview(numbers)))) as server, server.client() as client:
        assert (await client.ask(get())).body == numbers.tobytes()


@pytest.mark.parametrize("status", [204, 304])
@on_loop
async def test_a_view_is_not_sent_where_there_is_no_body(status: int) -> None:
    async with serving(answering(lambda: Response(memoryview(BIG), status))) as server, server.client() as client:
        for _ in range(2):
            assert (await client.ask(get())).status == status


@on_loop
async def test_nothing_of_a_view_is_kept_while_the_connection_is_idle() -> None:
    with mapped(BIG) as mapping:
        async with serving(answering(lambda: Response(memoryview(mapping)))) as server, server.client() as client:
            assert (await client.ask(get())).body == BIG
            while server.only.phase != IDLE:
                await asyncio.sleep(0)
            mapping.close()  # a BufferError if anybody still looked at it


@on_loop
async def test_a_view_is_let_go_of_when_the_client_leaves() -> None:
    with mapped(bytes(30_000_000)) as mapping:
        async with serving(answering(lambda: Response(memoryview(mapping)))) as server, server.client() as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(get())
            while not server.connections.open or not server.only.write_paused:
                await asyncio.sleep(0)
            task = server.only.task
            client.reset()
            await task
        mapping.close()


@pytest.mark.parametrize("kind", [bytes, memoryview])
@on_loop
async def test_a_big_answer_waits_for_its_reader(kind: Callable[[bytes], Any]) -> None:
    content = kind(bytes(30_000_000))
    async with serving(answering(lambda: Response(content))) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        while not server.connections.open or not server.only.write_paused:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
            assert server.only.transport.get_write_buffer_size() <= SLICE + SEPARATE_WRITE
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.answer()).body) == 30_000_000


@on_loop
async def test_a_half_closed_client_gets_its_big_answer() -> None:
    async with serving(answering(lambda: Response(bytes(30_000_000)))) as server, server.client() as client:
        client.send(get())
        await client.reader.readuntil(b"\r\n\r\n")
        client.writer.write_eof()
        assert len(await client.reader.read()) == 30_000_000


@on_loop
async def test_others_are_served_between_the_slices() -> None:
    async def handler(request: Request) -> Response:
        return Response(bytes(30_000_000) if request.raw_path == "/big" else b"ok")

    async with serving(handler) as server, server.client() as big, server.client() as small:
        big.send(get("/big"))
        await big.reader.readuntil(b"\r\n\r\n")
        assert (await small.ask(get())).body == b"ok"
        assert any(connection.phase in (HANDLER, WRITE) for connection in server.connections.open)
        assert len(await big.reader.readexactly(30_000_000)) == 30_000_000


# Streams


class Stream:
    """A stream under the test's control: it yields `pieces`, then does what `last` says."""

    def __init__(self, *pieces: bytes, last: Callable[[], Awaitable[Any]] | None = None) -> None:
        self.pieces = list(pieces)
        self.last = last
        self.ended = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self.ended.is_set()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        if self.pieces:
            return self.pieces.pop(0)
        if self.last:
            await self.last()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.ended.set()


async def forever() -> None:
    await asyncio.Event().wait()


def streaming(stream: Stream, **options: Any) -> Any:
    return serving(answering(lambda: Response(stream)), **options)


@on_loop
async def test_a_stream_is_sent_in_chunks() -> None:
    stream = Stream(b"a" * 20, b"", b"b")
    async with streaming(stream) as server, server.client() as client:
        answer = await client.ask(get())
        assert answer.fields["transfer-encoding"] == "chunked"
        assert answer.body == b"a" * 20 + b"b"
        assert stream.closed
        assert (await client.ask(get())).body == b""


@on_loop
async def test_a_big_piece_of_a_stream_is_sent_in_chunks() -> None:
    async with streaming(Stream(b"a", BIG, b"b")) as server, server.client() as client:
        assert (await client.ask(get())).body == b"a" + BIG + b"b"


@on_loop
async def test_a_stream_on_http_1_0_ends_with_the_connection() -> None:
    async with streaming(Stream(b"a", b"b")) as server, server.client() as client:
        answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (answer.body, answer.closes) == (b"ab", True)


@on_loop
async def test_head_of_a_stream_closes_it_unread() -> None:
    stream = Stream(b"not sent")
    async with streaming(stream) as server, server.client() as client:
        client.send(get(method="HEAD") + get())
        assert (await client.answer(head=True)).fields["transfer-encoding"] == "chunked"
        assert stream.closed
        assert (await client.answer()).body == b"not sent"


async def fail() -> None:
    raise LookupError("half-way")


@on_loop
async def test_a_stream_that_fails_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(b"first", last=fail)
    async with streaming(stream) as server, server.client() as client:
        client.send(get())
        received = await until_the_end(client)
        assert not received.endswith(b"0\r\n\r\n")
        assert stream.closed
    (line,) = logged(caplog)
    assert re.fullmatch(r"<Request GET /> \([0-9a-f]{12}-\d+\): the stream failed half-way and was cut off", line)


async def until_the_end(client: Client) -> bytes:
    received = b""
    try:
        while data := await client.reader.read(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


@on_loop
async def test_a_stream_that_yields_no_bytes_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(b"first", "text")  # type: ignore[arg-type]
    async with streaming(stream) as server, server.client() as client:
        client.send(get())
        assert not (await until_the_end(client)).endswith(b"0\r\n\r\n")
    assert len(logged(caplog)) == 1


@on_loop
async def test_a_stream_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Stream):
        async def aclose(self) -> None:
            raise LookupError

    async with streaming(Bad(b"a")) as server, server.client() as client:
        assert (await client.ask(get())).body == b"a"
    assert len(logged(caplog)) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["end", "reset"])
@on_loop
async def test_a_client_that_leaves_in_mid_stream_closes_it(method: str, how: str) -> None:
    async def endless() -> None:
        stream.pieces.append(b"more")
        await asyncio.sleep(0)

    stream = Stream(b"first", last=endless)
    async with streaming(stream) as server, server.client() as client:
        client.send(get(method=method))
        await client.reader.readuntil(b"first")
        if how == "reset":
            client.reset()
        else:
            client.writer.close()
        await stream.ended.wait()


@on_loop
async def test_a_client_that_leaves_a_silent_stream_closes_it() -> None:
    stream = Stream(b"first", last=forever)
    async with streaming(stream) as server, server.client() as client:
        client.send(get())
        await client.reader.readuntil(b"first")
        client.writer.close()
        await stream.ended.wait()


@on_loop
async def test_an_unread_stream_is_closed_when_the_client_has_gone() -> None:
    stream, called, leave = Stream(b"a"), asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        await leave.wait()
        return Response(stream)

    async with serving(slow) as server, server.client() as client:
        client.send(post(b""))
        await called.wait()
        client.reset()
        connection = server.only
        while not connection.gone:
            await asyncio.sleep(0)
        leave.set()
        await stream.ended.wait()


@on_loop
async def test_a_stream_may_read_the_body_it_answers() -> None:
    async def back(request: Request) -> Response:
        return Response(request.stream())

    async with serving(back) as server, server.client() as client:
        assert (await client.ask(post_chunked(b"a" * 5, b"b"))).body == b"a" * 5 + b"b"
        assert (await client.ask(post(b"c"))).body == b"c"
        client.send(get("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n")
        await client.reader.readuntil(b"a\r\n")
        client.send(b"zz\r\n")  # the client's own fault: nothing for the log
        assert await client.closed()


def sized(stream: Stream, length: int, status: int = 200) -> Callable[[], Response]:
    return lambda: Response(stream, status, {"content-length": str(length)}, content_type="text/plain")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@on_loop
async def test_a_stream_that_says_its_length_is_sent_so_long(version: str) -> None:
    async with serving(answering(sized(Stream(b"hel", b"", b"lo"), 5))) as server, server.client() as client:
        answer = await client.ask(f"GET / HTTP/{version}\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".encode())
        assert (answer.body, answer.fields["content-length"]) == (b"hello", "5")
        assert "transfer-encoding" not in answer.fields
        assert not answer.closes


@pytest.mark.parametrize(
    ("length", "came", "says"), [(9, b"hello", "4 bytes shorter"), (4, b"", "longer than its content-length, by 1")]
)
@on_loop
async def test_a_stream_of_another_length_is_cut_off(
    length: int, came: bytes, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(b"hello")
    async with serving(answering(sized(stream, length))) as server, server.client() as client:
        client.send(get() + get())
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert f"content-length: {length}\r\n".encode() in head
        with contextlib.suppress(ConnectionResetError):
            assert came.startswith(await client.reader.read())
        await stream.ended.wait()
    (error,) = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert says in str(error)
    assert [message[:15] for message in logged(caplog)] == ["<Request GET />"]


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@on_loop
async def test_where_there_is_no_body_its_length_may_be_said(method: str, status: int) -> None:
    stream = Stream(b"hello")
    async with serving(answering(sized(stream, 5, status))) as server, server.client() as client:
        client.send(get(method=method))
        answer = await client.answer(head=True)
        assert answer.fields.get("content-length") == ("5" if status == 200 else None)
        assert (answer.status, stream.closed) == (status, True)


# Bodies


@pytest.mark.parametrize("framing", [post, post_chunked])
@on_loop
async def test_big_bodies_up_and_down(framing: Callable[[bytes], bytes]) -> None:
    body = bytes(range(256)) * 20_000
    async with serving(echo) as server, server.client() as client:
        for _ in range(2):
            assert (await client.ask(framing(body))).body == body


@on_loop
async def test_a_body_in_a_million_chunks() -> None:
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
async def test_a_long_body_ends_where_it_says() -> None:
    body, behind = BIG * 4, 2 * READ_SIZE // len(get("/behind"))
    async with serving(echo) as server, server.client() as client:
        for _ in range(2):
            client.send(post(body) + get("/behind") + post(body) + get("/behind") * behind)
            assert (await client.answer()).body == body
            assert (await client.answer()).body == b""
            assert (await client.answer()).body == body
            for _ in range(behind):
                assert (await client.answer()).body == b""


@on_any_loop
async def test_a_long_body_in_small_pieces() -> None:
    async with serving(echo) as server, server.client() as client:
        client.send(get("/", f"Content-Length: {len(BIG)}", method="POST"))
        for start in range(0, len(BIG), 10_007):
            client.send(BIG[start : start + 10_007])
            await asyncio.sleep(0)
        assert (await client.answer()).body == BIG


@on_any_loop
async def test_a_long_body_that_is_streamed_before_the_rest_of_it_is_read() -> None:
    async def handler(request: Request) -> Response:
        stream = request.stream()
        first = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return Response(first + await request.body())

    async with serving(handler) as server, server.client() as client:
        for framing in (post, post_chunked):
            assert (await client.ask(framing(BIG))).body == BIG


@asynccontextmanager
async def half_sent(server: Server) -> AsyncIterator[Client]:
    """A client whose long body has come to the middle, and is waited for."""
    async with server.client() as client:
        client.send(get("/", f"Content-Length: {len(BIG)}", method="POST") + BIG[: len(BIG) // 2])
        while not any(c.body and c.body._received == len(BIG) // 2 for c in server.connections.open):
            await asyncio.sleep(0)
        yield client


@on_any_loop
async def test_a_long_body_that_stalls_is_a_408() -> None:
    async with serving(echo) as server, half_sent(server) as client:
        server.only.expire(server.connections.now)
        answer = await client.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert await client.closed()


@on_any_loop
async def test_every_piece_of_a_long_body_renews_its_time() -> None:
    async with serving(echo) as server, half_sent(server) as client:
        server.only.deadline = 0.0
        client.send(BIG[len(BIG) // 2 :][:1])
        while not server.only.deadline:
            await asyncio.sleep(0)
        assert server.only.deadline > server.connections.now
        assert (await client.ask(BIG[len(BIG) // 2 + 1 :])).body == BIG


@pytest.mark.parametrize("how", ["end", "reset"])
@on_any_loop
async def test_a_long_body_cut_short_is_a_400_to_the_handler(how: str) -> None:
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
async def test_who_gives_up_a_long_body_half_way_may_ask_again(framing: Callable[[bytes], bytes]) -> None:
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
async def test_what_a_handler_does_not_read_yet_is_left_with_its_client() -> None:
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
        assert sum(map(len, server.only._held)) <= Settings().max_pipelined + 256 * 1024  # what a loop reads at once
        read.set()
        assert (await client.answer()).body == BIG * 3


@on_loop
async def test_small_pieces_that_are_held_count_more_than_their_bytes() -> None:
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
            server.only.data_received(b"ab")
            count += 1
        assert count < 2000
        read.set()
        assert (await client.ask(b"ab" * (50_000 - count))).body == b"ab" * 50_000


@on_loop
async def test_a_drain_waits_for_a_body_that_is_under_way() -> None:
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


def refused_for_memory(answer: Answer) -> bool:
    return (answer.status, answer.fields.get("retry-after"), answer.closes) == (503, "1", True)


async def count(request: Request) -> Response:
    return Response(b"%d" % sum([len(piece) async for piece in request.stream(kept=True)]))


@pytest.mark.parametrize("handler", [echo, count])
@on_any_loop
async def test_a_body_there_is_no_room_for_is_refused_by_its_length(handler: Handler) -> None:
    async with serving(handler, max_body_memory=ROOM) as server, half_sent(server) as first, server.client() as second:
        assert refused_for_memory(await second.ask(get("/", f"Content-Length: {ROOM}", method="POST")))
        assert await second.closed()
        assert (await first.ask(BIG[len(BIG) // 2 :])).status == 200
        assert (await first.ask(post(BIG))).status == 200
        assert server.connections.body_memory == 0


@pytest.mark.parametrize("handler", [echo, count])
@on_any_loop
async def test_a_body_whose_room_is_taken_meanwhile_is_refused(handler: Handler) -> None:
    async with serving(handler, max_body_memory=ROOM) as server, half_sent(server) as first, server.client() as second:
        second.send(get("/", f"Content-Length: {len(BIG)}", method="POST") + BIG[:-1])
        first.send(BIG[len(BIG) // 2 : -1])
        answers = {asyncio.ensure_future(client.answer()): client for client in (first, second)}
        done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert refused_for_memory(done.pop().result())
        served = waiting.pop()
        answers[served].send(BIG[-1:])
        assert (await served).status == 200


@on_any_loop
async def test_a_chunked_body_there_is_no_room_for_is_refused() -> None:
    async with serving(echo, max_body_memory=ROOM) as server, server.client() as first, server.client() as second:
        assert refused_for_memory(await first.ask(post_chunked(BIG, BIG)))
        assert (await second.ask(post_chunked(BIG))).body == BIG


@on_loop
async def test_memory_is_held_until_the_request_ends_and_no_longer() -> None:
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
        assert (await first.answer()).body == BIG
        assert (await first.ask(post(BIG))).body == BIG
        while server.connections.body_memory:
            await asyncio.sleep(0)


@on_any_loop
async def test_memory_is_given_back_when_a_client_vanishes() -> None:
    async with serving(echo, max_body_memory=ROOM) as server, half_sent(server) as client:
        assert server.connections.body_memory == len(BIG) // 2
        task = server.only.task
        client.reset()
        await task
        assert server.connections.body_memory == 0


@on_loop
async def test_a_body_that_is_swallowed_needs_no_room() -> None:
    async with serving(ok, max_body_memory=1) as server, server.client() as client:
        for _ in range(2):
            assert not (await client.ask(post(bytes(MAX_DISCARD)))).closes


@on_loop
async def test_a_body_that_streams_through_needs_no_room() -> None:
    async def through(request: Request) -> Response:
        return Response(b"%d" % sum([len(piece) async for piece in request.stream()]))

    async with serving(through, max_body_memory=1) as server, server.client() as client:
        assert (await client.ask(post(BIG))).body == b"%d" % len(BIG)
        assert (await client.ask(post_chunked(BIG))).body == b"%d" % len(BIG)


# The expectation


@on_loop
async def test_continue_is_said_when_the_handler_reads() -> None:
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
        assert (await client.answer()).status == 100
        assert (await client.ask(b"hello")).body == b"hello"
        assert (await client.ask(post(b"again"))).body == b"again"


@pytest.mark.parametrize("status", [200, 403])
@on_loop
async def test_continue_is_not_said_when_the_handler_does_not_read(status: int) -> None:
    async with serving(answering(lambda: Response(b"no", status))) as server, server.client() as client:
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
async def test_a_body_over_the_limit_is_not_waited_for(data: bytes) -> None:
    async with serving(echo, max_body_size=100) as server, server.client() as client:
        answer = await client.ask(data)
        assert (answer.status, answer.closes) == (413, True)
        assert await client.closed()


@on_loop
async def test_the_answer_to_a_body_over_the_limit_is_seen_by_a_client_that_sends_on() -> None:
    async with serving(echo, max_body_size=100) as server, server.client() as client:
        client.send(get("/", "Content-Length: 50000000", method="POST"))
        for _ in range(20):
            client.send(bytes(50_000))
        assert (await client.answer()).status == 413


@pytest.mark.parametrize("framing", [post, post_chunked])
@on_loop
async def test_an_unread_body_is_swallowed(framing: Callable[[bytes], bytes]) -> None:
    async with serving(ok) as server, server.client() as client:
        for _ in range(2):
            assert not (await client.ask(framing(bytes(MAX_DISCARD)))).closes


@on_loop
async def test_an_unread_body_too_long_to_swallow_closes() -> None:
    async with serving(ok) as server, server.client() as client:
        answer = await client.ask(post(bytes(MAX_DISCARD + 1)))
        assert (answer.status, answer.body, answer.closes) == (200, b"ok", True)
        assert await client.closed()


@on_loop
async def test_an_unread_chunked_body_too_long_to_swallow_closes() -> None:
    async with serving(ok) as server, server.client() as client:
        answer = await client.ask(post_chunked(*[bytes(MAX_DISCARD // 2)] * 3))
        assert answer.status == 200
        assert await client.closed()


@on_loop
async def test_a_body_that_a_refusing_handler_did_not_read_closes() -> None:
    async with serving(answering(lambda: Response(b"no", 403))) as server, server.client() as client:
        answer = await client.ask(get("/", "Content-Length: 5", method="POST"))
        assert (answer.status, answer.closes) == (403, True)


@pytest.mark.parametrize("how", ["end", "reset"])
@on_loop
async def test_a_body_cut_short_is_a_400_to_the_handler(how: str) -> None:
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
async def test_a_body_cut_short_by_a_reset_is_answered_to_nobody() -> None:
    async with serving(echo) as server, server.client() as client:
        client.send(get("/", "Content-Length: 5", method="POST") + b"hel")
        while not server.connections.open or not server.only.body:
            await asyncio.sleep(0)
        task = server.only.task
        client.reset()
        await task


@on_loop
async def test_a_stream_that_forgives_a_bad_body_closes_behind_its_answer() -> None:
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
async def test_a_handler_may_give_up_a_read_and_try_again() -> None:
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


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", get()[:-2]])
@on_loop
async def test_a_head_that_does_not_come_is_a_408(sent: bytes) -> None:
    async with serving(ok, header_timeout=0.01) as server, server.client() as client:
        assert (await client.ask(sent)).status == 408
        assert await client.closed()


@on_loop
async def test_the_time_of_a_head_runs_from_its_first_byte_behind_another_request() -> None:
    async with serving(ok, header_timeout=0.01, keep_alive_timeout=1000) as server, server.client() as client:
        assert (await client.ask(get() + b"GET /")).status == 200
        assert (await client.answer()).status == 408


@on_loop
async def test_a_client_that_says_nothing_is_closed_without_an_answer() -> None:
    async with serving(ok, first_byte_timeout=0.01) as server, server.client() as client:
        assert await client.closed()


@on_loop
async def test_an_idle_connection_is_closed_without_an_answer() -> None:
    async with serving(ok, keep_alive_timeout=0.01) as server, server.client() as client:
        await client.ask(get())
        assert await client.closed()


@on_loop
async def test_a_body_that_does_not_come_is_a_408() -> None:
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
    """How many bytes of a body could be sent, so many a second, until an answer came."""
    client.send(get("/", f"Content-Length: {size}", method="POST"))
    answer = asyncio.ensure_future(client.answer())
    sent = 0
    while sent < size and not answer.done():
        client.send(bytes(rate))
        sent += rate
        while server.connections.open and not answer.done() and server.only.body and server.only.body._received < sent:
            await asyncio.sleep(0)
        tick(server)
        for _ in range(10):
            await asyncio.sleep(0)
    assert (await answer).status == (200 if sent == size else 408)
    return sent


@pytest.mark.parametrize("size", [100_000, 1_000_000])  # the long one is received into its place
@on_any_loop
async def test_a_body_that_drips_is_given_up(size: int) -> None:
    async with serving(echo, body_timeout=30, min_body_rate=500) as server, server.client() as client:
        assert 30 * 100 <= await dripped(server, client, size, 100) < 45 * 100
        assert await client.closed()


@on_loop
async def test_a_body_that_is_slow_but_not_too_slow_arrives() -> None:
    async with serving(echo, body_timeout=5, min_body_rate=500) as server, server.client() as client:
        assert await dripped(server, client, 50_000, 500) == 50_000
    async with serving(echo, body_timeout=5, min_body_rate=0) as server, server.client() as client:
        assert await dripped(server, client, 50, 1) == 50


@on_loop
async def test_a_handler_that_reads_slowly_costs_its_client_no_time() -> None:
    read = asyncio.Event()

    async def slow(request: Request) -> Response:
        stream = request.stream()
        first = await anext(stream)
        await read.wait()
        return Response(first + b"".join([piece async for piece in stream]))

    async with serving(slow, body_timeout=5) as server, server.client() as client:
        client.send(get("/", "Content-Length: 5", method="POST") + b"he")
        while not (server.connections.open and server.only.body and server.only.body._received):
            await asyncio.sleep(0)
        for _ in range(100):
            tick(server)
        read.set()
        assert (await client.ask(b"llo")).body == b"hello"


@on_loop
async def test_an_unread_body_that_does_not_come_closes_without_a_second_answer() -> None:
    async with serving(ok, body_timeout=0.01) as server, server.client() as client:
        assert (await client.ask(get("/", "Content-Length: 5", method="POST") + b"hel")).status == 200
        assert await client.closed()


@on_loop
async def test_a_handler_may_take_longer_than_all_timeouts() -> None:
    swept = asyncio.Event()

    async def slow(request: Request) -> Response:
        asyncio.get_running_loop().call_later(1.5, swept.set)  # the sweep comes once a second
        await swept.wait()
        return Response(b"ok")

    short = dict.fromkeys(["header_timeout", "body_timeout", "keep_alive_timeout", "write_timeout"], 0.01)
    async with serving(slow, **short) as server, server.client() as client:
        assert (await client.ask(get())).status == 200


@pytest.mark.parametrize("kind", ["bytes", "view", "stream"])
@on_loop
async def test_a_client_that_does_not_read_is_cut_off(kind: str) -> None:
    stream, streamed = Stream(*[bytes(1_000_000)] * 30), kind == "stream"
    whole = bytes(30_000_000)
    made = Response(stream if streamed else memoryview(whole) if kind == "view" else whole)
    async with serving(answering(lambda: made), write_timeout=0.01) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        while not server.connections.open:
            await asyncio.sleep(0)
        task = server.only.task
        await task
        assert not server.connections.open or server.only.gone
        assert stream.closed == streamed


@on_loop
async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    async with serving(answering(lambda: Response(bytes(40_000_000)))) as server, server.client() as client:
        client.send(get())
        await client.reader.readuntil(b"\r\n\r\n")
        connection = server.only
        for _ in range(3):
            connection.deadline = 0.0
            await client.reader.readexactly(10_000_000)
            if connection.deadline < server.connections.now:  # its time is over, but something was read in it
                connection.expire(server.connections.now)
            assert not connection.transport.is_closing()
        assert len(await client.reader.readexactly(10_000_000)) == 10_000_000


@on_loop
async def test_a_refused_client_that_does_not_leave_is_closed() -> None:
    async with serving(ok) as server, server.client() as client:
        assert (await client.ask(b"GET\r\n\r\n")).status == 400
        assert await client.closed()
        connection = server.only
        connection.expire(0)
        await connection.task


# Coming and going


@on_loop
async def test_a_connection_answers_so_many_requests_and_no_more() -> None:
    async with serving(ok, max_requests=2) as server, server.client() as client:
        client.send(get() * 3)
        assert not (await client.answer()).closes
        assert (await client.answer()).closes
        assert await client.closed()


@on_loop
async def test_the_oldest_idle_connection_makes_room() -> None:
    async with serving(ok, max_connections=2) as server, server.client() as a, server.client() as b:
        await a.ask(get())
        await b.ask(get())
        async with server.client() as c:
            assert await a.closed()
            assert (await b.ask(get())).status == 200
            assert (await c.ask(get())).status == 200


@on_loop
async def test_every_newcomer_takes_another_idle_connection_s_place() -> None:
    async with serving(ok, max_connections=2) as server, server.client() as a, server.client() as b:
        await a.ask(get())
        await b.ask(get())
        async with connected(server), connected(server):  # before either place is free
            assert await a.closed()
            assert await b.closed()


@on_loop
async def test_a_connection_whose_request_has_just_come_is_not_idle() -> None:
    async with serving(ok) as server, server.client() as client:
        await client.ask(get())
        server.only.data_received(get())  # and in the same turn of the loop
        assert not server.only.end_when_idle()
        assert (await client.answer()).status == 200
        assert (await client.ask(get())).status == 200


@on_loop
async def test_a_request_that_comes_as_the_connection_closes_is_not_answered() -> None:
    async with serving(ok) as server, server.client() as client:
        await client.ask(get())
        assert server.only.end_when_idle()
        server.only.data_received(get())
        assert await client.closed()


@on_loop
async def test_time_that_runs_out_as_the_client_leaves_changes_nothing() -> None:
    async with serving(ok) as server, server.client() as client:
        await client.ask(get())
        server.only.eof_received()
        server.only.expire(0)
        assert await client.closed()


@on_loop
async def test_too_many_connections_are_answered_503() -> None:
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
        async with server.client() as c:  # says nothing
            assert await c.closed()
        leave.set()
        assert (await a.answer()).status == 200


@pytest.mark.parametrize("how", ["end", "reset"])
@on_loop
async def test_get_is_cancelled_when_the_client_leaves_and_may_clean_up(how: str) -> None:
    called, cleaned = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        connection = server.only
        called.set()
        try:
            await forever()
        finally:
            connection.transport.abort()
            while not connection.gone:  # the loss behind an end of file does not cancel a second time
                await asyncio.sleep(0)
            cleaned.set()
        raise AssertionError

    async with serving(slow) as server, server.client() as client:
        client.send(get())
        await called.wait()
        if how == "reset":
            client.reset()
        else:
            client.writer.write_eof()
        await cleaned.wait()


@pytest.mark.parametrize("how", ["end", "reset"])
@on_loop
async def test_post_finishes_when_the_client_leaves(how: str) -> None:
    called, leave, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        await leave.wait()
        finished.set()
        return Response(b"ok")

    async with serving(slow) as server, server.client() as client:
        client.send(post(b"hello"))
        await called.wait()
        connection = server.only
        if how == "reset":
            client.reset()
            while not connection.gone:
                await asyncio.sleep(0)
        else:
            client.writer.write_eof()
        leave.set()
        await finished.wait()
        if how == "end":
            assert (await client.answer()).body == b"ok"


@on_loop
async def test_a_job_is_told_once_that_its_client_has_left() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    called = asyncio.Event()

    async def job(request: Request) -> Response:
        connection = server.only
        request.on_disconnect = lambda: told.put_nowait(request.raw_path)
        called.set()
        await told.get()
        connection.transport.abort()
        while not connection.gone:
            await asyncio.sleep(0)
        assert told.empty()
        finished.set()
        return Response(b"")

    finished = asyncio.Event()
    async with serving(job) as server, server.client() as client:
        client.send(get("/job"))
        await called.wait()
        client.writer.write_eof()
        await finished.wait()


@on_loop
async def test_a_half_closed_client_gets_its_answer() -> None:
    async with serving(echo) as server, server.client() as client:
        client.send(post(b"hello") + get())
        client.writer.write_eof()
        assert (await client.answer()).body == b"hello"
        assert (await client.answer()).status == 200
        assert await client.closed()


@pytest.mark.parametrize("half_close", [True, False])
@on_loop
async def test_a_half_closed_client_waits_for_its_answer_if_the_server_says_so(half_close: bool) -> None:
    called, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        await go.wait()
        return Response(b"late")

    async with serving(slow, half_close=half_close) as server, server.client() as client:
        client.send(get())
        await called.wait()
        client.writer.write_eof()
        while not server.only.ended:
            await asyncio.sleep(0)
        go.set()
        if half_close:
            assert (await client.answer()).body == b"late"
        assert await client.closed()


@on_loop
async def test_a_half_closed_client_that_leaves_altogether_is_noticed() -> None:
    called, cancelled = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        try:
            await forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with serving(slow, half_close=True) as server, server.client() as client:
        client.send(get())
        await called.wait()
        client.reset()
        await cancelled.wait()


@pytest.mark.parametrize("path", ["/", "/" + "a" * 29])  # 64 bytes long, it divides every power of two
@pytest.mark.parametrize("waits", [False, True])
@on_loop
async def test_who_pipelines_does_not_keep_others_waiting(path: str, waits: bool) -> None:
    turns, loop = 0, asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    at: list[int] = []

    async def note(request: Request) -> Response:
        at.append(turns)
        return Response(b"ok")

    async with serving(note, max_requests=20_000) as server, connected(server) as client:
        if waits:
            await loop.sock_sendall(client, get())
            await loop.sock_recv(client, 65536)
        at.clear()
        turn()
        server.only.data_received(get(path) * 10_000)  # the loop's own reads are of up to 256 KB
        while len(at) < 10_000:
            assert await loop.sock_recv(client, 1_000_000)
        assert max(at.count(t) for t in set(at)) <= READ_SIZE // len(get(path)) + 1


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[socket.socket]:
    """A bare socket that the server has accepted already."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        await asyncio.get_running_loop().connect_accepted_socket(server.connections, theirs)
        yield ours


@on_loop
async def test_a_flood_of_requests_without_reading_the_answers_is_held_back() -> None:
    served = 0

    async def big(request: Request) -> Response:
        nonlocal served
        served += 1
        return Response(bytes(10_000))

    async with serving(big) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get() * 100_000)
        while not server.connections.open or not server.only.write_paused:
            await asyncio.sleep(0)
        paused = served
        for _ in range(100):
            await asyncio.sleep(0)
        assert served <= paused + 10
        client.reset()


@on_loop
async def test_clients_that_vanish_leave_no_trace() -> None:
    async def answer(request: Request) -> Response:
        return Response(bytes(100_000))

    request = post_chunked(b"hello", b"world") + get()
    async with serving(answer) as server:
        for length in range(len(request) + 1):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.send(request[:length])
                if length % 2:
                    reset_on_close(client)
                for _ in range(length % 4):
                    await asyncio.sleep(0)
        async with server.client() as good:
            assert (await good.ask(get())).status == 200
            while len(server.connections.open) > 1:
                await asyncio.sleep(0)
    gc.collect()


# The end


@on_loop
async def test_drain_closes_idle_and_silent_connections_at_once() -> None:
    async with serving(ok) as server, server.client() as idle, server.client() as silent:
        await idle.ask(get())
        while len(server.connections.open) < 2:
            await asyncio.sleep(0)
        assert await server.connections.drain(GUARD)
        assert await idle.closed()
        assert await silent.closed()


@on_loop
async def test_drain_does_not_wait_for_a_refused_client_to_leave() -> None:
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
        while any(c.phase == 1 and not c.buffer for c in server.connections.open):
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(server.connections.drain(GUARD))
        await asyncio.sleep(0)
        answer = await begun.ask(b"\r\n")
        assert (answer.status, answer.closes) == (503, True)
        assert not draining.done()
        leave.set()
        answer = await client.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert await draining


@on_loop
async def test_drain_closes_behind_an_answer_that_had_begun() -> None:
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
        assert repr(server.only).endswith(" handling, 10000 requests>")
        server.connections.abort()
        await cancelled.wait()
        assert await client.closed()


@on_loop
async def test_drain_without_connections_ends_at_once() -> None:
    async with serving(ok) as server:
        assert await server.connections.drain(0)
