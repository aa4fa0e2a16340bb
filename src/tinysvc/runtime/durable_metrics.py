"""Counts durable jobs: attempts by the cause of their end, and the jobs of each route by state, from the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ..core.job_errors import StoreError
from ..telemetry.instruments import Registry, metric_of
from ..telemetry.snapshots import Metric
from .durable_jobs import DurableJobs, EndedAttempt

log = logging.getLogger("tinysvc")

INTERVAL = 5.0
"""Seconds between two looks into the store: a third of the interval at which Prometheus mostly scrapes."""

JOB_TIMES = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Upper bounds in seconds: a durable job may take a day."""


class DurableMetrics:
    """The counts of the durable jobs of a service. All its server processes see the same store."""

    def __init__(self, registry: Registry, durable: DurableJobs, routes: Sequence[str]) -> None:
        self._durable = durable
        self._routes = routes
        self._counts: list[tuple[list[str], int]] = []
        self._attempts = registry.counter(
            "tinysvc.job.attempts",
            "Attempts of durable jobs that have ended, by the cause.",
            ["http.route", "cause"],
        )
        self._waited = registry.histogram(
            "tinysvc.job.wait.duration",
            "Time from the moment at which a durable job was due to the start of its attempt.",
            ["http.route"],
            bounds=JOB_TIMES,
        )
        self._ran = registry.histogram(
            "tinysvc.job.attempt.duration", "Time of an attempt of a durable job.", ["http.route"], bounds=JOB_TIMES
        )
        for route in routes:
            self._attempts.of(route, "succeeded")
        durable.on_attempt_end = self._count
        registry.add_source(self._now)
        self._task = asyncio.create_task(self._look())

    def _count(self, end: EndedAttempt) -> None:
        self._attempts.of(end.route, end.cause).add()
        self._waited.of(end.route).observe(end.waited)
        self._ran.of(end.route).observe(end.ran)

    def _now(self) -> Iterable[Metric]:
        text = "Durable jobs in the store, by their state."
        return (metric_of("gauge", "tinysvc.jobs", text, self._counts, ["http.route", "state"], mode="max"),)

    async def _look(self) -> None:
        while True:
            try:
                self._counts = [
                    ([route, state], number)
                    for route in self._routes
                    for state, number in (await self._durable.counts(route)).items()
                ]
            except StoreError as error:
                log.debug("the durable jobs were not counted: %s", error)
            await asyncio.sleep(INTERVAL)

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
