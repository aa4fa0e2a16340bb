"""snapshot_exchange.py: a server process reports its metrics, and gathers those of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tinysvc.server import snapshot_exchange
from tinysvc.server.snapshot_exchange import SnapshotExchange
from tinysvc.telemetry.instruments import Counter, Registry
from tinysvc.telemetry.snapshots import decode_snapshot, encode_snapshot


class FakeLink:
    """Collects lines, from any thread."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()

    def send_line(self, line: bytes) -> None:
        self.loop.call_soon_threadsafe(self.lines.put_nowait, line)

    async def sold(self, number: int) -> float:
        """The counter in the next line, which is a snapshot with this number."""
        kind, found, data = (await self.lines.get()).split(b" ", 2)
        assert (kind, int(found)) == (b"snapshot", number)
        return decode_snapshot(data)[0].points[0].value


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def counter(registry: Registry) -> Counter:
    return registry.counter("sold", "Sold.").of()


@pytest_asyncio.fixture
async def link() -> FakeLink:
    return FakeLink()


@pytest_asyncio.fixture
async def exchange(link: FakeLink, registry: Registry, counter: Counter) -> AsyncIterator[SnapshotExchange]:
    made = SnapshotExchange(link, registry)
    assert await link.sold(0) == 0
    yield made
    made.close()


@pytest.mark.asyncio
async def test_process_reports_when_it_is_asked(exchange: SnapshotExchange, link: FakeLink, counter: Counter) -> None:
    counter.add(3)
    exchange.receive(b"report 4\nrep")
    exchange.receive(b"ort 5\n")
    assert [await link.sold(4), await link.sold(5)] == [3, 3]


@pytest.mark.asyncio
async def test_process_reports_regularly_and_at_its_end(
    link: FakeLink, registry: Registry, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_exchange, "INTERVAL", 0.01)
    exchange = SnapshotExchange(link, registry)
    await link.sold(0)
    counter.add()
    while await link.sold(0) != 1:
        pass
    counter.add()
    exchange.close()
    while await link.sold(0) != 2:
        pass


@pytest.mark.asyncio
async def test_gather_returns_the_snapshots_of_all(
    exchange: SnapshotExchange, link: FakeLink, registry: Registry, counter: Counter
) -> None:
    gathering = asyncio.create_task(exchange.gather())
    assert await link.lines.get() == b"gather 1"
    counter.add()
    one = encode_snapshot(registry.snapshot())
    exchange.receive(b"snapshots 1 " + one + b"," + one[:9])
    exchange.receive(one[9:] + b"\n")
    assert [snapshot[0].points[0].value for snapshot in await gathering] == [1, 1]


@pytest.mark.asyncio
async def test_scrape_of_rubbish_fails_at_once(exchange: SnapshotExchange, link: FakeLink) -> None:
    gathering = asyncio.create_task(exchange.gather())
    await link.lines.get()
    exchange.receive(b"snapshots 1 rubbish\n")
    with pytest.raises(ValueError, match="padding"):
        await gathering


@pytest.mark.asyncio
async def test_gather_without_a_supervisor_returns_the_own_snapshot(
    exchange: SnapshotExchange, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_exchange, "GATHER_LIMIT", 0.01)
    counter.add(2)
    (snapshot,) = await exchange.gather()
    assert snapshot[0].points[0].value == 2
    exchange.receive(b"snapshots 1 \n")  # too late: nothing waits for it


@pytest.mark.asyncio
async def test_slow_sources_are_reported_too(exchange: SnapshotExchange, link: FakeLink, registry: Registry) -> None:
    registry.add_thread_source(lambda: [registry.snapshot()[0]])
    exchange.receive(b"report 4\n")
    _, _, data = (await link.lines.get()).split(b" ", 2)
    assert len(decode_snapshot(data)) == 2
