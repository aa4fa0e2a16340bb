"""A simple model of a job queue: it knows only what the queue has returned, and checks that each step is allowed."""

from __future__ import annotations

import math
from typing import Any

from tinysvc.pool.job_queue import Instruction, JobQueue, Run, Settle, Stop, WakeAt
from tinysvc.pool.scheduler import Dismiss, Kill, Scheduler, StartWorker
from tinysvc.pool.state import IDLE, Job, Lane, Slot


class QueueModel:
    """The jobs of a queue, by its instructions alone."""

    def __init__(self, queue: JobQueue[Any]) -> None:
        self.queue = queue
        self.now = 0.0
        self.waited = 0  # jobs, before the present instructions
        self.alarm = math.inf
        self.waiting: dict[Job, None] = {}
        self.at_work: dict[Slot, list[Job]] = {}  # with the jobs that they were given
        self.ended: dict[Job, Any] = {}
        self.killed: set[Slot] = set()
        self.dismissed: set[Slot] = set()

    def running_in(self, lane: Lane | None) -> int:
        """The slots that count for the limit of a lane: a killed job leaves its lane at once, a zombie does not."""
        jobs = [jobs for jobs in self.at_work.values() if jobs[0].lane is lane]
        return sum(not self.queue.kills or jobs[0] not in self.ended for jobs in jobs)

    def startable(self) -> list[Job]:
        """The waiting jobs whose lanes have room, the oldest first; none if no slot is free."""
        if len(self.at_work) >= self.queue.size or not self.queue.free:
            return []
        return [job for job in self.waiting if self.running_in(job.lane) < lane_of(job).limit]

    def admit(self, job: Job, elsewhere: int = 0) -> None:
        job.number = next(self.queue.numbers)
        slot = self.queue.admit(job, self.now, elsewhere)
        self.waiting[job] = None
        self.waited = len(self.waiting)
        if slot is not None:
            self._run(slot)
        self.carry_out(self.queue.take())

    def carry_out(self, todo: list[Instruction]) -> None:
        self.waited = len(self.waiting)
        for each in todo:
            if isinstance(each, Run):
                self._run(each.slot)
            elif isinstance(each, Settle):
                assert each.job not in self.ended, "a job is settled once"
                self.waiting.pop(each.job, None)
                self.ended[each.job] = each.outcome
            elif isinstance(each, Stop):
                assert all(job in self.ended for job in self.at_work[each.slot])
            elif isinstance(each, WakeAt):
                self.alarm = min(self.alarm, each.when)
            elif isinstance(each, Kill):
                assert each.worker not in self.killed
                self.killed.add(each.worker)
            elif isinstance(each, Dismiss):
                assert each.worker.job is None
                self.dismissed.add(each.worker)
            else:
                assert isinstance(each, StartWorker)

    def _run(self, slot: Slot) -> None:
        jobs, grouping = list(slot.jobs), self.queue.grouping
        lane = lane_of(jobs[0])
        assert slot not in self.at_work
        assert slot not in self.killed | self.dismissed
        assert len(self.at_work) < self.queue.size, "no more slots are at work than there are"
        assert self.running_in(lane) < lane.limit, "the limit of a lane is kept"
        for job in jobs:
            assert job in self.waiting, "a job starts once, and not after its end"
            assert job.deadline > self.now, "no job starts after its deadline"
        older = [job for job in self.waiting if job.number < jobs[-1].number and job not in jobs]
        for job in older:  # of a lane without room, unless it comes too late to start
            assert job.deadline <= self.now or (
                job.lane is not lane and self.running_in(job.lane) >= lane_of(job).limit
            ), "the oldest jobs start first"
        assert len(jobs) <= grouping.size
        assert len(jobs) == 1 or sum(len(job.body) for job in jobs) <= grouping.max_bytes
        full = self.waited >= grouping.size
        assert full or jobs[0].admitted + grouping.wait <= self.now, "a group starts when it is full, or has waited"
        for job in jobs:
            del self.waiting[job]
        self.at_work[slot] = jobs

    def check(self) -> None:
        """What holds after each event."""
        queue = self.queue
        assert set(self.waiting) == set(queue.queued())
        assert queue.waiting == len(self.waiting)
        assert set(self.at_work) == set(queue.at_work)
        unsettled = {job for jobs in self.at_work.values() for job in jobs if job not in self.ended}
        assert set(queue.jobs()) == {*self.waiting, *unsettled}
        assert queue.retry_after >= 1
        for lane in queue.lanes:
            assert lane.running == self.running_in(lane) <= lane.limit
        deadlines = [job.deadline for job in queue.jobs()]
        if isinstance(queue, Scheduler):
            assert all(worker.state is IDLE for worker in queue.free)
            deadlines += [worker.deadline for worker in queue.workers.values()]
        if deadlines and min(deadlines) < math.inf:
            assert self.alarm <= max(min(deadlines), self.now + 0.005), "no wake-up is lost"
        if jobs := self.startable():
            assert len(self.waiting) < queue.grouping.size, "no slot is free while a job could run"
            assert self.alarm <= max(jobs[0].admitted + queue.grouping.wait, self.now), "no wake-up is lost"


def lane_of(job: Job) -> Lane:
    assert job.lane is not None
    return job.lane
