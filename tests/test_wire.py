"""Requests on the wire: those of tests/wire fed whole, byte by byte and with another one behind, then any bytes."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands import served, tinysvc
from http_ends import GUARD, PLACES, Answer, cut, get, on_loop, parse_answers, post, post_chunked
from tinysvc.core.errors import ProtocolError
from tinysvc.core.messages import Request, Response
from tinysvc.core.settings import Settings
from tinysvc.http import Connections

pytestmark = pytest.mark.usefixtures("quiet")

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


async def show(request: Request) -> Response:
    """The application of the wire cases: it answers with what it saw."""
    if request.raw_path == "/streamed":
        return Response(request.stream())
    body = b""
    if request.raw_path == "/careless":
        try:
            await request.body()
        except ProtocolError:
            pass
    elif request.raw_path != "/unread":
        body = await request.body()
    if request.raw_path == "/empty":
        return Response(status=204)
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


async def heard(received: bytes, case: Case) -> list[Answer]:
    """All answers. To HEAD, which comes first where it comes at all, there is no body."""
    end = received.find(b"\r\n\r\n") + 4 if "head" in case.words else 0
    return [*await parse_answers(received[:end], head=True), *await parse_answers(received[end:])]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@on_loop
async def test_wire(case: Case) -> None:
    received = await check(case, [case.sent], case.statuses)
    assert b"100 Continue" not in received  # the body is there
    received = await check(case, bytewise(case.sent), case.statuses)
    assert received.count(b"100 Continue") == ("continue" in case.words)
    if "eof" not in case.words:
        behind = [] if case.closes else [200]
        received = await check(case, [case.sent + get("/behind")], case.statuses + behind)
        assert (b"/behind" in received) == bool(behind)


async def check(case: Case, pieces: list[bytes], statuses: list[int]) -> bytes:
    received = await converse(pieces, half_close=not case.closes)
    answers = await heard(received, case)
    assert [answer.status for answer in answers] == statuses
    assert [answer.body for answer in answers if answer.status == 200 and answer.body][: len(case.seen)] == case.seen
    assert b"/smuggled" not in received
    for answer in answers:
        if answer.status >= 400:
            assert answer.closes
            assert answer.fields["content-type"] == "application/problem+json"
    return received


def test_wire_cases_are_many_and_no_two_the_same() -> None:
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.sent for case in CASES}) == len(CASES)


# The same, served without assertions

SERVICE = """
from test_wire import show
from tinysvc import Request, Response, io_route

ALL = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

@io_route("/", methods=ALL)
async def root(request: Request) -> Response:
    return await show(request)

@io_route("/{rest:path}", methods=ALL)
async def anything(request: Request, rest: str) -> Response:
    return await show(request)
"""


@pytest.mark.parametrize("optimized", ["-O", "-OO"])
def test_served_without_assertions(tmp_path: Path, optimized: str, nothing_left: None) -> None:
    """No check of ours is an assert (CVE-2025-69227)."""
    (tmp_path / "shows.py").write_text(SERVICE)
    flags = [word for name, limit in LIMITS.items() for word in (f"--{name.replace('_', '-')}", str(limit))]
    command = (optimized, *tinysvc("shows.py", *flags))
    with served(*command, cwd=tmp_path, PYTHONPATH=str(Path(__file__).parent)) as server:
        port = int(server.url.rpartition(":")[2])
        found = uvloop.run(told_by(port))
        server.process.terminate()
        _, errors = server.process.communicate(timeout=30)
    assert (server.process.returncode, errors) == (0, "")
    assert found == {case.name: plainly(case.statuses) for case in CASES}


async def told_by(port: int) -> dict[str, list[int]]:
    """The statuses of all cases."""
    few = asyncio.Semaphore(32)

    async def ask(case: Case) -> list[int]:
        async with few:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(case.sent)
                if not case.closes:
                    writer.write_eof()
                received = await asyncio.wait_for(reader.read(), GUARD)
            finally:
                writer.close()
        assert b"/smuggled" not in received
        return plainly(answer.status for answer in await heard(received, case))

    return dict(zip([case.name for case in CASES], await asyncio.gather(*map(ask, CASES)), strict=True))


def plainly(statuses: Iterable[int]) -> list[int]:
    """With 200 for every success: a service answers to OPTIONS by itself."""
    return [200 if status < 400 else status for status in statuses]


# Any bytes, any cuts


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
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b";",
        b"%00",
        b"0",
        b"-",
        b"\xff",
        b"HTTP/1.1",
        b"HTTP/2.0",
        b"/",
    ),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: y\r\n", b"X: a\r\n", b"a" * 120, b"b" * 410),
    *(b"POST ", b"FROB ", b"0\r\n\r\n", b"5\r\nhello\r\n", b"Expect: x\r\n", b"Connection: close\r\n"),
]
EDITS = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 9), st.sampled_from(FRAGMENTS)), max_size=4)
STREAMS = st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4).map(b"".join)

thorough = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
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
