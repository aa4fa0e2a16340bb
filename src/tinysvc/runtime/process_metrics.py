"""Metrics of the process itself, under the names that Prometheus' own clients use, and the lag of the event loop."""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections.abc import Iterable
from contextlib import suppress

from ..telemetry.instruments import Registry, metric_of
from ..telemetry.snapshots import Metric

INTERVAL = 0.25
"""Seconds between two measurements of the loop's lag: a block of this length is always seen, and they cost nothing."""

LAGS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds. uvloop's timers count whole milliseconds."""

PAGE = resource.getpagesize()
TICKS = os.sysconf("SC_CLK_TCK")


def process_metrics() -> Iterable[Metric]:
    """The figures of this process now. Linux only, but for the CPU time. With several processes they add up."""
    used = os.times()
    yield metric_of(
        "counter", "process_cpu_seconds", "CPU time of the server processes.", [((), used.user + used.system)]
    )
    with suppress(OSError):
        yield _gauge("process_resident_memory_bytes", "Memory of the server processes.", resident_bytes(os.getpid()))
        yield _gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")) - 1)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield _gauge("process_max_fds", "File descriptors that may be open.", soft)
        started = metric_of(
            "gauge",
            "process_start_time_seconds",
            "Unix time at which the first server process was started.",
            [((), _start_time())],
            mode="min",
        )
        yield started


def resident_bytes(pid: int) -> int:
    """The memory that a process holds. OSError if it is not known."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE


def _start_time() -> float:
    with open("/proc/self/stat") as file:
        ticks = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/uptime") as file:
        uptime = float(file.read().split()[0])
    return round(time.time() - uptime + ticks / TICKS, 2)


def _gauge(name: str, text: str, value: float) -> Metric:
    return metric_of("gauge", name, text, [((), value)])


class LoopLag:
    """Observes how late a timer of the event loop runs: the time that a new event waits."""

    def __init__(self, registry: Registry) -> None:
        self._loop = asyncio.get_running_loop()
        self._lag = registry.histogram(
            "tinysvc.event_loop.lag", "Time by which a timer of the event loop runs too late.", bounds=LAGS
        ).of()
        self._begin()

    def _begin(self) -> None:
        self._due = time.perf_counter() + INTERVAL
        self._timer = self._loop.call_later(INTERVAL, self._measure)

    def _measure(self) -> None:
        self._lag.observe(max(0.0, time.perf_counter() - self._due))
        self._begin()

    def stop(self) -> None:
        self._timer.cancel()
