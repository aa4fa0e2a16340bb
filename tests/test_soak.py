"""A short soak (benchmarks/soak.py); `make soak` runs a long one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", 12))
"""Seconds of traffic; start and end take about 15 more."""

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.timeout(SECONDS + 90)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured with Linux's /proc")
@pytest.mark.usefixtures("nothing_left")
def test_all_traffic_at_once_leaves_nothing_behind() -> None:
    command = [sys.executable, str(SOAK), "--seconds", str(SECONDS)]
    soak = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = soak.communicate(timeout=SECONDS + 80)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(soak.pid, signal.SIGKILL)  # the server is in the same process group
        soak.communicate()
    assert soak.returncode == 0, said
