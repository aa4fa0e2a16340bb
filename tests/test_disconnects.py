"""A client that disconnects is no fault of the server: whenever it does, no warning, error or traceback is logged."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterator
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
from tinysvc.core import context as current
from tinysvc.http import BODY, HANDLER
from tinysvc.testing import serving
from tinysvc.web.static import StaticFiles

FILE_SIZE = 256 * 1024 * 1024
"""More than the buffers of both ends hold."""

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


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    with open(folder / "big", "wb") as big:
        big.truncate(FILE_SIZE)
    options: dict[str, Any] = {}
    trusting = None
    if request.param == "https":
        authority = trustme.CA()
        issued, trusting = authority.issue_cert("localhost"), ssl.create_default_context()
        authority.configure_trust(trusting)
        for name, blobs in [("ssl_cert", issued.cert_chain_pems), ("ssl_key", [issued.private_key_pem])]:
            (folder / name).write_bytes(b"".join(blob.bytes() for blob in blobs))
            options[name] = str(folder / name)
    service = Service(disconnects_app.service, StaticFiles(folder))
    with serving(service, compress=True, max_body_size=10**9, **options) as url:
        yield Served(url.replace("127.0.0.1", "localhost"), trusting)


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING or r.exc_info] == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def go(tmp_path: Path) -> Iterator[Path]:
    """The file for which handlers wait."""
    yield tmp_path / "go"
    (tmp_path / "go").touch()  # no failed test leaves a thread behind


def connections() -> list[Any]:
    """Those of the server in this process."""
    return list(current.by_task.values())


def reset(sock: socket.socket) -> None:
    reset_on_close(sock)
    sock.close()


def end(sock: socket.socket) -> None:
    """First an end of file; when the server has seen that, the client is gone."""
    socket.socket.shutdown(sock, socket.SHUT_WR)  # over TLS, too: without its farewell
    wait_until(lambda: all(is_told(each) for each in connections()), "the server has seen the end")
    sock.close()


def is_told(connection: Any) -> bool:
    """Whether it knows that its client disconnects."""
    return bool(connection.ended or getattr(connection.upgraded, "code", 0))


Leave = Callable[[socket.socket], None]
LEAVES = pytest.mark.parametrize("leave", [reset, end])


def over(paths: list[str]) -> pytest.MarkDecorator:
    """A test's servers and paths: all paths over HTTP, some over HTTPS as well."""
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
    """Leave, let the handler go on when the server knows, and wait for the end of all that ran for the client."""
    leave(sock)
    wait_until(lambda: all(is_told(each) for each in connections()), "the server knows")
    go.touch()
    wait_until(lambda: not connections(), "the connection has ended")
    assert server.is_alive()
    wait_until(lambda: not connections(), "the other connection has ended")


@LEAVES
@pytest.mark.parametrize("more", [False, True], ids=["then the end", "then more"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@over([*STREAMS, *WITHIN])
def test_in_a_silent_stream(server: Served, path: str, method: str, more: bool, leave: Leave, go: Path) -> None:
    sock = server.connect()
    sock.sendall(head(method, path, go=go, more=more))
    read_until(sock, BEGINNING.encode())
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("method", ["GET", "POST"])
@over([*STREAMS, *WITHIN, *WHOLE, "/static/big"])
def test_in_an_answer_that_the_client_does_not_read(
    server: Served, path: str, method: str, leave: Leave, go: Path
) -> None:
    if path == "/static/big" and method == "POST":
        return
    go.touch()
    sock = server.connect()
    sock.sendall(head(method, path, go=go, more=True))
    read_until(sock, b"\r\n\r\n")
    wait_until(lambda: any(each.write_paused for each in connections()), "nothing more can be written")
    if server.trusting:
        leave = reset  # over TLS, too much that waits to be written hides an end of file
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("is_full", [False, True], ids=["silent", "full"])
@over(["/stream", "/thread-stream", "/cpu-stream", "/passed/lines", "/wrapped/events"])
def test_in_a_compressed_stream(server: Served, path: str, is_full: bool, leave: Leave, go: Path) -> None:
    if is_full:
        go.touch()
    sock = server.connect()
    sock.sendall(head("GET", path, go=go, more=True, lines="accept-encoding: gzip\r\n"))
    read_until(sock, b"\r\n\r\n")
    if is_full:
        wait_until(lambda: any(each.write_paused for each in connections()), "nothing more can be written")
        if server.trusting:
            leave = reset
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("state", ["then the end", "then more", "full"])
@over(["/socket", "/socket-that-reads", "/passed/socket"])
def test_in_a_websocket(server: Served, path: str, state: str, leave: Leave, go: Path) -> None:
    if state == "full":
        go.touch()
        leave = reset  # a WebSocket that cannot write does not read either: it does not see the end of file
    sock = server.connect()
    sock.sendall(head("GET", path, go=go, more=state != "then the end", lines=SWITCH))
    read_until(sock, BEGINNING.encode())
    if state == "full" and path != "/socket-that-reads":
        wait_until(lambda: any(each.write_paused for each in connections()), "nothing more can be written")
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("more", [False, True], ids=["short", "long"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@over([*WHOLE, "/passed/bytes", "/passed/cpu-bytes", "/wrapped/cpu-bytes"])
def test_before_the_answer(server: Served, path: str, method: str, more: bool, leave: Leave, go: Path) -> None:
    sock = server.connect()
    sock.sendall(head(method, path, go=go, more=more))
    wait_until(lambda: any(each.phase == HANDLER for each in connections()), "the handler runs")
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("framing", ["content-length: 1000000", "transfer-encoding: chunked"])
@over([*BODIES, "/passed/form", "/passed/read"])
def test_in_a_body(server: Served, path: str, framing: str, leave: Leave, go: Path) -> None:
    sock = server.connect()
    body = b'--b\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n' + 100 * b"x"
    lines = f"{MULTIPART if 'form' in path else ''}{framing}\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(body), body) if "chunked" in framing else body
    sock.sendall(f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode() + chunk)
    wait_until(lambda: any(each.phase == BODY for each in connections()), "the rest of the body is waited for")
    disconnect(server, sock, leave, go)
