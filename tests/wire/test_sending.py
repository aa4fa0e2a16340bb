"""Responses over real sockets: big ones, views and streams, and clients that do not read them."""

from __future__ import annotations

import array
import asyncio
import contextlib
import mmap
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from http_ends import (
    BIG,
    Stream,
    forever,
    get,
    logged,
    ok,
    on_loop,
    post,
    post_chunked,
    responding,
    serving,
    streaming,
    until_the_end,
)
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.http import IDLE, UNWATCHED, WRITE
from tinysvc.wire.bodies import COPY_SIZE
from tinysvc.wire.sending import SEPARATE_WRITE

pytestmark = pytest.mark.usefixtures("quiet")

# Big responses

SIZES = [0, 1, SEPARATE_WRITE - 1, SEPARATE_WRITE, COPY_SIZE, COPY_SIZE + 1, len(BIG)]


@contextmanager
def mapped(content: bytes) -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, max(1, len(content))) as mapping:
        mapping.write(content)
        yield mapping


@pytest.mark.parametrize("size", SIZES)
@on_loop
async def test_memoryview_is_sent_like_bytes(size: int) -> None:
    with mapped(BIG[:size]) as mapping:
        handler = responding(lambda: Response(memoryview(mapping)[:size]))
        async with serving(handler) as server, server.client() as client:
            for _ in range(2):
                assert (await client.ask(get())).body == BIG[:size]
            client.send(get(method="HEAD") + get())
            assert (await client.response(head=True)).fields["content-length"] == str(size)
            assert (await client.response()).body == BIG[:size]


@on_loop
async def test_memoryview_of_numbers_counts_bytes() -> None:
    numbers = array.array("d", [1.0] * 100_000)
    async with serving(responding(lambda: Response(memoryview(numbers)))) as server, server.client() as client:
        assert (await client.ask(get())).body == numbers.tobytes()


@pytest.mark.parametrize("status", [204, 304])
@on_loop
async def test_memoryview_is_not_sent_without_a_body(status: int) -> None:
    async with serving(responding(lambda: Response(memoryview(BIG), status))) as server, server.client() as client:
        for _ in range(2):
            assert (await client.ask(get())).status == status


@on_loop
async def test_idle_connection_keeps_no_memoryview() -> None:
    with mapped(BIG) as mapping:
        async with serving(responding(lambda: Response(memoryview(mapping)))) as server, server.client() as client:
            assert (await client.ask(get())).body == BIG
            while server.only.phase != IDLE:
                await asyncio.sleep(0)
            mapping.close()  # a BufferError if anybody still looked at it


@on_loop
async def test_memoryview_is_released_at_a_disconnect() -> None:
    with mapped(bytes(30_000_000)) as mapping:
        async with serving(responding(lambda: Response(memoryview(mapping)))) as server, server.client() as client:
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
async def test_big_response_waits_for_its_reader(kind: Callable[[bytes], Any]) -> None:
    content = kind(bytes(30_000_000))
    async with serving(responding(lambda: Response(content))) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        while not server.connections.open or not server.only.write_paused:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
            assert server.only.transport.get_write_buffer_size() <= COPY_SIZE + SEPARATE_WRITE
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.response()).body) == 30_000_000


@on_loop
async def test_half_closed_client_gets_its_big_response() -> None:
    async with serving(responding(lambda: Response(bytes(30_000_000)))) as server, server.client() as client:
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
        assert any(connection.phase in (UNWATCHED, WRITE) for connection in server.connections.open)
        assert len(await big.reader.readexactly(30_000_000)) == 30_000_000


# Streams


@on_loop
async def test_stream_is_sent_in_chunks() -> None:
    stream = Stream(b"a" * 20, b"", b"b")
    async with streaming(stream) as server, server.client() as client:
        answer = await client.ask(get())
        assert answer.fields["transfer-encoding"] == "chunked"
        assert answer.body == b"a" * 20 + b"b"
        assert stream.closed
        assert (await client.ask(get())).body == b""


