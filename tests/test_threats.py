"""Known attacks on HTTP servers, against a server process, with assertions enabled and under `python -O`.

Five rules hold for each attack (see `Target`): the verdict does not depend on how the bytes are segmented; a refusal
closes the connection, and no byte behind it is served; one bad request logs at most one line; the server serves the
next client; afterwards the server has no more descriptors and tasks than before.
`test_parsing_takes_linear_time` measures the parsers. tests/wire holds the many variants of malformed bytes, and
docs/threats.md lists all threats.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop

from commands import tinysvc
from http_ends import ReceivedResponse, get, parse_responses, post, reset_on_close
from paths import SUPPORT
from system import PROC, wait_until
from tinysvc.core.requests import Request
from tinysvc.core.settings import Settings
from tinysvc.core.units import KiB, MiB
from tinysvc.wire.chunked import ChunkedDecoder
from tinysvc.wire.heads import parse_any_request_line, parse_fields

PATIENCE = ("first-byte", "header", "body", "write")
OPTIONS = [*(word for name in PATIENCE for word in (f"--{name}-timeout", "1")), "--max-requests", "1000000"]
JSON = "Content-Type: application/json"
CLOSE = "Connection: close"
BEHIND = get("/smuggled")


class Target:
    """The server process under attack, and its number of tasks and descriptors before the attack."""

    def __init__(self, process: subprocess.Popen[str], log: Path, folder: Path) -> None:
        self.process, self.log, self.folder = process, log, folder
        assert process.stdout is not None
        listening = next(line for line in process.stdout if line.startswith("listening on "))
        self.port = int(listening.rpartition(":")[2])
        self.tasks, self.descriptors = self.census()["tasks"], self._descriptors()

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        connection = socket.socket()
        connection.settimeout(20)
        if receive_buffer:  # the kernel's default grows to many MiB
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def exchange(self, *pieces: bytes) -> bytes:
        """Send the pieces; return all bytes that the server sends until it closes."""
        with self.connect() as connection:
            with suppress(ConnectionError):  # the server may refuse before it has received every piece
                for piece in pieces:
                    connection.sendall(piece)
            return received(connection)

    def ask(self, data: bytes) -> ReceivedResponse:
        """The only response to a request that carries `Connection: close`."""
        (response,) = responses(self.exchange(data))
        return response

    def statuses(self, data: bytes) -> list[int]:
        """The statuses of the responses; assert that they are the same for every segmentation."""
        ways = [[data], [data[i : i + 1] for i in range(min(len(data), 400))] + [data[400:]]]
        ways += [[data[:cut], data[cut:]] for cut in range(1, min(len(data), 400), 29)]
        found = [[response.status for response in responses(self.exchange(*pieces))] for pieces in ways]
        assert all(each == found[0] for each in found), found
        return found[0]

    def census(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self.ask(get("/census", CLOSE)).body)
        return found

    def memory(self) -> int:
        found = re.search(r"^VmRSS:\s+(\d+) kB", (PROC / f"{self.process.pid}/status").read_text(), re.MULTILINE)
        assert found
        return int(found[1]) * KiB

    def logged(self) -> list[str]:
        return self.log.read_text().splitlines()

    def _descriptors(self) -> int:
        """The number of open descriptors, without the memfds that the pool keeps for big bodies."""
        found = 0
        for entry in (PROC / f"{self.process.pid}/fd").iterdir():
            with suppress(OSError):
                found += "memfd:" not in os.readlink(entry)
        return found

    def is_as_before(self) -> bool:
        return self.census()["tasks"] <= self.tasks and self._descriptors() <= self.descriptors


def received(connection: socket.socket) -> bytes:
    data = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65536):
            data += piece
    return data


def responses(data: bytes) -> list[ReceivedResponse]:
    return uvloop.run(parse_responses(data))


@pytest.fixture(scope="module", params=["", "-O"], ids=["asserting", "optimized"])
def process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("attacked")
    command = [sys.executable, *filter(None, [request.param]), *tinysvc("threats_app", *OPTIONS)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
        )
    try:
        target = Target(process, folder / "log", folder)
        yield target
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def target(process: Target) -> Iterator[Target]:
    yield process
    assert process.process.poll() is None, process.logged()
    wait_until(process.is_as_before, "the server has no more tasks and descriptors than before")
    assert process.census()["smuggled"] == 0


@pytest.fixture
def silent(target: Target) -> Iterator[Target]:
    """A target whose log must not grow: a mistake of a client is no event for the operator."""
    before = target.logged()
    yield target
    assert target.logged() == before


# Bytes that two parsers may read differently (request smuggling)

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
AMBIGUOUS = {
    "both-lengths-CVE-2023-47641": HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two-lengths-CVE-2019-16792": HEAD + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
    "length-list": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "length-int-CVE-2023-47627": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "length-digits-CVE-2020-10735": HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "unicode-digits-CVE-2025-69224": b"GET / HTTP/\xef\xbc\x91.1\r\nHost: x\r\n\r\n",
    "coding-not-last-CVE-2024-1135": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "coding-padded-CVE-2019-16789": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "coding-on-1-0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "fold-GHSA-8qpw-xqxj-h4r2": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "space-before-colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "dotless-i": HEAD + b"Transfer-Encod\xc4\xb1ng: chunked\r\n\r\n0\r\n\r\n",
    "bare-lf-CVE-2019-16785": HEAD + b"X: a\nContent-Length: 0\r\n\r\n",
    "bare-cr-CVE-2023-37276": HEAD + b"X: a\rContent-Length: 0\r\n\r\n",
    "nul": HEAD + b"X: a\x00b\r\n\r\n",
    "bell": HEAD + b"X: a\x07\r\n\r\n",
    "block-end": b"GET / HTTP/1.1\r\nHost: a\r\n\rZ" + BEHIND,
    "chunk-int-CVE-2022-24761": CHUNKS + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk-end-CVE-2025-43859": CHUNKS + b"5\r\nAAAAAXX0\r\n\r\n",
    "chunk-lf-CVE-2025-22871": CHUNKS + b"2;\nxx\r\n22\r\n0\r\n\r\n",
    "chunk-extension-CVE-2025-55315": CHUNKS + b"1;a=\x01\r\nx\r\n0\r\n\r\n",
    "trailer-without-end": CHUNKS + b"0\r\nX: a\nY: b\r\n\r\n",
    "two-hosts-CVE-2026-34525": b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "host-path-CVE-2026-48710": b"GET / HTTP/1.1\r\nHost: a/../admin\r\n\r\n",
    "absolute-other-host": b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "at-sign-target": b"GET @google.com HTTP/1.1\r\nHost: x\r\n\r\n",
    "method-CVE-2023-49082": b"GET\x00 / HTTP/1.1\r\nHost: x\r\n\r\n",
    "target-nul": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "proxy": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguous_message_gets_400(silent: Target, name: str) -> None:
    assert silent.statuses(AMBIGUOUS[name] + BEHIND) == [400]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"A" * 100_000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (get("/", "Expect: a miracle"), 417),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 101 + b"\r\n", 431),
    ],
    ids=["version", "http2", "method", "long-method", "expectation", "fields"],
)
def test_unsupported_request_gets_its_own_status(silent: Target, data: bytes, status: int) -> None:
    assert silent.statuses(data + BEHIND) == [status]


def test_bytes_behind_a_refusal_are_never_served(silent: Target) -> None:
    """CVE-2024-49768, a race in waitress: in the same segment, and in one that arrives while the server closes."""
    bad = b"GET / HTTP/1.1\r\n\r\n"
    for number in range(200):
        pieces = [bad + BEHIND, BEHIND] if number % 2 else [bad, BEHIND]
        assert [response.status for response in responses(silent.exchange(*pieces))] == [400]
    for number in range(100):
        pieces = [get("/", CLOSE) + BEHIND] if number % 2 else [get("/", CLOSE), BEHIND]
        assert [response.status for response in responses(silent.exchange(*pieces))] == [200]


# Excessive input


@pytest.mark.parametrize(
    ("head", "more", "status"),
    [
        (b"GET /", b"a" * 64, 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"a" * 64, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X: a\r\n", 431),
        (CHUNKS + b"0\r\n", b"X: a\r\n", 431),
        (CHUNKS + b"0\r\nX: ", b"a" * 64, 431),
        (CHUNKS + b"1;", b"a" * 64, 400),
        (CHUNKS, b"1;a=" + b"a" * 200 + b"\r\nx\r\n", 400),
        (CHUNKS, b"%x\r\n%b\r\n" % (64 * KiB, bytes(64 * KiB)), 413),
    ],
    ids=["line", "field", "fields", "trailers", "trailer", "extension", "extensions-CVE-2023-39326", "body"],
)
def test_endless_input_is_refused_at_its_limit(silent: Target, head: bytes, more: bytes, status: int) -> None:
    """CVE-2026-54277: limits hold across segments. The client sends a little at a time, up to 32 MiB."""
    sent = 0
    with silent.connect() as connection:
        connection.sendall(head)
        with suppress(ConnectionError):
            while sent < 32 * MiB and not has_received(connection):
                connection.sendall(more)
                sent += len(more)
        assert [response.status for response in responses(received(connection))] == [status]
    assert sent < 32 * MiB


def has_received(connection: socket.socket) -> bool:
    """Whether the server has sent bytes or closed the connection."""
    connection.setblocking(False)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(20)
    return True


def test_body_of_tiny_chunks_takes_bounded_memory(silent: Target) -> None:
    """CVE-2025-69229: one byte per chunk. The server serves other clients meanwhile."""
    body = b"1\r\nx\r\n" * MiB + b"0\r\n\r\n"
    before = silent.memory()
    with silent.connect() as connection:
        connection.sendall(get("/", "Transfer-Encoding: chunked", CLOSE, method="POST") + body[: len(body) // 2])
        assert silent.ask(get("/", CLOSE)).status == 200
        connection.sendall(body[len(body) // 2 :])
        assert responses(received(connection))[0].body == b'{"size":%d}' % MiB
    assert silent.memory() < before + 16 * MiB


PADDING = "X: " + "a" * 200  # makes the flood bigger than the kernel's socket buffers, which grow to 30 MiB


def test_pipelining_flood_takes_bounded_memory_and_keeps_order(silent: Target) -> None:
    """CVE-2026-54273, CVE-2024-41671. A client that reads at last gets the responses in order."""
    before = silent.memory()
    flood = memoryview(b"".join(get(f"/number/{number}", PADDING) for number in range(300_000)))
    with silent.connect(64 * KiB) as connection:
        sent = misses = 0
        connection.setblocking(False)
        while misses < 20 and sent < len(flood):  # until the server accepts no more bytes
            try:
                sent += connection.send(flood[sent : sent + 65536])
                misses = 0
            except BlockingIOError:
                misses += 1
                time.sleep(0.01)
        connection.settimeout(20)
        assert sent < len(flood)
        assert silent.memory() < before + 16 * MiB
        data = b""
        while len(data) < 200_000:
            piece = connection.recv(65536)
            assert piece
            data += piece
    numbers = [int(number) for number in re.findall(rb"\r\n\r\n(\d+)HTTP", data)]
    assert numbers == list(range(len(numbers)))


def test_unread_response_takes_bounded_memory(silent: Target) -> None:
    """CVE-2024-12254: the write buffer is bounded, and after the write timeout the server closes the connection."""
    before = silent.memory()
    connections = [silent.connect() for _ in range(8)]
    for connection in connections:
        connection.sendall(get("/endless"))
    assert silent.ask(get("/", CLOSE)).status == 200
    assert silent.memory() < before + 32 * MiB
    wait_until(silent.is_as_before, "the server has closed the connections")
    for connection in connections:
        connection.close()


# Slow clients


SLOW = {
    "nothing": (b"", []),
    "line": (b"GET / HT", [408]),
    "head": (b"GET / HTTP/1.1\r\nHost: x\r\n", [408]),
    "body": (post(b"hello")[:-1], [408]),
    "chunk": (CHUNKS + b"5\r\nhe", [408]),
}


def test_slow_client_is_closed_and_delays_no_other(silent: Target) -> None:
    slow = {name: silent.connect() for name in SLOW}
    for name, connection in slow.items():
        connection.sendall(SLOW[name][0])
    assert silent.ask(get("/", CLOSE)).status == 200
    for name, connection in slow.items():
        with connection:
            assert [each.status for each in responses(received(connection))] == SLOW[name][1], name


def test_dripping_header_block_gets_no_extra_time(silent: Target) -> None:
    with silent.connect() as connection:
        head = iter(get("/", *(f"X-{number}: a" for number in range(50))))
        for byte in head:
            connection.sendall(bytes([byte]))
            if silent.ask(get("/", CLOSE)).status and has_received(connection):
                break
            time.sleep(0.05)
        assert next(head, None) is not None
        assert [each.status for each in responses(received(connection))] == [408]


# Disconnects


def test_reset_right_after_connect_leaves_nothing_behind(silent: Target) -> None:
    """CVE-2024-49769."""
    for _ in range(500):
        connection = silent.connect()
        reset_on_close(connection)
        connection.close()


@pytest.mark.parametrize("how", ["end", "reset"])
def test_disconnect_at_each_byte_leaves_nothing_behind(silent: Target, how: str) -> None:
    request = post(b'{"number": 1}', "/order", JSON)
    for sent in range(len(request)):
        with closing(silent.connect()) as connection:
            connection.sendall(request[:sent])
            if how == "reset":
                reset_on_close(connection)
    for read in range(0, 300, 7):
        with closing(silent.connect()) as connection:
            connection.sendall(get("/big") if read % 2 else request)
            if read:
                connection.recv(read)
            if how == "reset":
                reset_on_close(connection)


# Untrusted input


def test_proxy_headers_of_a_client_are_ignored(silent: Target) -> None:
    """CVE-2016-1000111 (httpoxy): this server has no trusted proxies."""
    fields = ["X-Forwarded-For: 10.0.0.1", "X-Forwarded-Proto: https", "Forwarded: for=10.0.0.1", "Proxy: http://evil"]
    found = json.loads(silent.ask(get("/who", *fields, CLOSE)).body)
    assert (found["client"][0], found["scheme"], found["proxies"]) == ("127.0.0.1", "http", [])


def test_underscore_in_a_header_name_is_no_dash(silent: Target) -> None:
    assert silent.ask(get("/alias", "X_Forwarded_For: 10.0.0.1", CLOSE)).body == b""


@pytest.mark.parametrize("path", ["//evil.example/..", "/%5cevil.example", "/path", "//evil.example"])
def test_no_path_causes_a_redirect(silent: Target, path: str) -> None:
    """CVE-2021-21330: the server does not redirect paths with superfluous slashes."""
    response = silent.ask(get(path, CLOSE))
    assert response.status in (400, 404)
    assert "location" not in response.fields


def test_json_with_the_content_type_of_a_form_gets_415(silent: Target) -> None:
    """CVE-2021-32677: a form of another site can send text/plain; JSON needs a CORS preflight."""
    for path in ("/order", "/cpu/order"):
        for kind in ("text/plain", "application/x-www-form-urlencoded", 'multipart/form-data; boundary="a"'):
            assert silent.ask(post(b'{"number": 1}', path, f"Content-Type: {kind}", CLOSE)).status == 415


def test_semicolon_does_not_separate_query_parameters(silent: Target) -> None:
    """CVE-2020-28473."""
    assert json.loads(silent.ask(get("/query?a=x;role=admin", CLOSE)).body) == {"a": "x;role=admin", "role": ""}


def test_nameless_cookie_is_ignored(silent: Target) -> None:
    """CVE-2023-23934."""
    found = json.loads(silent.ask(get("/cookie", "Cookie: =__Host-x=1; a=b", CLOSE)).body)
    assert found == {"a": "b", "host": ""}


# Bodies

BOMBS = {
    "deep-arrays": b"[" * 100_000,
    "deep-objects": b'{"a":' * 100_000,
    "infinite": b'{"number": 1e999999}',
    "nan": b'{"number": NaN}',
    "digits": b'{"number": ' + b"9" * 5000 + b"}",
    "utf-16": '{"number": 1}'.encode("utf-16"),
    "not-utf-8": b'{"number": 1, "note": "\xff"}',
    "surrogate": b'{"number": 1, "note": "\\ud800"}',
    "empty": b" ",
}


@pytest.mark.parametrize("path", ["/order", "/cpu/order"])
@pytest.mark.parametrize("name", BOMBS)
def test_bad_json_gets_400_or_422(silent: Target, name: str, path: str) -> None:
    assert silent.ask(post(BOMBS[name], path, JSON, CLOSE)).status in (400, 422)


@pytest.mark.parametrize("path", ["/order", "/cpu/order"])
def test_byte_order_mark_before_json_is_ignored(silent: Target, path: str) -> None:
    """RFC 8259, 8.1 allows it."""
    assert silent.ask(post(b'\xef\xbb\xbf{"number": 1}', path, JSON, CLOSE)).status == 200


def test_colliding_json_keys_are_accepted(silent: Target) -> None:
    note = json.dumps({str(number << 61): 0 for number in range(50_000)}).encode()
    assert silent.ask(post(b'{"number": 1, "note": ' + note + b"}", "/order", JSON, CLOSE)).status == 200


BOMB = gzip.compress(bytes(100 * MiB))


@pytest.mark.parametrize("path", ["/order", "/cpu/order", "/upload", "/cpu/upload"])
@pytest.mark.parametrize(
    ("body", "coding", "status"),
    [
        (BOMB, "gzip", 413),
        (gzip.compress(BOMB), "gzip, gzip", 415),
        (gzip.compress(BOMB), "gzip", 400),
        (BOMB[:-9], "gzip", 413),
        (gzip.compress(b"x" * 1000)[:-9], "gzip", 400),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + bytes(1000), "gzip", 400),
        (bytes(1000), "br", 400),
        (bytes(1000), "compress", 415),
    ],
    ids=["bomb", "nested", "bomb-in-bomb", "cut-bomb", "cut", "garbage", "br", "unknown"],
)
def test_decompression_bomb_is_refused(silent: Target, path: str, body: bytes, coding: str, status: int) -> None:
    """CVE-2025-69223."""
    before = silent.memory()
    kind = JSON if "order" in path else FORM
    assert silent.ask(post(body, path, kind, f"Content-Encoding: {coding}", CLOSE)).status == status
    assert silent.memory() - before < 40 * MiB
    raw = silent.ask(post(body[:1000], "/", f"Content-Encoding: {coding}", CLOSE))
    assert raw.body == b'{"size":%d}' % len(body[:1000])


# Forms

FORM = "Content-Type: multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\nx\r\n'
FORMS = {  # 422 means that `file` is missing: the other fields are within the limits of the route
    "many-parts-CVE-2023-25577": (FORM, (PART + b"\r\n") * 11_000 + b"--b--\r\n", 413),
    "big-field-CVE-2024-47874": (FORM, PART + b"x" * (8 * MiB) + b"\r\n--b--\r\n", 422),
    "many-fields-CVE-2025-69228": (FORM, (PART + b"x" * 10_000 + b"\r\n") * 500 + b"--b--\r\n", 422),
    "line-ends-CVE-2023-46136": (FORM, b"\r" + b"\n\r" * (2 * MiB), 400),
    "line-ends-in-a-file-CVE-2023-46136": (FORM, FILE % b"x" + b"\r\n" * (2 * MiB), 400),
    "no-last-boundary-CVE-2024-30251": (FORM, FILE % b"x", 400),
    "before-the-boundary-CVE-2024-53981": (FORM, b"x" * MiB + PART, 400),
    "boundary-of-one-in-the-content": (FORM, PART + b"--b" * 100_000, 400),
    "part-header-CVE-2026-34516": (FORM, b"--b\r\nX: " + b"x" * MiB, 413),
    "content-type-CVE-2024-24762": ('Content-Type: application/x-www-form-urlencoded; !="' + "\\" * 7000, b"a=1", 422),
    "content-type-semicolons": ("Content-Type: multipart/form-data" + ';"' * 3500, b"", 400),
    "fields-CVE-2021-23336": ("Content-Type: application/x-www-form-urlencoded", b"a&" * 100_000, 400),
    "filename-CVE-2026-24486": (FORM, FILE % b"../../etc/cron.d/x" + b"--b--\r\n", 200),
    "filename-nul": (FORM, FILE % b"a\0b" + b"--b--\r\n", 400),
}


@pytest.mark.parametrize("path", ["/upload", "/cpu/upload"])
@pytest.mark.parametrize("name", FORMS)
def test_hostile_form_takes_bounded_memory(silent: Target, name: str, path: str) -> None:
    field, body, status = FORMS[name]
    before = silent.memory()
    response = silent.ask(post(body, path, field, CLOSE))
    assert response.status == status, response.body
    assert silent.memory() - before < 40 * MiB
    if status == 200:
        assert json.loads(response.body) == ["x", 1]


# Files

TRAVERSALS = [
    "/static/..%2f..%2fetc%2fpasswd", "/static/%2e%2e/%2e%2e/etc/passwd", "/static/..%5c..%5cetc%5cpasswd",
    "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/.hidden", "/static/%c0%ae%c0%ae/etc/passwd",
    "/static/link", "/static/folder-link/passwd", "/static/pipe", "/static/", "/static/NUL",
    "/static/../threats_app.py",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_out_of_the_static_folder(silent: Target, path: str) -> None:
    """CVE-2017-16762, CVE-2023-29159, CVE-2024-23334, CVE-2025-69226, CVE-2024-42367, CVE-2025-66221."""
    assert silent.ask(get("/static/file.txt", CLOSE)).body == b"file"
    there, missing = silent.ask(get(path, CLOSE)), silent.ask(get("/static/certainly-not", CLOSE))
    assert (there.status, there.body) == (missing.status, missing.body) == (404, missing.body)


@pytest.mark.parametrize("ranges", ["0-0," * 1000 + "1-1", "0-," * 1000 + "0-", "-0", "3-1", "0-1,0-1", "\xd9\xa0-1"])
def test_many_ranges_do_not_multiply_the_body(silent: Target, ranges: str) -> None:
    """CVE-2025-62727, CVE-2025-69225."""
    head = get("/static/file.txt", CLOSE)[:-2] + b"Range: bytes=" + ranges.encode("latin-1") + b"\r\n\r\n"
    response = silent.ask(head)
    assert (response.status, response.body) in [(200, b"file"), (416, response.body), (431, response.body)]


# WebSocket

UPGRADE = [
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
]  # fmt: skip


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x82\xff" + (16 * MiB).to_bytes(8) + bytes(4) + bytes(16 * MiB), 1009),
        (b"\x82\x05hello", 1002),
        (b"\xc2\x85" + bytes(4) + b"hello", 1002),
        (b"\x81\x82" + bytes(4) + b"\xff\xff", 1007),
        (b"\x02\x81" + bytes(4) + b"x" + (b"\x00\x81" + bytes(4) + b"x") * (MiB // 2) + b"\x88\x80" + bytes(4), 1002),
    ],
    ids=["big-CVE-2018-1000518", "unmasked", "unasked-compression", "utf-8", "tiny-fragments"],
)
def test_bad_websocket_frame_closes_with_its_code(silent: Target, frames: bytes, code: int) -> None:
    """CVE-2026-54274."""
    before = silent.memory()
    head, _, frames_back = silent.exchange(get("/socket", *UPGRADE) + frames).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames_back[0] == 0x88
    assert int.from_bytes(frames_back[2:4]) == code
    assert silent.memory() - before < 40 * MiB


def test_response_before_the_body_closes_the_connection(silent: Target) -> None:
    """A body that arrives after its response must not be parsed as a request."""
    head = get("/unread", f"Content-Length: {len(BEHIND)}", "Expect: 100-continue", CLOSE, method="POST")
    assert silent.statuses(head) == [204]
    assert [response.status for response in responses(silent.exchange(head, BEHIND))] == [204]
    assert silent.ask(b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello").status == 200


# Mistakes of handlers


@pytest.mark.parametrize("where", ["name", "value", "type"])
@pytest.mark.parametrize("text", ["a\r\nx-evil: y", "a\nx-evil: y", "a\rx-evil: y", "a\0", "\N{SNOWMAN}", ""])
def test_bad_response_header_gets_500(target: Target, where: str, text: str) -> None:
    """CVE-2018-1000164, CVE-2020-7695."""
    if not text and where != "name":
        return
    before = target.logged()
    response = target.ask(post(text.encode(), f"/split?where={where}", CLOSE))
    assert response.status == 500
    assert "x-evil" not in response.fields
    assert len(starts(target.logged()[len(before) :])) == 1


def starts(lines: list[str]) -> list[str]:
    """The lines that start a log record; the lines of a traceback are indented."""
    return [line for line in lines if not line.startswith(" ")]


def test_head_204_and_304_have_no_body(silent: Target) -> None:
    for status in (204, 304):
        found = responses(silent.exchange(get(f"/empty/{status}") + get("/number/1", CLOSE)))
        assert [(response.status, response.body) for response in found] == [(status, b""), (200, b"1")]
    data = silent.exchange(get("/empty/200", CLOSE, method="HEAD"))
    assert data.endswith(b"\r\n\r\n")
    assert b"smuggled" not in data


@pytest.mark.parametrize("declared", [5, 9, 11, 1000])
def test_body_that_differs_from_content_length_is_cut_off(target: Target, declared: int) -> None:
    before = target.logged()
    data = target.exchange(get(f"/declared/{declared}") + BEHIND)
    assert data.count(b"HTTP/1.1") <= 1
    assert len(data.partition(b"\r\n\r\n")[2]) < max(declared, 10)
    (line,) = target.logged()[len(before) :]
    assert "content-length" in line


@pytest.mark.parametrize("path", ["/fails", "/cpu/fails"])
def test_error_details_stay_in_the_log(target: Target, path: str) -> None:
    """CVE-2016-10516, CVE-2022-31799; and CVE-2020-7694: no header of a request forges a log line."""
    before = target.logged()
    response = target.ask(get(path, "User-Agent: a\tb\xa0INFO forged \x85\u2028x".replace("\u2028", ""), CLOSE))
    assert response.status == 500
    assert b"hunter2" not in response.body
    lines = target.logged()[len(before) :]
    assert len(starts(lines)) == 1
    assert "hunter2" in lines[-1]
    assert not any(line.startswith("INFO") for line in lines)


@pytest.mark.parametrize("kind", ["returned", "raised", "pickled"])
def test_result_of_a_worker_runs_no_code_in_the_server(target: Target, kind: str) -> None:
    target.ask(get(f"/cpu/bomb/{kind}", CLOSE))
    assert not (target.folder / f"by-{target.process.pid}").exists()


def test_bad_requests_log_nothing(silent: Target) -> None:
    """CVE-2025-69230."""
    for _ in range(300):
        assert silent.exchange(b"\x00").startswith(b"HTTP/1.1 400 ")


# Linear time

SETTINGS = Settings(max_header_size=MiB, max_header_field=MiB, max_request_line=MiB, max_headers=10_000)
COOKIE = Request("GET", "/")


def decode_chunks(data: bytes) -> None:
    ChunkedDecoder(SETTINGS).feed(data)


def fields(data: bytes) -> None:
    parse_fields(b"GET / HTTP/1.1\r\nHost: x\r\n" + data + b"\r\n\r\n", b"1", SETTINGS)


LINEAR: dict[str, tuple[Callable[[bytes], Any], Callable[[int], bytes]]] = {
    "path": (parse_any_request_line, lambda n: b"GET /" + b"%41" * n + b" HTTP/1.1\r\n"),
    "path-that-fails-late": (parse_any_request_line, lambda n: b"GET /" + b"a" * n + b"\\ HTTP/1.1\r\n"),
    "query-of-brackets": (parse_any_request_line, lambda n: b"GET /?" + b"[" * n + b"\x7f HTTP/1.1\r\n"),
    "token": (parse_any_request_line, lambda n: b"!" * n + b"\x00"),
    "field": (fields, lambda n: b"X: " + b"a" * n + b"\x10"),
    "quotes-CVE-2024-24762": (fields, lambda n: b'Content-Type: a; !="' + b"\\" * n),
    "parameters": (fields, lambda n: b"Content-Type: a" + b';"' * n),
    "repeated-CVE-2025-67725": (fields, lambda n: b"\r\n".join([b"X: " + b"a" * 80] * (n // 80 + 1))),
    "cookies-CVE-2024-52804": (fields, lambda n: b'Cookie: a="' + b"\\101" * n + b'"'),
    "chunks": (decode_chunks, lambda n: b"1\r\nx\r\n" * n),
    "extension-that-fails-late": (decode_chunks, lambda n: b'5;a="' + b"\\a" * min(n, 130) + b"\x01"),
}


@pytest.mark.parametrize("name", LINEAR)
def test_parsing_takes_linear_time(name: str) -> None:
    """16 times the input may take 64 times as long; quadratic time would be 256 times."""
    read, make = LINEAR[name]

    def fastest(data: bytes) -> float:
        times = []
        for _ in range(7):
            begin = time.process_time_ns()
            for _ in range(10):
                with suppress(Exception):
                    read(data)
            times.append(time.process_time_ns() - begin)
        return min(times)

    fastest(make(1000))
    assert fastest(make(32_000)) < 64 * max(fastest(make(2000)), 20_000)


@pytest.mark.parametrize("pairs", ["a=b; " * 1500, 'a="' + "\\101" * 1900 + '"', "=; " * 2500, "a" * 8000])
def test_odd_cookies_are_accepted(silent: Target, pairs: str) -> None:
    """CVE-2024-7592, CVE-2025-69230."""
    assert silent.ask(get("/cookie", f"Cookie: {pairs}", CLOSE)).status == 200


def test_odd_queries_get_a_response(silent: Target) -> None:
    assert silent.ask(get("/query?" + "a&" * 4000, CLOSE)).status == 400  # over the limit of 1000 fields
    assert silent.ask(get("/query?" + "a=" * 4000, CLOSE)).status == 200
    assert silent.ask(get("/query?a=" + "%41" * 2600, CLOSE)).status == 200
    assert silent.ask(get("/query?" + "a&" * 5000, CLOSE)).status == 414
