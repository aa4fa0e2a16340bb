"""A client that disconnects is no fault of the server: whenever it does, no warning, error or traceback is logged."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest

import disconnects_app
from conftest import wait_until
from disconnects_app import BEGINNING
from http_ends import reset_on_close
from tinysvc import Service, StaticFiles, current
from tinysvc.testing import serving

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


class Served(NamedTuple):
    url: str

    def connect(self) -> socket.socket:
        return socket.create_connection((urlsplit(self.url).hostname, urlsplit(self.url).port), timeout=30)

    def is_alive(self) -> bool:
        return httpx.get(self.url + "/alive", timeout=30).text == "alive"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    with open(folder / "big", "wb") as big:
        big.truncate(FILE_SIZE)
    service = Service(disconnects_app.service, StaticFiles(folder))
    with serving(service, compress=True) as url:
        yield Served(url)


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
    sock.shutdown(socket.SHUT_WR)
    wait_until(lambda: all(is_told(each) for each in connections()), "the server has seen the end")
    sock.close()


def is_told(connection: Any) -> bool:
    """Whether it knows that its client disconnects."""
    return bool(connection.ended or getattr(connection.upgraded, "code", 0))


Leave = Callable[[socket.socket], None]
LEAVES = pytest.mark.parametrize("leave", [reset, end])


def head(method: str, path: str, *, go: Path, more: bool) -> bytes:
    length = "content-length: 0\r\n" if method == "POST" else ""
    return f"{method} {path}?go={go}&more={int(more)} HTTP/1.1\r\nhost: localhost\r\n{length}\r\n".encode()


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
@pytest.mark.parametrize("path", [*STREAMS, *WITHIN])
def test_in_a_silent_stream(server: Served, path: str, method: str, more: bool, leave: Leave, go: Path) -> None:
    sock = server.connect()
    sock.sendall(head(method, path, go=go, more=more))
    read_until(sock, BEGINNING.encode())
    disconnect(server, sock, leave, go)


@LEAVES
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", [*STREAMS, *WITHIN, "/bytes", "/static/big"])
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
    disconnect(server, sock, leave, go)
