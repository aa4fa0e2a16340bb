"""tls.py, and the HTTP engine behind it: certificates good and bad, renewed ones, and clients that behave badly."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from http_ends import BIG, Client, echo, get, on_loop, post, post_chunked
from tinysvc.core.errors import ConfigurationError
from tinysvc.core.requests import Request
from tinysvc.core.responses import Handler, Response
from tinysvc.core.settings import Settings
from tinysvc.server.connections import Connections
from tinysvc.server.tls import Certificates, certificates

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Files(NamedTuple):
    authority: trustme.CA
    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    def issue(self, *names: str) -> None:
        """Write a new certificate, and its key, in place of the ones that are there."""
        issued = self.authority.issue_cert(*names or ("127.0.0.1", "localhost"))
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def settings(self, **options: str) -> Settings:
        return Settings(ssl_cert=str(self.certificate), ssl_key=str(self.key), **options)  # type: ignore[arg-type]

    def trusting(self) -> ssl.SSLContext:
        """What a client needs."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Files:
    files = Files(authority, tmp_path)
    files.issue()
    return files


class Secure(NamedTuple):
    connections: Connections
    certificates: Certificates
    port: int
    files: Files

    @asynccontextmanager
    async def client(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
        context = context or self.files.trusting()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        try:
            yield Client(reader, writer)
        finally:
            writer.close()
            with suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def secured(handler: Handler, files: Files, **options: str) -> AsyncIterator[Secure]:
    settings = files.settings(**options)
    made = Certificates(settings)
    connections = Connections(handler, settings, scheme="https")
    listener = await asyncio.get_running_loop().create_server(
        connections, "127.0.0.1", 0, ssl=made.context, ssl_handshake_timeout=5, ssl_shutdown_timeout=1
    )
    try:
        yield Secure(connections, made, listener.sockets[0].getsockname()[1], files)
    finally:
        listener.close()
        tasks = [connection.task for connection in connections.open]
        connections.abort()
        await asyncio.gather(*tasks, return_exceptions=True)


# The files


def test_no_certificate_no_tls() -> None:
    assert certificates(Settings()) is None


def test_one_file_may_hold_both(files: Files) -> None:
    files.certificate.write_bytes(files.key.read_bytes() + files.certificate.read_bytes())
    assert Certificates(Settings(ssl_cert=str(files.certificate))).context.minimum_version == ssl.TLSVersion.TLSv1_2


def encrypted(files: Files) -> None:
    from cryptography.hazmat.primitives import serialization as pem

    key = pem.load_pem_private_key(files.key.read_bytes(), None)
    kept = pem.BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, kept))


def of_another(files: Files) -> None:
    before = files.key.read_bytes()
    files.issue()
    files.key.write_bytes(before)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda files: files.certificate.unlink(), "ssl_cert .*certificate.pem cannot be read: No such file"),
        (lambda files: files.key.unlink(), "ssl_key .*key.pem cannot be read: No such file"),
        (lambda files: files.certificate.write_text("?"), "must hold a certificate and its private key, in PEM form"),
        (lambda files: files.key.write_text("?"), "must hold a certificate and its private key, in PEM form"),
        (of_another, "the private key in .*key.pem does not belong to the certificate in .*certificate.pem; name the"),
        (encrypted, "the private key in .*key.pem is encrypted; decrypt it, as in: openssl pkey -in"),
    ],
)
def test_fault_of_a_file_is_named(files: Files, spoil: object, says: str) -> None:
    made = Certificates(files.settings())
    assert callable(spoil)
    spoil(files)
    with pytest.raises(ConfigurationError, match=says):
        Certificates(files.settings())
    with pytest.raises(ConfigurationError, match=says):
        made.reload()


def test_authorities_that_are_none(files: Files) -> None:
    with pytest.raises(ConfigurationError, match=r"ssl_ca .*key.pem must hold certificates in PEM form"):
        Certificates(files.settings(ssl_ca=str(files.key)))


# Over the wire


async def scheme_and_path(request: Request) -> Response:
    return Response(f"{request.scheme} {request.path}".encode())


@on_loop
async def test_requests_over_tls(files: Files) -> None:
    async with secured(scheme_and_path, files) as server, server.client() as client:
        for _ in range(3):
            answer = await client.ask(get("/a"))
            assert (answer.body, answer.closes) == (b"https /a", False)
        assert (await client.ask(get("/", "Connection: close"))).closes
        assert await client.closed()


@on_loop
async def test_big_bodies_both_ways(files: Files) -> None:
    big = BIG * 8
    async with secured(echo, files) as server, server.client() as client:
        for framing in (post, post_chunked):
            assert (await client.ask(framing(big))).body == big
        assert server.connections.body_memory == 0


