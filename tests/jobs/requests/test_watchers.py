"""watchers.py: a watcher sees the newest record, costs the store little, and never slows a durable job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from memory_store import MemoryStore
from tinysvc.core.job_errors import StoreError
from tinysvc.jobs.records import MISSED, NewJob, Progress, Record, ResultHead, State
from tinysvc.jobs.requests import watchers
from tinysvc.jobs.requests.watchers import Watchers

NEW = NewJob(route="/t", request=b"")
DONE = ResultHead(status=204, content_type=None)


class CountedStore(MemoryStore):
    """Counts the reads of records; the first `failing` of them fail."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.failing = 0
        self.is_silent = False

    async def get(self, job_id: str) -> Record | None:
        self.reads += 1
        if self.reads <= self.failing:
            raise StoreError("the keeper changes")
        return await super().get(job_id)


async def running(store: MemoryStore) -> Record:
    await store.submit(NEW)
    return (await store.claim({"/t": 1}, 1))[0].record


async def states(changes: AsyncIterator[Record]) -> list[str]:
    return [f"{record.version} {record.state}" async for record in changes]


@pytest.mark.asyncio
async def test_watcher_sees_changes_up_to_the_end() -> None:
    store = CountedStore()
    record = await running(store)
    async with aclosing(Watchers(store).changes(record.id, 0)) as changes:
        assert (await anext(changes)).state == State.RUNNING
        following = asyncio.create_task(states(changes))
        await store.finish(record.id, 1, DONE, b"")
        assert await following == ["3 succeeded"]
    assert not store.watchers, "nothing is watched any more"


@pytest.mark.asyncio
async def test_end_that_came_before_the_watcher_is_seen() -> None:
    store = CountedStore()
    record = await running(store)
    await store.finish(record.id, 1, DONE, b"")
    assert await states(Watchers(store).changes(record.id, record.version)) == ["3 succeeded"]


@pytest.mark.asyncio
async def test_slow_watcher_gets_the_newest_record_only() -> None:
    store = CountedStore()
    record = await running(store)
    async with aclosing(Watchers(store).changes(record.id, 0)) as changes:
        await anext(changes)
        for number in range(10_000):
            await store.progress(record.id, 1, Progress(fraction=number / 10_000))
        assert (await anext(changes)).progress == Progress(fraction=0.9999)
    assert store.reads < 5


@pytest.mark.asyncio
async def test_thousand_watchers_share_the_reads_of_one_record() -> None:
    store = CountedStore()
    record = await running(store)
    shared = Watchers(store)
    watching = [asyncio.create_task(states(shared.changes(record.id, record.version))) for _ in range(1000)]
    await asyncio.sleep(0)
    await store.progress(record.id, 1, Progress(fraction=0.5))
    await store.finish(record.id, 1, DONE, b"")
    assert {each[-1] for each in await asyncio.gather(*watching)} == {"4 succeeded"}
    assert store.reads < 5


@pytest.mark.asyncio
async def test_watcher_waits_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "PAUSE", 0.01)
    store = CountedStore()
    record = await running(store)
    store.failing = 3
    async with aclosing(Watchers(store).changes(record.id, 0)) as changes:
        assert (await anext(changes)).id == record.id
    assert store.reads == 4


@pytest.mark.asyncio
async def test_lost_report_of_a_change_is_made_up_for() -> None:
    store = CountedStore()
    record = await running(store)
    async with aclosing(Watchers(store).changes(record.id, 0)) as changes:
        await anext(changes)
        callbacks, store.watchers = store.watchers, []
        await store.finish(record.id, 1, DONE, b"")
        for callback in callbacks:
            callback(MISSED)
        assert (await anext(changes)).state == State.SUCCEEDED


@pytest.mark.asyncio
async def test_record_is_read_without_a_report_of_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "LOOK", 0.01)
    store = CountedStore()
    record = await running(store)
    async with aclosing(Watchers(store).changes(record.id, 0)) as changes:
        await anext(changes)
        store.watchers.clear()
        await store.finish(record.id, 1, DONE, b"")
        assert (await anext(changes)).state == State.SUCCEEDED


@pytest.mark.asyncio
async def test_job_that_is_removed_ends_the_watch() -> None:
    assert await states(Watchers(MemoryStore()).changes("0" * 32, 0)) == []


@pytest.mark.asyncio
async def test_watcher_of_a_store_with_a_bug_does_not_wait_for_ever() -> None:
    class Broken(MemoryStore):
        async def get(self, job_id: str) -> Record | None:
            raise ZeroDivisionError

    assert await states(Watchers(Broken()).changes("0" * 32, 0)) == []
