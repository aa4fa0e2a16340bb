"""author_metrics.py: an author's own prometheus_client metrics, in the server and in workers, however these end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest

import counting_jobs
from system import until
from tinysvc.core.errors import WorkerDied
from tinysvc.executor import ProcessPoolExecutor
from tinysvc.pool.program import SharedMemory
from tinysvc.telemetry import author_metrics, instruments
from tinysvc.telemetry.author_metrics import AuthorMetrics
from tinysvc.telemetry.instruments import OTHER
from tinysvc.telemetry.snapshots import Metric
from tinysvc.telemetry.value_file import SIZE
from tinysvc.telemetry.worker_values import share_values


def pool_of(metrics: AuthorMetrics, workers: int = 1, max_jobs: int = 0) -> ProcessPoolExecutor:
    shared = SharedMemory(SIZE, share_values, metrics.attach)
    initializer = counting_jobs.sold_nothing  # with it, the forkserver imports the module
    return ProcessPoolExecutor(workers, max_jobs=max_jobs, shared=shared, initializer=initializer)


def named(metrics: AuthorMetrics, name: str) -> Metric:
    (found,) = [metric for metric in metrics.metrics() if metric.name == name]
    return found


def values(metrics: AuthorMetrics, name: str) -> dict[tuple[str, ...], float]:
    return {tuple(point.labels): point.value for point in named(metrics, name).points}


def sold(metrics: AuthorMetrics, shop: str) -> float:
    return values(metrics, "sold").get((shop,), 0)


def kill_worker(metrics: AuthorMetrics) -> None:
    (reader,) = metrics._live
    os.kill(reader.pid, signal.SIGKILL)


@pytest.mark.asyncio
async def test_counts_of_server_and_workers_add_up() -> None:
    metrics = AuthorMetrics()
    before = values(metrics, "plain").get((), 0)
    async with pool_of(metrics, workers=2) as pool:
        counting_jobs.SOLD.labels("sum").inc(100)
        await asyncio.gather(*(pool.run(counting_jobs.sell, "sum", 3) for _ in range(10)))
        assert sold(metrics, "sum") == 130
        assert sold(metrics, "sum") == 130  # a scrape changes nothing
        assert values(metrics, "plain")[()] == before + 5
        assert named(metrics, "plain").text == "Without labels."
    assert sold(metrics, "sum") == 130


@pytest.mark.asyncio
async def test_killed_workers_lose_no_count() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics, workers=2) as pool:
        for _ in range(4):
            jobs = [pool.run(counting_jobs.sell_and_stop, "killed", 7) for _ in range(2)]
            ends = await asyncio.gather(*jobs, return_exceptions=True)
            assert all(isinstance(end, WorkerDied) for end in ends)
        assert sold(metrics, "killed") == 4 * 2 * 7
        with pytest.raises(WorkerDied):
            await pool.run(counting_jobs.sell_and_stop, "killed", 7, how=signal.SIGABRT)
        assert sold(metrics, "killed") == 4 * 2 * 7 + 7
        await until(lambda: pool.ready == 2)  # a pool closes sooner without a worker that starts


@pytest.mark.asyncio
async def test_job_is_counted_while_it_runs_and_after_a_kill() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        job = asyncio.ensure_future(pool.run(counting_jobs.sell_and_wait, "late", 4))
        await until(lambda: sold(metrics, "late") == 4)
        assert not job.done()
        kill_worker(metrics)
        with pytest.raises(WorkerDied):
            await job
        assert sold(metrics, "late") == 4
        await until(lambda: pool.ready == 1)


@pytest.mark.asyncio
async def test_recycled_workers_lose_no_count() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics, max_jobs=1) as pool:
        pids = [await pool.run(counting_jobs.sell, "recycled", 2) for _ in range(6)]
        assert len(set(pids)) == 6
        assert sold(metrics, "recycled") == 12


@pytest.mark.asyncio
async def test_stream_and_threads_are_counted() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        assert [number async for number in pool.stream(counting_jobs.sell_each, "stream", 5)] == [0, 1, 2, 3, 4]
        await pool.run(counting_jobs.sell_in_threads, 4, 5000)
        assert sold(metrics, "stream") == 5
        assert sold(metrics, "threads") == 20_000


@pytest.mark.asyncio
async def test_histogram_and_summary_of_workers_and_server() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        await pool.run(counting_jobs.observe, 0.5, 1, 7, 1000)
        counting_jobs.SIZE.labels("a").observe(50, exemplar={"trace_id": "ab" * 16})
        found = named(metrics, "size")
        assert (found.kind, found.labels, found.bounds) == ("histogram", ["shop"], [1, 10, 100])
        (point,) = found.points
        assert (point.counts, point.value) == ([2, 1, 1, 1], 1058.5)
        assert [(each.bucket, each.trace_id) for each in point.exemplars] == [(2, "ab" * 16)]
        (point,) = named(metrics, "cost").points
        assert (point.counts, point.value) == ([4], 1008.5)


@pytest.mark.asyncio
async def test_gauges_follow_their_multiprocess_mode() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics, max_jobs=1) as pool:
        pids = [await pool.run(counting_jobs.set_gauges, value) for value in (5, 7, 6)]
        await until(lambda: not any(pid in labels for pid in map(str, pids) for labels in values(metrics, "of_all")))
        assert values(metrics, "of_sum") == {(): 18}
        assert values(metrics, "of_max") == {("a",): 7}
        assert values(metrics, "of_mostrecent") == {(): 6}
        assert values(metrics, "of_livesum") == {(): 0}
    assert named(metrics, "of_livesum").mode == "sum"


@pytest.mark.asyncio
async def test_gauge_without_a_mode_has_a_series_for_each_process() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        pid = await pool.run(counting_jobs.set_gauges, 3)
        assert named(metrics, "of_all").labels == ["pid"]
        assert values(metrics, "of_all") == {(str(pid),): 3}
        counting_jobs.ALL.set(4)
        try:
            assert values(metrics, "of_all") == {(str(pid),): 3, ("",): 4}
            assert values(AuthorMetrics(has_siblings=True), "of_all") == {(str(os.getpid()),): 4}
        finally:
            counting_jobs.ALL.set(0)
    assert values(AuthorMetrics(), "of_all") == {(): 0}  # as prometheus_client shows it


@pytest.mark.asyncio
async def test_killed_job_is_no_longer_in_progress() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        job = asyncio.ensure_future(pool.run(counting_jobs.in_progress, 60))
        await until(lambda: values(metrics, "of_livesum") == {(): 1})
        kill_worker(metrics)
        with pytest.raises(WorkerDied):
            await job
        await until(lambda: values(metrics, "of_livesum") in ({}, {(): 0}))
        await until(lambda: pool.ready == 1)


@pytest.mark.asyncio
async def test_series_beyond_the_limit_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "MAX_SERIES", 100)
    metrics = AuthorMetrics()
    async with pool_of(metrics, max_jobs=1) as pool:
        for count in (90, 120, 130):
            await pool.run(counting_jobs.sell_to_many, count)
            found = values(metrics, "sold")
            assert len(found) <= 101
        many = {labels: value for labels, value in found.items() if labels[0].startswith("shop ") or labels == (OTHER,)}
    assert sum(many.values()) == 90 + 120 + 130
    assert many[("shop 3",)] == 3


@pytest.mark.asyncio
async def test_full_file_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        await pool.run(counting_jobs.observe_many, 1900)
        with caplog.at_level(logging.WARNING, "tinysvc"):
            metrics.metrics()
            metrics.metrics()
    (record,) = [record for record in caplog.records if "more series" in record.message]
    assert "its 1024 KiB for them can hold" in record.message


@pytest.mark.asyncio
async def test_unusual_uses_in_a_worker() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        await pool.run(counting_jobs.sell_in_child)
        assert sold(metrics, "child") == 1  # a process that a job forks counts for itself
        await pool.run(counting_jobs.make_metric)
        assert values(metrics, "made_in_a_worker") == {(): 2}
        await pool.run(counting_jobs.observe, 1)
        before = named(metrics, "size").points[0].counts
        await pool.run(counting_jobs.reset_and_remove)
        assert sold(metrics, "reset") == 4  # a counter does not fall
        after = named(metrics, "size").points[0].counts
        assert [new - old for old, new in zip(before, after, strict=True)] == [0, 1, 0, 1]


@pytest.mark.asyncio
async def test_killed_forkserver_loses_no_count() -> None:
    metrics = AuthorMetrics()
    async with pool_of(metrics) as pool:
        before = await pool.run(counting_jobs.sell, "orphan", 5)
        os.kill(pool._dispatcher.scheduler.generation.forkserver._process.pid, signal.SIGKILL)
        await until(lambda: pool.ready == 0)
        await until(lambda: pool.ready == 1)
        assert await pool.run(counting_jobs.sell, "orphan", 3) != before
        assert sold(metrics, "orphan") == 8


@pytest.mark.asyncio
async def test_ended_workers_are_added_up_without_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(author_metrics, "MAX_PENDING", 2)
    metrics = AuthorMetrics()
    async with pool_of(metrics, max_jobs=1) as pool:
        for _ in range(8):
            await pool.run(counting_jobs.sell, "unseen", 1)
    assert len(metrics._pending) <= 2
    assert sold(metrics, "unseen") == 8
    with metrics._scraping:  # a scrape runs in its thread: the loop does not wait for it
        async with pool_of(metrics, max_jobs=1) as pool:
            for _ in range(4):
                await pool.run(counting_jobs.sell, "unseen", 1)
        assert len(metrics._pending) > 2
    assert sold(metrics, "unseen") == 12
