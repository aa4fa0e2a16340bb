"""process_metrics.py: the figures of the process, and the lag of its event loop."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from system import PROC, until
from tinysvc.runtime import process_metrics as module
from tinysvc.runtime.process_metrics import LoopLag, process_metrics, resident_bytes
from tinysvc.telemetry.instruments import Registry

pytestmark = pytest.mark.skipif(not PROC.exists(), reason="needs /proc")


def test_figures_are_those_of_this_process() -> None:
    with open(os.devnull):
        found = {metric.name: metric.points[0].value for metric in process_metrics()}
    assert 0 < found["process_cpu_seconds"] <= time.process_time() + 1
    assert 5_000_000 < found["process_resident_memory_bytes"] < 10**10
    assert 3 < found["process_open_fds"] < found["process_max_fds"]
    assert time.time() - 24 * 3600 < found["process_start_time_seconds"] < time.time()


def test_memory_of_an_ended_process_is_an_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        resident_bytes(2**22 + 1)


@pytest.mark.asyncio
async def test_blocked_loop_is_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    registry = Registry()
    lag = LoopLag(registry)
    await asyncio.sleep(0.03)
    time.sleep(0.3)
    await until(lambda: registry.snapshot()[0].points[0].value >= 0.25)
    lag.stop()
    count = sum(registry.snapshot()[0].points[0].counts)
    await asyncio.sleep(0.05)
    assert sum(registry.snapshot()[0].points[0].counts) == count
