"""runner.py: durable jobs from a store run in real workers, end in many ways, and are cancelled and drained."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import runner_jobs
from http_ends import logged, on_loop
from memory_store import MemoryStore
from system import exists, is_alive, until, workers_below
from tinysvc import Request, Service
from tinysvc.core.job_errors import StoreError, StoreFull
from tinysvc.core.settings import Settings
from tinysvc.jobs.attempts.runner import Runner
from tinysvc.jobs.records import ENDED, CancelOutcome, NewJob, Record, ResultHead, State
from tinysvc.jobs.service_jobs import ServiceJobs
from tinysvc.jobs.stored_request import StoredRequest, encode_request
from tinysvc.runtime.running_service import RunningService, at_work

pytestmark = pytest.mark.usefixtures("nothing_left")


@asynccontextmanager
async def serving_jobs(
    store: MemoryStore, service: Service = runner_jobs.ONLY_JOBS, **options: Any
) -> AsyncIterator[RunningService]:
    settings = Settings(**{"cpu_workers": 1, **options})

    def make(service: Service, settings: Settings) -> ServiceJobs:
        return ServiceJobs(service, settings, store, "me")

    async with at_work(service, settings, None, make) as running:
        yield running


def runner_of(running: RunningService) -> Runner:
    assert isinstance(running.durable, ServiceJobs)
    return running.durable._runner


def cancelling(running: RunningService) -> Callable[[str], Awaitable[CancelOutcome]]:
    return runner_of(running).cancel


async def submitted(store: MemoryStore, path: str, max_attempts: int = 3, **arguments: Any) -> str:
    """Submit a durable job as its POST does; its id."""
    request = encode_request(StoredRequest(method="POST", path=path, query=urlencode(arguments)))
    new = NewJob(route=path, path=path, request=request, max_attempts=max_attempts)
    return (await store.submit(new)).record.id


async def ended(store: MemoryStore, job_id: str) -> Record:
    await until(lambda: store.records[job_id].state in ENDED and not store.records[job_id].owner)
    return store.records[job_id]


# Ends


@on_loop
async def test_result_of_the_handler_is_stored_as_a_response() -> None:
    store = MemoryStore()
    async with serving_jobs(store):
        record = await ended(store, await submitted(store, "/sums", a=1, b=2))
    assert (record.state, record.used, record.attempts[0].cause) == (State.SUCCEEDED, 1, "succeeded")
    assert record.result == ResultHead(status=200, content_type="application/json", headers=[], size=1)
    assert store.results[record.id] == b"3"


@on_loop
async def test_jobs_that_wait_at_the_start_run_in_the_order_of_acceptance() -> None:
    store = MemoryStore()
    jobs = [await submitted(store, "/sums", a=n, b=0) for n in range(50)]
    async with serving_jobs(store):
        records = [await ended(store, job) for job in jobs]
    assert [store.results[job] for job in jobs] == [b"%d" % n for n in range(50)]
    starts = [record.started for record in records]
    assert starts == sorted(starts, key=lambda start: start or 0.0)


@on_loop
async def test_worker_that_dies_uses_one_attempt_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with serving_jobs(store):
        record = await ended(store, await submitted(store, "/crashes", until=3))
    assert record.state == State.SUCCEEDED
    assert [each.cause for each in record.attempts] == ["worker-died", "worker-died", "succeeded"]
    assert "was killed by SIGKILL" in record.attempts[0].detail
    assert store.results[record.id] == b"3"
    assert all("(worker-died)" in line for line in logged(caplog))


@pytest.mark.parametrize(
    ("path", "cause", "detail"),
    [("/segfaults", "worker-died", "SIGSEGV"), ("/allocations", "error", "MemoryError")],
)
@on_loop
async def test_segfault_or_lack_of_memory_uses_one_attempt(
    path: str, cause: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    async with serving_jobs(store, memory_limit=2 << 30):
        record = await ended(store, await submitted(store, path))
    assert (record.state, record.used, store.results[record.id]) == (State.SUCCEEDED, 2, b"2")
    assert record.attempts[0].cause == cause
    assert detail in record.attempts[0].detail
    assert record.attempts[0].ended is not None
    assert record.started is not None
    assert record.started >= record.attempts[0].ended + 0.005, "it has paused"
    logged(caplog)


@on_loop
async def test_jobs_that_fail_together_return_one_after_the_other(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with serving_jobs(store, cpu_workers=2):
        jobs = [await submitted(store, "/errors", max_attempts=2) for _ in range(20)]
        records = [await ended(store, job) for job in jobs]
    pauses = {round(each.attempts[1].started - (each.attempts[0].ended or 0), 4) for each in records}
    assert len(pauses) > 10, "each pause has a random part"
    logged(caplog)


@on_loop
async def test_poison_job_fails_after_its_attempts(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with serving_jobs(store):
        poison = await ended(store, await submitted(store, "/crashes", until=99))
        other = await ended(store, await submitted(store, "/sums", a=1, b=1))
    assert (poison.state, poison.used, other.state) == (State.FAILED, 3, State.SUCCEEDED)
    assert poison.problem is not None
    assert poison.problem["type"] == "urn:tinysvc:worker-died"
    assert logged(caplog)[-1].endswith("there is no further one")


@on_loop
async def test_attempts_before_a_restart_count(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    job = await submitted(store, "/crashes", until=99)
    for server in ("first", "second"):
        assert await store.claim({"/crashes": 1}, 1, owner=server)
        assert await store.died(server) == [job]
    async with serving_jobs(store):
        record = await ended(store, job)
    assert (record.state, record.used) == (State.FAILED, 3)
    assert [each.cause for each in record.attempts] == ["server-died", "server-died", "worker-died"]
    logged(caplog)


@on_loop
async def test_error_of_the_handler_is_retried_with_its_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with serving_jobs(store):
        record = await ended(store, await submitted(store, "/errors"))
    assert (record.state, record.used) == (State.FAILED, 3)
    assert record.attempts[0].detail == "RuntimeError: no luck"
    assert record.problem is not None
    assert "no luck" not in json.dumps(record.problem), "the text of an exception is for the author"
    messages = logged(caplog)
    assert len(messages) == 3
    assert all("runner_jobs.py" in message for message in messages)


@on_loop
async def test_deadline_of_an_attempt_kills_it(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with serving_jobs(store):
        (worker,) = workers_below(os.getpid())
        record = await ended(store, await submitted(store, "/late", max_attempts=1))
        assert worker not in workers_below(os.getpid())
    assert (record.state, record.attempts[0].cause) == (State.FAILED, "deadline")
    logged(caplog)


@on_loop
async def test_stored_request_that_cannot_be_read_fails_without_an_attempt(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with serving_jobs(store):
        job = (await store.submit(NewJob(route="/sums", request=b"\xc1"))).record.id
        record = await ended(store, job)
    assert (record.state, record.used) == (State.FAILED, 0)
    assert record.attempts[0].cause == "arguments-no-longer-fit"
    logged(caplog)


@on_loop
async def test_scheduled_job_starts_when_it_is_due() -> None:
    store = MemoryStore()
    async with serving_jobs(store):
        request = encode_request(StoredRequest(method="POST", path="/errors"))
        due = time.time() + 0.2
        job = await store.submit(NewJob(route="/errors", request=request, due=due, max_attempts=1))
        record = await ended(store, job.record.id)
    assert record.started is not None
    assert record.started >= due


@on_loop
async def test_job_that_is_claimed_ahead_returns_to_the_store_when_it_waits_too_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tinysvc.jobs.attempts.running_attempt.LONGEST_WAIT", 0.05)
    store = MemoryStore()
    async with serving_jobs(store) as running:
        capacity = runner_of(running)._capacity
        for _ in range(20):
            capacity.note("/waits", 0.001)
        go = str(tmp_path / "go")
        jobs = [await submitted(store, "/waits", started=str(tmp_path / str(n)), go=go) for n in range(3)]
        await until(lambda: len(store.records[jobs[1]].attempts) > 0 and store.records[jobs[1]].state == State.QUEUED)
        attempt = store.records[jobs[1]].attempts[-1]
        assert (attempt.cause, attempt.counts) == ("not-started", False)
        (tmp_path / "go").touch()
        records = [await ended(store, job) for job in jobs]
    assert [(record.state, record.used) for record in records] == [(State.SUCCEEDED, 1)] * 3


# Cancels


@on_loop
async def test_cancel_returns_after_the_death_of_the_process_and_its_children(tmp_path: Path) -> None:
    store, started = MemoryStore(), tmp_path / "started"
    async with serving_jobs(store) as running:
        job = await submitted(store, "/stuck", started=str(started))
        await exists(started)
        worker, child = map(int, started.read_text().split())
        outcome = await cancelling(running)(job)
        assert not is_alive(worker)
        await until(lambda: not is_alive(child))  # it has been killed, too
        assert (outcome.kind, store.records[job].state, store.records[job].owner) == ("cancelled", "cancelled", "")
        assert (await cancelling(running)(job)).kind == "was-cancelled"
        assert (await ended(store, await submitted(store, "/sums", a=1, b=1))).state == State.SUCCEEDED


@on_loop
async def test_cancel_by_another_process_kills_the_attempt(tmp_path: Path) -> None:
    store, started = MemoryStore(), tmp_path / "started"
    async with serving_jobs(store):
        job = await submitted(store, "/waits", started=str(started), go=str(tmp_path / "go"))
        await exists(started)
        assert (await store.cancel(job)).owner
        record = await ended(store, job)
    assert (record.state, record.attempts[0].cause) == (State.CANCELLED, "cancelled")


@on_loop
async def test_cancel_of_a_waiting_or_ended_job_stops_nothing(tmp_path: Path) -> None:
    store, started = MemoryStore(), tmp_path / "started"
    async with serving_jobs(store) as running:
        first = await submitted(store, "/waits", started=str(started), go=str(tmp_path / "go"))
        waiting = await submitted(store, "/sums", a=1, b=1)
        await exists(started)
        assert (await cancelling(running)(waiting)).kind == "cancelled"
        (tmp_path / "go").touch()
        assert (await ended(store, first)).state == State.SUCCEEDED
        assert (await cancelling(running)(first)).kind == "ended"
        assert (await cancelling(running)("0" * 32)).kind == "unknown"
    assert store.records[waiting].attempt == 0


class CancelledInClaim(MemoryStore):
    """Cancels each durable job between the commit of its claim and the answer."""

    async def claim(self, *args: Any, **kwargs: Any) -> Any:
        claimed = await super().claim(*args, **kwargs)
        for each in claimed:
            await self.cancel(each.record.id)
        return claimed


@on_loop
async def test_job_that_is_cancelled_while_it_is_claimed_never_starts(tmp_path: Path) -> None:
    store, started = CancelledInClaim(), tmp_path / "started"
    async with serving_jobs(store):
        record = await ended(store, await submitted(store, "/waits", started=str(started), go=str(started)))
    assert (record.state, started.exists()) == (State.CANCELLED, False)


class SlowFinish(MemoryStore):
    """Cancels each durable job just before its result is committed."""

    async def finish(self, job_id: str, *rest: Any) -> bool:
        await self.cancel(job_id)
        return await super().finish(job_id, *rest)


@on_loop
async def test_cancel_that_commits_before_the_result_wins() -> None:
    store = SlowFinish()
    async with serving_jobs(store):
        record = await ended(store, await submitted(store, "/sums", a=1, b=1))
    assert (record.state, record.result) == (State.CANCELLED, None)


# Drain


@on_loop
async def test_drain_lets_an_attempt_finish(tmp_path: Path) -> None:
    store, started, go = MemoryStore(), tmp_path / "started", tmp_path / "go"
    async with serving_jobs(store) as running:
        job = await submitted(store, "/waits", started=str(started), go=str(go))
        later = await submitted(store, "/sums", a=1, b=1)
        await exists(started)
        draining = asyncio.create_task(running.drain(20))
        await asyncio.sleep(0.05)
        go.touch()
        await draining
        assert (store.records[job].state, store.records[later].state) == (State.SUCCEEDED, State.QUEUED)


@on_loop
async def test_drain_that_takes_too_long_requeues_and_uses_no_attempt(tmp_path: Path) -> None:
    store = MemoryStore()
    async with serving_jobs(store) as running:
        job = await submitted(store, "/epochs", epochs=4, folder=str(tmp_path))
        await exists(tmp_path / "started")
        await running.drain(0.2)
        assert not workers_below(os.getpid())
        record = store.records[job]
        assert (record.state, record.used, record.attempts[0].cause) == (State.QUEUED, 0, "shutdown")
    (tmp_path / "go").touch()
    async with serving_jobs(store):
        record = await ended(store, job)
    assert (record.state, record.used, record.attempt) == (State.SUCCEEDED, 1, 2)
    assert json.loads(store.results[job]) == [1, 1, 2, 2], "it goes on where it was"


# The store


class BrokenStore(MemoryStore):
    """Refuses everything that `refused` names."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = {"claim", "finish"}
        self.error: StoreError = StoreFull("no space left on /disk")

    async def claim(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("claim")
        return await super().claim(*args, **kwargs)

    async def finish(self, *args: Any) -> bool:
        self._refuse("finish")
        return await super().finish(*args)

    def _refuse(self, name: str) -> None:
        if name in self.refused:
            raise self.error


@on_loop
async def test_result_that_the_store_cannot_take_is_kept_and_written_later(caplog: pytest.LogCaptureFixture) -> None:
    store = BrokenStore()
    store.refused = {"finish"}
    async with serving_jobs(store) as running:
        assert running.durable is not None
        job = await submitted(store, "/sums", a=1, b=1)
        await until(lambda: bool(running.durable and running.durable.problem))
        assert running.durable.problem == "1 ended attempts wait for the store: no space left on /disk"
        store.refused = set()
        record = await ended(store, job)
        await until(lambda: not (running.durable and running.durable.problem))
    assert (record.state, record.used, store.results[job]) == (State.SUCCEEDED, 1, b"2")
    (message,) = logged(caplog)
    assert "is kept in memory, and written later: no space left" in message


@on_loop
async def test_claims_go_on_when_the_store_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinysvc.jobs.attempts.runner.STORE_PAUSE", 0.02)
    store = BrokenStore()
    async with serving_jobs(store) as running:
        job = await submitted(store, "/sums", a=1, b=1)
        await until(lambda: bool(running.durable and running.durable.problem))
        store.refused = set()
        assert (await ended(store, job)).state == State.SUCCEEDED
    assert len(logged(caplog)) == 1


@on_loop
async def test_change_that_was_missed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinysvc.jobs.attempts.runner.POLL", 0.05)
    store = MemoryStore()
    async with serving_jobs(store):
        watchers, store.watchers = store.watchers, []
        job = await submitted(store, "/sums", a=1, b=1)
        store.watchers = watchers
        assert (await ended(store, job)).state == State.SUCCEEDED


# Pools


@on_loop
async def test_cpu_route_runs_beside_a_durable_job_in_one_pool(tmp_path: Path) -> None:
    store, go = MemoryStore(), tmp_path / "go"
    async with serving_jobs(store, runner_jobs.SHARED, cpu_workers=2) as running:
        jobs = [await submitted(store, "/waits", started=str(tmp_path / str(n)), go=str(go)) for n in range(2)]
        await exists(tmp_path / "0")
        assert (await running(Request("GET", "/pid"))).status == 200
        assert [store.records[job].state for job in jobs] == [State.RUNNING, State.QUEUED]
        go.touch()
        for job in jobs:
            assert (await ended(store, job)).state == State.SUCCEEDED


@on_loop
async def test_durable_jobs_run_in_the_thread_of_a_server_without_workers(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    async with serving_jobs(store, cpu_workers=0):
        assert (await ended(store, await submitted(store, "/sums", a=1, b=2))).state == State.SUCCEEDED
    logged(caplog)
