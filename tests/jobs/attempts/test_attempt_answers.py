"""attempt_answers.py: an attempt that asks can change its own durable job only, and only while it is the newest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from http_ends import on_loop
from memory_store import MemoryStore
from tinysvc.core.job_errors import StoreFull
from tinysvc.core.requests import Peer
from tinysvc.jobs.attempts.attempt_answers import AttemptAnswers
from tinysvc.jobs.records import NewJob, Progress
from tinysvc.pool.arena import Arenas
from tinysvc.pool.state import Job
from tinysvc.runtime.attempt_jobs import attempt_job
from tinysvc.runtime.cpu_messages import RequestMessage
from tinysvc.runtime.job_messages import JobAnswer, ProgressReport, SaveRequest


class SlowStore(MemoryStore):
    """Writes progress only when `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.written: list[Progress] = []
        self.error: Exception | None = None

    async def progress(self, job_id: str, attempt: int, value: Progress) -> bool:
        await self.go.wait()
        if self.error:
            raise self.error
        self.written.append(value)
        return await super().progress(job_id, attempt, value)

    async def save(self, job_id: str, attempt: int, value: bytes) -> bool:
        if self.error:
            raise self.error
        return await super().save(job_id, attempt, value)


class Bench:
    """A store with one running durable job."""

    def __init__(self) -> None:
        self.store = SlowStore()
        self.stale: list[Job] = []
        self.answers = AttemptAnswers(self.store, self.stale.append)

    async def start(self) -> Job:
        await self.store.submit(NewJob(route="/trainings", request=b""))
        return await self.claim()

    async def claim(self) -> Job:
        (claimed,) = await self.store.claim({"/trainings": 1}, 1)
        self.id = claimed.record.id
        request = RequestMessage(0, "POST", "/", "", None, [], Peer(None, None, "http"), "id", None)
        return attempt_job(request, self.id, claimed.record.attempt, b"", None, Arenas(), timeout=None)

    async def ask(self, job: Job, question: Any, body: bytes = b"") -> JobAnswer | None:
        answer, rest = await self.answers.answer(job, question, body)
        assert rest == b""
        return answer


@on_loop
async def test_save_is_in_the_store_before_the_answer() -> None:
    bench = Bench()
    job = await bench.start()
    assert await bench.ask(job, SaveRequest(), b"pickle") == JobAnswer()
    assert bench.store.saved == {bench.id: b"pickle"}


@on_loop
async def test_progress_is_answered_at_once_and_the_newest_is_written() -> None:
    bench = Bench()
    job = await bench.start()
    for n in range(5):
        assert await bench.ask(job, ProgressReport(n / 4, {"n": n})) == JobAnswer()
        await asyncio.sleep(0)
    bench.store.go.set()
    await bench.answers.flush(job)
    assert [each.values for each in bench.store.written] == [{"n": 0}, {"n": 4}]
    assert bench.store.records[bench.id].progress == Progress(fraction=1.0, values={"n": 4})
    await bench.answers.flush(job)  # nothing waits
    bench.answers.forget(job)


@on_loop
async def test_older_attempt_changes_nothing_and_is_reported_once() -> None:
    bench = Bench()
    old = await bench.start()
    await bench.store.release(bench.id, 1, "shutdown")
    new = await bench.claim()
    bench.store.go.set()
    for _ in range(2):
        answer = await bench.ask(old, SaveRequest(), b"late")
        assert answer is not None
        assert answer.refusal == "stale"
    assert (bench.stale, bench.store.saved) == ([old], {})
    assert await bench.ask(new, SaveRequest(), b"new") == JobAnswer()
    bench.answers.forget(old)
    assert await bench.ask(old, ProgressReport(0.5, {})) == JobAnswer()  # the refusal follows with the next one
    await bench.answers.flush(old)
    assert bench.stale == [old, old]
    assert bench.store.records[bench.id].progress is None


@on_loop
async def test_cancelled_job_saves_nothing_more() -> None:
    bench = Bench()
    job = await bench.start()
    await bench.store.cancel(bench.id)
    answer = await bench.ask(job, SaveRequest(), b"late")
    assert answer is not None
    assert (answer.refusal, bench.stale, bench.store.saved) == ("stale", [job], {})


@on_loop
async def test_full_disk_is_no_end_of_the_attempt(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    job = await bench.start()
    bench.store.error = StoreFull("no space left in /var/lib/shop")
    answer = await bench.ask(job, SaveRequest(), b"value")
    assert answer is not None
    assert answer.refusal == "unavailable"
    assert "/var/lib" not in answer.detail
    assert "no space left in /var/lib/shop" in caplog.text
    bench.store.go.set()
    assert await bench.ask(job, ProgressReport(0.5, {})) == JobAnswer()
    await bench.answers.flush(job)
    bench.store.error = None
    assert await bench.ask(job, SaveRequest(), b"value") == JobAnswer()
    assert not bench.stale


@on_loop
async def test_job_that_is_no_attempt_gets_no_answer() -> None:
    bench = Bench()
    assert await bench.ask(Job(None), SaveRequest()) is None
