"""scheduler.py: jobs and workers under events in any order, with actions that are only noted."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import HealthCheck, settings

from scheduler_machine import AnyOrder
from scheduler_table import Table
from tinysvc.core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    PoolClosed,
    QueueFull,
    WorkerDied,
)
from tinysvc.pool.backoff import FIRST_PAUSE
from tinysvc.pool.scheduler import ORDERLY_END, REAP_LIMIT, SILENT_END
from tinysvc.pool.state import START_LIMIT, JobState, Worker


def test_standstill_postpones_all_deadlines() -> None:
    table = Table()
    table.scheduler.postpone(5.0)
    table.at(START_LIMIT + 4.0)
    assert not table.notes.killed
    table.ready()
    running, queued = table.admit(timeout=1.0), table.admit(timeout=1.0)
    table.scheduler.postpone(60.0)
    table.at(60.5)
    assert not table.notes.settled
    table.at(1.0)
    assert [type(table.notes.settled[job]) for job in (running, queued)] == [DeadlineExceeded, DeadlineInQueue]


def test_job_that_ends_at_its_deadline_has_one_end() -> None:
    table = Table()
    table.ready()
    first, second = table.admit(timeout=1), table.admit(timeout=1)
    table.now += 1
    table.done(first)  # its result came before the alarm
    assert table.notes.settled[first] == "result"
    assert isinstance(table.notes.settled[second], DeadlineInQueue)  # the worker is not given to a late job
    table.at(0)
    assert table.notes.killed == []
    third = table.admit(timeout=1)
    worker = cast(Worker, third.slot)
    table.at(1)
    assert isinstance(table.notes.settled[third], DeadlineExceeded)
    assert table.scheduler.held_by(worker, third.number) is None  # its late result is discarded
    assert table.notes.killed == [worker]


def test_frame_for_another_job_is_discarded() -> None:
    table = Table()
    table.ready()
    job = table.admit()
    worker = cast(Worker, job.slot)
    assert table.scheduler.held_by(worker, job.number) is job
    for wrong in (job.number + 1, 0, -1):
        assert table.scheduler.held_by(worker, wrong) is None


def test_lane_holds_no_more_workers_than_its_limit() -> None:
    table = Table(size=3)
    table.ready()
    lane = table.scheduler.lane(1)
    jobs = [table.admit(lane=lane) for _ in range(3)]
    others = [table.admit() for _ in range(2)]
    assert [job.state for job in jobs] == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
    assert all(job.state is JobState.RUNNING for job in others)  # they do not wait for the lane
    late = table.admit()
    table.done(others[0])
    assert late.state is JobState.RUNNING  # the free worker takes a job whose lane has room
    table.done(jobs[0])
    assert jobs[1].state is JobState.RUNNING


def test_killed_job_makes_room_in_its_lane() -> None:
    table = Table(size=2)
    table.ready()
    lane = table.scheduler.lane(1)
    first, second = table.admit(timeout=1, lane=lane), table.admit(lane=lane)
    table.at(1)
    assert isinstance(table.notes.settled[first], DeadlineExceeded)
    assert second.state is JobState.RUNNING


@pytest.mark.parametrize("how", ["cancel", "abandon"])
def test_abandoned_job_makes_room_in_its_lane(how: str) -> None:
    """The worker ran its last job, and its successor is idle: the next job starts when the killed worker has ended."""
    table = Table(max_jobs=1)
    lane = table.scheduler.lane(1)
    table.ready()
    first, second = table.admit(lane=lane), table.admit(lane=lane)
    table.ready(2)
    table.now += 1
    if how == "cancel":
        table.do(table.scheduler.cancel, first)
    else:
        table.do(table.scheduler.abandon, first, even_running=True)
    assert second.state is JobState.QUEUED
    table.died(1)
    assert second.slot is table.scheduler.workers[2]


def test_retiring_worker_exits_when_its_successor_is_ready() -> None:
    table = Table(max_jobs=2)
    table.ready()
    table.done(table.admit())
    last = table.admit()
    assert len(table.notes.started) == 2  # the successor warms up while the last job runs
    waiting = table.admit()
    table.done(last)
    assert waiting.state is JobState.QUEUED  # two jobs for two workers
    table.ready(2)
    assert waiting.slot is table.scheduler.workers[2]
    assert table.notes.dismissed == [table.scheduler.workers[1]]
    assert table.scheduler.ready == 1


def test_worker_over_max_memory_works_until_its_successor_is_ready() -> None:
    table = Table(max_memory=100)
    table.ready()
    table.done(table.admit(), memory=100)
    assert len(table.notes.started) == 1
    table.done(table.admit(), memory=101)
    assert len(table.notes.started) == 2
    busy = table.admit()
    assert busy.slot is table.scheduler.workers[1]
    table.ready(2)
    assert table.notes.dismissed == []
    table.done(busy)
    assert table.notes.dismissed == [table.scheduler.workers[1]]
    assert len(table.notes.started) == 2


def test_retiring_worker_works_on_if_its_successor_fails() -> None:
    table = Table(max_jobs=1)
    table.ready()
    first, second = table.admit(), table.admit()
    table.scheduler.workers[2].start_error = "no model"
    table.died(2)
    table.done(first)
    assert second.slot is table.scheduler.workers[1]
    table.done(second)
    third = table.admit()
    table.at(FIRST_PAUSE)
    table.ready(3)
    table.done(third)
    assert table.notes.dismissed == [table.scheduler.workers[1]]
    assert list(table.scheduler.workers) == [1, 3]


def test_successor_takes_no_job_while_all_slots_are_at_work() -> None:
    table = Table(max_jobs=1)
    table.ready()
    first, second = table.admit(), table.admit()
    table.ready(2)
    third = table.admit()
    assert (first.state, second.state, third.state) == (JobState.RUNNING, JobState.QUEUED, JobState.QUEUED)
    assert len(table.scheduler.workers) == 2
    table.done(first)
    assert second.slot is table.scheduler.workers[2]
    assert third.state is JobState.QUEUED


def test_silent_worker_is_killed_and_unkillable_one_is_replaced() -> None:
    table = Table()
    table.ready()
    job = table.admit()
    worker = cast(Worker, job.slot)
    table.do(table.scheduler.lost_channel, worker)
    assert table.notes.killed == []
    table.at(SILENT_END)
    assert table.notes.killed == [worker]
    assert len(table.notes.started) == 1
    table.at(REAP_LIMIT)
    assert isinstance(table.notes.settled[job], WorkerDied)
    assert len(table.notes.started) == 2
    table.died(1)  # the kernel reports its end
    assert len(table.notes.started) == 2


def test_worker_that_never_becomes_ready_or_never_exits_is_killed() -> None:
    table = Table(max_jobs=1)
    table.at(START_LIMIT)
    assert table.notes.killed == [table.scheduler.workers[1]]
    table.died(1)
    table.at(FIRST_PAUSE)
    table.ready(2)
    table.done(table.admit())
    table.ready(3)
    old = table.scheduler.workers[2]
    assert table.notes.dismissed == [old]
    table.at(ORDERLY_END)
    assert old in table.notes.killed


def test_abandoned_job_gets_the_time_of_a_replacement() -> None:
    table = Table()
    table.now += 3
    table.ready()
    job, queued = table.admit(), table.admit()
    table.do(table.scheduler.abandon, queued, even_running=False)
    assert isinstance(table.notes.settled[queued], JobAbandoned)
    table.do(table.scheduler.abandon, job, even_running=False)
    table.at(2.9)
    assert job.state is JobState.RUNNING
    table.do(table.scheduler.abandon, job, even_running=True)
    table.at(0.05)
    assert job.state is JobState.RUNNING
    table.at(0.05)
    assert isinstance(table.notes.settled[job], JobAbandoned)


def test_cancel_kills_at_once() -> None:
    table = Table()
    table.now += 3
    table.ready()
    job = table.admit()
    table.do(table.scheduler.cancel, job)
    assert isinstance(table.notes.settled[job], JobAbandoned)
    table.do(table.scheduler.cancel, job)


def test_retry_after_is_queue_length_times_mean_run_time() -> None:
    table = Table(size=2, queue_size=3)
    table.ready()
    first = table.admit()
    table.now += 4
    table.done(first)
    for _ in range(5):
        table.admit()
    with pytest.raises(QueueFull) as raised:
        table.admit()
    assert raised.value.retry_after == 8  # three waiting jobs and this one, four seconds each, two workers


def test_close_ends_all_jobs_and_workers() -> None:
    table = Table(size=2)
    table.ready()
    running, idle = table.admit(), table.scheduler.workers[1]
    table.scheduler.closing = True
    with pytest.raises(PoolClosed):
        table.admit()
    table.do(table.scheduler.close)
    assert isinstance(table.notes.settled[running], PoolClosed)
    assert table.notes.dismissed == [idle]
    assert [worker.number for worker in table.notes.killed] == [2]
    table.died(1)
    table.died(2)
    assert len(table.notes.started) == 2


def test_second_end_of_a_job_is_discarded() -> None:
    table = Table()
    table.ready()
    job = table.admit()
    worker = cast(Worker, job.slot)
    table.done(job, "first")
    assert table.scheduler.held_by(worker, job.number) is None
    assert table.notes.settled[job] == "first"


def test_repeated_kill_or_end_of_a_worker_does_nothing() -> None:
    table = Table()
    table.ready()
    worker = table.scheduler.workers[1]
    table.do(table.scheduler.kill, worker, "sent rubbish")
    table.do(table.scheduler.kill, worker, "sent more rubbish")
    assert worker.kill_reason == "sent rubbish"
    table.died(1)
    assert table.scheduler.died(worker, table.now, "again") == []
    assert list(table.scheduler.workers) == [2]


def test_oldest_job_of_all_lanes_runs_next() -> None:
    table = Table()
    table.ready()
    first, second, third = table.admit(), table.admit(), table.admit(lane=table.scheduler.lane(1))
    table.done(first)
    assert (second.state, third.state) == (JobState.RUNNING, JobState.QUEUED)


def test_stream_is_settled_at_its_begin() -> None:
    table = Table()
    table.ready()
    job = table.admit()
    table.now += 1
    job.settled = table.now
    table.now += 5
    table.done(job)
    assert job.ran == 1


def test_close_leaves_exiting_workers_alone() -> None:
    table = Table(max_jobs=1)
    table.ready()
    table.done(table.admit())
    table.ready(2)
    table.do(table.scheduler.close)
    assert [worker.number for worker in table.notes.dismissed] == [1, 2]
    assert table.notes.killed == []


@settings(max_examples=80, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
class AnyOrderOfEvents(AnyOrder):
    pass


TestAnyOrder = AnyOrderOfEvents.TestCase
