"""server/access_log.py: one line for each request, with what was sent."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from commands import served, tinysvc
from http_ends import Server, Stream, get, on_loop, post, serving
from tinysvc import Request, Response
from tinysvc.core.responses import FileContent
from tinysvc.http import Connection
from tinysvc.server.access_log import LoggedConnection
from tinysvc.telemetry.log_format import JsonFormatter


class Lines(logging.Handler):
    """The access lines, in both formats."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.fields: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        self.fields.append(json.loads(JsonFormatter().format(record)))

    def outcomes(self) -> list[tuple[Any, ...]]:
        """Path, status and bytes of each line."""
        return [tuple(each.get(name) for name in ("path", "status", "bytes")) for each in self.fields]


@pytest.fixture
def lines() -> Iterator[Lines]:
    written, log = Lines(), logging.getLogger("tinysvc.access")
    log.addHandler(written)
    level = log.level
    log.setLevel(logging.INFO)
    yield written
    log.removeHandler(written)
    log.setLevel(level)


async def handler(request: Request) -> Response:
    path = request.raw_path
    if path == "/hello":
        return Response(b"hello")
    if path == "/big":
        return Response(b"x" * 1_000_000)
    if path == "/huge":
        return Response(bytes(50_000_000))
    if path == "/view":
        return Response(memoryview(b"x" * 70_000))
    if path == "/file":
        return Response(FileContent(open(__file__, "rb"), 100, 400))
    if path == "/nothing":
        return Response(b"", 204)
    if path == "/stream":
        return Response(Stream(b"one", b"three"))
    if path == "/cut":
        return Response(Stream(b"one", last=fail))
    if path == "/slow":
        await asyncio.sleep(0.05)
        return Response(b"slow")
    if path == "/waits":
        await asyncio.sleep(30)
    if path == "/body":
        return Response(await request.body())
    return Response(b"no", 404)


async def fail() -> None:
    raise LookupError("in the stream")


@on_loop
async def test_line_has_the_status_and_the_bytes_that_were_sent(lines: Lines) -> None:
    async with serving(handler, access_log=True) as server, server.client() as client:
        for path in ("/hello", "/big", "/view", "/file", "/nothing", "/stream", "/missing", "/hello"):
            await client.ask(get(path))
        await client.ask(post(b"four", "/body"))
        client.send(get("/hello", method="HEAD"))
        await client.response(head=True)
    assert lines.outcomes() == [
        ("/hello", 200, 5),
        ("/big", 200, 1_000_000),
        ("/view", 200, 70_000),
        ("/file", 200, 400),
        ("/nothing", 204, 0),
        ("/stream", 200, 8),
        ("/missing", 404, 2),
        ("/hello", 200, 5),
        ("/body", 200, 4),
        ("/hello", 200, 0),
    ]


@on_loop
async def test_line_names_request_client_and_trace(lines: Lines) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = "x-request-id: mine", f"traceparent: 00-{trace}-00f067aa0ba902b7-01"
    async with serving(handler, access_log=True) as server, server.client() as client:
        await client.ask(get("/slow?token=secret", *headers))
    (fields,) = lines.fields
    assert 0.04 < fields.pop("duration") < 20
    del fields["time"]
    assert fields == {
        "level": "INFO",
        "logger": "tinysvc.access",
        "message": "GET /slow 200",
        "method": "GET",
        "path": "/slow",
        "status": 200,
        "bytes": 4,
        "client": "127.0.0.1",
        "request_id": "mine",
        "trace_id": trace,
        "span_id": "00f067aa0ba902b7",
    }
    pattern = r"127\.0\.0\.1 GET /slow 200, 4 bytes, [\d.]+ ms \[request mine, trace " + trace + r"\]"
    assert re.fullmatch(pattern, lines.texts[0])


