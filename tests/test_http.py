"""http.py over real sockets: responses, bodies, deadlines and disconnects. Refused requests are in test_wire.py."""

from __future__ import annotations

import ast
import asyncio
import gc
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from http_ends import (
    Stream,
    connected,
    echo,
    forever,
    get,
    logged,
    ok,
    on_loop,
    post,
    post_chunked,
    reset_on_close,
    responding,
    serving,
)
from tinysvc import http
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response
from tinysvc.wire.inbox import READ_SIZE

pytestmark = pytest.mark.usefixtures("quiet")

# Size: a shell that a reader takes in at once


def test_file_and_its_methods_are_short() -> None:
    text = Path(http.__file__).read_text()
    assert len(text.splitlines()) < 450
    functions = [
        each for each in ast.walk(ast.parse(text)) if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert len(functions) > 20
    assert {each.name for each in functions if (each.end_lineno or 0) - each.lineno >= 40} == set()


@on_loop
async def test_connection_has_few_attributes_and_no_dict() -> None:
    async with serving(ok) as server, server.client() as client:
        await client.ask(get())
        assert not hasattr(server.only, "__dict__")
        assert len(http.Connection.__slots__) <= 16


# Answers


@on_loop
async def test_headers_are_sent_as_they_are() -> None:
    made = Response(b"ok", headers=[("X-A", "1"), ("x-b", "caf\xe9\t")], content_type="text/plain")
    async with serving(responding(lambda: made)) as server, server.client() as client:
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
async def test_response_for_one_client_is_not_shared(
    said: str, cookie: str, authorization: str, expected: str, streamed: bool
) -> None:
    def make() -> Response:
        response = Response(Stream(b"ok") if streamed else b"ok")
        response.headers += [("Cache-Control", said), *([(cookie, "a=b")] if cookie else [])]
        return response

    fields = [f"authorization: {authorization}"] if authorization else []
    async with serving(responding(make)) as server, server.client() as client:
        answer = await client.ask(get("/", *fields))
        assert answer.fields["cache-control"] == expected
        assert ("set-cookie" in answer.fields) == bool(cookie)


@on_loop
async def test_response_has_its_length_and_date() -> None:
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

    async with serving(responding(make)) as server, server.client() as client:
        for _ in range(2):
            assert (await client.ask(get())).status == status
        assert stream.closed == streamed


@on_loop
async def test_status_without_a_reason_phrase_is_sent() -> None:
    async with serving(responding(lambda: Response(b"", 299))) as server, server.client() as client:
        assert (await client.ask(get())).status == 299


@on_loop
async def test_head_has_the_fields_of_get_and_no_body() -> None:
    async with serving(ok) as server, server.client() as client:
        client.send(get(method="HEAD") + get())
        assert (await client.response(head=True)).fields["content-length"] == "2"
        assert (await client.response()).body == b"ok"


@on_loop
async def test_http_1_0_response_declares_keep_alive() -> None:
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
async def test_header_cannot_begin_another_line(make: Callable[[], Response], caplog: pytest.LogCaptureFixture) -> None:
    async with serving(responding(make)) as server, server.client() as client:
        answer = await client.ask(get())
        assert answer.status == 500
        assert not {"x", "x-a", "set-cookie"} & answer.fields.keys()
        assert await client.closed()
    assert len(logged(caplog)) == 1


@on_loop
async def test_failed_handler_gets_500_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(request: Request) -> Response:
        raise LookupError("secret")

    async with serving(fails) as server, server.client() as client:
        answer = await client.ask(get())
        assert (answer.status, answer.closes) == (500, True)
        assert b"secret" not in answer.body
    assert "this is a bug in tinysvc" in logged(caplog)[0]


# Time


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", get()[:-2]])
@on_loop
async def test_missing_head_gets_408(sent: bytes) -> None:
    async with serving(ok, header_timeout=0.01) as server, server.client() as client:
        assert (await client.ask(sent)).status == 408
        assert await client.closed()


@on_loop
async def test_late_rest_of_a_head_gets_408() -> None:
    async with serving(ok) as server, server.client() as client:
        client.send(b"GET")
        while not (server.connections.open and server.only.wire.buffer):
            await asyncio.sleep(0)
        server.only.inbox.put(b" /")
        server.only.expire(0)  # in the same turn of the loop
        assert (await client.response()).status == 408


@on_loop
async def test_time_of_a_pipelined_head_starts_at_its_first_byte() -> None:
    async with serving(ok, header_timeout=0.01, keep_alive_timeout=1000) as server, server.client() as client:
        assert (await client.ask(get() + b"GET /")).status == 200
        assert (await client.response()).status == 408


@on_loop
async def test_head_that_arrives_while_the_process_is_stopped_is_not_late() -> None:
    async with serving(ok, header_timeout=1.0) as server, server.client() as client:
        client.send(b"GET / HTTP/1.1\r\n")
        await asyncio.sleep(0.1)
        time.sleep(1.5)  # as a process that is stopped
        await asyncio.sleep(0.2)  # some looks at the deadlines
        client.send(b"Host: x\r\n\r\n")
        assert (await client.response()).status == 200


@on_loop
async def test_silent_client_is_closed_without_a_response() -> None:
    async with serving(ok, first_byte_timeout=0.01) as server, server.client() as client:
        assert await client.closed()


@on_loop
async def test_idle_connection_is_closed_without_a_response() -> None:
    async with serving(ok, keep_alive_timeout=0.01) as server, server.client() as client:
        await client.ask(get())
        assert await client.closed()


@on_loop
async def test_handler_may_take_longer_than_all_timeouts() -> None:
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
async def test_client_that_does_not_read_is_aborted(kind: str) -> None:
    stream, streamed = Stream(*[bytes(1_000_000)] * 30), kind == "stream"
    whole = bytes(30_000_000)
    made = Response(stream if streamed else memoryview(whole) if kind == "view" else whole)
    async with serving(responding(lambda: made), write_timeout=0.01) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        while not server.connections.open:
            await asyncio.sleep(0)
        task = server.only.task
        await task
        assert not server.connections.open or server.only.disconnected
        assert stream.closed == streamed


@on_loop
async def test_client_that_reads_slowly_is_not_aborted() -> None:
    async with serving(responding(lambda: Response(bytes(40_000_000)))) as server, server.client() as client:
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
async def test_refused_client_that_stays_is_closed() -> None:
    async with serving(ok) as server, server.client() as client:
        assert (await client.ask(b"GET\r\n\r\n")).status == 400
        assert await client.closed()
        connection = server.only
        connection.expire(0)
        await connection.task


# Coming and going


@on_loop
async def test_connection_closes_after_max_requests() -> None:
    async with serving(ok, max_requests=2) as server, server.client() as client:
        client.send(get() * 3)
        assert not (await client.response()).closes
        assert (await client.response()).closes
        assert await client.closed()


@on_loop
async def test_request_to_a_closing_connection_gets_no_response() -> None:
    async with serving(ok) as server, server.client() as client:
        await client.ask(get())
        assert server.only.end_when_idle()
        server.only.inbox.put(get())
        assert await client.closed()


@on_loop
async def test_deadline_at_the_moment_of_a_disconnect_changes_nothing() -> None:
    async with serving(ok) as server, server.client() as client:
        await client.ask(get())
        server.only.inbox.end()
        server.only.report_disconnect()
        server.only.expire(0)
        assert await client.closed()


@pytest.mark.parametrize("how", ["end", "reset"])
@on_loop
async def test_disconnect_cancels_get_and_lets_it_clean_up(how: str) -> None:
    called, cleaned = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        connection = server.only
        called.set()
        try:
            await forever()
        finally:
            connection.transport.abort()
            while not connection.disconnected:  # the loss behind an end of file does not cancel a second time
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
async def test_post_finishes_after_a_disconnect(how: str) -> None:
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
            while not connection.disconnected:
                await asyncio.sleep(0)
        else:
            client.writer.write_eof()
        leave.set()
        await finished.wait()
        if how == "end":
            assert (await client.response()).body == b"ok"


@on_loop
async def test_disconnect_is_reported_once() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    called = asyncio.Event()

    async def job(request: Request) -> Response:
        connection = server.only
        request.on_disconnect = lambda: told.put_nowait(request.raw_path)
        called.set()
        await told.get()
        connection.transport.abort()
        while not connection.disconnected:
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
async def test_half_closed_client_gets_its_response() -> None:
    async with serving(echo) as server, server.client() as client:
        client.send(post(b"hello") + get())
        client.writer.write_eof()
        assert (await client.response()).body == b"hello"
        assert (await client.response()).status == 200
        assert await client.closed()


@pytest.mark.parametrize("half_close", [True, False])
@on_loop
async def test_half_close_keeps_the_handler_running(half_close: bool) -> None:
    called, go = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        called.set()
        await go.wait()
        return Response(b"late")

    async with serving(slow, half_close=half_close) as server, server.client() as client:
        client.send(get())
        await called.wait()
        client.writer.write_eof()
        while not server.only.inbox.ended:
            await asyncio.sleep(0)
        go.set()
        if half_close:
            assert (await client.response()).body == b"late"
        assert await client.closed()


@on_loop
async def test_disconnect_after_a_half_close_is_noticed() -> None:
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
async def test_pipelined_requests_do_not_delay_other_clients(path: str, waits: bool) -> None:
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
        server.only.inbox.put(get(path) * 10_000)  # the loop's own reads are of up to 256 KB
        while len(at) < 10_000:
            assert await loop.sock_recv(client, 1_000_000)
        assert max(at.count(t) for t in set(at)) <= READ_SIZE // len(get(path)) + 1


@on_loop
async def test_unread_responses_stop_a_flood_of_requests() -> None:
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
async def test_vanished_clients_leave_nothing_behind() -> None:
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
