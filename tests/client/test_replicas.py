"""replicas.py: names that are resolved again, and addresses that are replaced."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from http_ends import logged, on_loop
from raw_servers import OK, Peer, calling, good, raw_server
from tinysvc.client import replicas as client_replicas
from tinysvc.client.address import Address, parse_address
from tinysvc.client.replica_connections import Endpoint
from tinysvc.core.call_errors import CallTimeout, CallUnavailable

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.usefixtures("nothing_left")]

NAME = parse_address("http://callee.test:8001")


class Names:
    """In place of the DNS: what the name means."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.lookups = 0
        self.answer = asyncio.Event()
        self.answer.set()

    async def look_up(self, address: Address) -> list[Endpoint]:
        self.lookups += 1
        await self.answer.wait()
        if not self.ports:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [Endpoint(socket.AF_INET, ("127.0.0.1", port)) for port in self.ports]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(client_replicas, "look_up", names.look_up)
    return names  # type: ignore[return-value]


@on_loop
async def test_host_is_the_name() -> None:
    async with raw_server(good) as server, calling(parse_address(f"http://localhost:{server.port}/p")) as caller:
        assert await caller.text() == "ok"
        assert server.requests[0].startswith(b"GET /p/path HTTP/1.1\r\nhost: localhost:%d\r\n" % server.port)


def test_name_is_resolved_again_within_thirty_seconds(monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
    @on_loop
    async def test() -> None:
        monkeypatch.setattr(client_replicas, "RENEWAL", 0.05)
        async with raw_server(good) as one, raw_server(good) as other, calling(NAME) as caller:
            names.ports = [one.port]
            assert await caller.text() == "ok"
            names.ports = [other.port]
            while not other.requests:
                await asyncio.sleep(0.02)
                assert await caller.text() == "ok"
            while one.open:  # the replaced address has no idle connection
                await asyncio.sleep(0.01)

    assert client_replicas.RENEWAL + 5 < 30
    test()


def test_replaced_address_finishes_its_calls(monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
    @on_loop
    async def test() -> None:
        monkeypatch.setattr(client_replicas, "RENEWAL", 0.01)
        go = asyncio.Event()

        async def slow(peer: Peer) -> None:
            await peer.request()
            await go.wait()
            peer.send(OK)
            await peer.closed()

        async with raw_server(slow) as one, raw_server(good) as other, calling(NAME) as caller:
            names.ports = [one.port]
            call = asyncio.create_task(caller.text("POST"))
            while not one.requests:
                await asyncio.sleep(0.01)
            names.ports = [other.port]
            while not other.requests:
                await asyncio.sleep(0.02)
                if names.lookups > 1:
                    assert await caller.text(within=1.0) == "ok"
                else:
                    caller.replicas.renew_at = 0.0
                    await caller.replicas.renew(1.0, None)
            go.set()
            assert await call == "ok"
            while one.open:
                await asyncio.sleep(0.01)

    test()


def test_failure_resolves_again_soon(names: Names) -> None:
    @on_loop
    async def test() -> None:
        async with raw_server(good) as dead:
            pass
        async with raw_server(good) as server, calling(NAME) as caller:
            names.ports = [dead.port]
            with pytest.raises(CallUnavailable):
                await caller.text()
            names.ports = [server.port]
            while not server.requests:
                await asyncio.sleep(0.05)
                with suppress(CallUnavailable):
                    await caller.text()
            assert names.lookups == 2

    test()


def test_unknown_name_is_503_and_known_addresses_stay(
    monkeypatch: pytest.MonkeyPatch, names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    @on_loop
    async def test() -> None:
        monkeypatch.setattr(client_replicas, "RENEWAL", 0.01)
        monkeypatch.setattr(client_replicas, "RENEWAL_ON_FAILURE", 0.01)
        async with raw_server(good) as server, calling(NAME) as caller:
            with pytest.raises(CallUnavailable, match=r"the name callee.test was not resolved: .*not known"):
                await caller.text()
            names.ports = [server.port]
            await asyncio.sleep(0.02)
            assert await caller.text() == "ok"
            names.ports = []
            for _ in range(5):
                await asyncio.sleep(0.02)
                assert await caller.text() == "ok"
            assert names.lookups > 3

    test()
    assert all("callee: the name callee.test was not resolved" in line for line in logged(caplog))


def test_first_lookup_is_shared_and_ends_at_the_deadline(names: Names) -> None:
    @on_loop
    async def test() -> None:
        async with raw_server(good) as server, calling(NAME) as caller:
            names.ports = [server.port]
            names.answer.clear()
            with pytest.raises(CallTimeout):
                await caller.text(within=0.05)
            calls = [asyncio.create_task(caller.text()) for _ in range(10)]
            await asyncio.sleep(0.02)
            calls[0].cancel()
            names.answer.set()
            assert await asyncio.gather(*calls[1:]) == ["ok"] * 9
            assert names.lookups == 1

    test()
