"""backoff.py: growing pauses after workers that fail at their start."""

from __future__ import annotations

import pytest

from scheduler_table import Table
from tinysvc.core.errors import (
    NoWorkers,
)
from tinysvc.pool.backoff import EARLY_END, EARLY_ENDS, LONGEST_PAUSE
from tinysvc.pool.state import JobState


def test_failed_starts_pause_and_fail_waiting_jobs() -> None:
    table = Table(size=2)
    table.ready()
    table.died(1)
    table.died(2)
    waiting = table.admit()
    assert waiting.state is JobState.QUEUED  # two workers start
    table.died(3)
    assert waiting.state is JobState.QUEUED  # one failure is tolerated
    table.died(4)
    assert isinstance(table.notes.settled[waiting], NoWorkers)
    with pytest.raises(NoWorkers):
        table.admit()
    pauses = []
    for _ in range(12):
        since = table.now
        while not table.scheduler.workers:
            table.at(table.notes.alarm - table.now)
        pauses.append(round(table.now - since, 6))
        (worker,) = table.scheduler.workers.values()  # one at a time
        table.died(worker.number)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    table.at(LONGEST_PAUSE)
    table.ready()
    assert len(table.scheduler.workers) == 2  # the others follow at once
    assert table.admit().state is JobState.RUNNING


def test_early_ends_in_a_row_cause_growing_pauses() -> None:
    table = Table()
    pauses = []
    for number in range(1, 20):
        since = table.now
        while not table.scheduler.workers:
            table.at(table.notes.alarm - table.now)
        pauses.append(round(table.now - since, 6))
        table.ready(number)
        table.died(number)
    assert pauses[:EARLY_ENDS] == [0.0] * EARLY_ENDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE
    with pytest.raises(NoWorkers):
        table.admit()


def test_early_ends_cause_no_pause_while_jobs_finish() -> None:
    table = Table(size=2)
    table.ready(1)
    for number in range(2, 20):
        table.ready(number)
        table.died(number)
        table.done(table.admit())
        assert number + 1 in table.scheduler.workers


def test_early_ends_far_apart_cause_no_pause() -> None:
    table = Table()
    for number in range(1, 10):
        table.ready(number)
        table.died(number)
        assert number + 1 in table.scheduler.workers
        table.now += 60


def test_ends_of_used_workers_cause_no_pause() -> None:
    table = Table()
    for number in range(1, 10):
        table.ready(number)
        table.done(table.admit())
        table.died(number)
        assert number + 1 in table.scheduler.workers


def test_late_ends_of_unused_workers_cause_no_pause() -> None:
    table = Table()
    for number in range(1, 10):
        table.ready(number)
        table.now += EARLY_END
        table.died(number)
        assert number + 1 in table.scheduler.workers
