"""replica_connections.py: slots, idle connections, TLS and Unix sockets, and cancels at any point."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
import warnings
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from http_ends import on_loop
from raw_servers import OK, Peer, answers, calling, good, is_silent, raw_server
from tinysvc.client import replica_connections
from tinysvc.client.address import parse_address
from tinysvc.client.breaker import MAX_FAILURES
from tinysvc.client.call_connection import IDLE_LIMIT
from tinysvc.core.call_errors import CallFailed, CallTimeout, CallUnavailable

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]


@on_loop
async def test_idle_connection_is_given_up_after_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.client.services.SWEEP", 0.02)
    monkeypatch.setattr("tinysvc.client.services.IDLE_LIMIT", 0.05)
    async with raw_server(good) as server, calling(server) as caller:
        await asyncio.gather(*[caller.text() for _ in range(3)])
        assert server.open == 3
        while server.open:
            await asyncio.sleep(0.01)
        while caller.services._sweeping is not None:  # the sweep ends with the last connection
            await asyncio.sleep(0.01)
        assert await caller.text() == "ok"
        assert caller.services._sweeping is not None


@on_loop
async def test_old_connection_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with raw_server(good) as server, calling(server) as caller:
        await caller.text()
        caller.replicas.every[0].connections._idle[0].idle_since -= IDLE_LIMIT
        await caller.text()
        assert server.connections == 2


@pytest.mark.parametrize(
    ("keep_alive", "limit"), [("timeout=5", 4.0), ("max=9, timeout=0", 0.0), ("timeout=60", 10.0), ("x", 10.0)]
)
@on_loop
async def test_server_that_states_a_shorter_limit_is_believed(keep_alive: str, limit: float) -> None:
    response = b"HTTP/1.1 200 OK\r\nkeep-alive: %b\r\ncontent-length: 2\r\n\r\nok" % keep_alive.encode()
    async with raw_server(answers(response, response)) as server, calling(server) as caller:
        await caller.text()
        (connection,) = caller.replicas.every[0].connections.open
        assert connection.idle_limit == limit
        await caller.text()
        assert server.connections == (1 if limit else 2)


@on_loop
async def test_forked_child_does_not_keep_a_connection_open() -> None:
    async with raw_server(is_silent) as server, calling(server) as caller:
        call = asyncio.create_task(caller.text())
        while not server.requests:
            await asyncio.sleep(0.001)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there may be other threads
            child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        try:
            call.cancel()
            while server.open:
                await asyncio.sleep(0.001)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@on_loop
async def test_end_that_the_blocked_loop_has_not_seen_is_seen() -> None:
    """The callee closes while the caller's loop is blocked: the call is not lost."""
    async with raw_server(answers(OK, then="close"), good) as server, calling(server) as caller:
        assert await caller.text("POST") == "ok"
        time.sleep(0.03)
        assert await caller.text("POST") == "ok"


@on_loop
async def test_calls_beyond_the_limit_wait_for_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_connections, "MAX_CONNECTIONS", 4)

    async def slow(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.005)
            peer.send(OK)

    async with raw_server(slow) as server, calling(server) as caller:
        assert await asyncio.gather(*[caller.text() for _ in range(40)]) == ["ok"] * 40
        assert server.connections == 4


@on_loop
async def test_wait_for_a_slot_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_connections, "MAX_CONNECTIONS", 1)
    async with raw_server(is_silent, good) as server, calling(server) as caller:
        first = asyncio.create_task(caller.text(within=0.3))
        await asyncio.sleep(0.02)
        begin = monotonic()
        with pytest.raises(CallTimeout):
            await caller.text(within=0.05)
        assert monotonic() - begin < 0.25
        with pytest.raises(CallTimeout):
            await first
        assert await caller.text() == "ok"
        assert len(server.requests) == 2


@on_loop
async def test_connecting_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_connections, "CONNECT_TIMEOUT", 0.1)
    loop = asyncio.get_running_loop()

    async def never(*args: Any) -> None:
        await asyncio.sleep(60)

    async with raw_server(good) as server, calling(server) as caller:
        monkeypatch.setattr(replica_connections.ReplicaConnections, "_connected", never)
        begin = loop.time()
        with pytest.raises(CallUnavailable, match=r"not made within 0\.1 s"):
            await caller.text("POST")
        assert loop.time() - begin < 1.0


# Cancels


