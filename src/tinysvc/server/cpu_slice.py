"""The event loop's slice of CPU time: a short one, so that it is let in at once while the workers compute.

Where all cores compute, Linux lets each process run for its slice, some milliseconds, before it lets in another that
has just been woken; and a loop is woken for every request. Since Linux 6.12 a thread may ask for a slice of its own
(sched_setattr(2)), and a shorter one goes first. Its share of the CPU stays what it was, and it takes no privilege.
"""

from __future__ import annotations

import os
import platform
import struct

SHORT = 100_000
"""Nanoseconds; the shortest that Linux takes."""

_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""The number of the system call."""

_RESET_ON_FORK = 1  # what this thread starts has the usual slice again


def shorten_slice() -> None:
    """Ask for a short slice for this thread. Nothing is done where the system has none, or has been told otherwise."""
    number = _SETATTR.get(platform.machine()) if platform.system() == "Linux" else None
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    if nice < 0:
        return  # it goes first anyway, and what it starts would lose that
    from ctypes import CDLL

    # struct sched_attr: its size, policy, flags, nice, priority, and three times, of which the first is the slice
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, SHORT, 0, 0)
    CDLL(None).syscall(number, 0, attributes, 0)
