"""Find and kill all processes that jobs have started, also orphans and processes in their own sessions.

Two features of Linux make this complete.

1. *The forkserver adopts orphans.* It is a subreaper (PR_SET_CHILD_SUBREAPER): a process whose parent ends becomes its
   child, in any session. The kernel moves the children before it reports the end of their parent, so a check of the
   forkserver's children after each SIGCHLD misses none.
2. *Processes inherit the mark of their worker.* Each worker sets the soft limit of a resource that Linux has not
   limited since 2003 (RLIMIT_LOCKS) to a unique number. Its descendants keep this limit through fork, exec and setsid.

So the forkserver knows the worker of each orphan, and kills the orphan when that worker has ended. Without /proc or
prctl (macOS), only the process group of a worker is killed.
"""

from __future__ import annotations

import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

_RLIMIT_LOCKS = 10
"""The same number on all of Linux's architectures; Python has no name for it."""

_PR_SET_CHILD_SUBREAPER = 36

_WORKERS = 2**32
"""Marks per pool: a worker's mark is the mark of its pool plus its number."""

KILL_ATTEMPTS, KILL_INTERVAL = 100, 0.02
"""Attempts to kill the remaining processes at the end of a pool, and the seconds between two attempts: two seconds in
all, after which only the kernel can hold a process."""


def new_mark() -> int:
    """A mark for one pool, different from that of other pools on this machine."""
    return secrets.randbits(29) * _WORKERS


def mark_worker(pool: int, number: int) -> None:
    """Mark this process, a worker: all processes that it starts from now on can be found."""
    with suppress(OSError, ValueError):  # a lower hard limit, or a system without this limit
        if sys.platform == "linux":
            _, hard = resource.getrlimit(_RLIMIT_LOCKS)
            resource.setrlimit(_RLIMIT_LOCKS, (pool + number, hard))


def _worker_of(pid: int, pool: int) -> int:
    """The number of the pool's worker from which the process descends; 0 if there is none, or it has been reaped."""
    if sys.platform == "linux":
        with suppress(OSError):
            number = resource.prlimit(pid, _RLIMIT_LOCKS)[0] - pool
            return number if 0 < number < _WORKERS else 0
    return 0


def adopt_orphans() -> None:
    """Make orphaned descendants of this process its children."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """The children of a process, including those that wait to be reaped. Empty without /proc."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError):
                found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN, or the process has ended
        return [child for child in _all() if _parent(child) == pid]
    except OSError:
        return []
    return found


def descendants(pid: int) -> Iterator[int]:
    """All descendants of a process."""
    for child in children(pid):
        yield child
        yield from descendants(child)


def _all() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(_read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def is_resource_tracker(pid: int) -> bool:
    """Whether the process is a resource tracker, of multiprocessing or loky.

    A tracker is not killed: when all holders of its pipe have ended, it removes their semaphores and shared memory, and
    ends.
    """
    try:
        return b"resource_tracker import main" in _read(f"/proc/{pid}/cmdline")
    except OSError:
        return False


def kill_group(pid: int, others: Iterable[int] = ()) -> None:
    """SIGKILL a worker and its process group, but no resource tracker. `others` may be in the group, too."""
    family = list(descendants(pid))
    if any(is_resource_tracker(each) and _group_of(each) == pid for each in (*family, *others)):
        for each in (pid, *family):
            if not is_resource_tracker(each):
                _kill(each)
        return
    for kill in (os.killpg, os.kill):  # between fork and setsid the group does not exist
        with suppress(ProcessLookupError, PermissionError):  # macOS returns EPERM for a group of zombies
            kill(pid, signal.SIGKILL)


def _group_of(pid: int) -> int:
    with suppress(OSError):
        return os.getpgid(pid)
    return 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def other_children(workers: Iterable[int]) -> list[int]:
    """The children of this process, without these workers."""
    return list(set(children(os.getpid())).difference(workers))


def reap_orphans(pool: int, workers: Mapping[int, int]) -> int:
    """Reap the orphans that have ended, and kill the orphans of workers that have ended.

    Args:
        pool: The mark of the pool.
        workers: The live workers: pids by numbers.

    Returns:
        The number of killed orphans that have not yet ended.
    """
    left = 0
    for pid in other_children(workers.values()):
        number = _worker_of(pid, pool)
        if number and not _reap(pid) and number not in workers:
            left += 1
            for each in (pid, *descendants(pid)):
                if not is_resource_tracker(each):
                    _kill(each)
    return left


def _reap(pid: int) -> bool:
    """Reap the child if it has ended. Whether it has."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def kill_descendants() -> None:
    """Kill and reap all descendants of this process but resource trackers, which end after this process."""
    for _ in range(KILL_ATTEMPTS):
        rest = [pid for pid in descendants(os.getpid()) if not is_resource_tracker(pid)]
        if not rest:
            return
        for pid in rest:
            _kill(pid)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(KILL_INTERVAL)


def kill_marked(pool: int) -> None:
    """Kill all processes that the workers of a pool have started. Needed if its forkserver has died."""
    for _ in range(KILL_ATTEMPTS):
        rest = [pid for pid in _all() if _worker_of(pid, pool) and not is_resource_tracker(pid)]
        if not rest:
            return
        for pid in rest:
            _kill(pid)
