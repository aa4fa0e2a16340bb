"""How many cores this process may use: its CPU affinity, cut by the quota of its cgroup.

A container on a machine of 64 cores with a quota of 2 runs 64 workers no faster than two, only each of them later.

    cgroup v2   cpu.max            "150000 100000": in each period of 100 ms, 150 ms of CPU, 1.5 cores; "max": no quota
    cgroup v1   cpu.cfs_quota_us   "150000", with cpu.cfs_period_us beside it; "-1": no quota

A quota binds all below it, so that every parent counts too. What cannot be read is not known, and cuts nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """The cores this process may use, at least 1; a part of one counts as one. `root` is where /proc and /sys stand."""
    return max(1, math.ceil(min([_affinity(), *_quotas(root)])))


def _affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS has none
        return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in cores, of the cgroups this process is in."""
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
    """A container may see its own cgroup at the mount only, whatever its path says: it is among the parents."""
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
    except (ValueError, ZeroDivisionError):  # "max", or a file that is not there
        return
    if cores > 0:
        yield cores


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
