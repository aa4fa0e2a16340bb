"""ProcessPoolExecutor.workers, stacks and replace."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

import stuck_jobs
from tinysvc import ProcessPoolExecutor, WorkerDied
from tinysvc.pool import channel

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("nothing_left")]


async def exists(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)


async def test_stacks_of_a_worker_that_is_stuck_in_c_code(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        job = asyncio.create_task(pool.run(stuck_jobs.stuck_in_c, str(tmp_path / "begun")))
        await exists(tmp_path / "begun")
        (worker,) = pool.workers()
        assert (worker.state, worker.starts, worker.is_replaced) == ("busy", 1, False)
        assert worker.job is not None
        assert 0 < worker.job_age <= worker.age + 1
        for _ in range(2):
            text = await pool.stacks(worker.number)
            assert "in stuck_in_c" in text
            assert "in wait_for" in text
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            await job


async def test_stacks_of_an_idle_worker_leave_it_at_work() -> None:
    async with ProcessPoolExecutor(1) as pool:
        (worker,) = pool.workers()
        assert (worker.state, worker.job, worker.job_age) == ("idle", None, 0.0)
        assert "in work\n" in await pool.stacks(worker.number)
        assert await pool.run(os.getpid) == worker.pid


async def test_job_cannot_take_the_signal_from_the_next_one() -> None:
    async with ProcessPoolExecutor(1) as pool:
        (worker,) = pool.workers()
        await pool.run(stuck_jobs.take_the_signal)
        assert await pool.run(os.getpid) == worker.pid  # begins when the handlers are restored
        assert "in work\n" in await pool.stacks(worker.number)
        assert await pool.run(os.getpid) == worker.pid


async def test_stopped_worker_writes_no_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "DUMP_LIMIT", 0.2)
    async with ProcessPoolExecutor(1) as pool:
        job = asyncio.create_task(pool.run(stuck_jobs.stopped, str(tmp_path / "begun")))
        await exists(tmp_path / "begun")
        (worker,) = pool.workers()
        with pytest.raises(TimeoutError, match="worker 1 wrote no stacks"):
            await pool.stacks(worker.number)
        os.kill(worker.pid, signal.SIGCONT)
        await job


async def test_replaced_worker_finishes_its_job(tmp_path: Path) -> None:
    async with ProcessPoolExecutor(1) as pool:
        job = asyncio.create_task(pool.run(stuck_jobs.wait_for_file, str(tmp_path / "go")))
        while not (before := pool.workers()[0]).job:
            await asyncio.sleep(0.01)
        pool.replace(before.number)
        pool.replace(before.number)
        assert [(worker.number, worker.is_replaced) for worker in pool.workers()] == [(1, True), (2, False)]
        (tmp_path / "go").touch()
        await job
        async with asyncio.timeout(30):
            while len(pool.workers()) > 1:
                await asyncio.sleep(0.01)
        (after,) = pool.workers()
        assert after.number == 2
        assert await pool.run(os.getpid) == after.pid != before.pid


async def test_idle_worker_is_replaced_at_once() -> None:
    async with ProcessPoolExecutor(1) as pool:
        pool.replace(1)
        with pytest.raises(LookupError, match="worker 2 cannot be replaced: it is starting"):
            pool.replace(2)
        async with asyncio.timeout(30):
            while [worker.number for worker in pool.workers()] != [2]:
                await asyncio.sleep(0.01)
        assert pool.ready == 1


async def test_worker_that_has_ended_has_no_stacks() -> None:
    async with ProcessPoolExecutor(1) as pool:
        for number in (0, 7):
            with pytest.raises(LookupError, match=f"no worker {number} is at work; it has ended"):
                pool.replace(number)
            with pytest.raises(LookupError, match=f"no worker {number} is at work"):
                await pool.stacks(number)
