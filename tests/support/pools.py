"""What holds for every pool that has got over a fault."""

from __future__ import annotations

import asyncio

import jobs
from system import until
from tinysvc.executor import ProcessPoolExecutor


async def assert_healthy(pool: ProcessPoolExecutor) -> None:
    """Every worker is back, and each of them works."""
    await until(lambda: pool.ready == pool.max_workers)
    assert await asyncio.gather(*(pool.run(jobs.add, n, 1) for n in range(3))) == [1, 2, 3]
    assert all(worker.job is None for worker in pool._dispatcher.books.workers.values())
    assert not pool.waiting
