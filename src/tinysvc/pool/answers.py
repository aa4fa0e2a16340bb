"""Answers to the questions of jobs (questions.py): the server's side. A job that ends takes its question back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .frames import Answer, frame
from .state import Job, Worker

AnswerFunction = Callable[[Job, Any, bytes], Awaitable[tuple[Any, bytes]]]
"""Answers a question: from the job that asks, and meta and body of its question, to meta and body of the answer. It
raises nothing but CancelledError."""


class Answers:
    """The questions of one pool. `function` answers them; None: each gets an empty answer."""

    def __init__(self) -> None:
        self.function: AnswerFunction | None = None
        self.under_way: dict[Job, asyncio.Task[None]] = {}

    def begin(self, worker: Worker, job: Job, meta: Any, body: bytes) -> None:
        """Begin to answer a question of `job`, which `worker` runs. The job waits for it."""
        self.under_way[job] = asyncio.get_running_loop().create_task(self._answer(worker, job, meta, body))

    async def _answer(self, worker: Worker, job: Job, meta: Any, body: bytes) -> None:
        answer: tuple[Any, bytes] = None, b""
        if self.function is not None:
            answer = await self.function(job, meta, body)
        del self.under_way[job]
        if worker.job is not job or worker.channel is None or worker.channel.transport.is_closing():
            return  # the worker has died, though its end is perhaps still to be reported
        worker.channel.transport.write(frame(Answer(answer[0]), len(answer[1])) + answer[1])

    def cancel(self, job: Job) -> None:
        """The job has ended, or its worker is killed: nothing waits for the answer."""
        if task := self.under_way.pop(job, None):
            task.cancel()
