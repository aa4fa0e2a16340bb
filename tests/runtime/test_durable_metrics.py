"""durable_metrics.py: durable jobs by state, and their attempts by the cause of their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

import runner_jobs
from http_ends import on_loop
from memory_store import MemoryStore
from system import until
from tinysvc import Request
from tinysvc.core.job_errors import StoreError
from tinysvc.core.settings import Settings
from tinysvc.jobs.service_jobs import ServiceJobs
from tinysvc.runtime import durable_metrics
from tinysvc.runtime.running_service import RunningService, at_work
from tinysvc.runtime.service_metrics import ServiceMetrics
from tinysvc.telemetry.instruments import Registry

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_metrics, "INTERVAL", 0.01)


@asynccontextmanager
async def serving_jobs(store: MemoryStore) -> AsyncIterator[RunningService]:
    def make(service: Any, settings: Settings) -> ServiceJobs:
        return ServiceJobs(service, settings, store, "me")

    metrics = ServiceMetrics()
    async with at_work(runner_jobs.ONLY_JOBS, Settings(cpu_workers=1), None, make, metrics) as running:
        yield running


def values(registry: Registry, name: str) -> Mapping[tuple[str, ...], float]:
    """The value, or the number of observations, by labels; without zeros."""
    (metric,) = [each for each in registry.snapshot() if each.name == name]
    found = {tuple(point.labels): sum(point.counts) if point.counts else point.value for point in metric.points}
    return {labels: value for labels, value in found.items() if value}


@on_loop
async def test_attempts_and_states_of_durable_jobs_are_counted() -> None:
    async with serving_jobs(MemoryStore()) as running:
        assert running.metrics is not None
        registry = running.metrics.registry
        for _ in range(3):
            assert (await running(Request("POST", "/sums", "a=1&b=2"))).status == 202
        await until(lambda: values(registry, "tinysvc.jobs") == {("/sums", "succeeded"): 3})
        assert values(registry, "tinysvc.job.attempts") == {("/sums", "succeeded"): 3}
        assert values(registry, "tinysvc.job.attempt.duration") == {("/sums",): 3}
        assert values(registry, "tinysvc.job.wait.duration") == {("/sums",): 3}
        assert values(registry, "http.server.request.duration") == {("POST", "/sums", "202", ""): 3}


class AwayStore(MemoryStore):
    """Cannot be read for a while."""

    is_away = True

    async def page(self, *arguments: Any, **options: Any) -> Any:
        if self.is_away:
            raise StoreError("the database is away")
        return await super().page(*arguments, **options)


@on_loop
async def test_store_that_cannot_be_read_leaves_the_last_counts() -> None:
    store = AwayStore()
    async with serving_jobs(store) as running:
        assert running.metrics is not None
        registry = running.metrics.registry
        await running(Request("POST", "/sums", "a=1&b=2"))
        await asyncio.sleep(0.05)
        assert values(registry, "tinysvc.jobs") == {}
        store.is_away = False
        await until(lambda: bool(values(registry, "tinysvc.jobs")))
