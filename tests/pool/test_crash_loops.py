"""crash_loops.py: a job that crashes each worker is refused for a while."""

from __future__ import annotations

import pytest

from scheduler_table import Table
from tinysvc.core.errors import (
    JobRefused,
)
from tinysvc.pool.crash_loops import CRASH_LIMIT, CRASH_WINDOW
from tinysvc.pool.state import Worker


def test_crash_loop_is_refused_for_a_while() -> None:
    table = Table(size=2)
    table.ready()
    for _ in range(CRASH_LIMIT):
        job = table.admit(key="poison")
        assert isinstance(job.slot, Worker)
        table.died(job.slot.number)
        table.ready(max(table.scheduler.workers))
        table.now += 1
    with pytest.raises(JobRefused, match=r"crashed 3 workers within 10 s, and is not tried again for 7 s"):
        table.admit(key="poison")
    table.done(table.admit(key="innocent"))
    table.done(table.admit())
    table.now += CRASH_WINDOW
    table.done(table.admit(key="poison"))


def test_killed_worker_does_not_count_as_a_crash() -> None:
    table = Table()
    table.ready()
    for _ in range(CRASH_LIMIT + 1):
        table.admit(timeout=1, key="slow")
        table.at(1)
        table.died(min(table.scheduler.workers))
        table.ready()


def test_jobs_without_a_key_are_never_refused() -> None:
    table = Table()
    for number in range(1, CRASH_LIMIT + 2):
        table.ready(number)
        table.admit()
        table.died(number)
