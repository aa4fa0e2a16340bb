"""generations.py: swaps in any order of events, with actions that are only noted."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from scheduler_machine import AnyOrder
from scheduler_table import Table
from tinysvc.pool.backoff import LONGEST_PAUSE
from tinysvc.pool.generations import GIVEN_UP, HELD_TOO_LONG, GenerationScheduler, HeldTooLong, SwapState
from tinysvc.pool.scheduler import ORDERLY_END
from tinysvc.pool.state import Generation, JobState, SlotState, Worker


class Swapping(Table):
    """A table in which all workers of the first generation are ready."""

    def __init__(self, size: int = 2, **options: int) -> None:
        super().__init__(size, **options)
        self.old = self.scheduler.generation
        self.new = Generation("m@2")
        self.ready()

    def begin(self) -> Any:
        """Begin a live swap. Returns it."""
        self.do(self.scheduler.try_out, self.new)
        return self.scheduler.swap

    def of(self, generation: Generation, *states: SlotState) -> list[int]:
        workers = [each for each in self.scheduler.workers.values() if each.generation is generation]
        return [worker.number for worker in workers if not states or worker.state in states]


def test_old_generation_is_untouched_while_the_new_one_is_tried() -> None:
    table = Swapping()
    swap = table.begin()
    assert table.of(table.new) == [3]
    assert table.scheduler.generation is table.old
    assert [table.admit().slot for _ in range(2)] == [table.scheduler.workers[2], table.scheduler.workers[1]]
    table.died(1)
    assert table.scheduler.workers[4].generation is table.old  # its successor
    assert swap.state is SwapState.TRYING


def test_workers_are_renewed_one_by_one() -> None:
    table = Swapping(size=3)
    swap = table.begin()
    table.ready(4)
    assert [worker.number for worker in table.notes.dismissed] == [1]
    assert table.scheduler.ready == 3
    assert table.of(table.new) == [4]  # the next one starts when its predecessor has ended
    for gone, successor in ((1, 5), (2, 6)):
        table.died(gone)
        assert table.of(table.new, SlotState.STARTING) == [successor]
        assert table.scheduler.ready == 3
        assert swap.state is SwapState.RENEWING
        table.ready(successor)
    assert swap.state is SwapState.DONE
    assert table.notes.stopped == []
    table.died(3)
    assert table.notes.stopped == [table.old]
    assert table.scheduler.ready == 3


def test_idle_workers_are_renewed_before_busy_ones() -> None:
    table = Swapping()
    job = table.admit()
    assert job.slot is table.scheduler.workers[2]
    table.begin()
    table.ready(3)
    assert [worker.number for worker in table.notes.dismissed] == [1]


def test_worker_in_a_job_goes_on_and_takes_no_other_job() -> None:
    table = Swapping(size=1)
    running, waiting = table.admit(), table.admit()
    swap = table.begin()
    table.ready(2)
    assert swap.state is SwapState.DONE
    assert running.state is JobState.RUNNING
    assert waiting.state is JobState.QUEUED  # two jobs for one worker
    table.done(running)
    assert waiting.slot is table.scheduler.workers[2]
    assert [worker.number for worker in table.notes.dismissed] == [1]
    table.died(1)
    assert table.notes.stopped == [table.old]


@pytest.mark.parametrize("was_ready", [False, True])
def test_death_of_an_unused_new_worker_fails_the_swap(was_ready: bool) -> None:
    table = Swapping()
    swap = table.begin()
    if was_ready:
        table.ready(3)
    table.died(3)
    assert swap.state is SwapState.FAILED
    assert swap.error == (
        f"a worker of the new program {'ended before its first job' if was_ready else 'cannot start'}",
        "worker 3 was killed by SIGSEGV",
    )
    assert table.notes.stopped == [table.new]
    assert table.scheduler.generation is table.old
    assert table.scheduler.backoff.failures == 0
    assert table.of(table.old, SlotState.IDLE) == ([2] if was_ready else [1, 2])
    assert len(table.of(table.old)) == 2 + was_ready  # the dismissed one and its successor


def test_failed_start_of_a_later_worker_goes_back_to_the_old_generation() -> None:
    table = Swapping(size=3)
    swap = table.begin()
    table.ready(4)
    job = table.admit()
    assert job.slot is table.scheduler.workers[4]
    table.died(1)
    table.scheduler.workers[5].start_error = "Traceback: no memory"
    table.died(5)
    assert swap.error == ("a worker of the new program cannot start", "Traceback: no memory")
    assert table.of(table.old, SlotState.STARTING) == [6]  # the slot of worker 4, which is in a job
    table.ready(6)
    assert table.notes.stopped == []
    table.done(job)
    table.died(4)
    assert table.notes.stopped == [table.new]
    assert table.of(table.old, SlotState.IDLE) == [2, 3, 6]


def test_swap_that_is_given_up_kills_the_workers_that_start() -> None:
    table = Swapping()
    swap = table.begin()
    table.do(table.scheduler.give_up)
    table.do(table.scheduler.give_up)  # again: nothing happens
    assert swap.state is SwapState.FAILED
    assert [(worker.number, worker.kill_reason) for worker in table.notes.killed] == [(3, GIVEN_UP)]
    table.died(3)
    assert table.notes.stopped == [table.new]
    assert table.of(table.old, SlotState.IDLE) == [1, 2]


def test_drain_ends_all_workers_after_their_jobs() -> None:
    table = Swapping(size=3)
    table.died(3)  # its successor starts
    job = table.admit()
    table.do(table.scheduler.drain_to, table.new)
    assert [worker.number for worker in table.notes.dismissed] == [1]
    table.ready(4)
    assert [worker.number for worker in table.notes.dismissed] == [1, 4]
    waiting = table.admit()
    table.done(job)
    for number in (1, 2, 4):
        assert table.scheduler.has_workers(table.old)
        table.died(number)
    assert not table.scheduler.workers
    swap = table.scheduler.swap
    assert swap is not None
    table.do(table.scheduler.open)
    assert table.of(table.new) == [5, 6, 7]
    table.ready()
    assert swap.state is SwapState.DONE
    assert table.notes.stopped == [table.old]
    assert waiting.state is JobState.RUNNING


def test_new_forkserver_that_cannot_start_again_fails_the_swap() -> None:
    table = Swapping()
    table.scheduler.workers[1].holds_slot = True
    swap = table.begin()
    table.ready(3)
    job = table.admit()
    table.died(1)
    table.done(job)
    lost = table.scheduler.lost_forkserver(table.new)
    assert [worker.number for worker in lost] == [3, 4]
    table.notes.carry_out(table.scheduler.start_failed("no memory", table.now))
    assert swap.error == ("the forkserver of the new program cannot start again", "no memory")
    assert table.scheduler.generation is table.old


def test_job_that_holds_an_old_generation_is_killed() -> None:
    table = Swapping(size=1)
    job = table.admit()
    table.begin()
    table.ready(2)
    table.do(table.scheduler.kill_generation, table.old, HELD_TOO_LONG)
    assert table.notes.killed == [job.slot]
    table.died(1)
    assert isinstance(table.notes.settled[job], HeldTooLong)
    assert table.notes.stopped == [table.old]
    assert table.of(table.new) == [2]


def test_process_that_the_kernel_cannot_end_keeps_no_generation_alive() -> None:
    table = Swapping(size=1)
    table.begin()
    table.ready(2)
    table.at(ORDERLY_END)
    assert [worker.number for worker in table.notes.killed] == [1]
    table.at(ORDERLY_END)
    assert not table.scheduler.has_workers(table.old)
    table.at(1.0)
    assert table.notes.stopped == [table.old]


def test_worker_of_an_old_generation_cannot_delay_starts() -> None:
    table = Swapping()
    table.begin()
    table.died(1)
    starting: Worker = table.scheduler.workers[4]
    table.ready(3)
    table.died(starting.number)
    assert table.scheduler.backoff.failures == 0


# Any order of events


@settings(max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck))
class AnyOrderOfSwaps(AnyOrder):
    """Swaps begin, fail and are given up at any time."""

    kind = GenerationScheduler
    further_processes = 1  # the worker that is tried
    scheduler: GenerationScheduler

    @precondition(lambda self: self.scheduler.swap is None and not self.scheduler.closed)
    @rule()
    def swap_begins(self) -> None:
        self.event(self.scheduler.try_out, Generation())

    @precondition(lambda self: self.scheduler.swap is None and not self.scheduler.closed)
    @rule()
    def drain_begins(self) -> None:
        self.event(self.scheduler.drain_to, Generation())

    @rule()
    def drained_generation_has_ended(self) -> None:
        scheduler = self.scheduler
        if scheduler.swap and not scheduler.generation.can_start and not scheduler.has_workers(scheduler.swap.old):
            self.event(scheduler.open)

    @rule()
    def swap_is_given_up(self) -> None:
        self.event(self.scheduler.give_up)
        self.reopen()

    @precondition(lambda self: not self.scheduler.closed)
    @rule(index=st.integers(0, 3))
    def any_forkserver_dies(self, index: int) -> None:
        scheduler = self.scheduler
        for worker in scheduler.lost_forkserver(scheduler.generations[index % len(scheduler.generations)]):
            self.event(lambda now, worker=worker: scheduler.died(worker, now, "died"))
        self.reopen()

    @precondition(lambda self: not self.scheduler.closed)
    @rule(seconds=st.sampled_from([0, 40]))
    def forkserver_cannot_start(self, seconds: int) -> None:
        if not self.scheduler.generation.can_start:
            self.event(lambda now: self.scheduler.start_failed("no memory", now))
            self.notes.now += seconds
            self.reopen()

    def reopen(self) -> None:
        """What the shell does after a failed swap: the present generation gets a forkserver again."""
        if self.scheduler.swap is None and not self.scheduler.closed:
            self.event(self.scheduler.open)

    @precondition(lambda self: not self.scheduler.closing)
    @rule()
    def all_events_under_way_come_to_their_end(self) -> None:
        """Then no swap is under way, and all workers are of one generation."""
        scheduler = self.scheduler
        for _ in range(20):
            self.drained_generation_has_ended()
            self.reopen()
            for worker in list(scheduler.workers.values()):
                if worker.state is SlotState.STARTING:
                    self.event(scheduler.became_ready, worker)
                elif worker.state is SlotState.BUSY:
                    self.event(scheduler.done, worker, "result")
                elif worker.state in (SlotState.EXITING, SlotState.DYING):
                    self.removed.append(worker)
                    self.event(lambda now, worker=worker: scheduler.died(worker, now, "died"))
            self.time_passes(LONGEST_PAUSE + 1)
        assert scheduler.swap is None
        assert scheduler.generations == [scheduler.generation]
        assert [worker.generation for worker in scheduler._ready_workers()] == [scheduler.generation] * scheduler.size
        assert not scheduler.waiting

    @invariant()
    def swap_has_the_generation_of_its_state(self) -> None:
        swap = self.scheduler.swap
        if swap is not None:
            trying = swap.state is SwapState.TRYING
            assert trying or swap.state is SwapState.RENEWING
            assert self.scheduler.generation is (swap.old if trying else swap.new)

    @invariant()
    def generations_end_with_their_last_worker(self) -> None:
        scheduler = self.scheduler
        alive = {worker.generation for worker in scheduler.workers.values() if worker.deadline < math.inf or worker.job}
        assert alive <= set(scheduler.generations)
        assert scheduler.generation in scheduler.generations
        assert not set(self.notes.stopped) & set(scheduler.generations)
        assert len(set(self.notes.stopped)) == len(self.notes.stopped)
        needless = [each for each in scheduler.generations if not scheduler.has_workers(each)]
        swap = scheduler.swap
        assert set(needless) <= {scheduler.generation, *((swap.old, swap.new) if swap else ())}


TestAnyOrderOfSwaps = AnyOrderOfSwaps.TestCase
