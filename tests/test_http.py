"""http.py over real sockets: answers, bodies, time, and who comes and goes. What is refused is in test_wire.py."""

from __future__ import annotations

import array
import asyncio
import contextlib
import gc
import mmap
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from http_ends import (
    BIG,
    GUARD,
    Client,
    Server,
    answering,
    echo,
    get,
    logged,
    ok,
    on_loop,
    post,
    post_chunked,
    reset_on_close,
    serving,
)
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.http import HANDLER, IDLE, MAX_TURNED_AWAY, SEPARATE_WRITE, WRITE
from tinysvc.wire.bodies import COPY_SIZE, READ_SIZE

pytestmark = pytest.mark.usefixtures("quiet")

# Answers


@on_loop
async def test_headers_are_sent_as_they_are() -> None:
    made = Response(b"ok", headers=[("X-A", "1"), ("x-b", "caf\xe9\t")], content_type="text/plain")
    async with serving(answering(lambda: made)) as server, server.client() as client:
        for _ in range(2):
            fields = (await client.ask(get())).fields
            assert (fields["x-a"], fields["x-b"], fields["content-type"]) == ("1", "caf\xe9\t", "text/plain")


@pytest.mark.parametrize(
    ("said", "cookie", "authorization", "expected"),
    [
        ("public, max-age=5", "set-cookie", "", "private, max-age=5"),
        ("max-age=5, s-maxage=9", "Set-Cookie", "", "private, max-age=5"),
        ("Public, max-age=5", "", "Bearer a", "private, max-age=5"),
        ("no-store, max-age=0", "set-cookie", "Bearer a", "no-store, max-age=0"),
        ("no-cache", "set-cookie", "Bearer a", "no-cache"),
        ("public, max-age=5", "", "", "public, max-age=5"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
@on_loop
async def test_no_shared_cache_keeps_what_is_for_one_client(
    said: str, cookie: str, authorization: str, expected: str, streamed: bool
) -> None:
    def make() -> Response:
        response = Response(Stream(b"ok") if streamed else b"ok")
        response.headers += [("Cache-Control", said), *([(cookie, "a=b")] if cookie else [])]
        return response

    fields = [f"authorization: {authorization}"] if authorization else []
    async with serving(answering(make)) as server, server.client() as client:
        answer = await client.ask(get("/", *fields))
        assert answer.fields["cache-control"] == expected
        assert ("set-cookie" in answer.fields) == bool(cookie)


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

SIZES = [0, 1, SEPARATE_WRITE - 1, SEPARATE_WRITE, COPY_SIZE, COPY_SIZE + 1, len(BIG)]


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
            assert server.only.transport.get_write_buffer_size() <= COPY_SIZE + SEPARATE_WRITE
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
    assert re.fullmatch(
        r"<Request GET /> \([0-9a-f]{12}-\d+\): the stream failed half-way and was cut off: .*", line.split("\n")[0]
    )
    assert "\n    LookupError: half-way" in line


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
async def test_a_disconnect_before_the_end_of_a_stream_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def until_it_is_lost() -> None:
        while server.connections.open:
            await asyncio.sleep(0)

    stream = Stream(b"first", last=until_it_is_lost)
    async with streaming(stream) as server, server.client() as client:
        client.send(get(method="POST"))
        await client.reader.readuntil(b"first")
        client.reset()
        await stream.ended.wait()
    assert logged(caplog) == []


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
async def test_a_head_that_came_in_pieces_is_forgotten_when_it_is_whole() -> None:
    """What of it was looked at already is no part of the next head."""
    async with serving(ok) as server, server.client() as client:
        assert (await client.ask(get())).status == 200
        client.send(get()[:-3])
        while len(server.only.buffer) < len(get()) - 3:
            await asyncio.sleep(0)
        client.send(get()[-3:] + b"GET\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 400
        assert await client.closed()


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
    ("length", "came", "says"), [(9, b"hello", "4 bytes shorter"), (4, b"", "1 bytes, or more, longer")]
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
    (line,) = logged(caplog)
    assert line.startswith("<Request GET /> ")
    assert says in line
    assert "\n" not in line


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
@on_loop
async def test_where_there_is_no_body_its_length_may_be_said(method: str, status: int) -> None:
    stream = Stream(b"hello")
    async with serving(answering(sized(stream, 5, status))) as server, server.client() as client:
        client.send(get(method=method))
        answer = await client.answer(head=True)
        assert answer.fields.get("content-length") == ("5" if status == 200 else None)
        assert (answer.status, stream.closed) == (status, True)


# Time


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", get()[:-2]])
@on_loop
async def test_a_head_that_does_not_come_is_a_408(sent: bytes) -> None:
    async with serving(ok, header_timeout=0.01) as server, server.client() as client:
        assert (await client.ask(sent)).status == 408
        assert await client.closed()


@on_loop
async def test_a_head_whose_time_is_over_as_some_of_it_comes_is_a_408() -> None:
    async with serving(ok) as server, server.client() as client:
        client.send(b"GET")
        while not (server.connections.open and server.only.buffer):
            await asyncio.sleep(0)
        server.only.data_received(b" /")
        server.only.expire(0)  # in the same turn of the loop
        assert (await client.answer()).status == 408


@on_loop
async def test_the_time_of_a_head_runs_from_its_first_byte_behind_another_request() -> None:
    async with serving(ok, header_timeout=0.01, keep_alive_timeout=1000) as server, server.client() as client:
        assert (await client.ask(get() + b"GET /")).status == 200
        assert (await client.answer()).status == 408


@on_loop
async def test_head_that_arrives_while_the_process_is_stopped_is_not_late() -> None:
    async with serving(ok, header_timeout=1.0) as server, server.client() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.1)
        time.sleep(1.5)  # as a process that is stopped
        await asyncio.sleep(0.2)  # some looks at the deadlines
        client.send(b"Host: x\r\n\r\n")
        assert (await client.answer()).status == 200


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
async def test_a_handler_may_take_longer_than_all_timeouts() -> None:
    swept = asyncio.Event()

    async def slow(request: Request) -> Response:
        asyncio.get_running_loop().call_later(0.3, swept.set)  # behind some sweeps
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
async def test_a_flood_of_connections_is_not_even_answered(monkeypatch: pytest.MonkeyPatch) -> None:
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
            assert answer.fields["x-request-id"] in answer.body.decode()
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
async def test_drain_closes_idle_connections_at_once_and_silent_ones_soon() -> None:
    async with serving(ok) as server, server.client() as idle, server.client() as silent:
        await idle.ask(get())
        while len(server.connections.open) < 2:
            await asyncio.sleep(0)
        assert await server.connections.drain(GUARD)
        assert await idle.closed()
        assert await silent.closed()


@on_loop
async def test_who_was_accepted_just_before_the_drain_is_answered() -> None:
    async with serving(ok) as server, server.client() as new:
        while not server.connections.open:
            await asyncio.sleep(0)
        draining = asyncio.ensure_future(server.connections.drain(GUARD))
        await asyncio.sleep(0)
        answer = await new.ask(get())
        assert (answer.status, answer.closes) == (200, True)
        assert await draining


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
        answer = await begun.ask(b"x-request-id: mine\r\n\r\n")
        assert (answer.status, answer.closes) == (503, True)
        assert answer.fields["x-request-id"] == "mine"
        assert b'"request_id":"mine"' in answer.body
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
