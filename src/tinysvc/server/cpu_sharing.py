"""The scheduling of grpcio's threads: another one on CPUs of the process's own than on CPUs that others use.

grpcio has a few threads of its own for sockets and events. Each event wakes one of them, up to five times a call, and
Linux then takes the CPU from the event loop at once. If there is one CPU, these switches cost a third of its time. With
the policy SCHED_BATCH (sched(7)) a thread that wakes up waits until the loop sleeps, and finds several events.

Where other processes compute on the same CPUs, worker processes among them, such a thread would wait for them, too.
There, all threads have the usual policy, and the loop has a short slice: see cpu_slice.py. Which of the two is the case
is measured once a second while calls arrive: it is the CPU time of these CPUs that this process has not used.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from .cpu_slice import SHORT, USUAL, request_slice

LOOK = 1.0
"""Seconds between two looks."""

SHARED = 0.25
"""The part of the CPUs' time that others use on shared CPUs, at least."""


class CpuSharing:
    """Sets the scheduling of grpcio's threads while the loop runs. It does nothing on systems without SCHED_BATCH.

    Args:
        calls: Returns how many calls have begun so far.
        has_workers: Whether worker processes compute beside the loop, so that it has a short slice on shared CPUs.
    """

    def __init__(self, calls: Callable[[], int], *, has_workers: bool) -> None:
        self._calls = calls
        self._has_workers = has_workers
        self._is_alone = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        if (
            hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER
        ):  # else it is the operator's choice
            self._begin()

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        """Measure until the next look."""
        self._cpus = os.sched_getaffinity(0)
        self._begun, self._since = self._calls(), time.monotonic()
        self._used, self._used_here = used_time(self._cpus), time.process_time()
        self._timer = self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        seconds = time.monotonic() - self._since
        # if the process was stopped, or its loop blocked, the time of others says nothing
        if self._calls() > self._begun and seconds < 2 * LOOK:
            used_by_others = used_time(self._cpus) - self._used - (time.process_time() - self._used_here)
            self._set(is_alone=used_by_others < SHARED * seconds * len(self._cpus))
        self._begin()

    def _set(self, *, is_alone: bool) -> None:
        for thread in grpc_threads():
            set_policy(thread, os.SCHED_BATCH if is_alone else os.SCHED_OTHER)
        if is_alone is not self._is_alone and self._has_workers:
            request_slice(USUAL if is_alone else SHORT)
        self._is_alone = is_alone


def used_time(cpus: Iterable[int]) -> float:
    """Seconds that these CPUs have worked since the system's start, for all processes; 0.0 if nothing tells."""
    ticks = 0
    with suppress(OSError), open("/proc/stat") as file:
        for line in file:
            name, *times = line.split()
            if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cpus:
                user, nice, system, _idle, _waiting, *others = map(int, times[:8])
                ticks += user + nice + system + sum(others)
    return ticks / os.sysconf("SC_CLK_TCK")


def grpc_threads() -> list[int]:
    """The ids, as the kernel has them, of the threads that grpcio has started. It is known by their names only."""
    found = [each.native_id for each in threading.enumerate() if "_poll_wrapper" in each.name and each.native_id]
    for thread in Path("/proc/self/task").glob("*"):
        with suppress(OSError):  # it has ended
            if (thread / "comm").read_text().strip() == "event_engine":
                found.append(int(thread.name))
    return found


def set_policy(thread: int, policy: int) -> None:
    """Set the policy of a thread, unless it has ended."""
    with suppress(OSError):
        if os.sched_getscheduler(thread) != policy:
            os.sched_setscheduler(thread, policy, os.sched_param(0))
