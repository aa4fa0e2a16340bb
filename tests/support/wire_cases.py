"""The raw requests of tests/wire/cases, and the application for them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from http_ends import get, post, post_chunked
from paths import TESTS
from tinysvc.core.errors import ProtocolError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Response

LIMITS: dict[str, Any] = {
    "max_request_line": 100,
    "max_header_size": 400,
    "max_header_field": 120,
    "max_headers": 8,
    "max_body_size": 100,
}


class Case(NamedTuple):
    file: str
    name: str
    statuses: list[int]
    words: set[str]
    sent: bytes
    seen: list[bytes]

    @property
    def closes(self) -> bool:
        """Whether the server closes the connection before the client does."""
        return "close" in self.words or (any(status >= 400 for status in self.statuses) and "eof" not in self.words)


def load_cases() -> Iterator[Case]:
    for file in sorted((TESTS / "wire" / "cases").glob("*.http")):
        for text in re.split(r"^= ", file.read_text(), flags=re.MULTILINE)[1:]:
            first, *lines = text.split("\n")
            *expected, name = first[: first.index(":")].split(" ")
            lines = [line for line in lines if line and not line.startswith("#")]
            yield Case(
                file.stem,
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
FILES = {file: [case for case in CASES if case.file == file] for file in sorted({case.file for case in CASES})}


def for_each_case(test: Callable[[Case], None]) -> Callable[[str], None]:
    """Make one test of all cases of a file: pytest takes longer for a test of its own than such a case does."""

    @functools.wraps(test)
    def run(file: str) -> None:
        errors = []
        for case in FILES[file]:
            try:
                test(case)
            except Exception as error:
                error.add_note(f"case: {case.name}")
                errors.append(error)
        if errors:
            raise ExceptionGroup(f"{len(errors)} cases of {file}", errors)

    del run.__wrapped__  # pytest would ask for its parameters
    return pytest.mark.parametrize("file", FILES)(run)


async def show(request: Request) -> Response:
    """The application of the wire cases: it returns the request that it received."""
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
    """Replace some bytes of `stream` by fragments."""
    for place, removed, fragment in edits:
        place %= len(stream) + 1
        stream = stream[:place] + fragment + stream[place + removed :]
    return stream
