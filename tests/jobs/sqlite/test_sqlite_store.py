"""sqlite/store.py: the contract of a store, and what only a file can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sqlite_harness import FileHarness
from store_contract import LARGE, ROUTE, StoreContract, head, job
from store_edges import StoreEdges
from tinysvc.jobs.records import Progress, State
from tinysvc.jobs.sqlite.store import SqliteStore


@pytest_asyncio.fixture
async def harness(tmp_path: Path) -> AsyncIterator[FileHarness]:
    harness = FileHarness(tmp_path / "jobs.db")
    yield harness
    await harness.restart()


class TestSqliteStore(StoreContract):
    pass


class TestEdges(StoreEdges):
    @pytest_asyncio.fixture
    async def store(self, harness: FileHarness) -> Any:
        return await harness.server("server")


@pytest.mark.asyncio
async def test_job_whose_file_is_lost_fails_with_the_reason(harness: FileHarness) -> None:
    store = await harness.server("server")
    lost = (await store.submit(job(body=LARGE))).record.id
    kept = (await store.submit(job())).record.id
    for path in harness.path.with_name("jobs.db-files").iterdir():
        path.unlink()
    assert [each.record.id for each in await store.claim({ROUTE: 9}, 9)] == [kept]
    record = await store.get(lost)
    assert (record.state, record.attempts[-1].cause) == (State.FAILED, "error")
    assert "cannot be read: No such file" in record.attempts[-1].detail


@pytest.mark.asyncio
async def test_result_whose_file_is_swept_is_none(harness: FileHarness) -> None:
    store = await harness.server("server")
    job_id = (await store.submit(job())).record.id
    await store.claim({ROUTE: 1}, 1)
    await store.finish(job_id, 1, head(len(LARGE)), LARGE)
    for path in harness.path.with_name("jobs.db-files").iterdir():
        path.unlink()
    assert await store.result(job_id) is None


@pytest.mark.asyncio
async def test_sweep_removes_files_without_a_row(harness: FileHarness) -> None:
    store = await harness.server("server")
    job_id = (await store.submit(job(body=LARGE))).record.id
    folder = harness.path.with_name("jobs.db-files")
    for name in ("result-left-by-a-crash", "request-1.tmp"):
        (folder / name).write_bytes(b"left")
    await store.sweep(0.0)
    assert [path.name.split("-")[0] for path in folder.iterdir()] == ["request"]
    assert [each.record.id for each in await store.claim({ROUTE: 1}, 1)] == [job_id]


@pytest.mark.asyncio
async def test_keeper_knows_who_runs_what(harness: FileHarness) -> None:
    one, two = [await harness.server(name) for name in ("one", "two")]
    ids = [(await one.submit(job())).record.id for _ in range(3)]
    await one.claim({ROUTE: 2}, 2)
    await two.claim({ROUTE: 1}, 1)
    await one.cancel(ids[0])
    await one.progress(ids[1], 1, Progress(fraction=0.5))
    assert await one.owners() == {"one", "two"}
    assert [(each.id, each.state) for each in await one.attempts_of("one")] == [
        (ids[0], State.CANCELLED),
        (ids[1], State.RUNNING),
    ]
    assert (await one.attempts_of("one"))[1].progress == Progress(fraction=0.5)
    assert await one.died("one") == ids[:2]
    assert await one.died("one") == []
    assert await one.owners() == {"two"}


@pytest.mark.asyncio
async def test_store_that_was_not_opened_can_be_closed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.db")
    assert store.problem == ""
    await store.aclose()
    assert list(tmp_path.iterdir()) == []
