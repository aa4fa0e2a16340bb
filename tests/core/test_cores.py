"""core/cores.py: affinity and quotas, read below a root folder that each test fills."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinysvc.core.cores import available_cores

V2 = "0::/system/service/inner\n"
V1 = "12:memory:/a\n4:cpu,cpuacct:/docker/1f\n0::/ignored\n"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def furnish(root: Path, cgroup: str, **files: str | bytes) -> Path:
    """`files` by their paths below /sys/fs/cgroup, with __ for a slash and a dot left out of "cpu."."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "cores"),
    [
        (V2, {}, 8),
        (V2, {"system__service__inner__cpu_max": "max 100000\n"}, 8),
        (V2, {"system__service__inner__cpu_max": "200000 100000\n"}, 2),
        (V2, {"system__service__inner__cpu_max": "150000 100000\n"}, 2),
        (V2, {"system__service__inner__cpu_max": "1000 100000\n"}, 1),
        (V2, {"system__service__inner__cpu_max": "9900000 100000\n"}, 8),
        (V2, {"system__service__inner__cpu_max": "400000 100000\n", "system__cpu_max": "300000 100000\n"}, 3),
        (V2, {"cpu_max": "300000 100000\n"}, 3),
        ("0::/../elsewhere\n", {"cpu_max": "300000 100000\n"}, 3),
        (V2, {"cpu_max": ""}, 8),
        (V2, {"cpu_max": "many"}, 8),
        (V2, {"cpu_max": "100000 0\n"}, 8),
        (V2, {"cpu_max": b"\xff\xfe"}, 8),
        (V1, {"cpu__docker__1f__cpu_cfs_quota_us": "200000\n", "cpu__docker__1f__cpu_cfs_period_us": "100000\n"}, 2),
        (V1, {"cpu__cpu_cfs_quota_us": "50000\n", "cpu__cpu_cfs_period_us": "100000\n"}, 1),
        (V1, {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, 8),
        (V1, {"cpu__cpu_cfs_quota_us": "200000\n"}, 8),
        ("nonsense\n\n:::\n", {}, 8),
    ],
)
def test_quota_limits_the_affinity(tmp_path: Path, cgroup: str, files: dict[str, str | bytes], cores: int) -> None:
    assert available_cores(furnish(tmp_path, cgroup, **files)) == cores


def test_unreadable_files_set_no_limit(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 8
    (tmp_path / "proc/self/cgroup").mkdir(parents=True)  # not even a file
    assert available_cores(tmp_path) == 8


def test_system_without_affinity_counts_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert available_cores(tmp_path) == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path) == 1


def test_here() -> None:
    assert 1 <= available_cores() <= 8
