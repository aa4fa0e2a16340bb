"""state.py: the times of jobs, and how jobs and workers are shown."""

from __future__ import annotations

from scheduler_table import Table


def test_job_knows_how_long_it_waited_and_ran() -> None:
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


def test_jobs_and_workers_show_their_state() -> None:
    table = Table()
    table.ready()
    job = table.admit()
    assert repr(job) == "<Job 1 running>"
    assert repr(job.slot) == "<Worker 1 busy <Job 1 running>>"
