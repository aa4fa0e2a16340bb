"""service_jobs.py: the store, the runner, the schedules and the handlers of one service together."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import runner_jobs
from http_ends import logged, on_loop
from memory_store import MemoryStore
from system import exists, until, workers_below
from tinysvc import Request, Service
from tinysvc.core.job_errors import StoreError
from tinysvc.core.settings import Settings
from tinysvc.jobs.records import State
from tinysvc.jobs.service_jobs import ServiceJobs
from tinysvc.runtime.running_service import RunningService, at_work

pytestmark = pytest.mark.usefixtures("nothing_left")


class NotedStore(MemoryStore):
    """Notes by whom it is opened, and that it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, ...]] = []

    async def open(self, owner: str, service: str) -> None:
        self.noted.append((owner, service))
        await super().open(owner, service)

    async def aclose(self) -> None:
        self.noted.append(("closed",))
        await super().aclose()


@asynccontextmanager
async def serving_jobs(store: MemoryStore, service: Service, **options: Any) -> AsyncIterator[RunningService]:
    settings = Settings(**{"cpu_workers": 1, **options})

    def make(service: Service, settings: Settings) -> ServiceJobs:
        return ServiceJobs(service, settings, store, "me")

    async with at_work(service, settings, None, make) as running:
        yield running


@on_loop
async def test_job_from_its_post_to_its_result() -> None:
    store = NotedStore()
    async with serving_jobs(store, runner_jobs.ONLY_JOBS) as running:
        accepted = await running(Request("POST", "/sums", "a=1&b=2"))
        assert accepted.status == 202
        document = json.loads(bytes(accepted.content))
        assert document["state"] == "queued"
        await until(lambda: store.records[document["id"]].state == State.SUCCEEDED)
        result = await running(Request("GET", document["links"]["result"]))
        assert (result.status, result.content) == (200, b"3")
        refused = await running(Request("POST", "/sums", "a=x&b=2"))
        assert (refused.status, len(store.records)) == (422, 1)
    assert store.noted == [("me", "runner"), ("closed",)]


@on_loop
async def test_service_without_a_name_has_that_of_the_module_of_its_first_job_route() -> None:
    store = NotedStore()
    async with serving_jobs(store, Service(runner_jobs.hello, runner_jobs.add)):
        pass
    assert store.noted[0] == ("me", "runner_jobs")


@pytest.mark.parametrize(("options", "status"), [({}, 404), ({"jobs_page": True}, 200), ({"reload": True}, 200)])
@on_loop
async def test_page_of_all_jobs_is_served_where_it_is_asked_for(options: dict[str, Any], status: int) -> None:
    async with serving_jobs(MemoryStore(), runner_jobs.ONLY_JOBS, **options) as running:
        assert (await running(Request("GET", "/jobs.json"))).status == status


@on_loop
async def test_scheduled_job_runs_without_a_request() -> None:
    pytest.importorskip("cronsim")
    store = MemoryStore()
    ticks = store.ticks
    async with serving_jobs(store, runner_jobs.SCHEDULED):
        await until(lambda: bool(ticks))
        (name,) = ticks
        assert name.startswith("/minutes")


@on_loop
async def test_store_that_has_closed_itself_ends_the_attempts_and_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, called = MemoryStore(), list[str]()
    async with serving_jobs(store, runner_jobs.ONLY_JOBS) as running:
        running.on_broken = lambda: called.append("broken")
        await running(Request("POST", "/waits", urlencode({"started": tmp_path / "started", "go": tmp_path / "go"})))
        await exists(tmp_path / "started")
        (worker,) = workers_below(os.getpid())
        for each in store.breaks:
            each("fsync has failed")
        await until(lambda: worker not in workers_below(os.getpid()))
    assert (called, store.breaks) == (["broken"], [])
    assert [record.state for record in store.records.values()] == [State.RUNNING]
    critical, lost = logged(caplog)
    assert critical == "the store of durable jobs has closed itself, and the server ends: fsync has failed"
    assert lost.endswith("was stopped, and its end is not reported")


class UnsweepableStore(MemoryStore):
    """Counts the sweeps, and refuses the first one."""

    sweeps = 0

    async def sweep(self, now: float) -> int:
        self.sweeps += 1
        if self.sweeps == 1:
            raise StoreError("locked")
        return await super().sweep(now)


@on_loop
async def test_store_is_swept_again_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tinysvc.jobs.service_jobs.SWEEP", 0.01)
    store = UnsweepableStore()
    async with serving_jobs(store, runner_jobs.ONLY_JOBS):
        await until(lambda: store.sweeps > 2)
    assert logged(caplog) == ["expired durable jobs were not removed, and stay until the next try: locked"]