@pytest.mark.parametrize("most", [1000, 7])
@on_loop
async def test_ten_thousand_random_cancels_lose_no_slot(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """While connecting, waiting for a slot, sending, waiting for the answer and receiving it."""
    monkeypatch.setattr(replica_connections, "MAX_CONNECTIONS", most)
    source = random.Random(5)

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            if source.random() < 0.3:
                await asyncio.sleep(source.random() * 0.004)
            peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
            if source.random() < 0.3:
                await asyncio.sleep(source.random() * 0.004)
            peer.send(b"0\r\n\r\n")

    async def body() -> Any:
        yield b"x" * 1000
        await asyncio.sleep(source.random() * 0.002)
        yield b"y"

    async with raw_server(script) as one, raw_server(script) as other, calling(one, other) as caller:
        assert await caller.text() == "ok"
        before = len(asyncio.all_tasks())
        left = 5_000

        async def calls() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                options: dict[str, Any] = {"hedge": 0.001} if source.random() < 0.1 else {}
                upload = body if source.random() < 0.2 else b"z"
                call = asyncio.create_task(caller.text("GET", upload, **options))
                for _ in range(source.randrange(6)):
                    await asyncio.sleep(0)
                if source.random() < 0.6:
                    await asyncio.sleep(source.random() * 0.006)
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)

        await asyncio.gather(*[calls() for _ in range(20)])
        for replica in caller.replicas.every:
            while replica.in_flight or replica.connections._waiting:
                await asyncio.sleep(0.01)
            connections = replica.connections
            assert connections._slots == len(connections.open) == len(connections._idle) <= most
        while len(asyncio.all_tasks()) > before + one.open + other.open:
            await asyncio.sleep(0.01)
        assert len(caller.services._shared.deadlines) == 0  # type: ignore[union-attr]
        assert not caller.services._shared.senders  # type: ignore[union-attr]
        texts = await asyncio.gather(*[caller.text() for _ in range(64)])  # full throughput
        assert texts == ["ok"] * 64


@on_loop
async def test_cancel_in_the_turn_in_which_a_slot_is_given_passes_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_connections, "MAX_CONNECTIONS", 1)
    async with raw_server(good) as server, calling(server) as caller:
        caller.open()
        connections = caller.replicas.every[0].connections
        held = await connections.take(None)
        waiting = [asyncio.create_task(connections.take(None)) for _ in range(3)]
        await asyncio.sleep(0.01)
        connections.give_back(held, monotonic())
        waiting[0].cancel()
        assert await waiting[1] is held
        connections.discard(held)
        waiting[2].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert connections._slots == 0


@on_loop
async def test_cancelled_call_closes_its_connection() -> None:
    async with raw_server(is_silent) as server, calling(server) as caller:
        call = asyncio.create_task(caller.text())
        while not server.requests:
            await asyncio.sleep(0.001)
        call.cancel()
        begin = monotonic()
        while server.open:
            await asyncio.sleep(0.001)
        assert monotonic() - begin < 1.0


# Other transports


@on_loop
async def test_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.sock")
        async with raw_server(good) as server:
            listener = await asyncio.start_unix_server(server._serve, path)
            async with calling(parse_address(f"unix:{path}")) as caller:
                assert [await caller.text("POST", b"x" * 100_000) for _ in range(2)] == ["ok"] * 2
                assert server.connections == 1
                assert b"host: localhost\r\n" in server.requests[0]
            listener.close()
        async with calling(parse_address(f"unix:{path}.none")) as caller:
            with pytest.raises(CallUnavailable):
                await caller.text()


@on_loop
async def test_short_budget_is_not_held_against_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any client can send `Request-Timeout: 1ms`: others must still be served."""
    async with raw_server(good) as server, calling(server) as caller:
        with monkeypatch.context() as patch:
            patch.setattr(replica_connections.ReplicaConnections, "_connected", never)
            for _ in range(10):
                with pytest.raises(CallFailed):
                    await caller.send("POST", within=0.1)
        assert await caller.text("POST") == "ok"


@on_loop
async def test_budgets_that_are_long_enough_to_connect_count_as_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_connections, "FAIR_TIME", 0.001)
    monkeypatch.setattr(replica_connections.ReplicaConnections, "_connected", never)
    async with raw_server(good) as server, calling(server) as caller:
        for number in range(MAX_FAILURES):
            with pytest.raises(CallFailed):
                await caller.send("POST", within=0.1)
            assert caller.replicas.every[0].breaker.failures == number + 1
        with pytest.raises(CallUnavailable, match="all replicas are avoided"):
            await caller.send("POST")


async def never(*_: Any) -> None:
    await asyncio.Event().wait()
