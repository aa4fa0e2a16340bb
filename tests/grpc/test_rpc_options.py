"""rpc_options.py: settings as grpcio's options. That they hold is tested in test_rpc_server.py."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import grpc
import rpc_app
from rpc_ends import rpc_client, rpc_server
from tinysvc import Service
from tinysvc.core.settings import Settings
from tinysvc.grpc.rpc_options import NEVER, server_options


def test_options_follow_from_settings() -> None:
    settings = Settings(max_header_size=5000, max_connections=7, ping_interval=1.5, ping_timeout=2, header_timeout=3)
    options = dict(server_options(settings, [10, 30]))
    assert options["grpc.max_receive_message_length"] == 30
    assert options["grpc.max_metadata_size"] == 5000
    assert options["grpc.max_allowed_incoming_connections"] == 7
    assert (options["grpc.keepalive_time_ms"], options["grpc.keepalive_timeout_ms"]) == (1500, 2000)
    assert options["grpc.server_handshake_timeout_ms"] == 3000


def test_zero_is_no_limit() -> None:
    options = dict(server_options(Settings(ping_interval=0, ping_timeout=0), []))
    assert (options["grpc.keepalive_time_ms"], options["grpc.keepalive_timeout_ms"]) == (NEVER, NEVER)
    assert options["grpc.max_receive_message_length"] == Settings().max_body_size


@pytest.mark.asyncio
async def test_messages_are_compressed_in_both_directions() -> None:
    async with rpc_server(Service(rpc_app.big), compress=True) as server, rpc_client(server) as client:
        call = client.begin(rpc_app.big, {"data": b"x" * 100_000}, compression=grpc.Compression.Gzip, timeout=20)
        assert client.methods[rpc_app.big].codec.decode_result(await call) == b"x" * 200_000


@pytest.mark.asyncio
async def test_message_that_inflates_beyond_the_limit_is_refused() -> None:
    async with rpc_server(Service(rpc_app.big), max_body_size=10_000) as server, rpc_client(server) as client:
        options = {"compression": grpc.Compression.Gzip}
        error = await client.error(rpc_app.big, options, data=b"x" * 1_000_000)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.asyncio
async def test_connections_beyond_the_limit_are_closed() -> None:
    async with rpc_server(Service(rpc_app.hello), max_connections=1) as server, rpc_client(server) as first:
        assert await first.call(rpc_app.hello, name="Ada") == "hello Ada"
        async with rpc_client(server) as second:
            assert (await second.error(rpc_app.hello, name="Bob")).code() is grpc.StatusCode.UNAVAILABLE
        assert await first.call(rpc_app.hello, name="Cyd") == "hello Cyd"


@pytest.mark.asyncio
async def test_many_calls_of_a_few_clients_wait_for_a_busy_server() -> None:
    """grpcio's own limit would end most of them."""
    async with rpc_server(Service(rpc_app.hello)) as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(rpc_client(server)) for _ in range(5)]
        calls = [client.call(rpc_app.hello, name="Ada") for client in clients for _ in range(800)]
        assert set(await asyncio.gather(*calls)) == {"hello Ada"}
