"""The processes that jobs have started, found and killed wherever they are: in a session of their own, or orphaned.

Two facts of Linux make this complete.

1. *Orphans come to the forkserver.* It is a subreaper (PR_SET_CHILD_SUBREAPER): a process whose parent ends becomes its
   child, whatever session it is in. The kernel moves the children before it reports the end of their parent, so that
   a look at the own children after each SIGCHLD misses none.
2. *A worker's mark is inherited.* Each worker sets the soft limit of a resource that Linux has not limited since 2003
   (RLIMIT_LOCKS) to a number of its own. Its children have the same limit, through fork, exec and setsid.

So the forkserver knows of each orphan which worker it came from, and kills it when that worker has ended. Where there
is no /proc or no prctl (macOS), only the process group of a worker is killed.
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
"""Marks of one pool: the number of a worker is added to the pool's own mark."""

LAST_LOOKS, LOOK_AGAIN = 100, 0.02
"""Looks for processes that are left, at the end of a pool, and the seconds between two: what the kernel cannot end in
two seconds is in its hands."""


def new_mark() -> int:
    """A mark for the workers of one pool, that no other pool on this machine has."""
    return secrets.randbits(29) * _WORKERS


def mark_worker(pool: int, number: int) -> None:
    """Called by the worker: all that it starts can be found from here on."""
    with suppress(OSError, ValueError):  # a hard limit is in the way, or the system has no such limit
        if sys.platform == "linux":
            _, hard = resource.getrlimit(_RLIMIT_LOCKS)
            resource.setrlimit(_RLIMIT_LOCKS, (pool + number, hard))


def _worker_of(pid: int, pool: int) -> int:
    """The number of the pool's worker that the process comes from; 0 if it comes from none, or has been reaped."""
    if sys.platform == "linux":
        with suppress(OSError):
            number = resource.prlimit(pid, _RLIMIT_LOCKS)[0] - pool
            return number if 0 < number < _WORKERS else 0
    return 0


def adopt_orphans() -> None:
    """Orphans below this process become its children."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """The children of a process, those that wait to be reaped too; none where there is no /proc."""
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


def below(pid: int) -> Iterator[int]:
    """All descendants of a process."""
    for child in children(pid):
        yield child
        yield from below(child)


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


def is_tracker(pid: int) -> bool:
    """Whether the process is a resource tracker, of multiprocessing or loky.

    When all holders of its pipe have ended, it removes their semaphores and shared memory, and ends: it is not killed.
    """
    try:
        return b"resource_tracker import main" in _read(f"/proc/{pid}/cmdline")
    except OSError:
        return False


def kill_group(pid: int, strays: Iterable[int] = ()) -> None:
    """SIGKILL a worker and its process group, but no resource tracker. `strays` may be in the group, too."""
    family = list(below(pid))
    if any(is_tracker(each) and _group_of(each) == pid for each in (*family, *strays)):
        for each in (pid, *family):
            if not is_tracker(each):
                _kill(each)
        return
    for kill in (os.killpg, os.kill):  # the group does not exist yet in the instant between fork and setsid
        with suppress(ProcessLookupError, PermissionError):  # macOS answers EPERM for a group of zombies
            kill(pid, signal.SIGKILL)


def _group_of(pid: int) -> int:
    with suppress(OSError):
        return os.getpgid(pid)
    return 0


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def strays(workers: Iterable[int]) -> list[int]:
    """The children of this process that are none of these workers."""
    return list(set(children(os.getpid())).difference(workers))


def bury_orphans(pool: int, workers: Mapping[int, int]) -> int:
    """Reap the orphans that have ended, and kill those of workers that have ended.

    `workers` are those that have not: their pids by their numbers. Returns how many orphans are still to end.
    """
    left = 0
    for pid in strays(workers.values()):
        number = _worker_of(pid, pool)
        if number and not _reap(pid) and number not in workers:
            left += 1
            for each in (pid, *below(pid)):
                if not is_tracker(each):
                    _kill(each)
    return left


def _reap(pid: int) -> bool:
    """Whether the child has ended."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def kill_all_below() -> None:
    """Kill and reap all descendants of this process, but resource trackers: those end when it has ended."""
    for _ in range(LAST_LOOKS):
        rest = [pid for pid in below(os.getpid()) if not is_tracker(pid)]
        if not rest:
            return
        for pid in rest:
            _kill(pid)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(LOOK_AGAIN)


def kill_marked(pool: int) -> None:
    """Kill all that the workers of a pool have started, where its forkserver has died and so adopts no orphans."""
    for _ in range(LAST_LOOKS):
        rest = [pid for pid in _all() if _worker_of(pid, pool) and not is_tracker(pid)]
        if not rest:
            return
        for pid in rest:
            _kill(pid)
