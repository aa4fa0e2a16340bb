"""Attempts of durable jobs in real workers, and in the thread of `cpu_workers=0`: they save and report to a store."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

import durable_handlers as app
from http_ends import on_loop
from memory_store import MemoryStore
from tinysvc import ProcessPoolExecutor, RemoteError, Service
from tinysvc.core.requests import Peer
from tinysvc.core.settings import Settings
from tinysvc.jobs.attempts.attempt_answers import AttemptAnswers
from tinysvc.jobs.records import NewJob
from tinysvc.pool.arena import BIG
from tinysvc.pool.in_process import InProcessPool
from tinysvc.pool.state import Job
from tinysvc.runtime.attempt_jobs import attempt_job
from tinysvc.runtime.checks import endpoint_of
from tinysvc.runtime.cpu_endpoints import CpuProgram
from tinysvc.runtime.cpu_messages import RequestMessage
from tinysvc.service.plan import plans_of

HANDLERS = [
    app.train,
    app.table,
    app.weights,
    app.flood,
    app.report_and_wait,
    app.fail,
    app.plain,
    app.save_for_ever,
    app.keep_big_state,
]
PLANS = list(plans_of(Service(*HANDLERS)))
KINDS = pytest.mark.parametrize("kind", ["process", "thread"])


class Runner:
    """Runs durable jobs of a MemoryStore in a pool."""

    def __init__(self, pool: ProcessPoolExecutor | InProcessPool) -> None:
        self.pool = pool
        self.store = MemoryStore()
        self.stale: list[Job] = []
        self.answers = AttemptAnswers(self.store, self.stale.append)
        pool.answer = self.answers.answer

    async def submit(self, function: Any) -> str:
        self.number = next(number for number, plan in enumerate(PLANS) if plan.route.function is function)
        return (await self.store.submit(NewJob(route="/jobs", request=b""))).record.id

    async def run(self, body: bytes = b"", **path: str) -> Any:
        """Run the next attempt."""
        (claimed,) = await self.store.claim({"/jobs": 1}, 1)
        headers = [(b"content-type", b"application/json")]
        request = RequestMessage(self.number, "POST", "/", "", path, headers, Peer(None, None, "http"), "id", None)
        record = claimed.record
        job = attempt_job(request, record.id, record.attempt, body, claimed.saved, self.pool.arenas, timeout=20)
        reply = await self.pool.submit_job(job).future
        await self.answers.flush(job)
        return reply


@asynccontextmanager
async def runner(kind: str, max_result_size: int = 10 * BIG) -> AsyncIterator[Runner]:
    settings = Settings(cpu_workers=0 if kind == "thread" else 1, max_result_size=max_result_size)
    program = CpuProgram([endpoint_of(plan, settings) for plan in PLANS])
    pool: Any = (
        InProcessPool(program)
        if kind == "thread"
        else ProcessPoolExecutor(1, program=program, max_result_size=max_result_size)
    )
    await pool.start()
    try:
        yield Runner(pool)
    finally:
        await pool.aclose(0)


@KINDS
@on_loop
async def test_attempt_goes_on_where_the_one_before_has_saved(kind: str) -> None:
    async with runner(kind) as runs:
        job = await runs.submit(app.train)
        reply = await runs.run(b'{"epochs": 2}')
        assert orjson.loads(bytes(reply.body)) == {"from": 0, "id": job, "attempt": 1, "rows": 3, "w": 7}
        assert pickle.loads(runs.store.saved[job]) == 2
        record = runs.store.records[job]
        assert record.progress is not None
        assert (record.progress.fraction, record.progress.values) == (1.0, {"epoch": 1})
        await runs.store.release(job, 1, "shutdown")
        reply = await runs.run(b'{"epochs": 3}')
        assert orjson.loads(bytes(reply.body)) == {"from": 2, "id": job, "attempt": 2, "rows": 3, "w": 7}


@KINDS
@on_loop
async def test_flood_of_progress_reaches_the_store_ten_times_a_second(kind: str) -> None:
    async with runner(kind) as runs:
        job = await runs.submit(app.flood)
        before = runs.store.records[job].version
        reply = await runs.run()
        record = runs.store.records[job]
        assert record.progress is not None
        assert record.progress.values == {"calls": int(bytes(reply.body))}
        assert record.version - before <= 7


@KINDS
@on_loop
async def test_big_state_is_saved_and_comes_back(kind: str) -> None:
    size = 3 * BIG
    async with runner(kind) as runs:
        job = await runs.submit(app.keep_big_state)
        for attempt in (1, 2):
            reply = await runs.run(str(size).encode())
            assert orjson.loads(bytes(reply.body)) == {"before": size * (attempt - 1)}
            await runs.store.release(job, attempt, "shutdown")
        assert pickle.loads(runs.store.saved[job]) == b"s" * size


@on_loop
async def test_state_over_the_limit_is_refused_and_named() -> None:
    async with runner("process", max_result_size=1_000_000) as runs:
        job = await runs.submit(app.keep_big_state)
        failure = (await runs.run(b"1000000")).meta.failure
        assert failure.detail.startswith("ValueError: the question to the server has 1000")
        assert "max_result_size is 1000000" in failure.detail
        assert job not in runs.store.saved


@on_loop
async def test_report_arrives_while_the_handler_waits() -> None:
    async with runner("process") as runs:
        job = await runs.submit(app.report_and_wait)
        attempt = asyncio.ensure_future(runs.run(b"60"))
        await until(lambda: (found := runs.store.records[job].progress) is not None and found.fraction == 0.2)
        attempt.cancel()


@KINDS
@on_loop
async def test_cancelled_attempt_learns_it_from_its_next_save(kind: str) -> None:
    async with runner(kind) as runs:
        job = await runs.submit(app.save_for_ever)
        attempt = asyncio.ensure_future(runs.run())
        await until(lambda: job in runs.store.saved)
        await runs.store.cancel(job)
        saved = runs.store.saved.get(job)
        failure = (await attempt).meta.failure
        assert (failure.cause, "StaleAttempt" in failure.detail) == ("error", True)
        assert runs.store.saved.get(job) == saved
        assert len(runs.stale) == 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


@on_loop
async def test_memory_error_replaces_the_worker() -> None:
    async with runner("process") as runs:
        await runs.submit(app.fail)
        with pytest.raises(RemoteError, match="MemoryError"):
            await runs.run(how="memory")
