"""The scheduling policy of grpcio's threads. It depends on whether other processes use the same CPUs.

grpcio has a few threads of its own for sockets and events. Each event wakes one of them, up to five times a call, and
Linux then takes the CPU from the event loop at once. On a single CPU, these switches cost a third of its time. A thread
with the policy SCHED_BATCH (sched(7)) waits until the loop sleeps, and then finds several events. The loop has the
usual slice meanwhile: it would give way to the waiting threads at the end of each short one.

Where other processes compute on the same CPUs, worker processes among them, a SCHED_BATCH thread would wait for them,
too. There, all threads have the usual policy, and the loop has a short slice: see cpu_slice.py.

While calls arrive, the server compares once a second how much CPU time these CPUs have spent, and how much of it this
process has used. The difference is the time of others.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Set
from contextlib import suppress
from math import nan
from pathlib import Path
from typing import NamedTuple

from .cpu_slice import SHORT, USUAL, has_usual_policy, request_slice

LOOK = 1.0
"""Seconds between two looks: many ticks of the system's clock (0.01 s), in which Linux counts the time of a CPU."""

SHARED = 0.25
"""The part of the CPUs' time from which on others share them. Daemons use less."""


class Sample(NamedTuple):
    """The state at one look."""

    calls: int
    """How many have begun so far."""
    time: float
    """Point in time (`time.monotonic`)."""
    cpus: Set[int]
    """The CPUs that the process may use."""
    others: float
    """Seconds that they have worked for other processes; NaN if the system does not say it."""


class CpuSharing:
    """Sets the policy of grpcio's threads while the loop runs.

    It does nothing on a system without SCHED_BATCH, nor if the operator has chosen another policy for the process.

    Args:
        calls: Returns how many calls have begun so far.
        has_workers: Whether worker processes compute beside the loop, so that it has a short slice on shared CPUs.
    """

    def __init__(self, calls: Callable[[], int], *, has_workers: bool) -> None:
        self._calls = calls
        self._has_workers = has_workers
        self._is_alone = False
        self._timer: asyncio.TimerHandle | None = None
        if hasattr(os, "SCHED_BATCH") and has_usual_policy():  # else it is the operator's choice
            self._last = self._sample()
            self._look_later()

    def close(self) -> None:
        """Look no more. The threads, which may live longer than the server, have the usual policy again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._is_alone:
            self._set(is_alone=False)

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _sample(self) -> Sample:
        cpus = os.sched_getaffinity(0)
        return Sample(self._calls(), time.monotonic(), cpus, used_time(cpus) - time.process_time())

    def _look(self) -> None:
        before, now = self._last, self._sample()
        self._last = now
        seconds = now.time - before.time
        # of a period in which the process was stopped, or its loop blocked, the time of others says nothing
        if now.calls > before.calls and now.cpus == before.cpus and seconds < 2 * LOOK:
            self._set(is_alone=now.others - before.others < SHARED * seconds * len(now.cpus))
        self._look_later()

    def _set(self, *, is_alone: bool) -> None:
        for thread in grpc_threads():  # each time: grpcio starts further ones
            set_policy(thread, os.SCHED_BATCH if is_alone else os.SCHED_OTHER)
        if is_alone is not self._is_alone and self._has_workers:
            request_slice(USUAL if is_alone else SHORT)
        self._is_alone = is_alone


def used_time(cpus: Set[int]) -> float:
    """Seconds that these CPUs have worked for processes since the system's start; NaN if it does not say it."""
    ticks = 0
    with suppress(OSError), open("/proc/stat") as file:
        for line in file:
            name, *times = line.split()
            if not name.startswith("cpu"):
                break  # the lines of the CPUs come first, and a long one of all interrupts follows
            if name != "cpu" and int(name[3:]) in cpus:
                ticks += sum(map(int, times[:3]))  # in user code, in that of a low priority, and in the kernel
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else nan


def grpc_threads() -> list[int]:
    """The ids, as the kernel has them, of the threads that grpcio has started. Only their names tell them apart."""
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
