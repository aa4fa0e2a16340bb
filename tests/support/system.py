"""Processes, descriptors and shared memory as the system reports them; helpers that wait for a condition."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> dict[int, str]:
    """The live descendants of process `pid`, with their command lines."""
    all_there = {int(name): _stat(int(name)) for name in os.listdir(PROC) if name.isdecimal()}
    parents = {child: int(fields[1]) for child, fields in all_there.items() if fields[0] not in ("", "Z")}
    found: dict[int, str] = {}
    grown = True
    while grown:
        new = [child for child, above in parents.items() if (above == pid or above in found) and child not in found]
        for child in new:
            try:
                found[child] = (PROC / str(child) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                found[child] = "?"
        grown = bool(new)
    return found


def workers_below(pid: int) -> list[int]:
    """The worker processes of the server or pool in process `pid`: the children of its forkserver."""
    forkservers = [child for child, line in descendants(pid).items() if "forkserver_main" in line]
    tops = [child for child in forkservers if parent(child) == pid]
    return sorted(child for top in tops for child in descendants(top) if parent(child) == top)


def parent(pid: int) -> int:
    return int(_stat(pid)[1])


def is_alive(pid: int) -> bool:
    return _stat(pid)[0] not in ("", "Z")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: state, parent, ...; "" and 0 if the process has ended."""
    try:
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:  # thousands of times in a test run
            return file.read().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ["", "0"]


def wait_until(condition: object, what: str, seconds: float = 20.0) -> None:
    """Poll a condition that another process fulfils; the timeout only guards against a hang."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out after {seconds} s waiting until {what}"
        time.sleep(0.005)


def open_descriptors() -> set[str]:
    """The open descriptors of this process, each with its target."""
    found = set()
    for entry in (PROC / "self" / "fd").iterdir():
        try:
            found.add(f"{entry.name} -> {os.readlink(entry)}")
        except OSError:
            pass
    return found


def shared_memory() -> set[str]:
    """The named segments, without those of other programs on this machine: semaphores, and those of databases."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith(("sem.", "PostgreSQL.", "tinysvc-pg-"))}


async def exists(path: Path) -> None:
    async with asyncio.timeout(20):
        while not path.exists():
            await asyncio.sleep(0.002)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)
