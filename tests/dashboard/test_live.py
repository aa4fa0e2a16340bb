"""live.py: readings at regular times, and one document for all open pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from dashboard_readings import ABOUT, FakeService
from tinysvc.dashboard import live as module
from tinysvc.dashboard.live import EncodedEvents, Live
from tinysvc.dashboard.reading import Reading
from tinysvc.telemetry.snapshots import Snapshot

pytestmark = pytest.mark.asyncio


class Source:
    """Counts the readings; the next one may fail."""

    def __init__(self) -> None:
        self.service = FakeService()
        self.count = 0
        self.error: Exception | None = None

    async def read(self, use: Callable[[Snapshot], Reading]) -> Reading:
        self.count += 1
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return use(self.service.registry.snapshot())


@pytest.fixture
def source() -> Source:
    return Source()


@pytest_asyncio.fixture
async def live(source: Source, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    found = Live(source.read, ABOUT, 7)
    yield found
    await found.aclose()


async def test_without_a_page_no_document_is_made(live: Live, source: Source) -> None:
    await asyncio.sleep(0.1)
    assert source.count == 1  # the next one comes after STEP
    assert live.history.newest is not None


async def test_page_gets_charts_and_then_documents(live: Live) -> None:
    events = live.events()
    names = [(await anext(events)).split(b"\n")[0] for _ in range(4)]
    assert names == [b"event: charts", b"event: now", b"event: now", b"event: now"]
    assert live.viewers == 1
    await events.aclose()
    assert live.viewers == 0


async def test_all_pages_get_the_same_bytes(live: Live) -> None:
    one, other = live.events(), live.events()
    await anext(one), await anext(other)
    first, second = await asyncio.gather(anext(one), anext(other))
    assert first is second
    await one.aclose()
    await other.aclose()


async def test_close_ends_the_streams(live: Live) -> None:
    stream = EncodedEvents(live)
    received = [await anext(stream)]
    asyncio.get_running_loop().call_later(0.05, live.close)
    received += [each async for each in stream]
    assert len(received) > 1
    assert live.viewers == 0
    await stream.aclose()


async def test_failed_reading_is_logged_and_the_next_one_is_made(
    live: Live, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.error = ValueError("broken")
    events = live.events()
    await anext(events)
    await events.aclose()
    assert "the dashboard could not read the metrics" in caplog.text
