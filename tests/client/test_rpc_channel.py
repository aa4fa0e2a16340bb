"""rpc_channel.py: the connection over gRPC: its address, its TLS, its limits and its end."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import trustme

import grpc
from http_ends import logged, on_loop
from raw_rpc import RawRpcServer, raw_rpc_server, rpc_calling
from tinysvc.client.address import parse_address
from tinysvc.client.lookup import known_endpoint
from tinysvc.client.replica_connections import Endpoint
from tinysvc.client.rpc_channel import channel_options, target_of
from tinysvc.core.call_errors import CallTimeout, CallUnavailable
from tinysvc.core.settings import Settings


async def echo(message: bytes, context: Any) -> bytes:
    return message


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("grpc://127.0.0.1:50051", "ipv4:127.0.0.1:50051"),
        ("grpcs://[::1]:50051", "ipv6:[::1]:50051"),
        ("grpc+unix:/run/t.sock", "unix:/run/t.sock"),
    ],
)
def test_target_of_an_address(address: str, target: str) -> None:
    endpoint = known_endpoint(parse_address(address))
    assert endpoint is not None
    assert target_of(endpoint) == target


def test_scope_of_an_address_is_escaped() -> None:
    assert target_of(Endpoint(socket.AF_INET6, ("fe80::1%eth0", 1, 0, 2))) == "ipv6:[fe80::1%25eth0]:1"


def test_limits_are_those_of_the_settings() -> None:
    options = dict(channel_options(parse_address("grpcs://a:1"), Settings(max_body_size=10, max_result_size=20)))
    assert options["grpc.max_send_message_length"] == 10
    assert options["grpc.max_receive_message_length"] == 20
    assert options["grpc.ssl_target_name_override"] == "a"


@on_loop
async def test_idle_channel_is_closed_and_made_again() -> None:
    async with raw_rpc_server(echo=echo) as server, rpc_calling(f"grpc://{server.target}") as caller:
        assert (await caller.rpc("echo", b"a")).content == b"a"
        ((_, replica),) = caller.services.replicas()
        replica.connections.close_idle(float("inf"))
        assert not replica.connections.open
        assert (await caller.rpc("echo", b"b")).content == b"b"
        replica.connections.close_idle(0.0)
        assert replica.connections.open


@on_loop
async def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with raw_rpc_server(f"unix:{path}", echo=echo), rpc_calling(f"grpc+unix:{path}") as caller:
        assert (await caller.rpc("echo", b"a")).content == b"a"


@on_loop
async def test_certificate_is_verified_with_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    (tmp_path / "both.pem").write_bytes(pair[0] + pair[1])
    files = {"services_ca": str(tmp_path / "ca.pem"), "services_cert": str(tmp_path / "both.pem")}
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    async with raw_rpc_server(credentials=credentials, echo=echo) as server:
        address = f"grpcs://{server.target}"
        async with rpc_calling(address, **files) as caller:
            assert (await caller.rpc("echo", b"a")).content == b"a"
        async with rpc_calling(address.replace("localhost", "127.0.0.1"), **files) as caller:
            with pytest.raises(CallUnavailable):
                await caller.rpc("echo")
        async with rpc_calling(address) as caller:  # the authority is unknown
            with pytest.raises(CallUnavailable):
                await caller.rpc("echo")
    assert all("is avoided until it responds" in line for line in logged(caplog))


@on_loop
async def test_refused_connection_is_tried_again_soon(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    async with rpc_calling(f"grpc://127.0.0.1:{port}") as caller:
        with pytest.raises(CallUnavailable, match="refuses it"):
            await caller.rpc("echo")
        async with raw_rpc_server(f"127.0.0.1:{port}", echo=echo):
            ((_, replica),) = caller.services.replicas()
            while not replica.breaker.allows(monotonic()):
                await asyncio.sleep(0.01)
            assert (await caller.rpc("echo", b"a")).content == b"a"
    assert "is avoided until it responds" in logged(caplog)[0]


@on_loop
async def test_listener_that_says_nothing_costs_at_most_half_of_the_budget(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with rpc_calling(f"grpc://127.0.0.1:{sock.getsockname()[1]}") as caller:
            begin = loop.time()
            with pytest.raises(CallUnavailable, match="was not made within"):
                await caller.rpc("echo", deadline=loop.time() + 0.3)
            assert loop.time() - begin < 5
    logged(caplog)


@on_loop
async def test_end_of_the_services_ends_a_call_that_connects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with rpc_calling(f"grpc://127.0.0.1:{sock.getsockname()[1]}") as caller:
            call = asyncio.ensure_future(caller.rpc("echo"))
            while not any(replica.connections.open for _, replica in caller.services.replicas()):
                await asyncio.sleep(0)
            for _, replica in caller.services.replicas():
                replica.connections.abort()
            with pytest.raises(CallUnavailable, match="shuts down"):
                await call


@on_loop
async def test_call_ends_while_its_server_shuts_down_and_takes_no_connection() -> None:
    has_begun, go_on = asyncio.Event(), asyncio.Event()

    async def held(message: bytes, context: Any) -> bytes:
        has_begun.set()
        await go_on.wait()
        return message

    server, raw = grpc.aio.server(), RawRpcServer({"held": held})
    server.add_generic_rpc_handlers([raw])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with rpc_calling(f"grpc://127.0.0.1:{port}") as caller:
        call = asyncio.ensure_future(caller.rpc("held", b"a"))
        await has_begun.wait()
        stopping = asyncio.ensure_future(server.stop(30))
        while True:
            try:
                await caller.rpc("held", deadline=monotonic() + 0.2)
            except (CallUnavailable, CallTimeout) as error:
                if "A connection was not made" in str(error) or "is avoided" in str(error):
                    break
                await asyncio.sleep(0.01)
        go_on.set()
        assert (await call).content == b"a"
        await stopping
