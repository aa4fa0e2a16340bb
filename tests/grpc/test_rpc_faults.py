"""Clients of gRPC that give up: cancelled and timed-out calls, and streams that are reset as soon as they begin.

TINYSVC_RPC_CANCELS and TINYSVC_RPC_RESETS say how many; the defaults are for the suite.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.exceptions
import pytest
import pytest_asyncio

import grpc
import rpc_app
from rpc_ends import rpc_client, rpc_server
from system import is_alive, open_descriptors, until
from tinysvc import Service
from tinysvc.grpc.rpc_server import RpcServer
from tinysvc.server.server import Server

CANCELS = int(os.environ.get("TINYSVC_RPC_CANCELS", "200"))
RESETS = int(os.environ.get("TINYSVC_RPC_RESETS", "2000"))
STREAMS_AT_A_TIME = 100

SERVICE = Service(
    rpc_app.hello,
    rpc_app.stuck,
    rpc_app.late,
    rpc_app.sleeps,
    rpc_app.endless,
    rpc_app.pieces,
    rpc_app.squares,
    rpc_app.whoami,
    rpc_app.user,
    rpc_app.floods,
)
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with rpc_server(SERVICE, cpu_workers=1) as server:
        yield server


def rpc_of(server: Server) -> RpcServer:
    assert server._grpc is not None
    return server._grpc._server


async def test_cancelled_calls_leave_nothing(server: Server) -> None:
    """Each at a random moment: before its message, while its job waits or runs, in the middle of a stream."""
    rng, calls = random.Random(7), rpc_of(server).calls
    kinds: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (rpc_app.stuck, {"name": "it"}),
        (rpc_app.late, {}),
        (rpc_app.endless, {}),
        (rpc_app.pieces, {"count": 100_000}),
        (rpc_app.squares, {"number": 3}),
        (rpc_app.whoami, {}),
        (rpc_app.hello, {"name": "it"}),
    ]
    async with rpc_client(server) as client:
        await client.call(rpc_app.hello, name="warm")

        async def give_up() -> None:
            function, arguments = rng.choice(kinds)
            metadata = (("authorization", "Bearer right"),)
            if rng.random() < 0.4:
                call = client.begin(function, arguments, timeout=rng.random() * 0.02, metadata=metadata)
            else:
                call = client.begin(function, arguments, metadata=metadata)
                await asyncio.sleep(rng.random() * 0.02)
                call.cancel()
            with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                if client.methods[function].server_streams:
                    async for _ in call:
                        pass
                else:
                    await call

        tasks, descriptors = len(asyncio.all_tasks()), len(open_descriptors())
        for _ in range(2):
            for _ in range(max(1, CANCELS // 2 // 20)):
                await asyncio.gather(*[give_up() for _ in range(20)])
            await until(lambda: not calls.running and not calls.finishing)
            await until(lambda: all(pool.waiting == 0 for pool in server.running.pools))
            await until(lambda: all(pool.ready == pool.max_workers for pool in server.running.pools))
            gc.collect()
            await until(lambda: len(asyncio.all_tasks()) <= tasks + 1)
            await until(lambda: len(open_descriptors()) <= descriptors + 2)
        assert calls.message_bytes == 0
        assert await client.call(rpc_app.hello, name="after") == "hello after"


def request_headers(address: str, path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", address),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


def begun_call(address: str, path: str, message: bytes) -> socket.socket:
    """A connection with one call."""
    host, _, port = address.rpartition(":")
    sock = socket.create_connection((host, int(port)), 10)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    connection.initiate_connection()
    stream = connection.get_next_available_stream_id()
    connection.send_headers(stream, request_headers(address, path))
    connection.send_data(stream, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
    sock.sendall(connection.data_to_send())
    return sock


async def test_lost_connection_kills_the_job(server: Server, tmp_path: Path) -> None:
    mark, (address,) = tmp_path / "mark", server.grpc_addresses
    async with rpc_client(server) as client:
        method = client.methods[rpc_app.sleeps]
    message = method.codec.encode_arguments({"seconds": 60.0, "mark": str(mark)})
    with await asyncio.to_thread(begun_call, address, method.path, message):
        await until(lambda: mark.exists() and mark.read_text() != "")
    await until(lambda: not is_alive(int(mark.read_text())))
    await until(lambda: not rpc_of(server).calls.running)


async def test_slow_reader_stops_the_generator(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Flow control of HTTP/2: the server holds some messages, and not all that the handler could make."""
    rpc_app.happened.clear()
    caplog.clear()
    async with rpc_client(server) as client:
        await client.call(rpc_app.hello, name="warm")
        tasks = len(asyncio.all_tasks())
        call = client.begin(rpc_app.floods, {})
        await anext(aiter(call))
        made = -1
        while made != len(rpc_app.happened):  # until nothing is made during fifty other calls
            made = len(rpc_app.happened)
            for _ in range(50):
                await client.call(rpc_app.hello, name="beside")
        assert made < 500  # 50 MB
        call.cancel()
        await until(lambda: not rpc_of(server).calls.running)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)  # grpcio's task reports an error of a handler at its end
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def reset_streams(address: str, path: str, count: int) -> tuple[int, bool]:
    """Begin streams and reset each at once. Returns how many were sent, and whether the server has said goodbye."""
    host, _, port = address.rpartition(":")
    sent = 0
    with socket.create_connection((host, int(port)), 10) as sock:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        connection.initiate_connection()
        headers = request_headers(address, path)
        sock.settimeout(0.001)
        try:
            while sent < count:
                for _ in range(min(STREAMS_AT_A_TIME, count - sent)):
                    stream = connection.get_next_available_stream_id()
                    connection.send_headers(stream, headers)
                    connection.reset_stream(stream)
                    sent += 1
                sock.settimeout(10)
                sock.sendall(connection.data_to_send())
                sock.settimeout(0.001)
                with suppress(TimeoutError):
                    data = sock.recv(65536)
                    if not data:
                        return sent, True
                    connection.receive_data(data)
        except (OSError, h2.exceptions.ProtocolError):
            return sent, True
    return sent, False


async def test_rapid_resets_are_bounded(server: Server) -> None:
    """CVE-2023-44487: streams that are reset at once cost the server nothing that lasts."""
    calls, most = rpc_of(server).calls, 0
    attack = asyncio.create_task(
        asyncio.to_thread(reset_streams, server.grpc_addresses[0], "/rpc_app.RpcApp/Stuck", RESETS)
    )
    async with rpc_client(server) as client:
        while not attack.done():
            assert await client.call(rpc_app.hello, name="beside") == "hello beside"
            most = max(most, calls.running)
        sent, _ = await attack
        await until(lambda: not calls.running)
        assert await client.call(rpc_app.hello, name="after") == "hello after"
    assert sent > 0
    assert most <= 2 * STREAMS_AT_A_TIME