@on_loop
async def test_pipelined_requests_have_a_line_each(lines: Lines) -> None:
    async with serving(handler, access_log=True) as server, server.client() as client:
        client.send(get("/hello") * 3)
        for _ in range(3):
            await client.response()
    assert lines.outcomes() == [("/hello", 200, 5)] * 3


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", (None, 400, 0)),
        (b"GET /%s HTTP/1.1\r\n" % (b"x" * 10_000), (None, 414, 0)),
        (b"NONSENSE\r\n\r\n", (None, 400, 0)),
    ],
    ids=["host", "long", "nonsense"],
)
@on_loop
async def test_refused_head_has_a_line(lines: Lines, sent: bytes, outcome: tuple[Any, ...]) -> None:
    async with serving(handler, access_log=True) as server, server.client() as client:
        await client.ask(sent)
    assert lines.outcomes() == [outcome]
    assert lines.texts[0].startswith(f"127.0.0.1 - {outcome[1]}, 0 bytes, ")


@on_loop
async def test_idle_connection_has_no_line(lines: Lines) -> None:
    async with serving(handler, access_log=True, keep_alive_timeout=0.1) as server, server.client() as client:
        await client.ask(get("/hello"))
        assert await client.closed()
    assert len(lines.texts) == 1


async def until_logged(lines: Lines) -> None:
    while not lines.texts:
        await asyncio.sleep(0.01)


async def until_handled(server: Server) -> None:
    while server.only.request is None:
        await asyncio.sleep(0.01)


@on_loop
async def test_disconnect_before_the_response_is_499(lines: Lines) -> None:
    async with serving(handler, access_log=True) as server, server.client() as client:
        client.send(get("/waits"))
        await until_handled(server)
        client.reset()
        await until_logged(lines)
    assert lines.outcomes() == [("/waits", 499, 0)]


@pytest.mark.parametrize("path", ["/cut", "/huge"])
@on_loop
async def test_response_that_is_cut_off_is_aborted(lines: Lines, path: str) -> None:
    async with serving(handler, access_log=True) as server, server.client() as client:
        client.send(get(path))
        await client.reader.read(10)
        client.reset()
        while not (lines.fields and lines.fields[-1].get("aborted")):
            await asyncio.sleep(0.01)
    last = lines.fields[-1]
    assert (last["status"], last.get("bytes")) == (200, 3 if path == "/cut" else None)
    assert " ms, aborted [request " in lines.texts[-1]


@on_loop
async def test_refused_body_has_a_line(lines: Lines) -> None:
    async with serving(handler, access_log=True) as server, server.client() as client:
        head = b"POST /body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.ask(head + b"nonsense\r\n")
    ((path, status, _),) = lines.outcomes()
    assert (path, status) == ("/body", 400)


@on_loop
async def test_without_the_option_the_connection_is_the_usual_one(lines: Lines) -> None:
    async with serving(handler) as server, server.client() as client:
        await client.ask(get("/hello"))
        assert type(server.only) is Connection
    async with serving(handler, access_log=True) as server, server.client() as client:
        await client.ask(get("/hello"))
        assert type(server.only) is LoggedConnection
    assert len(lines.texts) == 1


SERVICE = """
from tinysvc import WebSocket, cpu_route, io_route

@io_route("/items/{name}")
async def item(name: str) -> str:
    return name

@cpu_route("/fails")
def fails() -> int:
    raise LookupError

@io_route("/socket")
async def socket(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)
"""


def test_lines_of_a_service_name_the_route(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    options = "--access-log", "--log-format", "json", "--log-level", "error", "--proxy-headers", "127.0.0.1"
    with served(*tinysvc("service.py", *options), cwd=tmp_path) as server:
        with httpx.Client(base_url=server.url, headers={"x-forwarded-for": "203.0.113.9"}) as client:
            for path in ("/items/a%20b", "/fails", "/nix"):
                client.get(path, timeout=20)
        with connect(server.url.replace("http", "ws") + "/socket") as websocket:
            websocket.send("a")
            websocket.recv(20)
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=30)
    found = [json.loads(line) for line in errors.splitlines()]
    shown = [(e.get("route"), e["status"], e["client"]) for e in found if e["logger"] == "tinysvc.access"]
    assert shown == [
        ("GET /items/{name}", 200, "203.0.113.9"),
        ("GET /fails", 500, "203.0.113.9"),
        (None, 404, "203.0.113.9"),
        ("GET /socket", 101, "127.0.0.1"),
    ]
    assert found[0]["path"] == "/items/a%20b"
    (failed,) = (each for each in found if each["logger"] == "tinysvc")
    assert failed["request_id"] == next(each["request_id"] for each in found if each.get("status") == 500)
