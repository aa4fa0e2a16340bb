"""The priority of a process that loads a program beside workers at work: they get the cores first.

Linux has two priorities. *nice* is that of a process among the processes of its session; only a process with
CAP_SYS_NICE, or with RLIMIT_NICE, can raise it again, so it is lowered only then. *autogroup* is that of a session
among the sessions, where the kernel is built for it; everybody may raise it again, but not twice within 0.1 s. A
forkserver has a session of its own, and so has each of its workers: what they inherit is the nice value alone.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from contextlib import suppress

STEP = 10
"""By which nice is raised: such a process gets about a tenth of the time of another one that wants to run."""

_CAP_SYS_NICE = 1 << 23

_RETRIES, _PAUSE = 5, 0.1


def lower_priority(pid: int) -> None:
    """Lower the priority of a process that leads a session, as far as `restore_priority` can raise it again."""
    with suppress(OSError):
        if may_raise_priority():
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + STEP)
        _set_autogroup(pid, STEP)


async def restore_priority(pid: int) -> None:
    """Give the process the priority of this one."""
    with suppress(OSError):
        if may_raise_priority():
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0))
        for _ in range(_RETRIES):
            try:
                _set_autogroup(pid, 0)
            except BlockingIOError:  # another one was set within 0.1 s
                await asyncio.sleep(_PAUSE)
            else:
                return


def may_raise_priority() -> bool:
    """Whether this process may give a process of its user the priority that it has itself."""
    if sys.platform != "linux":
        return False
    if resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20 - os.getpriority(os.PRIO_PROCESS, 0):
        return True
    with suppress(OSError, ValueError), open("/proc/self/status") as status:
        return any(bool(int(line[7:], 16) & _CAP_SYS_NICE) for line in status if line.startswith("CapEff:"))
    return False


def _set_autogroup(pid: int, nice: int) -> None:
    """OSError where the kernel has no autogroups."""
    with open(f"/proc/{pid}/autogroup", "w") as file:
        file.write(str(nice))
