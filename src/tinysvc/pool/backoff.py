"""Back-off: the growing pauses before another worker is started, after workers that failed at their start."""

from __future__ import annotations

import math

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before the next start after a failed one. The pause doubles with each failure."""

TOLERATED_FAILURES = 1
"""Failed starts in a row during which jobs still wait: another program may have killed one worker as it started, and
the next one is ready a moment later. After more failures, a pool without workers refuses jobs."""

EARLY_END, EARLY_ENDS = 10.0, 3
"""A worker that dies within this many seconds after it became ready, before its first job, has ended early. From this
many early ends in a row on, the next start is delayed as after a failed start. A finished job, of any worker, shows
that workers can work: then something outside killed the others, and a pause would only take workers from requests."""


class StartBackoff:
    """Failed starts and early ends in a row, and the time of the next start."""

    def __init__(self) -> None:
        self.failures = 0  # failed starts in a row
        self.last_failure = ""  # its error
        self.resume_at = 0.0  # no worker starts earlier
        self.early_ends = 0  # in a row, since a worker has last finished a job
        self._last_early_end = -math.inf

    @property
    def pause(self) -> float:
        """Seconds between a failed start and the next one."""
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures - 1, 20))

    def started(self) -> None:
        """A worker became ready."""
        self.failures, self.last_failure, self.resume_at = 0, "", 0.0

    def failed(self, error: str, now: float) -> None:
        """A worker, or the forkserver, could not start."""
        self.failures += 1
        self.last_failure = error
        self.resume_at = now + self.pause

    def ended_unused(self, ready_since: float, now: float) -> bool:
        """A worker died before its first job. True if that counts as a failed start: call `failed`."""
        if now - self._last_early_end > EARLY_END + LONGEST_PAUSE:
            self.early_ends = 0
        if now - ready_since >= EARLY_END:
            return False
        self.early_ends, self._last_early_end = self.early_ends + 1, now
        if self.early_ends < EARLY_ENDS:
            return False
        self.failures = max(self.failures, self.early_ends - EARLY_ENDS)
        return True
