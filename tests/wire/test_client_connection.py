"""The client's side of HTTP/1.1: every framing of a response, in any cuts, and the responses of real servers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http_ends import PLACES, cut
from response_cases import BAD, CHUNKED, GOOD, Received
from tinysvc import Response, Service, io_route
from tinysvc.core.errors import ProtocolError, UnencodableResult
from tinysvc.core.settings import Settings
from tinysvc.testing import serving
from tinysvc.wire.client_connection import ClientConnection, ResponseHead
from tinysvc.wire.connection import CLOSED, DONE, IDLE


def exchange(pieces: list[bytes], *, method: str = "GET", eof: bool = False, **options: object) -> Received | None:
    """The response in the pieces, taken as soon as its bytes come; None if it is not complete."""
    wire = ClientConnection(Settings(**options))  # type: ignore[arg-type]
    wire.begin_request(method, "/", "x")
    wire.end_request()
    response: ResponseHead | None = None
    body = b""

    def take() -> None:
        nonlocal response, body
        if response is None and (response := wire.next_response()) is not None:
            body += response.content
        if response:
            body += wire.take_piece()

    for piece in pieces:
        wire.receive(piece)
        take()
    if eof:
        wire.receive_eof()
        take()
    if response is None or wire.incoming != DONE:
        return None
    return Received(response.status, body, wire.end_exchange())


@pytest.mark.parametrize("name", GOOD)
def test_every_framing_in_every_cut(name: str) -> None:
    sent, expected, method, eof = GOOD[name]
    for size in (len(sent), 1, 2):
        assert exchange([sent[i : i + size] for i in range(0, len(sent), size)], method=method, eof=eof) == expected


@pytest.mark.parametrize("name", [name for name, case in GOOD.items() if case.expected.reusable])
def test_incomplete_response_is_awaited(name: str) -> None:
    sent, _, method, eof = GOOD[name]
    assert exchange([sent[:-1]], method=method, eof=eof) is None


def test_repeated_head_is_not_parsed_again() -> None:
    wire, heads = ClientConnection(Settings()), []
    for _ in range(2):
        wire.begin_request("GET", "/", "x")
        wire.end_request()
        wire.receive(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
        head = wire.next_response()
        assert head is not None
        assert wire.take_piece() == b"abc"
        assert wire.end_exchange()
        heads.append(head)
    assert heads[0].headers is heads[1].headers


def test_nothing_is_taken_behind_a_fault() -> None:
    wire = ClientConnection(Settings())
    wire.begin_request("GET", "/", "x")
    wire.receive(BAD["no http"])
    with pytest.raises(ProtocolError):
        wire.next_response()
    wire.buffer = GOOD["length"].sent
    assert wire.next_response() is None


def test_chunks_of_a_body_are_taken_in_several_turns() -> None:
    sent = CHUNKED + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n"
    assert exchange([sent]) == Received(200, b"a" * 5000, True)


@pytest.mark.parametrize("name", BAD)
def test_bad_response_is_refused(name: str) -> None:
    sent = BAD[name]
    for pieces in ([sent], [sent[i : i + 50] for i in range(0, len(sent), 50)]):
        with pytest.raises(ProtocolError) as raised:
            exchange(pieces)
        assert raised.value.status == 502


@pytest.mark.parametrize(
    "sent", [b"HTTP/1.1 200 OK\r\nConte", CHUNKED + b"3\r\nab", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
def test_response_that_is_cut_short_is_refused(sent: bytes) -> None:
    with pytest.raises(ProtocolError, match="in the middle of a response"):
        exchange([sent], eof=True)


def test_end_behind_a_response_that_was_not_taken_yet_is_no_fault() -> None:
    for case in GOOD.values():
        if case.method == "GET":
            wire = ClientConnection(Settings())
            wire.begin_request("GET", "/", "x")
            wire.end_request()
            wire.receive(case.sent)
            wire.receive_eof()
            response = wire.next_response()
            assert response is not None
            body = response.content + wire.take_piece()
            assert (response.status, body, wire.incoming) == (*case.expected[:2], DONE)
            assert not wire.end_exchange()


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK\r\nConte", CHUNKED + b"3\r\nab"])
def test_end_behind_a_part_of_a_response_is_a_fault(sent: bytes) -> None:
    wire = ClientConnection(Settings())
    wire.begin_request("GET", "/", "x")
    wire.receive(sent)
    wire.receive_eof()
    take = wire.take_piece if b"\r\n\r\n" in sent and wire.next_response() else wire.next_response
    with pytest.raises(ProtocolError, match="in the middle of a response"):
        take()


def test_end_before_any_byte_is_no_fault_of_the_response() -> None:
    wire = ClientConnection(Settings())
    wire.begin_request("GET", "/", "x")
    wire.receive_eof()
    assert wire.next_response() is None
    assert not wire.end_exchange()
    assert wire.incoming == CLOSED


@settings(max_examples=150, deadline=None, derandomize=True)
@given(name=st.sampled_from(sorted(GOOD)), places=PLACES)
def test_cuts_do_not_matter(name: str, places: list[int]) -> None:
    sent, expected, method, eof = GOOD[name]
    assert exchange(cut(sent, places), method=method, eof=eof) == expected


@settings(max_examples=300, deadline=None, derandomize=True)
@given(pieces=st.lists(st.binary(max_size=60) | st.sampled_from(list(BAD.values())[:8]), max_size=6))
def test_any_bytes_are_a_response_or_one_refusal(pieces: list[bytes]) -> None:
    with suppress(ProtocolError):
        exchange(pieces)


# Requests


@pytest.mark.parametrize(
    ("method", "length", "expected"),
    [
        ("GET", 0, b""),
        ("POST", 0, b"content-length: 0\r\n"),
        ("POST", 5, b"content-length: 5\r\n"),
        ("POST", None, b"transfer-encoding: chunked\r\n"),
    ],
)
def test_request_says_how_long_it_is(method: str, length: int | None, expected: bytes) -> None:
    wire = ClientConnection(Settings())
    head = wire.begin_request(method, "/a?b=c", "x:80", [("accept", "*/*")], length)
    line = f"{method} /a?b=c HTTP/1.1\r\nhost: x:80\r\n".encode()
    assert head == line + expected + b"accept: */*\r\n\r\n"
    chunked = length is None
    assert wire.piece(b"abc") == (b"3\r\nabc\r\n" if chunked else b"abc")
    assert wire.piece(b"") == b""
    assert wire.end_request() == (b"0\r\n\r\n" if chunked else b"")
    assert repr(wire) == "<ClientConnection: request done, response idle>"


def test_header_with_a_line_end_is_not_sent() -> None:
    with pytest.raises(UnencodableResult):
        ClientConnection(Settings()).begin_request("GET", "/", "x", [("a", "b\r\nc: d")])


def test_response_before_the_end_of_its_request_ends_the_connection() -> None:
    wire = ClientConnection(Settings())
    wire.begin_request("POST", "/", "x", length=None)
    wire.receive(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    response = wire.next_response()
    assert response is not None
    assert response.status == 413
    assert wire.take_piece() == b""
    assert not wire.end_exchange()


# Real servers: every framing, from our own server, nginx and Node


def ask(sock: socket.socket, exchanges: list[tuple[str, str]]) -> list[Received]:
    """The responses to these methods and paths on one connection, as long as it can be used again."""
    wire = ClientConnection(Settings())
    received = []
    with sock:
        for method, path in exchanges:
            sock.sendall(wire.begin_request(method, path, "localhost") + wire.end_request())
            response, body = wire.next_response(), b""
            while response is None or wire.incoming != DONE:
                if data := sock.recv(1000):
                    wire.receive(data)
                else:
                    wire.receive_eof()
                response = response or wire.next_response()
                if response:
                    body += wire.take_piece()
            received.append(Received(response.status, body, wire.end_exchange()))
            if wire.incoming != IDLE:
                break
    return received


BIG, PIECES = b"big" * 100_000, b"piece" * 10
EXCHANGES = {
    ("GET", "/big"): Received(200, BIG, True),  # with a length
    ("HEAD", "/big"): Received(200, b"", True),
    ("GET", "/none"): Received(204, b"", True),
    ("GET", "/same"): Received(304, b"", True),
    ("GET", "/stream"): Received(200, PIECES, True),  # chunked
    ("POST", "/none"): Received(204, b"", True),
    ("GET", "/close"): Received(200, PIECES, False),  # until the end of the connection
}


async def pieces() -> AsyncIterator[bytes]:
    for _ in range(10):
        yield b"piece"


@io_route("/big")
async def big() -> bytes:
    return BIG


@io_route("/none", methods=["GET", "POST"])
async def none() -> None:
    return None


@io_route("/same")
async def same() -> Response:
    return Response(b"", 304)


@io_route("/stream")
async def stream() -> Response:
    return Response(pieces())


@io_route("/close")
async def close() -> Response:
    return Response(pieces())


@contextmanager
def tinysvc(folder: Path) -> Iterator[socket.socket]:
    with serving(Service(big, none, same, stream, close), max_requests=len(EXCHANGES)) as url:
        yield socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 20)


@contextmanager
def nginx(folder: Path) -> Iterator[socket.socket]:
    (folder / "big").write_bytes(BIG)
    for name in ("stream", "close"):
        (folder / name).write_bytes(PIECES)
    included = "ssi on; default_type text/html;"  # then nginx does not know the length beforehand
    (folder / "nginx.conf").write_text(
        f"{'user root; ' * (os.getuid() == 0)}daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"server {{ listen unix:{folder}/socket; root {folder}; location /none {{ return 204; }}\n"
        f"location /same {{ return 304; }} location /stream {{ {included} }}\n"
        f"location /close {{ {included} chunked_transfer_encoding off; }} }} }}\n"
    )
    with connected(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], folder) as sock:
        yield sock


@contextmanager
def node(folder: Path) -> Iterator[socket.socket]:
    (folder / "server.js").write_text(
        "require('http').createServer((request, response) => {\n"
        "  if (request.url === '/none') { response.statusCode = 204; return response.end(); }\n"
        "  if (request.url === '/same') { response.statusCode = 304; return response.end(); }\n"
        "  if (request.url === '/big') return response.end('big'.repeat(100000));\n"
        "  if (request.url === '/close') response.removeHeader('transfer-encoding');\n"
        "  response.write('piece'.repeat(5)); response.end('piece'.repeat(5));\n"
        f"}}).listen('{folder}/socket');\n"
    )
    with connected(["node", str(folder / "server.js")], folder) as sock:
        yield sock


@contextmanager
def connected(command: list[str], folder: Path) -> Iterator[socket.socket]:
    """Run a server, and connect to its Unix socket."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while True:
            sock = socket.socket(socket.AF_UNIX)
            try:
                sock.connect(str(folder / "socket"))
            except OSError:
                sock.close()
                assert time.monotonic() < end, "the server did not start"
                time.sleep(0.02)
            else:
                break
        sock.settimeout(20)
        yield sock
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("server", [tinysvc, nginx, node])
def test_every_framing_of_a_real_server(
    server: Callable[[Path], AbstractContextManager[socket.socket]], tmp_path: Path
) -> None:
    with server(tmp_path) as sock:
        assert ask(sock, [*EXCHANGES]) == [*EXCHANGES.values()]
