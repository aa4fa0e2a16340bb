"""Number of CPU cores that this process may use: its CPU affinity, limited by the quota of its cgroup.

A container with a quota of 2 cores on a machine with 64 runs 64 workers no faster than two.

    cgroup v2   cpu.max            "150000 100000": in each period of 100 ms, 150 ms of CPU, 1.5 cores; "max": no quota
    cgroup v1   cpu.cfs_quota_us   "150000", with cpu.cfs_period_us beside it; "-1": no quota

A quota also limits all groups below it: the parents count, too. A file that cannot be read sets no limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may use, rounded up, at least 1. `root` is the folder of /proc and /sys."""
    return max(1, math.ceil(min([_affinity(), *_quotas(root)])))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on macOS
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """The quotas of the process's cgroups, in cores."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if not controllers:
            mount, quota_of = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            mount, quota_of = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        for folder in _with_parents(mount, path):
            yield from quota_of(folder)


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """The folder of a cgroup and its parents. A container may see its own cgroup at the mount point only."""
    names = [name for name in path.split("/") if name]
    for depth in range(0 if ".." in names else len(names), -1, -1):
        yield mount.joinpath(*names[:depth])


def _quota_v2(folder: Path) -> Iterator[float]:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    yield from _in_cores(quota, period)


def _quota_v1(folder: Path) -> Iterator[float]:
    yield from _in_cores(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _in_cores(quota: str, period: str) -> Iterator[float]:
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max", or a missing file
        return
    if cores > 0:
        yield cores


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
