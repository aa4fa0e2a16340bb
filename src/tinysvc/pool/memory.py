"""Memory of worker processes: held now, at its peak, and whether the kernel killed processes because it ran out."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from resource import struct_rusage
from time import monotonic

OOM_GRACE = 1.0
"""Seconds after an out-of-memory kill in which the end of another worker by SIGKILL counts as one, too: the kernel may
kill several processes at once."""


def held_bytes() -> int:
    """Memory that this process holds now (RSS), in bytes; its peak on systems without /proc."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(100).split()[1]) * resource.getpagesize()
    except OSError:
        return peak_bytes(resource.getrusage(resource.RUSAGE_SELF))


def peak_bytes(usage: struct_rusage) -> int:
    """The most memory that a process has held (RSS), in bytes, from its resource usage (os.wait4)."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class OomCounter:
    """The kernel's count of processes that it killed because memory ran out, in our cgroup or else on this machine.

        cgroup v2   memory.events         "oom_kill 3": processes of the cgroup and of those below it, killed
        cgroup v1   memory.oom_control    for its own limit, a parent's limit, or the machine's
        neither     /proc/vmstat          processes of the machine

    Args:
        root: The folder that holds proc/ and sys/.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._file = next((file for file in _oom_files(root) if _oom_kills(file) is not None), None)
        self._kills = self._count()
        self._last_increase = -OOM_GRACE

    def _count(self) -> int | None:
        return None if self._file is None else _oom_kills(self._file)

    def has_increased(self) -> bool | None:
        """Whether the count increased since the last call, or within OOM_GRACE before it; None without a counter."""
        before, self._kills = self._kills, self._count()
        if before is None or self._kills is None:
            return None
        now = monotonic()
        if self._kills > before:
            self._last_increase = now
        return now - self._last_increase < OOM_GRACE


def _oom_files(root: Path) -> Iterator[Path]:
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if not controllers:
            mount, name = root / "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        yield mount / path.strip("/") / name
        yield mount / name  # a container may find its own cgroup here, whatever its path says
    yield root / "proc/vmstat"


def _oom_kills(file: Path) -> int | None:
    found = re.search(r"^oom_kill (\d+)$", _read(file), re.MULTILINE)
    return int(found[1]) if found else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
