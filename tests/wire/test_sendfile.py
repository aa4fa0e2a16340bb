"""wire/sendfile.py: whole files and parts, for slow clients and for clients that disconnect."""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from pathlib import Path
from typing import BinaryIO

import pytest
import trustme

from http_ends import get, logged, on_loop, read_response, reset_on_close, serving
from tinysvc import Response
from tinysvc.core.requests import Request
from tinysvc.core.responses import FileContent
from tinysvc.core.settings import Settings
from tinysvc.core.units import KiB, MiB
from tinysvc.server.connections import Connections

pytestmark = pytest.mark.usefixtures("quiet")

BIG = 9 * MiB
"""More than the kernel holds of it while the client does not read."""


class Files:
    """A handler that responds with the file, and records the files that it has opened."""

    def __init__(self, path: Path, offset: int = 0, size: int | None = None, status: int = 200) -> None:
        self.path, self.offset, self.size, self.status = path, offset, size, status
        self.opened: list[BinaryIO] = []

    async def __call__(self, request: Request) -> Response:
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115
        self.opened.append(file)
        size = os.fstat(file.fileno()).st_size - self.offset if self.size is None else self.size
        return Response(FileContent(file, self.offset, size), self.status)

    def all_closed(self) -> bool:
        return all(file.closed for file in self.opened)


@pytest.fixture
def big(tmp_path: Path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(os.urandom(BIG))
    return path


@pytest.mark.parametrize(
    ("offset", "size"), [(0, None), (0, 0), (0, 1), (1, 100), (BIG - 5, 5), (256 * KiB, 256 * KiB), (7, BIG - 7)]
)
def test_requested_part_of_a_file_arrives(big: Path, offset: int, size: int | None) -> None:
    files = Files(big, offset, size)

    @on_loop
    async def ask() -> None:
        async with serving(files) as server, server.client() as client:
            for _ in range(2):  # on one connection
                answer = await client.ask(get("/"))
                end = None if size is None else offset + size
                assert answer.body == big.read_bytes()[offset:end]
                assert answer.fields["content-length"] == str(len(answer.body))

    ask()
    assert files.all_closed()


@pytest.mark.parametrize("status", [200, 204, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_file_is_closed_if_no_body_is_sent(big: Path, method: str, status: int) -> None:
    files = Files(big, status=status)

    @on_loop
    async def ask() -> None:
        async with serving(files) as server, server.client() as client:
            client.send(get("/").replace(b"GET", method.encode(), 1))
            answer = await client.response(head=method == "HEAD")
            assert answer.status == status
            assert (answer.body != b"") == (method == "GET" and status == 200)
            assert ("content-length" in answer.fields) == (status == 200)
            client.send(get("/"))
            assert (await client.response()).status == status

    ask()
    assert files.all_closed()


@on_loop
async def test_pipelined_files_arrive_in_order(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        path = tmp_path / request.raw_path[1:]
        path.write_bytes(request.raw_path.encode() * 50_000)
        return await Files(path)(request)

    async with serving(handler) as server, server.client() as client:
        client.send(b"".join(get(f"/{number}") for number in range(20)))
        for number in range(20):
            assert (await client.response()).body == f"/{number}".encode() * 50_000


@on_loop
async def test_slow_client_delays_no_other_and_uses_no_memory(big: Path) -> None:
    async with serving(Files(big)) as server, server.client() as slow, server.client() as other:
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        slow.send(get("/"))
        connection = next(
            c for c in server.connections.open if c.wire.peer.client == slow.writer.get_extra_info("sockname")
        )
        while not connection.write_paused:
            await asyncio.sleep(0)
        assert connection.transport.get_write_buffer_size() == 0
        assert (await other.ask(get("/"))).body == big.read_bytes()
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert (await slow.response()).body == big.read_bytes()


@on_loop
async def test_client_that_never_reads_is_disconnected(big: Path) -> None:
    files = Files(big)
    async with serving(files, write_timeout=0.2) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get("/"))
        while not files.opened or not files.all_closed():
            await asyncio.sleep(0.01)
        while server.connections.open:
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("reset", [True, False])
def test_disconnect_within_a_file_closes_it(big: Path, reset: bool) -> None:
    files = Files(big)

    @on_loop
    async def ask() -> None:
        async with serving(files) as server:
            async with server.client() as client:
                client.send(get("/"))
                await client.reader.readexactly(100_000)
                if reset:
                    reset_on_close(client.writer.get_extra_info("socket"))
                    client.writer.transport.abort()
            while server.connections.open:
                await asyncio.sleep(0.01)
            async with server.client() as client:
                assert (await client.ask(get("/"))).status == 200

    ask()
    assert files.all_closed()


def is_cut_off(files: Files) -> None:
    """The response ends before its length, and no file stays open."""

    @on_loop
    async def ask() -> None:
        async with serving(files) as server, server.client() as client:
            client.send(get("/"))
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await read_response(client.reader)

    ask()
    assert files.all_closed()


def test_truncated_file_closes_the_connection(big: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = Files(big, size=BIG + 10)
    is_cut_off(files)
    (message,) = logged(caplog)
    assert "the response was cut off: the file is 10 bytes shorter than declared" in message


@pytest.mark.parametrize("offset", [0, 12345])
def test_file_is_read_and_written_without_sendfile(big: Path, offset: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sendfile")
    test_requested_part_of_a_file_arrives(big, offset, None)
    test_disconnect_within_a_file_closes_it(big, True)
    test_client_that_never_reads_is_disconnected(big)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSOCK])
@pytest.mark.parametrize("calls", [0, 3])
def test_file_is_read_and_written_if_sendfile_fails(
    big: Path, number: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, sendfile = calls, os.sendfile

    def refuse(*arguments: int) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))
        return sendfile(*arguments)

    monkeypatch.setattr(os, "sendfile", refuse)
    test_requested_part_of_a_file_arrives(big, 7, None)
    left = calls
    test_disconnect_within_a_file_closes_it(big, True)


def test_unreadable_file_is_logged(
    big: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: int) -> bytes:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.delattr(os, "sendfile")
    monkeypatch.setattr(os, "pread", broken)
    files = Files(big)
    is_cut_off(files)
    (message,) = logged(caplog)
    assert "the file cannot be read: [Errno 5] the disk is broken" in message


def test_over_tls(big: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    files = Files(big, 3)

    @on_loop
    async def ask() -> None:
        connections = Connections(files, Settings(), scheme="https")
        listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0, ssl=context)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname(), ssl=trusting)
        writer.write(get("/"))
        answer = await read_response(reader)
        assert answer is not None
        assert answer.body == big.read_bytes()[3:]
        writer.close()
        listener.close()
        while connections.open:
            await asyncio.sleep(0.01)
        connections.abort()

    ask()
    assert files.all_closed()
