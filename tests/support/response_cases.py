"""Responses on the wire, for the client's side: every framing, and the faults that are refused."""

from __future__ import annotations

from typing import NamedTuple

from tinysvc.wire.client_connection import MAX_INTERIM

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Received(NamedTuple):
    status: int
    body: bytes
    reusable: bool


class Good(NamedTuple):
    """A response, how it is asked for and ended, and what the client receives."""

    sent: bytes
    expected: Received
    method: str = "GET"
    eof: bool = False


GOOD: dict[str, Good] = {
    "length": Good(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Received(200, b"abc", True)),
    "empty": Good(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Received(200, b"", True)),
    "chunked": Good(CHUNKED + b"3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: u\r\n\r\n", Received(200, b"abcd", True)),
    "until the end": Good(b"HTTP/1.1 200 OK\r\n\r\nabc", Received(200, b"abc", False), eof=True),
    "nothing until the end": Good(b"HTTP/1.0 200 OK\r\n\r\n", Received(200, b"", False), eof=True),
    "head": Good(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Received(200, b"", True), method="HEAD"),
    "204": Good(b"HTTP/1.1 204 No Content\r\n\r\n", Received(204, b"", True)),
    "304": Good(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", Received(304, b"", True)),
    "no reason": Good(b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Received(200, b"", True)),
    "close": Good(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", Received(200, b"a", False)),
    "http 1.0": Good(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", Received(200, b"a", False)),
    "http 1.0 that stays": Good(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", Received(200, b"a", True)
    ),
    "interim": Good(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        Received(200, b"", True),
    ),
    "upgrade offered": Good(
        b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", Received(200, b"", True)
    ),
    "more than asked for": Good(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1", Received(204, b"", False)),
}

BAD = {
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "http 2": b"HTTP/2 200 OK\r\n",
    "no status": b"HTTP/1.1 OK\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n",
    "line feed alone": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "zero byte": b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
    "folded line": b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "length and coding": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\na",
    "length that is no number": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    "chunk of a wrong length": CHUNKED + b"2\r\nabc\r\n",
    "101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "interim without end": b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1),
    "long status line": b"HTTP/1.1 200 " + b"a" * 1100,
    "long status line, whole": b"HTTP/1.1 200 " + b"a" * 1100 + b"\r\nContent-Length: 0\r\n\r\n",
    "long head": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000,
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1_000 + b"\r\n",
}

ALL = [*(case.sent for case in GOOD.values()), *BAD.values()]

FRAGMENTS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 204 \r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n"),
    *(b"Content-Length: 0\r\n\r\n", b"Connection: keep-alive\r\n", b"Upgrade: x\r\n"),
]