@on_loop
async def test_old_protocols_are_refused_and_only_http_1_1_is_offered(files: Files) -> None:
    async with secured(scheme_and_path, files) as server:
        context = files.trusting()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with server.client(context) as client:
            secure = client.writer.get_extra_info("ssl_object")
            assert (secure.selected_alpn_protocol(), secure.compression()) == ("http/1.1", None)
            assert secure.version() in ("TLSv1.2", "TLSv1.3")
        context = files.trusting()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with server.client(context):
                pass
        async with server.client() as client:
            assert (await client.ask(get())).status == 200


@on_loop
async def test_refused_request_gets_a_response_while_its_client_sends(files: Files) -> None:
    async with secured(echo, files) as server, server.client() as client:
        client.send(b"NONSENSE\r\n\r\n" + bytes(100_000))
        answer = await client.response()
        assert (answer.status, answer.closes) == (400, True)


@pytest.mark.parametrize("named", [True, False])
@on_loop
async def test_renewed_certificates_are_for_new_connections(files: Files, named: bool) -> None:
    async def seen() -> bytes | None:
        context = files.trusting()
        context.check_hostname = named
        name = "localhost" if named else ""
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname=name)
        shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return shown

    async with secured(scheme_and_path, files) as server, server.client() as client:
        first = await seen()
        files.issue()
        assert await seen() == first
        server.certificates.reload()
        second = await seen()
        assert second != first
        files.key.write_text("?")
        with pytest.raises(ConfigurationError):
            server.certificates.reload()
        assert await seen() == second
        assert (await client.ask(get("/old"))).body == b"https /old"


@on_loop
async def test_client_certificates(files: Files, tmp_path: Path) -> None:
    known, stranger = trustme.CA(), trustme.CA()
    trusted = tmp_path / "authorities.pem"
    known.cert_pem.write_to_path(trusted)

    def presenting(issuer: trustme.CA | None) -> ssl.SSLContext:
        context = files.trusting()
        if issuer:
            issuer.issue_cert("client@example.org").configure_cert(context)
        return context

    async def is_served(issuer: trustme.CA | None) -> bool:
        try:
            async with server.client(presenting(issuer)) as client:
                return (await client.ask(get())).status == 200
        except (ssl.SSLError, ConnectionError, AssertionError, asyncio.IncompleteReadError):
            return False

    async with secured(scheme_and_path, files, ssl_ca=str(trusted)) as server:
        assert [await is_served(issuer) for issuer in (known, stranger, None)] == [True, False, False]
        stranger.cert_pem.write_to_path(trusted)
        server.certificates.reload()
        assert [await is_served(issuer) for issuer in (known, stranger, None)] == [False, True, False]


# Rude clients


def raw(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.setblocking(False)
    return client


@pytest.mark.parametrize("sent", [b"", b"\x16", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(1000)])
@on_loop
async def test_client_without_tls_is_closed_without_a_log_line(
    files: Files, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    loop = asyncio.get_running_loop()
    async with secured(scheme_and_path, files) as server:
        with raw(server.port) as client:
            await loop.sock_sendall(client, sent)
            client.shutdown(socket.SHUT_WR)
            received = b""
            with suppress(ConnectionError):
                while piece := await loop.sock_recv(client, 4096):
                    received += piece
            assert b"HTTP" not in received
        async with server.client() as client_after:
            assert (await client_after.ask(get())).status == 200
    assert [record.getMessage() for record in caplog.records] == []


@on_loop
async def test_aborted_tls_connection_logs_nothing(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    async with secured(echo, files) as server:
        for sent in (b"", get()[:-4], get("/", "Content-Length: 100000", method="POST") + bytes(10)):
            async with server.client() as client:
                client.send(sent)
                while not server.connections.open:
                    await asyncio.sleep(0)
                connection = next(reversed(server.connections.open))
                client.writer.transport.abort()
                await connection.task
        async with server.client() as client:
            assert (await client.ask(get())).status == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@on_loop
async def test_unread_tls_response_has_a_bounded_buffer(files: Files) -> None:
    written = 0

    async def endless(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            nonlocal written
            while True:
                written += 65536
                yield bytes(65536)

        return Response(pieces(), content_type="x/y")

    async with secured(endless, files) as server, server.client() as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(get())
        before = -1
        while written != before or not written:
            before = written
            for _ in range(200):
                await asyncio.sleep(0)
        assert written < 64 * 2**20
        client.writer.transport.abort()
