"""A short slice of CPU time for the event loop: it then runs at once when it wakes, even while the workers compute.

When all cores are busy, Linux lets each process run for its slice, some milliseconds, before a process that has just
woken up; and every request wakes the loop. Since Linux 6.12 a thread may request its own slice (sched_setattr(2)), and
a thread with a shorter slice runs first. Its share of the CPU does not change, and it needs no privilege.
"""

from __future__ import annotations

import os
import platform
import struct

SHORT = 100_000
"""Nanoseconds; the shortest that Linux takes."""

USUAL = 0
"""The slice that the system gives each thread."""

_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""The number of the system call."""

_RESET_ON_FORK = 1  # children of this thread have the usual slice


def request_slice(nanoseconds: int = SHORT) -> None:
    """Request a slice for this thread, unless the system has no slices or another policy or priority is set."""
    number = _SETATTR.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None or not has_usual_policy():
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice < 0:
        return  # it runs first anyway, and its children would lose their priority
    from ctypes import CDLL

    # struct sched_attr: its size, policy, flags, nice, priority, and three times, of which the first is the slice
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, nanoseconds, 0, 0)
    CDLL(None).syscall(number, 0, attributes, 0)


def has_usual_policy() -> bool:
    """Whether this thread has the policy that the system gives each thread, on a system with such policies."""
    if not hasattr(os, "SCHED_OTHER") or not hasattr(os, "sched_getscheduler"):
        return False
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER  # request_slice sets the flag
