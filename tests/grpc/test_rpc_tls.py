"""rpc_tls.py: TLS, certificates of clients, and renewed certificates."""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import pytest
import trustme

import grpc
import rpc_app
from rpc_ends import RpcClient, rpc_server
from tinysvc import Service

SERVICE = Service(rpc_app.hello, rpc_app.seen)


class Files:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.client = self.authority.issue_cert("client")
        self.issue()
        (folder / "ca.pem").write_bytes(self.authority.cert_pem.bytes())

    def issue(self) -> None:
        """Write a new authority's certificate into one file, with its key, as `ssl_key` may be left out."""
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        (self.folder / "both.pem").write_bytes(issued.private_key_and_cert_chain_pem.bytes())

    def credentials(self, *, with_certificate: bool = False) -> grpc.ChannelCredentials:
        key = self.client.private_key_pem.bytes() if with_certificate else None
        chain = self.client.cert_chain_pems[0].bytes() if with_certificate else None
        return grpc.ssl_channel_credentials(self.authority.cert_pem.bytes(), key, chain)


def channel_to(address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])


@pytest.mark.asyncio
async def test_tls_and_a_renewed_certificate(tmp_path: Path) -> None:
    files = Files(tmp_path)
    old = files.credentials()
    async with rpc_server(SERVICE, ssl_cert=f"{tmp_path}/both.pem") as server:
        (address,) = server.grpc_addresses
        async with channel_to(address, old) as channel:
            first = RpcClient(channel, SERVICE)
            assert await first.call(rpc_app.hello, name="Ada") == "hello Ada"
            files.authority = trustme.CA()
            files.issue()
            server.reload_certificates()
            async with channel_to(address, files.credentials()) as renewed:
                assert await RpcClient(renewed, SERVICE).call(rpc_app.hello, name="Bob") == "hello Bob"
            async with channel_to(address, old) as refused:
                assert (await RpcClient(refused, SERVICE).error(rpc_app.hello, name="Cyd")).code() is (
                    grpc.StatusCode.UNAVAILABLE
                )
            assert await first.call(rpc_app.hello, name="Dee") == "hello Dee"  # its connection stays
            (tmp_path / "both.pem").write_text("no certificate")
            server.reload_certificates()  # logged; the last one stays in use
            async with channel_to(address, files.credentials()) as still:
                assert await RpcClient(still, SERVICE).call(rpc_app.hello, name="Eve") == "hello Eve"


@pytest.mark.asyncio
async def test_certificate_of_the_client_is_demanded(tmp_path: Path) -> None:
    files = Files(tmp_path)
    async with rpc_server(SERVICE, ssl_cert=f"{tmp_path}/both.pem", ssl_ca=f"{tmp_path}/ca.pem") as server:
        (address,) = server.grpc_addresses
        async with channel_to(address, files.credentials(with_certificate=True)) as channel:
            assert await RpcClient(channel, SERVICE).call(rpc_app.hello, name="Ada") == "hello Ada"
        async with channel_to(address, files.credentials()) as channel:
            error = await RpcClient(channel, SERVICE).error(rpc_app.hello, name="Bob")
            assert error.code() is grpc.StatusCode.UNAVAILABLE
