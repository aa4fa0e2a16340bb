"""pool_metrics.py: jobs by outcome, their times, workers by state, and how they end."""

from __future__ import annotations

import asyncio

import pytest

import jobs
from system import until
from tinysvc import ProcessPoolExecutor
from tinysvc.core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    JobRefused,
    NoWorkers,
    PoolClosed,
    PoolError,
    QueueFull,
    RemoteError,
    WorkerDied,
)
from tinysvc.pool.job_reply import JobReply
from tinysvc.runtime.pool_metrics import OUTCOMES, PoolMetrics, outcome_name
from tinysvc.telemetry.instruments import Registry
from tinysvc.telemetry.snapshots import Snapshot


@pytest.mark.parametrize(
    ("outcome", "name"),
    [
        (JobReply((), b""), "ok"),
        (None, "ok"),  # the end of a stream
        (RemoteError("KeyError", "x", ""), "error"),
        (ValueError("x"), "error"),
        (DeadlineExceeded("late"), "deadline"),
        (DeadlineInQueue("late", 1), "deadline_in_queue"),
        (JobAbandoned("left"), "abandoned"),
        (WorkerDied("died"), "worker_died"),
        (QueueFull("full", 1), "queue_full"),
        (PoolClosed("closed"), "closed"),
        (NoWorkers("none", 1), "refused"),
        (JobRefused("crashes"), "refused"),
    ],
)
def test_outcome_has_a_name(outcome: object, name: str) -> None:
    assert outcome_name(outcome) == name
    assert name in OUTCOMES


def values(snapshot: Snapshot, name: str) -> dict[str, float]:
    """By the last label: the value, or the number of observations."""
    (metric,) = [each for each in snapshot if each.name == name]
    return {point.labels[-1]: sum(point.counts) if point.counts else point.value for point in metric.points}


@pytest.mark.asyncio
async def test_jobs_and_workers_of_a_pool_are_counted() -> None:
    registry = Registry()
    async with ProcessPoolExecutor(1, name="training") as pool:
        PoolMetrics(registry, [pool])
        for _ in range(3):
            await pool.run(jobs.add, 1, 2)
        with pytest.raises(ValueError):
            await pool.run(jobs.raise_value_error)
        with pytest.raises(WorkerDied):
            await pool.run(jobs.segfault)
        await until(lambda: pool.ready == 1)
        late = asyncio.create_task(pool.run(jobs.spin, timeout=0.3))
        await until(lambda: pool.worker_states()["busy"] == 1)
        with pytest.raises(PoolError):
            await pool.run(jobs.add, 1, 2, timeout=0.05)
        with pytest.raises(DeadlineExceeded):
            await late
        await until(lambda: pool.ready == 1)
        found = registry.snapshot()
    ended = {name: n for name, n in values(found, "tinysvc.pool.jobs").items() if n}
    assert ended == {"ok": 3, "error": 1, "worker_died": 1, "deadline": 1, "deadline_in_queue": 1}
    ends = {cause: n for cause, n in values(found, "tinysvc.pool.worker.ends").items() if n}
    assert ends == {"crashed": 1, "deadline": 1}
    assert values(found, "tinysvc.pool.queue.duration") == {"training": 7}
    assert values(found, "tinysvc.pool.run.duration") == {"training": 6}
    assert values(found, "tinysvc.pool.workers")["idle"] == 1
    assert values(found, "tinysvc.pool.queue.length") == {"training": 0}


@pytest.mark.asyncio
async def test_stream_is_counted_with_its_whole_run_time() -> None:
    registry = Registry()
    async with ProcessPoolExecutor(1) as pool:
        PoolMetrics(registry, [pool])
        assert [item async for item in pool.stream(jobs.count, 3)] == [0, 1, 2]
        await until(lambda: pool.worker_states()["idle"] == 1)
        found = registry.snapshot()
    assert values(found, "tinysvc.pool.jobs")["ok"] == 1
    assert values(found, "tinysvc.pool.run.duration") == {"default": 1}
