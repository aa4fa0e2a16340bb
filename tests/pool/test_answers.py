"""answers.py: questions of jobs in real workers; tests/runtime/test_worker_calls.py has those of a service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from http_ends import on_loop
from tinysvc import DeadlineExceeded, ProcessPoolExecutor
from tinysvc.pool.answers import Answers
from tinysvc.pool.program import JobFunction, Reply
from tinysvc.pool.questions import asking
from tinysvc.pool.state import Generation, Job, Worker


@contextmanager
def program() -> Iterator[JobFunction]:
    def run_job(meta: Any, body: bytes | memoryview) -> Reply:
        ask = asking.get()
        assert ask is not None
        answers = [ask([meta, n], bytes(body)) for n in range(3)]
        return Reply([each for each, _ in answers], answers[-1][1])

    yield run_job


async def run(pool: ProcessPoolExecutor, meta: str, body: bytes = b"", timeout: float | None = 20) -> Any:
    job = pool.submit_job(Job(meta, body, timeout))
    return await job.future


@on_loop
async def test_each_question_of_a_job_is_answered() -> None:
    async def answer(job: Job, meta: Any, body: bytes) -> tuple[Any, bytes]:
        await asyncio.sleep(0)
        return [*meta, "answered"], body * 2

    async with ProcessPoolExecutor(2, program=program) as pool:
        pool.answer = answer
        assert pool.answer is answer
        replies = await asyncio.gather(*(run(pool, name, b"ab" * 50_000) for name in "abc"))
        for name, reply in zip("abc", replies, strict=True):
            assert reply.meta == [[name, n, "answered"] for n in range(3)]
            assert bytes(reply.body) == b"ab" * 100_000


@on_loop
async def test_pool_without_an_answer_function_answers_nothing() -> None:
    async with ProcessPoolExecutor(1, program=program) as pool:
        assert (await run(pool, "a")).meta == [None, None, None]


@on_loop
async def test_end_of_the_job_cancels_its_question() -> None:
    ends: list[str] = []

    async def answer(job: Job, meta: Any, body: bytes) -> tuple[Any, bytes]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append(meta[0])
            raise
        return None, b""

    async with ProcessPoolExecutor(1, program=program) as pool:
        pool.answer = answer
        with pytest.raises(DeadlineExceeded):
            await run(pool, "late", timeout=0.2)
        await until(lambda: ends == ["late"])
        task = asyncio.ensure_future(run(pool, "again", timeout=0.2))
        with pytest.raises(DeadlineExceeded):
            await task
        await until(lambda: ends == ["late", "again"])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


class ClosedTransport:
    """uvloop refuses a write to a transport that is closed."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        raise RuntimeError("the handler is closed")


@on_loop
async def test_answer_for_a_worker_that_has_died_is_dropped() -> None:
    answers, worker, job = Answers(), Worker(1, 0.0, Generation()), Job("a")
    worker.jobs = [job]
    worker.channel = SimpleNamespace(transport=ClosedTransport())
    answers.begin(worker, job, "a", b"")
    await answers.under_way[job]
    assert not answers.under_way
