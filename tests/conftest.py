"""What every test shares: nothing may be left behind."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

uvloop.new_event_loop().close()  # the first one opens a pipe for signals that stays for the life of the process

PROC = Path("/proc")

LONGEST = ("test_soak", "test_benchmarks", "test_bench")
"""The files of which one test takes long: they begin first, so that none runs alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONGEST)


def descendants(pid: int) -> dict[int, str]:
    """The live processes below `pid`, with their command lines, and all that ever were in a session of theirs."""
    all_there = {int(entry.name): _stat(int(entry.name)) for entry in PROC.glob("[0-9]*")}
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
    """State, parent, and what else the kernel tells of a process behind its name; of one that has ended, "" and 0."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["", "0"]


def wait_until(condition: object, what: str, seconds: float = 20.0) -> None:
    """Poll for something that another process does; the time only guards against a hang."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        time.sleep(0.005)


def open_descriptors() -> set[str]:
    """Those of this process, each with what it leads to."""
    found = set()
    for entry in (PROC / "self" / "fd").iterdir():
        try:
            found.add(f"{entry.name} -> {os.readlink(entry)}")
        except OSError:
            pass
    return found


def _shared_memory() -> set[str]:
    """Segments with a name. Semaphores are not counted: other programs on this machine make and remove them."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.")}


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """After the test there is no process, no descriptor and no shared-memory segment more than before."""
    shm = _shared_memory()
    children = set(descendants(os.getpid()))
    descriptors = open_descriptors()
    yield
    gc.collect()
    wait_until(lambda: set(descendants(os.getpid())) <= children, "every child process has ended")
    assert _shared_memory() <= shm
    try:
        wait_until(lambda: open_descriptors() <= descriptors, "no descriptor is left")
    except AssertionError:
        pytest.fail(f"left open: {open_descriptors() - descriptors}")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as a warning or worse; a test that wants it takes it with `logged`."""
    yield
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []
