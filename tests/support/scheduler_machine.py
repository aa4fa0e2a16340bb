"""A scheduler under events in any order, for hypothesis."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from scheduler_table import Notes
from tinysvc.core.errors import PoolError
from tinysvc.pool.job_queue import TICK
from tinysvc.pool.scheduler import PROCESSES_PER_SLOT, Scheduler
from tinysvc.pool.state import Job, JobState, SlotState, Worker


class AnyOrder(RuleBasedStateMachine):
    """In any order of events, the state is consistent and each job has one end."""

    kind: type[Scheduler] = Scheduler
    further_processes = 0  # beyond PROCESSES_PER_SLOT

    @initialize(
        size=st.integers(1, 3),
        queue_size=st.integers(0, 4),
        max_jobs=st.integers(0, 2),
        max_memory=st.sampled_from([0, 5]),
    )
    def open(self, size: int, queue_size: int, max_jobs: int, max_memory: int) -> None:
        self.notes = Notes()
        self.scheduler = self.kind(size, queue_size, max_jobs, max_memory)
        self.lanes = [self.scheduler.open_lane, self.scheduler.lane(1), self.scheduler.lane(2)]
        self.jobs: list[Job] = []
        self.removed: list[Worker] = []
        self.event(self.scheduler.open)

    def event(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.notes.now += 0.001
        self.notes.carry_out(method(*arguments, self.notes.now, **options))

    def worker(self, index: int, *states: SlotState) -> Worker | None:
        workers = [worker for worker in self.scheduler.workers.values() if worker.state in states or not states]
        return workers[index % len(workers)] if workers else None

    @rule(lane=st.integers(0, 2), timeout=st.sampled_from([None, 0.003, 0.05, 5]), key=st.sampled_from([None, "k"]))
    def job_comes(self, lane: int, timeout: float | None, key: Hashable) -> None:
        job = Job(None, b"", timeout, self.lanes[lane], key)
        self.notes.now += 0.001
        try:
            self.notes.admit(self.scheduler, job, self.notes.now)
        except PoolError:
            assert job not in self.notes.settled
        else:
            self.jobs.append(job)

    @rule(index=st.integers(0, 9))
    def worker_is_ready(self, index: int) -> None:
        worker = self.worker(index, SlotState.STARTING)
        if worker is not None:
            self.event(self.scheduler.became_ready, worker)

    @rule(index=st.integers(0, 9), memory=st.sampled_from([0, 9]), poisoned=st.booleans())
    def result_comes(self, index: int, memory: int, poisoned: bool) -> None:
        worker = self.worker(index, SlotState.BUSY)
        if worker is not None and worker.job is not None:
            job = worker.job
            assert self.scheduler.held_by(worker, job.number) is job
            self.event(self.scheduler.done, worker, "result", memory=memory, poisoned=poisoned)
            assert self.notes.settled[job] == "result"

    @rule(index=st.integers(0, 99), job=st.integers(0, 99))
    def stale_frame_comes(self, index: int, job: int) -> None:
        worker = self.worker(index)
        if worker is not None and self.jobs:
            stale = self.jobs[job % len(self.jobs)]
            if stale.slot is not worker:
                assert self.scheduler.held_by(worker, stale.number) is None

    @rule(index=st.integers(0, 9))
    def process_ends(self, index: int) -> None:
        worker = self.worker(index)
        if worker is not None:
            self.removed.append(worker)
            self.event(lambda now: self.scheduler.died(worker, now, "died", -11))

    @rule(index=st.integers(0, 9), protocol_error=st.sampled_from(["", "sent rubbish"]))
    def channel_closes(self, index: int, protocol_error: str) -> None:
        worker = self.worker(index)
        if worker is not None:
            self.event(lambda now: self.scheduler.lost_channel(worker, now, protocol_error))

    @rule(index=st.integers(0, 99), even_running=st.booleans(), at_once=st.booleans())
    def caller_gives_up(self, index: int, even_running: bool, at_once: bool) -> None:
        if self.jobs:
            job = self.jobs[index % len(self.jobs)]
            if at_once:
                self.event(self.scheduler.cancel, job)
            else:
                self.event(self.scheduler.abandon, job, even_running=even_running)

    @rule(seconds=st.sampled_from([0.0, 0.004, 0.06, 1.1, 6, 700]))
    def time_passes(self, seconds: float) -> None:
        self.notes.now += seconds
        self.notes.alarm = math.inf
        self.event(self.scheduler.tick)

    @precondition(lambda self: not self.scheduler.closed)
    @rule()
    def forkserver_dies_and_comes_back(self) -> None:
        self.scheduler.lost_forkserver(self.scheduler.generation)
        for worker in list(self.scheduler.workers.values()):
            self.event(lambda now, worker=worker: self.scheduler.died(worker, now, "died"))
        self.event(self.scheduler.open)

    @precondition(lambda self: len(self.jobs) > 20)
    @rule()
    def pool_closes(self) -> None:
        self.event(self.scheduler.close)

    @invariant()
    def state_is_consistent(self) -> None:
        scheduler = self.scheduler
        busy = [worker for worker in scheduler.workers.values() if worker.job is not None]
        for worker in busy:
            assert worker.job is not None
            assert worker.job.slot is worker
            assert worker.job.state is JobState.RUNNING
            assert worker.state in (SlotState.BUSY, SlotState.DYING)
        for lane in scheduler.lanes:
            assert lane.running == sum(worker.job.lane is lane for worker in busy if worker.job) <= lane.limit
            assert all(job.state is JobState.QUEUED and job.slot is None for job in lane.waiting.values())
        assert scheduler.waiting == len(list(scheduler.queued())) <= scheduler.queue_size

    @invariant()
    def every_job_has_one_end_or_none_yet(self) -> None:
        alive = set(self.scheduler.jobs())
        for job in self.jobs:
            assert (job.state is JobState.DONE) == (job in self.notes.settled) == (job not in alive)

    @invariant()
    def workers_are_in_the_right_sets(self) -> None:
        scheduler = self.scheduler
        assert all(worker.state is SlotState.IDLE for worker in scheduler.free)
        assert len(set(scheduler.free)) == len(scheduler.free)
        assert not set(self.removed) & set(scheduler.workers.values())
        assert sum(worker.holds_slot for worker in scheduler.workers.values()) <= scheduler.size
        for worker in scheduler.workers.values():
            if worker.state is SlotState.IDLE and worker not in scheduler.free:
                assert worker.retiring

    @invariant()
    def no_worker_idles_while_a_job_could_run(self) -> None:
        scheduler = self.scheduler
        if scheduler.free and len(scheduler.at_work) < scheduler.size:
            assert not [lane for lane in scheduler.lanes if lane.waiting and lane.running < lane.limit]

    @invariant()
    def no_more_workers_are_at_work_than_slots(self) -> None:
        scheduler = self.scheduler
        assert len(scheduler.at_work) <= scheduler.size
        assert set(scheduler.at_work) <= set(scheduler.workers.values())
        for worker in scheduler.workers.values():
            assert worker.state is not SlotState.BUSY or worker in scheduler.at_work
        given_up = [
            each for each in scheduler.workers.values() if each.state is SlotState.DYING and not each.holds_slot
        ]
        assert len(scheduler.workers) - len(given_up) <= PROCESSES_PER_SLOT * scheduler.size + self.further_processes

    @invariant()
    def every_deadline_has_an_alarm(self) -> None:
        """The alarm is set for the earliest deadline."""
        times = [job.deadline for job in self.scheduler.jobs()]
        times += [worker.deadline for worker in self.scheduler.workers.values()]
        if times and min(times) < math.inf:
            assert self.notes.alarm <= max(min(times), self.notes.now + TICK)

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        self.event(self.scheduler.close)
        for worker in list(self.scheduler.workers.values()):
            self.event(lambda now, worker=worker: self.scheduler.died(worker, now, "died"))
        assert set(self.notes.settled) == set(self.jobs)
        assert not self.scheduler.workers
