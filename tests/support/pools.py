"""Jobs for a pool, and the state of a pool that has recovered from a fault."""

from __future__ import annotations

import asyncio
from typing import Any

import jobs
from system import until
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.pool.state import Job, Lane


async def assert_healthy(pool: ProcessPoolExecutor) -> None:
    """All workers are ready, and each of them runs jobs."""
    await until(lambda: pool.ready == pool.max_workers)
    assert await asyncio.gather(*(pool.run(jobs.add, n, 1) for n in range(3))) == [1, 2, 3]
    assert all(worker.job is None for worker in pool._dispatcher.scheduler.workers.values())
    assert not pool.waiting


def submit(
    pool: Any, meta: Any, body: Any = b"", timeout: float | None = None, lane: Lane | None = None, key: Any = None
) -> Job:
    """A new job for the program of a pool."""
    job: Job = pool.submit_job(Job(meta, body, timeout, lane, key))
    return job
