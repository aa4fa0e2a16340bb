"""The alarm: one timer of the event loop for many deadlines."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from time import monotonic

from ..core.shutdown import CLOCK_INTERVAL, STALL_THRESHOLD

STALL_GRACE = 0.1
"""Seconds beyond a standstill (core/shutdown.py) to read the frames that workers have sent, before any is killed."""


class Alarm:
    """One timer for many deadlines, set to the earliest.

    While it is set, it checks the clock each CLOCK_INTERVAL. If the loop was blocked, or the process was stopped with
    its workers, it calls `postpone(seconds)` before `ring`: all deadlines move by the time in which the workers may not
    have run. Otherwise a pool would kill healthy workers.
    """

    def __init__(self, ring: Callable[[], None], postpone: Callable[[float], None]) -> None:
        self._ring = ring
        self._postpone = postpone
        self._when = math.inf
        self._set_at = self._check_at = math.inf  # when the timer was set, and to which time
        self.stalled_at = math.inf  # from then on, the timer is much too late
        self._timer: asyncio.Handle | None = None

    def set(self, when: float) -> None:
        """Ring at this time of `time.monotonic`, or earlier."""
        if when < self._when:
            self._when = when
            if when < self._check_at:
                self._set_timer(monotonic())

    def cancel(self) -> None:
        self._when = self._check_at = self.stalled_at = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def now(self) -> float:
        """The time. Calls `postpone` first if the timer is much too late: the time is after `stalled_at`."""
        now = monotonic()
        if now > self.stalled_at:
            seconds = now - self._set_at + STALL_GRACE
            self._when += seconds
            self._set_timer(now)
            self._postpone(seconds)
        return now

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._set_at, self._check_at = now, min(self._when, now + CLOCK_INTERVAL)
        self.stalled_at = self._check_at + STALL_THRESHOLD
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._check_at - now), self._on_time)

    def _on_time(self) -> None:
        now = self.now()
        if now < self._when:
            self._set_timer(now)
        else:
            self.cancel()
            self._ring()
