"""Disconnects at every moment of a request: the server logs no warning, no error and no traceback."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
import trustme

import disconnects_app
from disconnects_app import BEGINNING
from http_ends import reset_on_close
from system import wait_until
from tinysvc import Service
from tinysvc.core import request_context as current
from tinysvc.http import BODY, HANDLER
from tinysvc.testing import serving
from tinysvc.web.static import StaticFiles

FILE_SIZE = 256 * 1024 * 1024
"""Bytes; more than the socket buffers of both ends hold."""

STREAMS = [
    *("/stream", "/thread-stream", "/events", "/lines", "/thread-lines", "/declared", "/with-resources"),
    *("/cpu-stream", "/cpu-lines", "/cpu-events"),
]
WITHIN = [
    "/passed/with-resources",
    "/passed/cpu-stream",
    "/wrapped/stream",
    "/wrapped/thread-stream",
    "/wrapped/cpu-lines",
]
WHOLE = ["/bytes", "/thread-bytes", "/cpu-bytes"]
BODIES = ["/body", "/form", "/read", "/echo", "/cpu-body"]
OVER_TLS = [
    *("/stream", "/cpu-stream", "/with-resources", "/bytes", "/cpu-bytes", "/static/big", "/socket", "/form", "/echo"),
]
MULTIPART = "content-type: multipart/form-data; boundary=b\r\n"
SWITCH = (
    "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Served(NamedTuple):
    url: str
    trusting: ssl.SSLContext | None

    def connect(self) -> socket.socket:
        sock = socket.create_connection((urlsplit(self.url).hostname, urlsplit(self.url).port), timeout=30)
        return self.trusting.wrap_socket(sock, server_hostname="localhost") if self.trusting else sock

    def is_alive(self) -> bool:
        return httpx.get(self.url + "/alive", verify=self.trusting or False, timeout=30).text == "alive"


@contextmanager
def running(scheme: str, folder: Path) -> Iterator[Served]:
    with open(folder / "big", "wb") as big:
        big.truncate(FILE_SIZE)
    options: dict[str, Any] = {}
    trusting = None
    if scheme == "https":
        authority = trustme.CA()
        issued, trusting = authority.issue_cert("localhost"), ssl.create_default_context()
        authority.configure_trust(trusting)
        for name, blobs in [("ssl_cert", issued.cert_chain_pems), ("ssl_key", [issued.private_key_pem])]:
            (folder / name).write_bytes(b"".join(blob.bytes() for blob in blobs))
            options[name] = str(folder / name)
    service = Service(disconnects_app.service, StaticFiles(folder))
    with serving(service, compress=True, max_body_size=10**9, **options) as url:
        yield Served(url.replace("127.0.0.1", "localhost"), trusting)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Served]]:
    with ExitStack() as stack:
        yield cache(lambda scheme: stack.enter_context(running(scheme, tmp_path_factory.mktemp(scheme))))


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: Callable[[str], Served]) -> Served:
    """With the scope of the module, it would be set up for each test: the path is a parameter of the same mark."""
    return servers(request.param)


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info] == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Path]:
    """The file that handlers wait for."""
    yield tmp_path / "go"
    (tmp_path / "go").touch()  # ends the threads of a failed test


def connections() -> list[Any]:
    """The open connections of the server in this process."""
    return list(current.owner_by_task.values())


def reset(sock: socket.socket) -> None:
    reset_on_close(sock)
    sock.close()


def end(sock: socket.socket) -> None:
    """Send an end of file; close the socket when the server has seen it."""
    socket.socket.shutdown(sock, socket.SHUT_WR)  # for TLS, too: without close_notify
    wait_until(lambda: all(has_seen_disconnect(each) for each in connections()), "the server has seen the end of file")
    sock.close()


def has_seen_disconnect(connection: Any) -> bool:
    """Whether the connection has seen that its client disconnects."""
    return bool(connection.inbox.ended or getattr(connection.upgraded, "code", 0))


Leave = Callable[[socket.socket], None]
LEAVES = pytest.mark.parametrize("leave", [reset, end])


def over(paths: list[str]) -> pytest.MarkDecorator:
    """Parametrize a test with servers and paths: all paths over HTTP, some over HTTPS, too."""
    pairs = [("http", path) for path in paths] + [("https", path) for path in paths if path in OVER_TLS]
    return pytest.mark.parametrize(("server", "path"), pairs, indirect=["server"])


def head(method: str, path: str, *, go: Path, more: bool, lines: str = "") -> bytes:
    length = "content-length: 0\r\n" if method == "POST" else ""
    return f"{method} {path}?go={go}&more={int(more)} HTTP/1.1\r\nhost: localhost\r\n{lines}{length}\r\n".encode()


def read_until(sock: socket.socket, text: bytes) -> None:
    got = b""
    while text not in got:
        piece = sock.recv(4096)
        assert piece, got
        got += piece


def disconnect(server: Served, sock: socket.socket, leave: Leave, go: Path) -> None:
    """Disconnect; let the handler continue when the server has seen it; wait until the connection has ended."""
    leave(sock)
    wait_until(lambda: all(has_seen_disconnect(each) for each in connections()), "the server has seen the disconnect")
    go.touch()
    wait_until(lambda: not connections(), "the connection has ended")
    assert server.is_alive()
    wait_until(lambda: not connections(), "the other connection has ended")


@LEAVES
@pytest.mark.parametrize("more", [False, True], ids=["then the end", "then more"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@over([*STREAMS, *WITHIN])
def test_disconnect_in_a_silent_stream_logs_nothing(
    server: Served, path: str, method: str, more: bool, leave: Leave, go: Path
) -> None:
    sock = server.connect()
    sock.sendall(head(method, path, go=go, more=more))
    read_until(sock, BEGINNING.encode())
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("method", ["GET", "POST"])
@over([*STREAMS, *WITHIN, *WHOLE, "/static/big"])
def test_disconnect_in_an_unread_response_logs_nothing(
    server: Served, path: str, method: str, leave: Leave, go: Path
) -> None:
    if path == "/static/big" and method == "POST":
        return
    go.touch()
    sock = server.connect()
    sock.sendall(head(method, path, go=go, more=True))
    read_until(sock, b"\r\n\r\n")
    wait_until(lambda: any(each.write_paused for each in connections()), "the socket takes no more bytes")
    if server.trusting:
        leave = reset  # over TLS, unwritten bytes hide an end of file
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("is_full", [False, True], ids=["silent", "full"])
@over(["/stream", "/thread-stream", "/cpu-stream", "/passed/lines", "/wrapped/events"])
def test_disconnect_in_a_compressed_stream_logs_nothing(
    server: Served, path: str, is_full: bool, leave: Leave, go: Path
) -> None:
    if is_full:
        go.touch()
    sock = server.connect()
    sock.sendall(head("GET", path, go=go, more=True, lines="accept-encoding: gzip\r\n"))
    read_until(sock, b"\r\n\r\n")
    if is_full:
        wait_until(lambda: any(each.write_paused for each in connections()), "the socket takes no more bytes")
        if server.trusting:
            leave = reset
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("state", ["then the end", "then more", "full"])
@over(["/socket", "/socket-that-reads", "/passed/socket"])
def test_disconnect_of_a_websocket_logs_nothing(server: Served, path: str, state: str, leave: Leave, go: Path) -> None:
    if state == "full":
        go.touch()
        leave = reset  # a WebSocket that cannot write does not read, and so misses an end of file
    sock = server.connect()
    sock.sendall(head("GET", path, go=go, more=state != "then the end", lines=SWITCH))
    read_until(sock, BEGINNING.encode())
    if state == "full" and path != "/socket-that-reads":
        wait_until(lambda: any(each.write_paused for each in connections()), "the socket takes no more bytes")
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("more", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@over([*WHOLE, "/passed/bytes", "/passed/cpu-bytes", "/wrapped/cpu-bytes"])
def test_disconnect_before_the_response_logs_nothing(
    server: Served, path: str, method: str, more: bool, leave: Leave, go: Path
) -> None:
    sock = server.connect()
    sock.sendall(head(method, path, go=go, more=more))
    wait_until(lambda: any(each.phase == HANDLER for each in connections()), "the handler runs")
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("framing", ["content-length: 1000000", "transfer-encoding: chunked"])
@over([*BODIES, "/passed/form", "/passed/read"])
def test_disconnect_in_a_body_logs_nothing(server: Served, path: str, framing: str, leave: Leave, go: Path) -> None:
    sock = server.connect()
    body = b'--b\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n' + 100 * b"x"
    lines = f"{MULTIPART if 'form' in path else ''}{framing}\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if "chunked" in framing else body
    sock.sendall(f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode() + chunk)
    wait_until(lambda: any(each.phase == BODY for each in connections()), "the server waits for the rest of the body")
    disconnect(server, sock, leave, go)
