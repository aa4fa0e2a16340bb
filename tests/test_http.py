"""http.py over real sockets. The requests of tests/wire are fed whole, byte by byte and with another one behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinysvc.errors import ProtocolError
from tinysvc.http import MAX_DISCARD, ChunkedDecoder, Connection, Connections
from tinysvc.messages import Handler, Request, Response
from tinysvc.settings import Settings

P = ParamSpec("P")

GUARD = 30.0
"""Seconds after which something is taken to hang."""


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on the loop that the server runs on."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def guarded() -> None:
            async with asyncio.timeout(GUARD):
                await test(*args, **kwargs)

        uvloop.run(guarded())

    return run


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as a warning or worse; a test that wants it takes it with `logged`."""
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings and errors so far; they are then no fault any more."""
    messages = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    return messages


# Both ends


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[Server]:
    """`handler` behind a TCP socket of this loop."""
    connections = Connections(handler, Settings(**options))
    listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
    try:
        yield Server(connections, listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        tasks = [connection.task for connection in connections.open]
        connections.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


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

    async def answer(self, *, head: bool = False) -> Answer:
        answer = await read_answer(self.reader, head=head)
        assert answer is not None, "the connection was closed"
        return answer

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def closed(self) -> bool:
        """Wait for the end of what the server sends: true if nothing more came."""
        try:
            return await self.reader.read() == b""
        except ConnectionResetError:
            return True

    def reset(self) -> None:
        """Leave with a reset, not with an end of file."""
        reset_on_close(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()


def reset_on_close(sock: Any) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.fields.get("connection") == "close"


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Answer | None:
    """One response, strictly: whatever is not well-formed is an AssertionError. None at the end."""
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        assert error.partial == b"", error.partial
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
        return Answer(status, fields, b"")
    assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", fields["date"])
    if status in (204, 304):
        assert not framing
        return Answer(status, fields, b"")
    if head:
        return Answer(status, fields, b"")
    if not framing:
        assert fields["connection"] == "close"
        return Answer(status, fields, await reader.read())
    assert len(framing) == 1
    if "content-length" in fields:
        return Answer(status, fields, await reader.readexactly(int(fields["content-length"])))
    assert fields["transfer-encoding"] == "chunked"
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return Answer(status, fields, body)


async def parse_answers(data: bytes, *, head: bool = False) -> list[Answer]:
    """All responses in what came until the end of a connection, but for a 100."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    answers = []
    while answer := await read_answer(reader, head=head):
        if answer.status != 100:
            answers.append(answer)
    return answers


def get(path: str = "/", *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def post(body: bytes, path: str = "/", *fields: str) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *fields, method="POST") + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))


def post_chunked(*pieces: bytes, path: str = "/") -> bytes:
    return get(path, "Transfer-Encoding: chunked", method="POST") + chunked(*pieces)


# Requests on the wire (tests/wire)


LIMITS: dict[str, Any] = {
    "max_request_line": 100,
    "max_header_size": 400,
    "max_header_field": 120,
    "max_headers": 8,
    "max_body_size": 100,
}


class Case(NamedTuple):
    name: str
    statuses: list[int]
    words: set[str]
    sent: bytes
    seen: list[bytes]

    @property
    def closes(self) -> bool:
        """Whether the server closes, without being asked by an end of file."""
        return "close" in self.words or (any(status >= 400 for status in self.statuses) and "eof" not in self.words)


def load_cases() -> Iterator[Case]:
    for file in sorted((Path(__file__).parent / "wire").glob("*.http")):
        for text in re.split(r"^= ", file.read_text(), flags=re.MULTILINE)[1:]:
            first, *lines = text.split("\n")
            *expected, name = first[: first.index(":")].split(" ")
            lines = [line for line in lines if line and not line.startswith("#")]
            yield Case(
                f"{file.stem}-{name}",
                [int(word) for word in expected if word.isdigit()],
                {word for word in expected if not word.isdigit()},
                b"".join(unescaped(line) for line in lines if not line.startswith("< ")),
                [unescaped(line[2:]) for line in lines if line.startswith("< ")],
            )


def unescaped(line: str) -> bytes:
    def times(match: re.Match[str]) -> str:
        return match[1] * int(match[2])

    return re.sub(r"\{(.+?)\*(\d+)\}", times, line).encode().decode("unicode_escape").encode("latin-1")


CASES = list(load_cases())
BEHIND = get("/behind")


async def show(request: Request) -> Response:
    """The application of the wire cases: it answers with what it saw."""
    body = b""
    if request.raw_path == "/careless":
        try:
            await request.body()
        except ProtocolError:
            pass
    elif request.raw_path != "/unread":
        body = await request.body()
    if request.raw_path == "/fields":
        return Response(b"; ".join(b"%b=%b" % field for field in request.headers.raw))
    target = request.raw_path + (f"?{request.raw_query}" if request.raw_query else "")
    return Response(f"{request.method} {target}{' ' if body else ''}".encode() + body)