@on_loop
async def test_big_piece_of_a_stream_is_sent_in_chunks() -> None:
    async with streaming(Stream(b"a", BIG, b"b")) as server, server.client() as client:
        assert (await client.ask(get())).body == b"a" + BIG + b"b"


@on_loop
async def test_stream_on_http_1_0_ends_with_the_connection() -> None:
    async with streaming(Stream(b"a", b"b")) as server, server.client() as client:
        answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (answer.body, answer.closes) == (b"ab", True)


@on_loop
async def test_head_of_a_stream_closes_it_unread() -> None:
    stream = Stream(b"not sent")
    async with streaming(stream) as server, server.client() as client:
        client.send(get(method="HEAD") + get())
        assert (await client.response(head=True)).fields["transfer-encoding"] == "chunked"
        assert stream.closed
        assert (await client.response()).body == b"not sent"


async def fail() -> None:
    raise LookupError("half-way")


@on_loop
async def test_failed_stream_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
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


@on_loop
async def test_stream_of_other_values_than_bytes_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(b"first", "text")  # type: ignore[arg-type]
    async with streaming(stream) as server, server.client() as client:
        client.send(get())
        assert not (await until_the_end(client)).endswith(b"0\r\n\r\n")
    assert len(logged(caplog)) == 1


@on_loop
async def test_stream_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Stream):
        async def aclose(self) -> None:
            raise LookupError

    async with streaming(Bad(b"a")) as server, server.client() as client:
        assert (await client.ask(get())).body == b"a"
    assert len(logged(caplog)) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["end", "reset"])
@on_loop
async def test_disconnect_closes_a_stream(method: str, how: str) -> None:
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
async def test_disconnect_before_the_end_of_a_stream_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
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
async def test_disconnect_closes_a_silent_stream() -> None:
    stream = Stream(b"first", last=forever)
    async with streaming(stream) as server, server.client() as client:
        client.send(get())
        await client.reader.readuntil(b"first")
        client.writer.close()
        await stream.ended.wait()


@on_loop
async def test_disconnect_closes_an_unread_stream() -> None:
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
        while not connection.disconnected:
            await asyncio.sleep(0)
        leave.set()
        await stream.ended.wait()


@on_loop
async def test_complete_head_resets_the_checked_bytes() -> None:
    """The checked bytes of one head do not count for the next head."""
    async with serving(ok) as server, server.client() as client:
        assert (await client.ask(get())).status == 200
        client.send(get()[:-3])
        while len(server.only.wire.buffer) < len(get()) - 3:
            await asyncio.sleep(0)
        client.send(get()[-3:] + b"GET\r\n\r\n")
        assert (await client.response()).status == 200
        assert (await client.response()).status == 400
        assert await client.closed()


@on_loop
async def test_stream_may_read_the_body_of_its_request() -> None:
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
async def test_stream_with_a_declared_length_is_sent_whole(version: str) -> None:
    async with serving(responding(sized(Stream(b"hel", b"", b"lo"), 5))) as server, server.client() as client:
        answer = await client.ask(f"GET / HTTP/{version}\r\nHost: x\r\nConnection: keep-alive\r\n\r\n".encode())
        assert (answer.body, answer.fields["content-length"]) == (b"hello", "5")
        assert "transfer-encoding" not in answer.fields
        assert not answer.closes


@pytest.mark.parametrize(
    ("length", "came", "says"), [(9, b"hello", "4 bytes shorter"), (4, b"", "1 bytes, or more, longer")]
)
@on_loop
async def test_stream_of_another_length_is_cut_off(
    length: int, came: bytes, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(b"hello")
    async with serving(responding(sized(stream, length))) as server, server.client() as client:
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
async def test_response_without_a_body_may_declare_its_length(method: str, status: int) -> None:
    stream = Stream(b"hello")
    async with serving(responding(sized(stream, 5, status))) as server, server.client() as client:
        client.send(get(method=method))
        answer = await client.response(head=True)
        assert answer.fields.get("content-length") == ("5" if status == 200 else None)
        assert (answer.status, stream.closed) == (status, True)
