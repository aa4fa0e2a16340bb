"""cpu_slice.py: the loop's thread has a short slice, its children do not."""

from __future__ import annotations

import os
import platform
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commands import served, tinysvc
from system import descendants
from tinysvc.server.cpu_slice import SHORT, has_usual_policy, request_slice
from tinysvc.server.cpu_slice import USUAL as NONE

SERVICE = """
from tinysvc import cpu_route, io_route
@io_route("/io")
async def io() -> int: return 1
"""
CPU = """
@cpu_route("/cpu")
def cpu() -> int: return 2
"""


def slice_of(pid: int, thread: int = 0) -> int:
    """In nanoseconds, of the main thread or another; 0 where the kernel does not tell."""
    try:
        found = re.search(
            r"^se\.slice\s*:\s*(\d+)$", Path(f"/proc/{pid}/task/{thread or pid}/sched").read_text(), re.MULTILINE
        )
    except OSError:
        return 0
    return int(found[1]) if found else 0


USUAL = slice_of(os.getpid())
tells = pytest.mark.skipif(
    not USUAL or tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < (6, 12),
    reason="this kernel has no slice of a thread's own, or does not tell it",
)


@tells
def test_only_the_server_has_a_short_slice(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE + CPU)
    with served(*tinysvc("service.py"), cwd=tmp_path) as server:
        below = descendants(server.pid)
        assert slice_of(server.pid) == SHORT
        assert below
        assert SHORT not in {slice_of(pid) for pid in below}


@tells
def test_server_without_workers_has_the_usual_slice(tmp_path: Path) -> None:
    (tmp_path / "service.py").write_text(SERVICE)
    with served(*tinysvc("service.py"), cwd=tmp_path) as server:
        assert slice_of(server.pid) == USUAL


@tells
def test_slice_is_changed_again() -> None:
    """The system adds a flag to the policy of a thread that has requested a slice."""

    def request(*slices: int) -> tuple[int, bool]:
        for each in slices:
            request_slice(each)
        return slice_of(os.getpid(), threading.get_native_id()), has_usual_policy()

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(request, SHORT).result() == (SHORT, True)
        assert thread.submit(request, NONE).result() == (USUAL, True)
        assert thread.submit(request, SHORT).result() == (SHORT, True)


@pytest.mark.parametrize("name", ["Darwin", "Linux"])
def test_unknown_system_has_no_short_slice(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(platform, "system", lambda: name)
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    monkeypatch.setitem(sys.modules, "ctypes", None)  # it would be imported to ask
    request_slice()
