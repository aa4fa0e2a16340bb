"""memory.py: memory of a process, and the kernel's count of out-of-memory kills."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from tinysvc.pool import memory
from tinysvc.pool.memory import OOM_GRACE, OomCounter, peak_bytes


def test_peak_memory_is_in_bytes() -> None:
    peak = peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
    assert 10 << 20 < peak < 1 << 40


CGROUPS = {
    "v2": ("0::/app\n", "sys/fs/cgroup/app/memory.events", "low 0\noom 9\noom_kill {}\noom_group_kill 0\n"),
    "v2 in a container": ("0::/docker/5f\n", "sys/fs/cgroup/memory.events", "oom 9\noom_kill {}\n"),
    "v1": ("4:cpu,memory:/a/b\n0::/\n", "sys/fs/cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill {}\n"),
    "neither": ("0::/\n", "proc/vmstat", "pgfault 7\noom_kill {}\nnr_zone 1\n"),
    "no cgroups": ("", "proc/vmstat", "oom_kill {}\n"),
}


@pytest.mark.parametrize("kind", CGROUPS)
def test_oom_kills_are_counted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup, name, text = CGROUPS[kind]
    write(tmp_path / "proc/self/cgroup", cgroup)
    write(tmp_path / "proc/vmstat", "oom_kill 1000\n")
    write(tmp_path / name, text.format(9))
    now = 50.0
    monkeypatch.setattr(memory, "monotonic", lambda: now)
    counter = OomCounter(tmp_path)
    assert counter.has_increased() is False
    write(tmp_path / name, text.format(10))
    assert counter.has_increased() is True
    assert counter.has_increased() is True, "several are killed at once"
    now += OOM_GRACE
    assert counter.has_increased() is False
    (tmp_path / name).unlink()
    assert counter.has_increased() is None


def test_result_is_none_without_a_counter(tmp_path: Path) -> None:
    assert OomCounter(tmp_path).has_increased() is None
    write(tmp_path / "proc/vmstat", "pgfault 7\n")
    write(tmp_path / "proc/self/cgroup", "rubbish\n::\n0::/../..\n")
    assert OomCounter(tmp_path).has_increased() is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no counter")
def test_linux_has_a_counter() -> None:
    assert OomCounter().has_increased() is not None


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
