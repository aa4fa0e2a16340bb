"""The options of `@job_route` beyond those of a cpu route: repetition, retention, a schedule."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

MAX_PAUSE = 3600.0
"""Seconds between two attempts at most: a service that is repaired after a day goes on within the hour."""

DEFAULT_TIMEOUT = 3600.0
"""Seconds for one attempt, unless its route says otherwise: long work is the reason for a job route."""

DEFAULT_KEEP = 7 * 86400.0
"""Seconds for which an ended job is kept: a week, so that a result waits over a weekend and a holiday."""


@dataclass(frozen=True)
class Retry:
    """Options of `job_route(..., retry=Retry())`: how often a job is started, and the pauses between its attempts.

    An attempt that raises, that crashes its worker, that exceeds its timeout, or whose server dies, counts. One that a
    shutdown interrupts does not. A handler that raises an `HTTPError` with a status below 500 has decided: its job
    fails without another attempt.

    Args:
        attempts: Attempts in all; 1 or more. 1: the job is never started again after a failure.
        wait: Seconds before the second attempt. Each further pause is twice as long, and one hour at most. Each pause
            is shortened by a random part of up to one half: jobs that fail together do not return together.

    Example:
        ```python
        from tinysvc import Retry, job_route

        @job_route("/imports", retry=Retry(attempts=5, wait=30))
        def load(address: str) -> int:
            return len(address)
        ```
    """

    attempts: int = 3
    wait: float = 10.0

    def pause(self, used: int) -> float:
        """Seconds until the next attempt, after `used` attempts that count; with a random part."""
        doubled = self.wait * 2.0 ** min(used - 1, 64)
        return float(min(doubled, MAX_PAUSE) * random.uniform(0.5, 1.0))


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """The options of a route with `@job_route`; the others are those of `Route`."""

    retry: Retry = Retry()
    keep: float = DEFAULT_KEEP
    """Seconds for which an ended job and its result are kept."""
    every: str = ""
    """A cron expression, as in "0 3 * * *"; empty for none."""
    zone: str = "UTC"
    """The time zone of `every`, as in "Europe/Berlin"."""
    max_waiting: int | None = None
    """Jobs of the route that may wait; further ones are refused. None: no limit."""
    on_unreadable_save: Literal["fail", "restart"] = "fail"
    """If `job.saved` cannot be read, the job fails, or `job.saved` is None."""
