"""client_tls.py: verification of callees, and our own certificate."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from http_ends import logged, on_loop
from raw_servers import calling, good, raw_server
from tinysvc.client.address import parse_address
from tinysvc.client.client_tls import client_context
from tinysvc.core.call_errors import CallUnavailable
from tinysvc.core.errors import ConfigurationError

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = authority.issue_cert("caller.test")
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "own.pem"))
    (tmp_path / "bad.pem").write_text("nothing")
    return tmp_path


def of_server(authority: trustme.CA, name: str, *, asks: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


@pytest.mark.parametrize(
    ("name", "trusted", "asks", "own", "works"),
    [
        ("localhost", True, False, False, True),
        ("other.test", True, False, False, False),
        ("localhost", False, False, False, False),
        ("localhost", True, True, True, True),
    ],
)
def test_callee_is_verified(
    authority: trustme.CA,
    files: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    trusted: bool,
    asks: bool,
    own: bool,
    works: bool,
) -> None:
    @on_loop
    async def test() -> None:
        context = client_context(str(files / "ca.pem") if trusted else "", str(files / "own.pem") if own else "")
        async with raw_server(good) as server:
            secure = of_server(authority, name, asks=asks)
            listener = await asyncio.start_server(server._serve, "127.0.0.1", 0, ssl=secure)
            port = listener.sockets[0].getsockname()[1]
            async with calling(parse_address(f"https://localhost:{port}"), tls=context) as caller:
                if works:
                    for body in (b"x", b"y" * 200_000):
                        assert await caller.text("POST", body) == "ok"
                    assert server.connections == 1
                else:
                    with pytest.raises(CallUnavailable, match="certificate"):
                        await caller.text()
                    assert server.requests == []
            listener.close()

    test()
    logged(caplog)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"authorities": "bad.pem"}, "services_ca .*bad.pem must be a readable file"),
        ({"authorities": "none.pem"}, "services_ca .*none.pem must be a readable file .*No such file"),
        ({"certificate": "bad.pem"}, "services_cert .*bad.pem .* must hold a certificate"),
        ({"certificate": "ca.pem"}, "services_cert .*ca.pem and services_key .*ca.pem must hold a certificate"),
    ],
)
def test_bad_file_names_the_option(files: Path, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        client_context(**{name: str(files / file) for name, file in options.items()})


def test_old_protocols_are_refused() -> None:
    context = client_context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
