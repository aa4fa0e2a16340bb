"""A short soak (benchmarks/soak.py and soak_jobs.py); `make soak` runs a long one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", 8))
"""Seconds of traffic; start and end take about 15 more. In fewer, some kinds of fault do not occur."""

ROUNDS = int(os.environ.get("SOAK_ROUNDS", 10))
"""Kills of servers, workers or forkservers of durable jobs."""

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.timeout(SECONDS + 90)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured with Linux's /proc")
@pytest.mark.usefixtures("nothing_left")
def test_all_traffic_at_once_leaves_nothing_behind() -> None:
    soak("soak.py", "--seconds", SECONDS, limit=SECONDS + 80)


@pytest.mark.timeout(4 * ROUNDS + 90)
@pytest.mark.usefixtures("nothing_left")
def test_kills_at_random_lose_and_double_no_durable_job() -> None:
    soak("soak_jobs.py", "--rounds", ROUNDS, limit=4 * ROUNDS + 80)


def soak(script: str, option: str, value: float, limit: float) -> None:
    command = [sys.executable, str(BENCHMARKS / script), option, str(value)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = running.communicate(timeout=limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)  # the server is in the same process group
        running.communicate()
    assert running.returncode == 0, said
