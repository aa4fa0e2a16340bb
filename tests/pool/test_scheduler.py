"""books.py: the pool's books under events in any order, with hands that only write down what they are told."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tinysvc.core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    JobRefused,
    NoWorkers,
    PoolClosed,
    PoolError,
    QueueFull,
    WorkerDied,
)
from tinysvc.pool import scheduler as books_module
from tinysvc.pool.scheduler import (
    CRASH_LIMIT,
    CRASH_WINDOW,
    ORDERLY_END,
    REAP_LIMIT,
    SILENT_END,
    START_LIMIT,
    Books,
    Job,
    JobState,
    Lane,
    Worker,
    WorkerState,
)


class Notes:
    """Hands that write down what they are told, and check that it could be done."""

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
    """Books with their notes and a clock, and shorthands for events."""

    def __init__(self, size: int = 1, queue_size: int = 5, **options: int) -> None:
        self.notes = Notes()
        self.books = Books(self.notes, size, queue_size, **options)
        self.now = 100.0
        self.books.open(self.now)

    def ready(self, *numbers: int) -> None:
        for number in numbers or list(self.books.workers):
            assert self.books.became_ready(self.books.workers[number], self.now)

    def admit(self, timeout: float | None = None, lane: Lane | None = None, key: object = None) -> Job:
        books = self.books
        job = Job(books.next_number(), lane or books.open_lane, timeout, self.now, key)
        books.admit(job, self.now)
        return job

    def done(self, job: Job, outcome: object = "result", **options: Any) -> None:
        assert job.worker is not None
        self.books.done(job.worker, job, outcome, self.now, **options)

    def died(self, number: int) -> None:
        self.books.died(self.books.workers[number], self.now, f"worker {number} was killed by SIGSEGV")

    def at(self, seconds: float) -> None:
        self.now += seconds
        self.notes.alarm = math.inf
        self.books.tick(self.now)


def test_standstill_puts_off_deadlines_and_what_is_expected_of_workers() -> None:
    hands = Notes()
    books = Books(hands, 1, 10)
    books.open(0.0)
    (worker,) = books.workers.values()
    books.put_off(5.0)
    books.tick(START_LIMIT + 4.0)
    assert not hands.killed
    books.became_ready(worker, START_LIMIT + 4.5)
    running, queued = (Job(books.next_number(), books.open_lane, 1.0, 1000.0) for _ in range(2))
    books.admit(running, 1000.0)
    books.admit(queued, 1000.0)
    books.put_off(60.0)
    books.tick(1060.5)
    assert not hands.settled
    books.tick(1061.5)
    assert [type(hands.settled[job]) for job in (running, queued)] == [DeadlineExceeded, DeadlineInQueue]


def test_a_job_that_ends_at_its_deadline_has_one_end() -> None:
    table = Table()
    table.ready()
    first, second = table.admit(timeout=1), table.admit(timeout=1)
    table.now += 1
    table.done(first)  # its result came before the alarm was looked at
    assert table.notes.settled[first] == "result"
    assert isinstance(table.notes.settled[second], DeadlineInQueue)  # and its place is not given to who is too late
    table.at(0)
    assert table.notes.killed == []
    third = table.admit(timeout=1)
    worker = third.worker
    table.at(1)
    assert isinstance(table.notes.settled[third], DeadlineExceeded)
    assert worker is not None
    assert table.books.held_by(worker, third.number) is None  # its result, a moment later, is about no job
    assert table.notes.killed == [worker]


def test_a_frame_about_another_job_is_about_none() -> None:
    table = Table()
    table.ready()
    job = table.admit()
    worker = job.worker
    assert worker is not None
    assert table.books.held_by(worker, job.number) is job
    for wrong in (job.number + 1, 0, None, "1", [1]):
        assert table.books.held_by(worker, wrong) is None
    assert not table.books.became_ready(worker, table.now)


def test_a_lane_holds_no_more_workers_than_its_limit() -> None:
    table = Table(size=3)
    table.ready()
    lane = table.books.lane(1)
    jobs = [table.admit(lane=lane) for _ in range(3)]
    others = [table.admit() for _ in range(2)]
    assert [job.state for job in jobs] == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
    assert all(job.state is JobState.RUNNING for job in others)  # they do not wait behind the lane
    late = table.admit()
    table.done(others[0])
    assert late.state is JobState.RUNNING  # the free worker goes to who may use it
    table.done(jobs[0])
    assert jobs[1].state is JobState.RUNNING


def test_a_killed_job_makes_room_in_its_lane_for_an_idle_worker() -> None:
    table = Table(size=2)
    table.ready()
    lane = table.books.lane(1)
    first, second = table.admit(timeout=1, lane=lane), table.admit(lane=lane)
    table.at(1)
    assert isinstance(table.notes.settled[first], DeadlineExceeded)
    assert second.state is JobState.RUNNING


@pytest.mark.parametrize("how", ["cancel", "abandon"])
def test_a_job_that_nobody_waits_for_makes_room_in_its_lane(how: str) -> None:
    """The worker had run its last job, its successor is idle: the next job starts when the killed worker has ended."""
    table = Table(max_jobs=1)
    lane = table.books.lane(1)
    table.ready()
    first, second = table.admit(lane=lane), table.admit(lane=lane)
    table.ready(2)
    table.now += 1
    if how == "cancel":
        table.books.cancel(first, table.now)
    else:
        table.books.abandon(first, table.now, even_running=True)
    assert second.state is JobState.QUEUED
    table.died(1)
    assert second.worker is table.books.workers[2]


def test_a_spent_worker_leaves_when_its_successor_is_there() -> None:
    table = Table(max_jobs=2)
    table.ready()
    table.done(table.admit())
    last = table.admit()
    assert len(table.notes.started) == 2  # the successor warms up while the last job runs
    waiting = table.admit()
    table.done(last)
    assert waiting.state is JobState.QUEUED  # two are two
    table.ready(2)
    assert waiting.worker is table.books.workers[2]
    assert table.notes.dismissed == [table.books.workers[1]]
    assert table.books.ready == 1


def test_a_worker_that_holds_too_much_works_on_until_its_successor_is_there() -> None:
    table = Table(max_memory=100)
    table.ready()
    table.done(table.admit(), memory=100)
    assert len(table.notes.started) == 1
    table.done(table.admit(), memory=101)
    assert len(table.notes.started) == 2
    busy = table.admit()
    assert busy.worker is table.books.workers[1]
    table.ready(2)
    assert table.notes.dismissed == []
    table.done(busy)
    assert table.notes.dismissed == [table.books.workers[1]]
    assert len(table.notes.started) == 2


def test_an_old_worker_is_better_than_none() -> None:
    table = Table(max_jobs=1)
    table.ready()
    first, second = table.admit(), table.admit()
    table.books.workers[2].failure = "no model"
    table.died(2)
    table.done(first)
    assert second.worker is table.books.workers[1]
    table.done(second)
    third = table.admit()
    table.at(books_module.FIRST_PAUSE)
    table.ready(3)
    table.done(third)
    assert table.notes.dismissed == [table.books.workers[1]]
    assert list(table.books.workers) == [1, 3]


def test_failed_starts_pause_and_refuse_who_waits() -> None:
    table = Table(size=2)
    table.ready()
    table.died(1)
    table.died(2)
    waiting = table.admit()
    assert waiting.state is JobState.QUEUED  # two are starting
    table.died(3)
    assert waiting.state is JobState.QUEUED  # one may have been killed by chance
    table.died(4)
    assert isinstance(table.notes.settled[waiting], NoWorkers)
    with pytest.raises(NoWorkers):
        table.admit()
    pauses = []
    for _ in range(12):
        since = table.now
        while not table.books.workers:
            table.at(table.notes.alarm - table.now)
        pauses.append(round(table.now - since, 6))
        (worker,) = table.books.workers.values()  # one at a time
        table.died(worker.number)
    assert pauses == sorted(pauses)
    assert pauses[-1] == books_module.LONGEST_PAUSE
    table.at(books_module.LONGEST_PAUSE)
    table.ready()
    assert len(table.books.workers) == 2  # the others follow at once
    assert table.admit().state is JobState.RUNNING


def test_successor_takes_no_job_while_the_pool_is_at_work() -> None:
    table = Table(max_jobs=1)
    table.ready()
    first, second = table.admit(), table.admit()
    table.ready(2)
    third = table.admit()
    assert (first.state, second.state, third.state) == (JobState.RUNNING, JobState.QUEUED, JobState.QUEUED)
    assert len(table.books.workers) == 2
    table.done(first)
    assert second.worker is table.books.workers[2]
    assert third.state is JobState.QUEUED


def test_workers_that_die_early_again_and_again_start_after_growing_pauses() -> None:
    table = Table()
    pauses = []
    for number in range(1, 20):
        since = table.now
        while not table.books.workers:
            table.at(table.notes.alarm - table.now)
        pauses.append(round(table.now - since, 6))
        table.ready(number)
        table.died(number)
    assert pauses[: books_module.EARLY_ENDS] == [0.0] * books_module.EARLY_ENDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == books_module.LONGEST_PAUSE
    with pytest.raises(NoWorkers):
        table.admit()


def test_early_ends_cost_no_pause_while_other_workers_do_jobs() -> None:
    table = Table(size=2)
    table.ready(1)
    for number in range(2, 20):
        table.ready(number)
        table.died(number)
        table.done(table.admit())
        assert number + 1 in table.books.workers


def test_early_ends_that_lie_far_apart_cost_no_pause() -> None:
    table = Table()
    for number in range(1, 10):
        table.ready(number)
        table.died(number)
        assert number + 1 in table.books.workers
        table.now += 60


def test_early_ends_of_workers_that_did_jobs_cost_no_pause() -> None:
    table = Table()
    for number in range(1, 10):
        table.ready(number)
        table.done(table.admit())
        table.died(number)
        assert number + 1 in table.books.workers


def test_who_ends_in_silence_is_killed_and_who_cannot_be_killed_is_passed_over() -> None:
    table = Table()
    table.ready()
    job = table.admit()
    worker = job.worker
    assert worker is not None
    table.books.lost_channel(worker, table.now)
    assert table.notes.killed == []
    table.at(SILENT_END)
    assert table.notes.killed == [worker]
    assert len(table.notes.started) == 1
    table.at(REAP_LIMIT)
    assert isinstance(table.notes.settled[job], WorkerDied)
    assert len(table.notes.started) == 2
    table.died(1)  # at last
    assert len(table.notes.started) == 2


def test_one_that_never_gets_ready_or_never_leaves_is_killed() -> None:
    table = Table(max_jobs=1)
    table.at(START_LIMIT)
    assert table.notes.killed == [table.books.workers[1]]
    table.died(1)
    table.at(books_module.FIRST_PAUSE)
    table.ready(2)
    table.done(table.admit())
    table.ready(3)
    old = table.books.workers[2]
    assert table.notes.dismissed == [old]
    table.at(ORDERLY_END)
    assert old in table.notes.killed


def test_an_abandoned_job_gets_as_long_as_a_replacement_takes() -> None:
    table = Table()
    table.now += 3
    table.ready()
    job, queued = table.admit(), table.admit()
    table.books.abandon(queued, table.now, even_running=False)
    assert isinstance(table.notes.settled[queued], JobAbandoned)
    table.books.abandon(job, table.now, even_running=False)
    table.at(2.9)
    assert job.state is JobState.RUNNING
    table.books.abandon(job, table.now, even_running=True)
    table.at(0.05)
    assert job.state is JobState.RUNNING
    table.at(0.05)
    assert isinstance(table.notes.settled[job], JobAbandoned)


def test_cancel_waits_for_nothing() -> None:
    table = Table()
    table.now += 3
    table.ready()
    job = table.admit()
    table.books.cancel(job, table.now)
    assert isinstance(table.notes.settled[job], JobAbandoned)
    table.books.cancel(job, table.now)


def test_a_job_that_crashes_every_worker_is_refused_for_a_while() -> None:
    table = Table(size=2)
    table.ready()
    for _ in range(CRASH_LIMIT):
        job = table.admit(key="poison")
        assert job.worker is not None
        table.died(job.worker.number)
        table.ready(max(table.books.workers))
        table.now += 1
    with pytest.raises(JobRefused, match=r"crashed 3 workers within 10 s, and is not tried again for 7 s"):
        table.admit(key="poison")
    table.done(table.admit(key="innocent"))
    table.done(table.admit())
    table.now += CRASH_WINDOW
    table.done(table.admit(key="poison"))


def test_a_killed_worker_is_no_crash_of_its_job() -> None:
    table = Table()
    table.ready()
    for _ in range(CRASH_LIMIT + 1):
        table.admit(timeout=1, key="slow")
        table.at(1)
        table.died(min(table.books.workers))
        table.ready()


def test_retry_after_is_queue_length_times_mean_run_by_workers() -> None:
    table = Table(size=2, queue_size=3)
    table.ready()
    first = table.admit()
    table.now += 4
    table.done(first)
    for _ in range(5):
        table.admit()
    with pytest.raises(QueueFull) as raised:
        table.admit()
    assert raised.value.retry_after == 8  # three wait and one more, four seconds each, two workers


def test_times_of_a_job() -> None:
    table = Table()
    table.ready()
    first, second, late = table.admit(), table.admit(), table.admit(timeout=3)
    table.now += 2
    table.done(first)
    table.at(1)
    table.done(second)
    assert (first.queued, first.ran) == (0, 2)
    assert (second.queued, second.ran) == (2, 1)
    assert (late.queued, late.ran) == (3, 0)


def test_closing_ends_all() -> None:
    table = Table(size=2)
    table.ready()
    running, idle = table.admit(), table.books.workers[1]
    table.books.closing = True
    with pytest.raises(PoolClosed):
        table.admit()
    table.books.close(table.now)
    assert isinstance(table.notes.settled[running], PoolClosed)
    assert table.notes.dismissed == [idle]
    assert [worker.number for worker in table.notes.killed] == [2]
    table.died(1)
    table.died(2)
    assert len(table.notes.started) == 2


# Any order of events


@settings(max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, the books are true and every job has one end."""

    @initialize(
        size=st.integers(1, 3),
        queue_size=st.integers(0, 4),
        max_jobs=st.integers(0, 2),
        max_memory=st.sampled_from([0, 5]),
    )
    def open(self, size: int, queue_size: int, max_jobs: int, max_memory: int) -> None:
        self.notes = Notes()
        self.books = Books(self.notes, size, queue_size, max_jobs, max_memory)
        self.lanes = [self.books.open_lane, self.books.lane(1), self.books.lane(2)]
        self.jobs: list[Job] = []
        self.gone: list[Worker] = []
        self.event(self.books.open)

    def event(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.notes.now += 0.001
        return method(*arguments, self.notes.now, **options)

    def worker(self, index: int, *states: WorkerState) -> Worker | None:
        workers = [worker for worker in self.books.workers.values() if worker.state in states or not states]
        return workers[index % len(workers)] if workers else None

    @rule(lane=st.integers(0, 2), timeout=st.sampled_from([None, 0.003, 0.05, 5]), key=st.sampled_from([None, "k"]))
    def job_comes(self, lane: int, timeout: float | None, key: object) -> None:
        job = Job(self.books.next_number(), self.lanes[lane], timeout, self.notes.now + 0.001, key)
        try:
            self.event(self.books.admit, job)
        except PoolError:
            assert job not in self.notes.settled
        else:
            self.jobs.append(job)

    @rule(index=st.integers(0, 9))
    def worker_is_ready(self, index: int) -> None:
        worker = self.worker(index, WorkerState.STARTING)
        if worker is not None:
            assert self.event(self.books.became_ready, worker)

    @rule(index=st.integers(0, 9), memory=st.sampled_from([0, 9]), poisoned=st.booleans())
    def result_comes(self, index: int, memory: int, poisoned: bool) -> None:
        worker = self.worker(index, WorkerState.BUSY)
        if worker is not None and worker.job is not None:
            job = worker.job
            assert self.books.held_by(worker, job.number) is job
            self.event(self.books.done, worker, job, "result", memory=memory, poisoned=poisoned)
            assert self.notes.settled[job] == "result"

    @rule(index=st.integers(0, 99), job=st.integers(0, 99))
    def stale_frame_comes(self, index: int, job: int) -> None:
        worker = self.worker(index)
        if worker is not None and self.jobs:
            stale = self.jobs[job % len(self.jobs)]
            if stale.worker is not worker:
                assert self.books.held_by(worker, stale.number) is None

    @rule(index=st.integers(0, 9))
    def process_ends(self, index: int) -> None:
        worker = self.worker(index)
        if worker is not None:
            self.gone.append(worker)
            self.event(lambda now: self.books.died(worker, now, "died", -11))

    @rule(index=st.integers(0, 9), broken_rule=st.sampled_from(["", "sent rubbish"]))
    def channel_closes(self, index: int, broken_rule: str) -> None:
        worker = self.worker(index)
        if worker is not None:
            self.event(lambda now: self.books.lost_channel(worker, now, broken_rule))

    @rule(index=st.integers(0, 99), even_running=st.booleans(), at_once=st.booleans())
    def somebody_leaves(self, index: int, even_running: bool, at_once: bool) -> None:
        if self.jobs:
            job = self.jobs[index % len(self.jobs)]
            if at_once:
                self.event(self.books.cancel, job)
            else:
                self.event(self.books.abandon, job, even_running=even_running)

    @rule(seconds=st.sampled_from([0.0, 0.004, 0.06, 1.1, 6, 700]))
    def time_passes(self, seconds: float) -> None:
        self.notes.now += seconds
        self.notes.alarm = math.inf
        self.event(self.books.tick)

    @precondition(lambda self: not self.books.closed)
    @rule()
    def forkserver_dies_and_comes_back(self) -> None:
        self.books.lost_forkserver()
        for worker in list(self.books.workers.values()):
            self.event(lambda now, worker=worker: self.books.died(worker, now, "died"))
        self.event(self.books.open)

    @precondition(lambda self: len(self.jobs) > 20)
    @rule()
    def pool_closes(self) -> None:
        self.event(self.books.close)

    @invariant()
    def books_are_true(self) -> None:
        books = self.books
        busy = [worker for worker in books.workers.values() if worker.job is not None]
        for worker in busy:
            assert worker.job is not None
            assert worker.job.worker is worker
            assert worker.job.state is JobState.RUNNING
            assert worker.state in (WorkerState.BUSY, WorkerState.DYING)
        for lane in books.lanes:
            assert lane.running == sum(worker.job.lane is lane for worker in busy if worker.job) <= lane.limit
            assert all(job.state is JobState.QUEUED and job.worker is None for job in lane.waiting.values())
        assert books.waiting == len(list(books.queued())) <= books.queue_size

    @invariant()
    def every_job_has_one_end_or_none_yet(self) -> None:
        alive = set(self.books.jobs())
        for job in self.jobs:
            assert (job.state is JobState.DONE) == (job in self.notes.settled) == (job not in alive)

    @invariant()
    def workers_are_where_they_belong(self) -> None:
        books = self.books
        assert all(worker.state is WorkerState.IDLE for worker in books.idle)
        assert len(set(books.idle)) == len(books.idle)
        assert not set(self.gone) & set(books.workers.values())
        assert sum(worker.counted for worker in books.workers.values()) <= books.size
        for worker in books.workers.values():
            if worker.state is WorkerState.IDLE and worker not in books.idle:
                assert worker.spent

    @invariant()
    def nobody_idles_while_a_job_could_run(self) -> None:
        books = self.books
        if books.idle and len(books.at_work) < books.size:
            assert not [lane for lane in books.lanes if lane.waiting and lane.running < lane.limit]

    @invariant()
    def no_more_are_at_work_than_there_are_places(self) -> None:
        books = self.books
        assert len(books.at_work) <= books.size
        assert books.at_work <= set(books.workers.values())
        for worker in books.workers.values():
            assert worker.state is not WorkerState.BUSY or worker in books.at_work
        given_up = [each for each in books.workers.values() if each.state is WorkerState.DYING and not each.counted]
        assert len(books.workers) - len(given_up) <= books_module.PROCESSES_PER_PLACE * books.size

    @invariant()
    def time_is_watched(self) -> None:
        """Each deadline that lies ahead will be looked at."""
        times = [job.deadline for job in self.books.jobs()]
        if times and min(times) < math.inf:
            assert self.notes.alarm <= max(min(times), self.notes.now + books_module.TICK)

    def teardown(self) -> None:
        if not hasattr(self, "books"):
            return
        self.event(self.books.close)
        for worker in list(self.books.workers.values()):
            self.event(lambda now, worker=worker: self.books.died(worker, now, "died"))
        assert set(self.notes.settled) == set(self.jobs)
        assert not self.books.workers


TestAnyOrder = AnyOrder.TestCase
