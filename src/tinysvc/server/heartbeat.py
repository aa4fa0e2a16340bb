"""Heartbeats for systemd's watchdog (WatchdogSec=): a service whose reports end is restarted.

one process      its event loop reports to systemd, as long as each pool has a worker that is ready
several          each one reports to the supervisor, which reports to systemd while all of them do
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

BEATS = 4
"""Heartbeats in the time of the watchdog: three may be missed, for example while a worker is replaced."""


FOR_EVER = 1e6
"""Seconds between two heartbeats where systemd does not watch."""


class Heartbeat:
    """Calls `report` on the running loop every `interval` seconds, if `is_alive()`, until `cancel`."""

    def __init__(self, interval: float, is_alive: Callable[[], bool], report: Callable[[], object]) -> None:
        self._interval = interval
        self._is_alive = is_alive
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._beat()

    def _beat(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._beat)
        if self._is_alive():
            self._report()

    def cancel(self) -> None:
        self._timer.cancel()


class Pulse:
    """The last heartbeat of each of several processes, by pid."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._seen: dict[int, float] = {}

    def beat(self, pid: int) -> None:
        self._seen[pid] = monotonic()

    def is_regular(self, pids: list[int]) -> bool:
        """Whether each of these processes has reported within the longest pause, and there is one at least."""
        now = monotonic()
        self._seen = {pid: seen for pid, seen in self._seen.items() if pid in pids}
        return bool(pids) and all(now - self._seen.get(pid, -self._longest) < self._longest for pid in pids)