async def converse(pieces: Iterable[bytes], *, half_close: bool, **options: Any) -> bytes:
    """All that a server sends back for `pieces`. `half_close`: the client then says that this was all."""
    loop = asyncio.get_running_loop()
    connections = Connections(show, Settings(**{**LIMITS, **options}))
    client, server = socket.socketpair()
    client.setblocking(False)
    with client:
        await loop.connect_accepted_socket(connections, server)
        received = bytearray()

        async def receive() -> None:
            while data := await loop.sock_recv(client, 65536):
                received.extend(data)

        receiving = loop.create_task(receive())
        try:
            for piece in pieces:
                if receiving.done():
                    break
                await loop.sock_sendall(client, piece)
                for _ in range(3):  # a turn of the loop to read it, one to wake the connection, one to act
                    await asyncio.sleep(0)
            if half_close:
                client.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # refused and closed before all was sent
        try:
            await asyncio.wait_for(receiving, GUARD)
        except ConnectionResetError:
            pass
    tasks = [connection.task for connection in connections.open]
    connections.abort()
    await asyncio.gather(*tasks, return_exceptions=True)
    return bytes(received)


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("fed", ["whole", "bytewise", "followed"])
@on_loop
async def test_wire(case: Case, fed: str) -> None:
    statuses, seen = case.statuses, case.seen
    pieces = bytewise(case.sent) if fed == "bytewise" else [case.sent]
    if fed == "followed" and "eof" not in case.words:
        pieces = [case.sent + BEHIND]
        if not case.closes:
            statuses = [*statuses, 200]
    received = await converse(pieces, half_close=not case.closes)
    answers = await parse_answers(received, head="head" in case.words)
    assert [answer.status for answer in answers] == statuses
    assert b"/smuggled" not in received
    assert (b"/behind" in received) == (len(statuses) > len(case.statuses))
    if seen and "head" not in case.words:
        assert [answer.body for answer in answers if answer.status == 200][: len(seen)] == seen
    for answer in answers:
        if answer.status >= 400:
            assert answer.closes
            assert answer.fields["content-type"] == "application/problem+json"


def test_wire_cases_are_many_and_have_names_of_their_own() -> None:
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)


# Any bytes, any cuts


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def spoken(pieces: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """The status, and what the application saw, of all that is answered to `pieces` and an end of file."""

    async def run() -> list[tuple[int, bytes]]:
        answers = await parse_answers(await converse(pieces, half_close=True))
        return [(answer.status, answer.body if answer.status == 200 else b"") for answer in answers]

    return uvloop.run(run())


REQUESTS = [
    get("/a?b=c"),
    get("/fields", "X-A: \t1 ", "X-A: 2"),
    get("/close", "Connection: close"),
    b"GET http://x/absolute HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"\r\n" + get("/behind-an-empty-line"),
    post(b"hello"),
    post(b"{}\r\n\r\n", "/expecting", "Expect: 100-continue"),
    post(b"not read", "/unread"),
    post_chunked(b"hel", b"lo"),
    post_chunked(b"a" * 60, path="/unread"),
    get("/", "Transfer-Encoding: chunked", method="POST") + b"5;a=b\r\nhello\r\n0\r\nX: a\r\n\r\n",
]
FRAGMENTS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"%00", b"0", b"-", b"\xff", b"HTTP/1.1", b"HTTP/2.0", b"/"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: y\r\n", b"X: a\r\n", b"a" * 120, b"b" * 410),
    *(b"POST ", b"FROB ", b"0\r\n\r\n", b"5\r\nhello\r\n", b"Expect: x\r\n", b"Connection: close\r\n"),
]
PLACES = st.lists(st.integers(0, 2000), max_size=12)
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 9), st.sampled_from(FRAGMENTS)), max_size=4)
STREAMS = st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4).map(b"".join)

thorough = settings(
    max_examples=1500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def edited(stream: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """`stream` with some of its bytes replaced by a fragment."""
    for place, removed, fragment in edits:
        place %= len(stream) + 1
        stream = stream[:place] + fragment + stream[place + removed :]
    return stream


@thorough
@given(stream=STREAMS, places=PLACES)
def test_the_cuts_of_a_good_stream_do_not_matter(stream: bytes, places: list[int]) -> None:
    answers = spoken([stream])
    assert spoken(cut(stream, places)) == answers
    assert {status for status, _ in answers} == {200}


@thorough
@given(stream=STREAMS, edits=EDITS, places=PLACES)
def test_the_cuts_of_a_damaged_stream_do_not_matter(
    stream: bytes, edits: list[tuple[int, int, bytes]], places: list[int]
) -> None:
    stream = edited(stream, edits)
    answers = spoken([stream])
    assert spoken(cut(stream, places)) == answers
    assert spoken(bytewise(stream)) == answers
    assert all(status in (200, 400, 413, 414, 417, 431, 501, 505) for status, _ in answers)


@thorough
@given(pieces=st.lists(st.binary(max_size=60) | st.sampled_from(FRAGMENTS + REQUESTS), max_size=10))
def test_any_bytes_are_answered_well_or_not_at_all(pieces: list[bytes]) -> None:
    assert all(status in (200, 400, 413, 414, 417, 431, 501, 505) for status, _ in spoken(pieces))
