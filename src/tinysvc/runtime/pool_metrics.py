"""Counts the jobs and workers of the pools. The scheduler notes all times anyway; here they are added up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from ..core.errors import (
    DeadlineExceeded,
    DeadlineInQueue,
    JobAbandoned,
    JobRefused,
    NoWorkers,
    PoolClosed,
    QueueFull,
    WorkerDied,
)
from ..pool.job_reply import JobReply
from ..pool.observer import CAUSES, PoolObserver
from ..pool.state import Job
from ..telemetry.instruments import Counter, Histogram, Registry, metric_of
from ..telemetry.snapshots import Metric

if TYPE_CHECKING:
    from ..executor import ProcessPoolExecutor
    from ..pool.external import ExternalPool

POOL_TIMES = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds: from a job that starts at once to a training."""

_OUTCOMES: Sequence[tuple[type[Exception], str]] = (
    (DeadlineInQueue, "deadline_in_queue"),
    (DeadlineExceeded, "deadline"),
    (JobAbandoned, "abandoned"),
    (WorkerDied, "worker_died"),
    (QueueFull, "queue_full"),
    (PoolClosed, "closed"),
    (NoWorkers, "refused"),
    (JobRefused, "refused"),
)

OUTCOMES = ("ok", "error", *dict.fromkeys(name for _, name in _OUTCOMES))
"""How a job ends. `error`: its function has raised an exception; `refused`: no worker is alive, or it has crashed
workers before."""


def outcome_name(outcome: object) -> str:
    """One of OUTCOMES."""
    if not isinstance(outcome, Exception):
        return "ok"
    return next((name for kind, name in _OUTCOMES if isinstance(outcome, kind)), "error")


class PoolMetrics:
    """The counts of all pools of a service."""

    def __init__(self, registry: Registry, pools: Sequence[ProcessPoolExecutor | ExternalPool]) -> None:
        self._pools = pools
        self._jobs = registry.counter(
            "tinysvc.pool.jobs", "Jobs that have ended or were refused, by their outcome.", ["pool", "outcome"]
        )
        self._waited = registry.histogram(
            "tinysvc.pool.queue.duration", "Time that a job waited for a worker.", ["pool"], bounds=POOL_TIMES
        )
        self._ran = registry.histogram(
            "tinysvc.pool.run.duration", "Time that a job ran in a worker.", ["pool"], bounds=POOL_TIMES
        )
        self._ends = registry.counter(
            "tinysvc.pool.worker.ends", "Workers that have ended, by the cause.", ["pool", "cause"]
        )
        registry.add_source(self._now)
        for pool in pools:
            pool.observer = self._observer(pool.name)

    def _observer(self, pool: str) -> PoolObserver:
        """Every outcome and cause is a series from the beginning: a rate needs the zero before the first one."""
        jobs = {name: self._jobs.of(pool, name) for name in OUTCOMES}
        ends = {cause: self._ends.of(pool, cause) for cause in CAUSES}
        return PoolObserver(
            _job_counter(jobs, self._waited.of(pool), self._ran.of(pool)),
            lambda error: jobs[outcome_name(error)].add(),
            lambda _, cause: ends[cause].add(),
        )

    def _now(self) -> Iterable[Metric]:
        pools = self._pools
        states = [([pool.name, state], n) for pool in pools for state, n in pool.worker_states().items()]
        waiting = [([pool.name], pool.waiting) for pool in pools]
        return (
            metric_of("gauge", "tinysvc.pool.workers", "Workers by their state.", states, ["pool", "state"]),
            metric_of("gauge", "tinysvc.pool.queue.length", "Jobs that wait for a worker.", waiting, ["pool"]),
        )


def _job_counter(jobs: dict[str, Counter], waited: Histogram, ran: Histogram) -> Callable[[Job, object], None]:
    def count(job: Job, outcome: object) -> None:
        if type(outcome) is JobReply:
            jobs["ok"].value += 1
            waited.observe(job.started - job.admitted)
            ran.observe(job.settled - job.started)
            return
        jobs[outcome_name(outcome)].add()
        waited.observe(job.queued)
        if job.started:
            ran.observe(monotonic() - job.started)

    return count
