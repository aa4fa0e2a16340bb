"""A scheduler with a clock that tests set, and whose instructions are only noted."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

from tinysvc.pool.generations import GenerationScheduler, StopForkserver
from tinysvc.pool.job_queue import Instruction, Run, Settle, WakeAt
from tinysvc.pool.scheduler import Dismiss, Kill, Scheduler, StartWorker
from tinysvc.pool.state import Generation, Job, Lane, Worker


class Notes:
    """Notes the scheduler's instructions, and checks that each is possible."""

    def __init__(self) -> None:
        self.started: list[Worker] = []
        self.sent: list[tuple[Worker, Job]] = []
        self.dismissed: list[Worker] = []
        self.killed: list[Worker] = []
        self.stopped: list[Generation] = []
        self.settled: dict[Job, Any] = {}
        self.alarm = math.inf
        self.now = 0.0

    def carry_out(self, todo: list[Instruction]) -> None:
        for each in todo:
            if isinstance(each, Run):
                self.send(each.slot)
            elif isinstance(each, Settle):
                assert each.job not in self.settled  # one end, once
                self.settled[each.job] = each.outcome
            elif isinstance(each, WakeAt):
                self.alarm = min(self.alarm, each.when)
            elif isinstance(each, StartWorker):
                self.started.append(each.worker)
            elif isinstance(each, Dismiss):
                assert each.worker.job is None
                self.dismissed.append(each.worker)
            elif isinstance(each, StopForkserver):
                self.stopped.append(each.generation)
            else:
                assert isinstance(each, Kill)
                assert each.worker not in self.killed
                self.killed.append(each.worker)

    def send(self, worker: Worker) -> None:
        (job,) = worker.jobs
        assert worker not in self.killed
        assert worker not in self.dismissed
        assert job not in self.settled
        assert job.deadline > self.now
        assert job not in [sent for _, sent in self.sent]  # no job runs twice
        self.sent.append((worker, job))

    def admit(self, scheduler: Scheduler, job: Job, now: float) -> None:
        job.number = next(scheduler.numbers)
        worker = scheduler.admit(job, now)
        if worker is not None:
            self.send(worker)
        self.carry_out(scheduler.take())


class Table:
    """A scheduler with its notes and its clock, and short names for events."""

    def __init__(self, size: int = 1, queue_size: int = 5, **options: int) -> None:
        self.notes = Notes()
        self.scheduler = GenerationScheduler(size, queue_size, **options)
        self.now = 100.0
        self.do(self.scheduler.open)

    def do(self, event: Callable[..., list[Instruction]], *arguments: Any, **options: Any) -> None:
        """Let the event happen now."""
        self.notes.carry_out(event(*arguments, self.now, **options))

    def ready(self, *numbers: int) -> None:
        for number in numbers or list(self.scheduler.workers):
            self.do(self.scheduler.became_ready, self.scheduler.workers[number])

    def admit(self, timeout: float | None = None, lane: Lane | None = None, key: Hashable = None) -> Job:
        job = Job(None, b"", timeout, lane, key)
        self.notes.admit(self.scheduler, job, self.now)
        return job

    def done(self, job: Job, outcome: object = "result", **options: Any) -> None:
        self.do(self.scheduler.done, job.slot, outcome, **options)

    def died(self, number: int) -> None:
        worker = self.scheduler.workers[number]
        self.notes.carry_out(self.scheduler.died(worker, self.now, f"worker {number} was killed by SIGSEGV"))

    def at(self, seconds: float) -> None:
        self.now += seconds
        self.notes.alarm = math.inf
        self.do(self.scheduler.tick)
