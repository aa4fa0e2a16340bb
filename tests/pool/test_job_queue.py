"""job_queue.py: by itself, and in its three uses under events in any order against a simple model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from queue_model import QueueModel
from tinysvc.core.errors import DeadlineExceeded, DeadlineInQueue, JobAbandoned, PoolClosed, PoolError, QueueFull
from tinysvc.pool.job_queue import TICK, Grouping, JobQueue, Run, Settle, Stop, WakeAt
from tinysvc.pool.scheduler import Scheduler
from tinysvc.pool.state import BUSY, DONE, IDLE, QUEUED, RUNNING, STARTING, Job, Slot

GROUPS = Grouping(size=3, wait=0.02, max_bytes=10)


def queue_of(size: int = 1, queue_size: int = 5, grouping: Grouping | None = None, **options: Any) -> JobQueue[Slot]:
    queue: JobQueue[Slot] = JobQueue(size, queue_size, grouping or Grouping(), **options)
    queue.resize(size, 0.0)
    return queue


def job_of(queue: JobQueue[Slot], body: bytes = b"", timeout: float | None = None, **options: Any) -> Job:
    job = Job(None, body, timeout, **options)
    job.number = next(queue.numbers)
    return job


def admit(queue: JobQueue[Slot], now: float = 100.0, **options: Any) -> Job:
    job = job_of(queue, **options)
    queue.admit(job, now)
    return job


def settled(todo: list[Any]) -> dict[Job, Any]:
    return {each.job: each.outcome for each in todo if isinstance(each, Settle)}


def test_job_starts_at_once_in_a_free_slot() -> None:
    queue = queue_of()
    job = job_of(queue)
    slot = queue.admit(job, 100.0)
    assert slot is not None
    assert (list(slot.jobs), slot.state, slot.starts, job.slot, job.state) == ([job], BUSY, 1, slot, RUNNING)
    assert queue.take() == []
    assert queue.end(slot, ["result"], 102.0) == [Settle(job, "result")]
    assert (job.queued, job.ran, job.state, slot.state, queue.mean_run) == (0, 2, DONE, IDLE, 2)


def test_waiting_job_starts_when_a_slot_is_free() -> None:
    queue = queue_of()
    first, second = admit(queue), admit(queue)
    assert (second.state, queue.waiting) == (QUEUED, 1)
    slot = next(iter(queue.at_work))
    assert queue.end(slot, [1], 101.0) == [Settle(first, 1), Run(slot)]
    assert second.slot is slot


def test_full_queue_refuses_with_the_time_until_a_start() -> None:
    queue = queue_of(size=2, queue_size=3)
    slot = queue.admit(job_of(queue), 100.0)
    assert slot is not None
    queue.end(slot, [None], 104.0)
    for _ in range(5):
        admit(queue)
    with pytest.raises(QueueFull, match="3 jobs wait already") as raised:
        admit(queue)
    assert raised.value.retry_after == 8  # three waiting jobs and this one, four seconds each, two slots


def test_jobs_that_wait_elsewhere_count() -> None:
    queue = queue_of(queue_size=2)
    admit(queue)
    queue.admit(job_of(queue), 100.0, 1)
    with pytest.raises(QueueFull, match="2 jobs wait already"):
        queue.admit(job_of(queue), 100.0, 1)


def test_retry_after_counts_groups() -> None:
    queue = queue_of(queue_size=100, grouping=GROUPS)
    queue.mean_run = 10.0
    for _ in range(9):
        admit(queue)
    assert (queue.waiting, queue.retry_after) == (6, 30)


def test_lane_has_no_more_slots_than_its_limit() -> None:
    queue = queue_of(size=3)
    lane = queue.lane(1)
    jobs = [admit(queue, lane=lane) for _ in range(2)]
    other = admit(queue)
    assert [job.state for job in (*jobs, other)] == [RUNNING, QUEUED, RUNNING]
    queue.end(next(iter(queue.at_work)), [None], 101.0)
    assert jobs[1].state is RUNNING


def test_deadline_in_the_queue_and_while_running() -> None:
    queue = queue_of(when_late="; it runs on")
    running, waiting = admit(queue, timeout=1), admit(queue, timeout=2)
    (slot,) = queue.at_work
    assert queue.take() == [WakeAt(101.0)]
    assert queue.tick(100.5) == [WakeAt(101.0)]
    todo = queue.tick(101.0)
    error = settled(todo)[running]
    assert isinstance(error, DeadlineExceeded)
    assert str(error) == "the job ran past its deadline of 1 s; it runs on"
    assert todo[1:] == [Stop(slot, True), WakeAt(102.0)]
    assert isinstance(settled(queue.tick(102.0))[waiting], DeadlineInQueue)
    assert slot in queue.at_work  # a zombie holds it
    assert queue.end(slot, ["too late"], 103.0) == []
    assert not queue.at_work


def test_oldest_job_of_all_lanes_starts_next_though_another_is_late() -> None:
    queue = queue_of()
    lane = queue.lane(1)
    admit(queue)
    late, oldest, other = admit(queue, timeout=1, lane=lane), admit(queue), admit(queue, lane=lane)
    queue.end(next(iter(queue.at_work)), [None], 101.0)
    assert [job.state for job in (late, oldest, other)] == [DONE, RUNNING, QUEUED]


def test_late_job_in_a_group_is_left_out() -> None:
    queue = queue_of(grouping=GROUPS)
    first, late, third = admit(queue), admit(queue, timeout=0.001), admit(queue, now=100.01)
    (slot,) = queue.at_work
    assert list(slot.jobs) == [first, third]
    assert late.state is DONE


def test_late_job_is_not_started() -> None:
    queue = queue_of()
    admit(queue)
    late, good = admit(queue, timeout=1), admit(queue)
    queue.take()
    slot = next(iter(queue.at_work))
    todo = queue.end(slot, [None], 101.0)
    assert isinstance(settled(todo)[late], DeadlineInQueue)
    assert todo[-1] == Run(slot)
    assert good.slot is slot


def test_many_deadlines_are_checked_once_a_tick() -> None:
    queue = queue_of()
    admit(queue, timeout=1)
    admit(queue, timeout=1.0001)
    assert queue.take() == [WakeAt(101.0)]
    assert queue.tick(101.0)[-1] == WakeAt(101.0 + TICK)


def test_standstill_postpones_deadlines_and_wake_up() -> None:
    queue = queue_of()
    job = admit(queue, timeout=1)
    queue.take()
    queue.postpone(10.0)
    assert (job.deadline, queue.next_tick) == (111.0, 111.0)
    assert queue.tick(110.0) == [WakeAt(111.0)]


@pytest.mark.parametrize("even_running", [True, False])
def test_abandoned_job_leaves_the_queue(even_running: bool) -> None:
    queue = queue_of()
    admit(queue)
    job = admit(queue)
    error = settled(queue.abandon(job, 101.0, even_running=even_running))[job]
    assert isinstance(error, JobAbandoned)
    assert str(error) == "the job was abandoned before it started"
    assert queue.abandon(job, 101.0, even_running=even_running) == []
    assert queue.waiting == 0


def test_abandoned_running_job_ends_if_wanted() -> None:
    queue = queue_of(when_abandoned="it may run on")
    job = admit(queue)
    (slot,) = queue.at_work
    assert queue.abandon(job, 101.0, even_running=False) == []
    todo = queue.abandon(job, 101.0, even_running=True)
    assert (str(settled(todo)[job]), todo[1]) == ("it may run on", Stop(slot, False))


def test_group_starts_when_it_is_full_or_has_waited() -> None:
    queue = queue_of(size=2, grouping=GROUPS)
    jobs = [admit(queue) for _ in range(4)]
    (full,) = queue.at_work
    assert list(full.jobs) == jobs[:3]
    assert queue.take() == [WakeAt(100.02), Run(full)]
    queue.tick(100.01)
    assert queue.waiting == 1
    assert isinstance(queue.tick(100.02)[0], Run)
    assert queue.waiting == 0


def test_group_of_several_jobs_has_a_limit_of_bytes() -> None:
    queue = queue_of(size=5, grouping=GROUPS)
    for size in (99, 5, 5, 6, 1, 1):
        admit(queue, body=b"x" * size)
    queue.tick(101.0)
    assert [[len(job.body) for job in slot.jobs] for slot in queue.at_work] == [[99], [5, 5], [6, 1, 1]]


def test_group_is_stopped_with_its_last_job() -> None:
    queue = queue_of(grouping=GROUPS, reports_start=True)
    jobs = [admit(queue) for _ in range(3)]
    (slot,) = queue.at_work
    queue.take()
    assert list(settled(queue.abandon(jobs[0], 101.0, even_running=False))) == [jobs[0]]  # the group has not started
    for job in jobs:
        job.started = 101.0
    assert queue.abandon(jobs[1], 101.0, even_running=False) == []
    assert len(queue.abandon(jobs[1], 101.0, even_running=True)) == 1
    assert queue.abandon(jobs[2], 101.0, even_running=True)[1] == Stop(slot, False)
    assert queue.end(slot, "abc", 102.0) == []


def test_group_that_never_started_leaves_the_mean_alone() -> None:
    queue = queue_of(grouping=GROUPS, reports_start=True)
    for _ in range(3):
        admit(queue)
    (slot,) = queue.at_work
    queue.end(slot, "abc", 105.0)
    assert queue.mean_run == 0.0


def test_more_slots_start_waiting_jobs() -> None:
    queue = queue_of()
    _, second = admit(queue), admit(queue)
    assert queue.resize(2, 101.0) == [Run(second.slot)]
    assert queue.resize(1, 101.0) == []
    for slot in list(queue.at_work):
        queue.end(slot, [None], 102.0)
    assert admit(queue).state is RUNNING
    assert admit(queue).state is QUEUED


def test_close_ends_all_jobs() -> None:
    queue = queue_of()
    jobs = [admit(queue), admit(queue)]
    (slot,) = queue.at_work
    todo = queue.close(101.0)
    assert [type(settled(todo)[job]) for job in jobs] == [PoolClosed, PoolClosed]
    assert Stop(slot, False) in todo
    with pytest.raises(PoolClosed):
        admit(queue)


def test_stream_is_settled_at_its_begin() -> None:
    queue = queue_of()
    job = admit(queue)
    (slot,) = queue.at_work
    job.settled = 101.0
    queue.end(slot, [None], 105.0)
    assert job.ran == 1


def test_mean_run_time_moves_by_a_tenth() -> None:
    queue = queue_of()
    for seconds in (5.0, 15.0):
        admit(queue)
        queue.end(next(iter(queue.at_work)), [None], 100.0 + seconds)
    assert queue.mean_run == 6.0


# Any order of events, in the three uses

USES: dict[str, Callable[[int, int], JobQueue[Any]]] = {
    "workers": lambda size, queue_size: Scheduler(size, queue_size, max_jobs=3),
    "executor": lambda size, queue_size: queue_of(size, queue_size),
    "batches": lambda size, queue_size: queue_of(size, queue_size, GROUPS, reports_start=True),
}


@settings(max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
class AnyUse(RuleBasedStateMachine):
    """In each use and any order of events, each step is one that the model allows."""

    @initialize(use=st.sampled_from(sorted(USES)), size=st.integers(1, 3), queue_size=st.integers(0, 4))
    def open(self, use: str, size: int, queue_size: int) -> None:
        self.queue = USES[use](size, queue_size)
        self.model = QueueModel(self.queue)
        self.lanes = [None, self.queue.lane(1), self.queue.lane(2)]
        self.jobs: list[Job] = []
        if isinstance(self.queue, Scheduler):
            self.event(self.queue.open)

    def event(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self.model.now += 0.001
        self.model.carry_out(method(*arguments, self.model.now, **options))

    @rule(
        lane=st.integers(0, 2),
        timeout=st.sampled_from([None, 0.003, 0.05, 5]),
        body=st.integers(0, 12),
        elsewhere=st.integers(0, 1),
    )
    def job_comes(self, lane: int, timeout: float | None, body: int, elsewhere: int) -> None:
        self.model.now += 0.001
        one_lane = self.queue.grouping is GROUPS
        job = Job(None, b"x" * body, timeout, None if one_lane else self.lanes[lane])
        before = len(self.model.waiting)
        waited = before + elsewhere
        try:
            self.model.admit(job, elsewhere)
        except PoolError as error:
            expected = waited >= self.queue.queue_size if isinstance(error, QueueFull) else self.queue.checks_jobs
            assert expected  # else no worker is alive
        else:
            assert job.slot or waited < self.queue.queue_size or before < self.queue.grouping.size > 1
            self.jobs.append(job)

    @rule(index=st.integers(0, 9))
    def slot_ends(self, index: int) -> None:
        if self.model.at_work:
            slot = list(self.model.at_work)[index % len(self.model.at_work)]
            if isinstance(self.queue, Scheduler):
                if slot.state is BUSY:
                    del self.model.at_work[slot]
                    self.event(self.queue.done, slot, "result")
            else:
                jobs = self.model.at_work.pop(slot)
                expected = {job: self.model.ended.get(job, number) for number, job in enumerate(jobs)}
                self.event(self.queue.end, slot, range(len(jobs)))
                assert {job: self.model.ended[job] for job in jobs} == expected  # each gets its own outcome

    @precondition(lambda self: self.queue.reports_start)
    @rule(index=st.integers(0, 9))
    def group_starts(self, index: int) -> None:
        if self.model.at_work:
            for job in list(self.model.at_work.values())[index % len(self.model.at_work)]:
                job.started = job.started or self.model.now

    @rule(index=st.integers(0, 99), even_running=st.booleans(), at_once=st.booleans())
    def caller_gives_up(self, index: int, even_running: bool, at_once: bool) -> None:
        if self.jobs:
            job = self.jobs[index % len(self.jobs)]
            if at_once and isinstance(self.queue, Scheduler):
                self.event(self.queue.cancel, job)
            else:
                self.event(self.queue.abandon, job, even_running=even_running)

    @rule(seconds=st.sampled_from([0.0, 0.004, 0.06, 6]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds
        self.model.alarm = float("inf")
        self.event(self.queue.tick)

    @rule(seconds=st.sampled_from([0.004, 6]))
    def loop_stands_still(self, seconds: float) -> None:
        self.model.now += seconds
        self.model.alarm += seconds
        self.queue.postpone(seconds)
        if self.queue.grouping is GROUPS:  # the wait of a group is not postponed, and its alarm rings later
            self.time_passes(0.0)

    @precondition(lambda self: not isinstance(self.queue, Scheduler))
    @rule(size=st.integers(1, 4))
    def size_changes(self, size: int) -> None:
        self.event(self.queue.resize, size)

    @precondition(lambda self: isinstance(self.queue, Scheduler))
    @rule(index=st.integers(0, 9))
    def worker_is_ready(self, index: int) -> None:
        assert isinstance(self.queue, Scheduler)
        starting = [worker for worker in self.queue.workers.values() if worker.state is STARTING]
        if starting:
            self.event(self.queue.became_ready, starting[index % len(starting)])

    @precondition(lambda self: isinstance(self.queue, Scheduler))
    @rule(index=st.integers(0, 9))
    def process_ends(self, index: int) -> None:
        assert isinstance(self.queue, Scheduler)
        if self.queue.workers:
            worker = list(self.queue.workers.values())[index % len(self.queue.workers)]
            self.model.at_work.pop(worker, None)
            self.model.now += 0.001
            self.model.carry_out(self.queue.died(worker, self.model.now, "died", -11))

    @invariant()
    def model_agrees(self) -> None:
        if isinstance(self.queue, Scheduler):  # it gives a worker up that the kernel cannot end
            for slot in set(self.model.at_work) - set(self.queue.at_work):
                assert slot in self.model.killed
                del self.model.at_work[slot]
        self.model.check()

    @invariant()
    def every_job_has_one_end_or_none_yet(self) -> None:
        for job in self.jobs:
            assert (job.state is DONE) == (job in self.model.ended)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.event(self.queue.close)
            assert set(self.model.ended) >= set(self.jobs)


TestAnyUse = AnyUse.TestCase
