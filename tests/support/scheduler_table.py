"""A scheduler with a clock that tests set, and with actions that are only noted."""

from __future__ import annotations

import math
from typing import Any

from tinysvc.pool.scheduler import Scheduler
from tinysvc.pool.state import Job, Lane, Worker


class Notes:
    """Notes the scheduler's actions, and checks that each is possible."""

    def __init__(self) -> None:
        self.started: list[Worker] = []
        self.sent: list[tuple[Worker, Job]] = []
        self.dismissed: list[Worker] = []
        self.killed: list[Worker] = []
        self.settled: dict[Job, Any] = {}
        self.alarm = math.inf
        self.now = 0.0

    def start_worker(self, worker: Worker) -> None:
        self.started.append(worker)

    def send(self, worker: Worker, job: Job) -> None:
        assert worker not in self.killed
        assert worker not in self.dismissed
        assert job not in self.settled
        assert job.deadline > self.now
        assert job not in [sent for _, sent in self.sent]  # no job runs twice
        self.sent.append((worker, job))

    def dismiss(self, worker: Worker) -> None:
        assert worker.job is None
        self.dismissed.append(worker)

    def kill(self, worker: Worker) -> None:
        assert worker not in self.killed
        self.killed.append(worker)

    def settle(self, job: Job, outcome: Any) -> None:
        assert job not in self.settled  # one end, once
        self.settled[job] = outcome

    def wake_at(self, when: float) -> None:
        self.alarm = min(self.alarm, when)


class Table:
    """A scheduler with its notes and its clock, and short names for events."""

    def __init__(self, size: int = 1, queue_size: int = 5, **options: int) -> None:
        self.notes = Notes()
        self.scheduler = Scheduler(self.notes, size, queue_size, **options)
        self.now = 100.0
        self.scheduler.open(self.now)

    def ready(self, *numbers: int) -> None:
        for number in numbers or list(self.scheduler.workers):
            assert self.scheduler.became_ready(self.scheduler.workers[number], self.now)

    def admit(self, timeout: float | None = None, lane: Lane | None = None, key: object = None) -> Job:
        scheduler = self.scheduler
        job = Job(scheduler.next_number(), lane or scheduler.open_lane, timeout, self.now, key)
        scheduler.admit(job, self.now)
        return job

    def done(self, job: Job, outcome: object = "result", **options: Any) -> None:
        assert job.worker is not None
        self.scheduler.done(job.worker, job, outcome, self.now, **options)

    def died(self, number: int) -> None:
        self.scheduler.died(self.scheduler.workers[number], self.now, f"worker {number} was killed by SIGSEGV")

    def at(self, seconds: float) -> None:
        self.now += seconds
        self.notes.alarm = math.inf
        self.scheduler.tick(self.now)
