"""Streams take bounded memory: bodies of any size, in both directions, with slow clients and slow handlers.

The server runs in its own process; the kernel reports the most memory that it has held (VmHWM). No test waits for time
to pass: the test releases a slow handler step by step, and a slow client sends other requests between two steps until
the stream stalls. So each test also shows that the server answers meanwhile.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from commands import Served, served, tinysvc
from http_ends import chunked, get, reset_on_close
from paths import SUPPORT
from soak_app import ANY_SIZE, BLOCK, block, checksum
from system import descendants, wait_until
from tinysvc.core.units import MiB

SIZE = int(os.environ.get("STREAMED_BYTES", 128 * MiB))
"""Bytes of a body; STREAMED_BYTES=2147483648 sets 2 GiB."""

STEP = 8 * MiB
"""Bytes between two pauses of the slow end."""

BOUND = 2 * MiB
"""Bytes of memory that a stream may take in any process of the server."""

UNDER_WAY = 64 * MiB
"""The most bytes between the two ends; the kernel's socket buffers grow to 36 MiB."""

BLOCKS = SIZE // BLOCK

pytestmark = [
    pytest.mark.timeout(60 + SIZE // (8 * MiB)),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is measured by Linux's /proc"),
]

Ask = Callable[..., dict[str, int]]


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """One server for all tests with the same options; it must exit with status 0 and without a message."""
    options = ["--pools", "streams:workers=1", *getattr(request, "param", ())]
    with served(*tinysvc("soak_app.py", *options), cwd=SUPPORT) as server:
        yield server
        processes = descendants(server.pid)
        server.process.terminate()
        _, errors = server.process.communicate(timeout=20)
        assert (server.process.returncode, errors) == (0, "")
        wait_until(
            lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes),
            "all processes of the server have ended",
        )


@pytest.fixture
def ask(server: Served) -> Iterator[Ask]:
    """A second client: send a request, return the decoded JSON."""
    with closing(http.client.HTTPConnection(*address(server), timeout=30)) as connection:

        def ask(path: str, method: str = "GET") -> dict[str, int]:
            connection.request(method, path)
            answer: dict[str, int] = json.loads(connection.getresponse().read() or b"{}")
            return answer

        yield ask


def address(server: Served) -> tuple[str, int]:
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def connect(server: Served) -> socket.socket:
    return socket.create_connection(address(server), timeout=30)


def read_response(sock: socket.socket) -> tuple[int, bytes, str | None]:
    """Status, body and the `connection` field of a response."""
    with closing(http.client.HTTPResponse(sock)) as answer:
        answer.begin()
        return answer.status, answer.read(), answer.getheader("connection")


def is_cut_off(sock: socket.socket) -> bool:
    """Wait for the end of the connection; true if the server sent nothing more."""
    try:
        return sock.recv(1) == b""
    except ConnectionError:
        return True


