"""A pool whose jobs the test settles by hand, for interleavings that are rare in a real pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

from tinysvc.core.errors import JobAbandoned, PoolError
from tinysvc.pool.arena import Arenas
from tinysvc.pool.job_reply import JobReply, settle
from tinysvc.pool.state import DONE, QUEUED, RUNNING, Job, Lane


class FakePool:
    """Accept every job, or refuse it with `refusal`; start none by itself."""

    def __init__(self, max_workers: int = 1, queue_size: int = 100) -> None:
        self.max_workers = max_workers
        self.queue_size = queue_size
        self.refusal: Exception | None = None
        self.kills_at_once = True
        self.jobs: list[Job] = []
        self.arenas = Arenas()
        self.given: dict[Job, tuple[Any, Any]] = {}
        self.abandoned: list[tuple[Job, bool]] = []

    @property
    def waiting(self) -> int:
        return sum(job.state is QUEUED for job in self.jobs)

    def submit_job(self, job: Job) -> Job:
        if self.refusal is not None:
            raise self.refusal
        job.number, job.admitted, job.lane = len(self.jobs), monotonic(), job.lane or Lane()
        job.pool, job.future = self, asyncio.get_running_loop().create_future()
        self.jobs.append(job)
        self.given[job] = job.meta, job.body
        return job

    def start(self, job: Job) -> None:
        job.state, job.started = RUNNING, monotonic()

    def end(self, job: Job, outcome: JobReply | PoolError) -> None:
        if job.state is QUEUED:
            self.start(job)
        self._settle(job, outcome)

    def _settle(self, job: Job, outcome: JobReply | PoolError) -> None:
        job.state = DONE
        job.settled = monotonic()
        settle(job.future, outcome)

    def abandon(self, job: Job, *, even_running: bool) -> None:
        self.abandoned.append((job, even_running))
        if job.state is QUEUED or (job.state is RUNNING and even_running and self.kills_at_once):
            self._settle(job, JobAbandoned("the job was abandoned"))


async def until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Let the event loop run until the condition holds; the timeout only guards against a hang."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds} s waiting until {what}"
        await asyncio.sleep(0.001)
