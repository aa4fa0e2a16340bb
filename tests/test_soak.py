"""The soak (benchmarks/soak.py) in its short form. `make soak` is the long one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("SOAK_SECONDS", 12))
"""Of traffic; some 15 more pass before and behind it."""

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.timeout(SECONDS + 90)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is measured by Linux's /proc")
@pytest.mark.usefixtures("nothing_left")
def test_everything_at_once_leaves_the_server_as_it_was() -> None:
    command = [sys.executable, str(SOAK), "--seconds", str(SECONDS)]
    soak = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = soak.communicate(timeout=SECONDS + 80)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(soak.pid, signal.SIGKILL)  # its server too
        soak.communicate()
    assert soak.returncode == 0, said