def bytes_of(pid: int, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found, field
    return int(found[1]) * 1024


@contextmanager
def bounded_memory(server: Served) -> Iterator[None]:
    """Assert that no surviving process of the server held BOUND bytes more in the block than at its start."""
    before = {}
    for pid in (server.pid, *descendants(server.pid)):
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets the peak to the current size
        before[pid] = bytes_of(pid, "VmRSS")
    yield
    more = {pid: bytes_of(pid, "VmHWM") - before[pid] for pid in descendants(server.pid).keys() & before.keys()}
    more[server.pid] = bytes_of(server.pid, "VmHWM") - before[server.pid]
    most = max(more.values())
    print(f"{SIZE >> 20} MiB took {more[server.pid] >> 10} KiB of the server, {most >> 10} KiB of any process")
    assert most < BOUND, f"bytes more than before, by process (the server is {server.pid}): {more}"


def until_it_stalls(ask: Ask, moved: Callable[[], int]) -> None:
    """Send requests until the value of `moved` stays the same for five of them."""
    seen = [-1]
    while len(seen) < 5 or len(set(seen[-5:])) > 1:
        ask("/io/state")
        seen.append(moved())


class Upload:
    """A body that a thread sends as fast as the server accepts it."""

    def __init__(self, sock: socket.socket, path: str, framing: str, pieces: Iterator[bytes]) -> None:
        self.sent = 0
        self._sock, self._pieces = sock, pieces
        sock.sendall(get(path, framing, method="POST"))
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Upload:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed or reset already
        self._thread.join()

    def _send(self) -> None:
        try:
            for piece in self._pieces:
                self._sock.sendall(piece)
                self.sent += len(piece)
        except OSError:
            pass  # the server or the test has closed the connection; the test checks which


def declared(sock: socket.socket, path: str, blocks: int = BLOCKS) -> Upload:
    return Upload(sock, path, f"Content-Length: {blocks * BLOCK}", map(block, range(blocks)))


def in_chunks(sock: socket.socket, path: str, blocks: int = BLOCKS) -> Upload:
    def pieces() -> Iterator[bytes]:
        for number in range(blocks):
            yield b"%x\r\n%b\r\n" % (BLOCK, block(number))
        yield chunked()

    return Upload(sock, path, "Transfer-Encoding: chunked", pieces())


UPLOADS = pytest.mark.parametrize("send", [declared, in_chunks])
DOWNLOADS = pytest.mark.parametrize("path", ["/io/download", "/io/declared", "/thread/download", "/cpu/download"])

# Uploads


@UPLOADS
def test_upload_to_a_slow_handler_takes_bounded_memory(server: Served, ask: Ask, send: Callable[..., Upload]) -> None:
    warm_up(server, ask, send)
    ask(f"/io/limit/{STEP}", "POST")
    with bounded_memory(server), closing(connect(server)) as sock, send(sock, "/io/upload") as upload:
        for limit in range(STEP, SIZE, STEP):
            wait_until(lambda limit=limit: ask("/io/state")["streamed"] > limit, "the handler has read up to its limit")
            assert upload.sent < limit + UNDER_WAY
            ask(f"/io/limit/{limit + STEP}", "POST")
        assert read_response(sock) == (200, b'{"size":%d,"crc":%d}' % (SIZE, checksum(BLOCKS)), None)


@UPLOADS
def test_unread_upload_takes_bounded_memory(server: Served, ask: Ask, send: Callable[..., Upload]) -> None:
    warm_up(server, ask, send)
    ask("/io/limit/0", "POST")
    with bounded_memory(server), closing(connect(server)) as sock, send(sock, "/io/unread") as upload:
        wait_until(lambda: ask("/io/state")["open"] == 1, "the handler runs")
        until_it_stalls(ask, lambda: upload.sent)
        assert upload.sent < UNDER_WAY
        ask("/io/limit/1", "POST")
        assert read_response(sock)[:2] == (200, b'{"size":0}')
        assert is_cut_off(sock)


@UPLOADS
@pytest.mark.parametrize("leave", ["with a reset", "without"])
def test_disconnect_ends_an_upload(server: Served, ask: Ask, send: Callable[..., Upload], leave: str) -> None:
    warm_up(server, ask, send)
    ask(f"/io/limit/{STEP}", "POST")
    with bounded_memory(server), closing(connect(server)) as sock:
        with send(sock, "/io/upload") as upload:
            wait_until(lambda: ask("/io/state")["streamed"] > STEP, "the handler reads")
            if leave == "with a reset":
                reset_on_close(sock)
        assert upload.sent < SIZE
    ask(f"/io/limit/{ANY_SIZE}", "POST")
    wait_until(lambda: ask("/io/state")["open"] == 0, "the handler has ended")
    warm_up(server, ask, send)


def warm_up(server: Served, ask: Ask, send: Callable[..., Upload]) -> None:
    """Send a small body first: it allocates everything that is allocated only once."""
    ask(f"/io/limit/{ANY_SIZE}", "POST")
    with closing(connect(server)) as sock, send(sock, "/io/upload", 2):
        assert read_response(sock) == (200, b'{"size":%d,"crc":%d}' % (2 * BLOCK, checksum(2)), None)


# Downloads


@contextmanager
def downloading(
    server: Served, path: str, blocks: int = BLOCKS
) -> Iterator[tuple[socket.socket, http.client.HTTPResponse]]:
    """A response whose header block has arrived."""
    with closing(connect(server)) as sock, closing(http.client.HTTPResponse(sock)) as answer:
        sock.sendall(get(f"{path}/{blocks}"))
        answer.begin()
        yield sock, answer


def small(server: Served, path: str) -> None:
    with downloading(server, path, 2) as (_, answer):
        assert zlib.crc32(answer.read()) == checksum(2)


def wait_until_ended(server: Served, ask: Ask, path: str) -> None:
    """Wait until the generator is closed and the only worker takes the next job."""
    wait_until(lambda: ask("/io/state")["open"] == 0, "the generator is closed")
    small(server, path)


@DOWNLOADS
def test_download_of_a_slow_client_takes_bounded_memory(server: Served, ask: Ask, path: str) -> None:
    small(server, "/io/download")  # restarts the counter; a generator in a worker counts nothing
    small(server, path)
    with bounded_memory(server), downloading(server, path) as (_, answer):
        crc = size = 0
        while piece := answer.read(BLOCK):
            crc, size = zlib.crc32(piece, crc), size + len(piece)
            if size % STEP == 0:
                until_it_stalls(ask, lambda: ask("/io/state")["streamed"])
                assert ask("/io/state")["streamed"] < size + UNDER_WAY
        assert (answer.status, size, crc) == (200, SIZE, checksum(BLOCKS))


@DOWNLOADS
@pytest.mark.parametrize("server", [["--write-timeout", "0.1"]], indirect=True)
def test_unread_download_is_cut_off(server: Served, ask: Ask, path: str) -> None:
    small(server, path)
    with bounded_memory(server), downloading(server, path) as (_, answer):
        wait_until_ended(server, ask, path)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()


@DOWNLOADS
@pytest.mark.parametrize("leave", ["with a reset", "without"])
def test_disconnect_ends_a_download(server: Served, ask: Ask, path: str, leave: str) -> None:
    small(server, path)
    with bounded_memory(server):
        with downloading(server, path) as (sock, answer):
            assert answer.read(BLOCK) == block(0)
            if leave == "with a reset":
                reset_on_close(sock)
        wait_until_ended(server, ask, path)
