"""Both ends of a connection for the tests of HTTP: a server on this event loop, and a strict client."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple, ParamSpec

import pytest
import uvloop
from hypothesis import strategies as st

from tinysvc.core.requests import Request
from tinysvc.core.responses import Handler, Response
from tinysvc.core.settings import Settings
from tinysvc.http import Connection
from tinysvc.server import connections as sweeping
from tinysvc.server.connections import SWEEP, Connections
from tinysvc.wire.bodies import COPY_SIZE

P = ParamSpec("P")

GUARD = 30.0
"""Seconds after which a test counts as hanging."""


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on uvloop, as the server runs."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def guarded() -> None:
            async with asyncio.timeout(GUARD):
                await test(*args, **kwargs)

        uvloop.run(guarded())

    return run


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings and errors so far, and clear them for the `quiet` fixture."""
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    return messages


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Server]:
    """Serve `handler` on a TCP socket of this event loop. Deadlines are checked often, which makes tests faster."""
    sweeping.SWEEP = 0.05
    connections = Connections(handler, Settings(**options))
    listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    try:
        yield Server(connections, listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        tasks = [connection.task for connection in connections.open]
        connections.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        sweeping.SWEEP = SWEEP


class Server(NamedTuple):
    connections: Connections
    port: int

    @property
    def only(self) -> Connection:
        (connection,) = self.connections.open
        return connection

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()


class Client(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self, *, head: bool = False) -> ReceivedResponse:
        answer = await read_response(self.reader, head=head)
        assert answer is not None, "the connection was closed"
        return answer

    async def ask(self, data: bytes) -> ReceivedResponse:
        self.send(data)
        return await self.response()

    async def closed(self) -> bool:
        """Wait for the end of the connection; true if the server sent nothing more."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Disconnect with a reset, not with an end of file."""
        reset_on_close(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()


def reset_on_close(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class ReceivedResponse(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.fields.get("connection") == "close"


async def read_response(reader: asyncio.StreamReader, *, head: bool = False) -> ReceivedResponse | None:
    """Read one response; AssertionError if it is malformed, None at the end of the connection."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = block[:-4].decode("latin-1").split("\r\n")
    status_line = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9][0-9]) [A-Za-z' -]*", first)
    assert status_line, first
    status, fields = int(status_line[1]), dict[str, str]()
    for line in lines:
        field = re.fullmatch(r"([a-z0-9-]+): ([\t\x20-\x7e\x80-\xff]*)", line)
        assert field, line
        assert field[1] not in fields, line
        fields[field[1]] = field[2]
    framing = {"content-length", "transfer-encoding"} & fields.keys()
    if status == 100:
        assert fields == {}
        return ReceivedResponse(status, fields, b"")
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", fields["date"])
    if status in (204, 304):
        assert not framing
        return ReceivedResponse(status, fields, b"")
    if head:
        return ReceivedResponse(status, fields, b"")
    if not framing:
        assert fields["connection"] == "close"
        return ReceivedResponse(status, fields, await reader.read())
    assert len(framing) == 1
    if "content-length" in fields:
        return ReceivedResponse(status, fields, await reader.readexactly(int(fields["content-length"])))
    assert fields["transfer-encoding"] == "chunked"
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return ReceivedResponse(status, fields, body)


async def parse_responses(data: bytes, *, head: bool = False) -> list[ReceivedResponse]:
    """Parse all bytes of a connection into responses, without those of status 100."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    answers = []
    while answer := await read_response(reader, head=head):
        if answer.status != 100:
            answers.append(answer)
    return answers


BIG = bytes(range(256)) * (9 * COPY_SIZE // 512 + 1)  # four slices and a half


def get(path: str = "/", *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def post(body: bytes, path: str = "/", *fields: str) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *fields, method="POST") + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def post_chunked(*pieces: bytes, path: str = "/") -> bytes:
    return get(path, "Transfer-Encoding: chunked", method="POST") + chunked(*pieces)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


PLACES = st.lists(st.integers(0, 2000), max_size=12)


# Handlers


async def ok(request: Request) -> Response:
    return Response(b"ok")


async def echo(request: Request) -> Response:
    return Response(await request.body())


def responding(make: Callable[[], Response]) -> Handler:
    async def handler(request: Request) -> Response:
        return make()

    return handler


# Streams and bare sockets


class Stream:
    """A stream under the test's control: it yields `pieces`, then behaves as `last` describes."""

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
    return serving(responding(lambda: Response(stream)), **options)


async def until_the_end(client: Client) -> bytes:
    received = b""
    try:
        while data := await client.reader.read(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[socket.socket]:
    """A bare socket that the server has accepted already."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        await asyncio.get_running_loop().connect_accepted_socket(server.connections, theirs)
        yield ours
