"""The answers to `job.save(...)` and `job.progress(...)`: the server's side of runtime/job.py.

    save      written before the answer: when `job.save` returns, the value is on the disk
    progress  answered at once, and written in a task of the attempt: of several that wait, the newest

A worker does not say for which attempt it asks: the attempt is that of the pool's job which runs in it. So a worker can
change no other durable job. A write that the store refuses makes the attempt stale: `on_stale` may stop it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ...core.job_errors import StoreError
from ...pool.state import Job
from ...runtime.cpu_messages import DurableMessage
from ...runtime.job_messages import JobAnswer, ProgressReport, SaveRequest
from ..records import Progress
from ..store import Store

log = logging.getLogger("tinysvc.jobs")

_STALE = JobAnswer("stale", "this attempt is not valid any more: the job was cancelled, or a later attempt has begun")


class AttemptAnswers:
    """Answers the questions of the attempts that run in this server.

    Args:
        store: The store.
        on_stale: Called with the pool's job of an attempt whose write the store has refused.
    """

    def __init__(self, store: Store, on_stale: Callable[[Job], object]) -> None:
        self._store = store
        self._on_stale = on_stale
        self._waiting: dict[Job, Progress] = {}  # progress that is not written yet
        self._writing: dict[Job, asyncio.Task[None]] = {}
        self._stale: set[Job] = set()

    async def answer(self, job: Job, question: Any, body: bytes) -> tuple[JobAnswer | None, bytes]:
        """Answer a question of a job: an AnswerFunction of its pool."""
        if type(job.meta) is not DurableMessage:  # the handler of another route has made an Attempt itself
            return None, b""
        if job in self._stale:
            return _STALE, b""
        if isinstance(question, ProgressReport):
            self._waiting[job] = Progress(fraction=question.fraction, values=question.values)
            if job not in self._writing:
                self._writing[job] = asyncio.get_running_loop().create_task(self._write_progress(job))
            return JobAnswer(), b""
        assert isinstance(question, SaveRequest)
        return await self._save(job, body), b""

    async def _save(self, job: Job, value: bytes) -> JobAnswer:
        message: DurableMessage = job.meta
        try:
            if await self._store.save(message.job_id, message.attempt, value):
                return JobAnswer()
        except StoreError as error:
            log.error("job %s: the value of job.save(...) was not saved: %s", message.job_id, error)
            return JobAnswer("unavailable", f"the value was not saved: {error.public}")
        self._found_stale(job)
        return _STALE

    async def _write_progress(self, job: Job) -> None:
        message: DurableMessage = job.meta
        try:
            while progress := self._waiting.pop(job, None):
                if not await self._store.progress(message.job_id, message.attempt, progress):
                    self._found_stale(job)
        except StoreError as error:  # the next report tries again
            log.debug("job %s: its progress was not written: %s", message.job_id, error)
        finally:
            del self._writing[job]

    def _found_stale(self, job: Job) -> None:
        if job not in self._stale:
            self._stale.add(job)
            self._on_stale(job)

    async def flush(self, job: Job) -> None:
        """Write the progress that waits. Call it at the end of the job: its last progress is then in the store."""
        if task := self._writing.get(job):
            await asyncio.wait([task])

    def forget(self, job: Job) -> None:
        """The job has ended, and asks nothing more."""
        self._stale.discard(job)
        self._waiting.pop(job, None)
