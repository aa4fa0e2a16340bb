"""Crash loops: a job that crashes each worker that runs it is refused for a while."""

from __future__ import annotations

from collections import deque

from ..core.errors import JobRefused
from .state import Job

CRASH_LIMIT, CRASH_WINDOW = 3, 10.0
"""A job that has crashed this many workers within this many seconds is refused until the first crash is that old."""


class CrashLoops:
    """Counts the crashes of workers by the keys of their jobs."""

    def __init__(self) -> None:
        self.crashes: dict[int, deque[float]] = {}  # hash of a job's key -> times of its crashes
        self._until = 0.0  # when the last crash is old

    def note(self, job: Job, now: float) -> None:
        """The job's worker has crashed."""
        if job.key is not None:
            self.crashes.setdefault(hash(job.key), deque(maxlen=CRASH_LIMIT)).append(now)
            self._until = now + CRASH_WINDOW

    def refuse(self, job: Job, now: float) -> None:
        """Raise JobRefused if jobs with this key have crashed CRASH_LIMIT workers within CRASH_WINDOW."""
        if now > self._until:
            self.crashes.clear()
        times = self.crashes.get(hash(job.key)) if job.key is not None else None
        if times is not None and len(times) == CRASH_LIMIT and now - times[0] < CRASH_WINDOW:
            raise JobRefused(
                f"this job has crashed {CRASH_LIMIT} workers within {CRASH_WINDOW:g} s, and is not tried again for "
                f"{times[0] + CRASH_WINDOW - now:.0f} s"
            )
