"""The state of a pool that has recovered from a fault."""

from __future__ import annotations

import asyncio

import jobs
from system import until
from tinysvc.executor import ProcessPoolExecutor


async def assert_healthy(pool: ProcessPoolExecutor) -> None:
    """All workers are ready, and each of them runs jobs."""
    await until(lambda: pool.ready == pool.max_workers)
    assert await asyncio.gather(*(pool.run(jobs.add, n, 1) for n in range(3))) == [1, 2, 3]
    assert all(worker.job is None for worker in pool._dispatcher.scheduler.workers.values())
    assert not pool.waiting
