"""How many cores, and how many server processes: a model, checked against this machine."""

from __future__ import annotations

import dataclasses
import os

from capacity_model import Machine, percentile, response_times
from harness import (
    Load,
    Options,
    Peer,
    bar,
    found_by,
    median,
    put_under_load,
    read_process,
    say,
    spread,
    started,
    table,
    tinysvc,
    warm_up,
)

TITLE = "capacity: cores and server processes"
JOB = 0.020
"""CPU seconds of /burn."""

RATES = (50, 70)
"""Arrivals a second on two cores: at 20 ms a job, half of what two workers can do, and 70 %."""

BUSY = 0.7
"""Part of the cores' limit at which the table shows response times."""

SHARES = (0.5, 0.9, 0.99)
SHAPES = {2: (1, 2), 8: (1, 2, 4), 32: (1, 4, 16)}
"""Cores -> server processes."""


def measure(options: Options) -> str:
    peer = Peer(name="tinysvc, 2 workers", command=tinysvc("tinysvc_cpu.py", "--cpu-workers", "2"))
    with started([peer]):
        peer.thaw()
        loops = [loop_time(peer) for _ in range(options.choose(5, 3))]
        loop = sorted(loops)[len(loops) // 2]
        say(f"  the event loop needs {loop * 1e6:.0f} µs for a job")
        checked = check(peer, loop, options)
    microseconds = [each * 1e6 for each in loops]
    intro = (
        "A cpu route with `--cpu-workers` as many as cores, divided among `--workers` server processes. The response "
        "times of the table are simulated ([capacity_model.py](capacity_model.py)) at "
        f"{BUSY:.0%} of what the cores can do. The event loop needs {median(microseconds)} µs ({spread(microseconds)}) "
        "of CPU time for a job, as measured here. Where an event loop is the limit, there is no response time: its "
        "queue would grow."
    )
    return f"{intro}\n\n{simulated(loop)}\n\n{checked}"


def loop_time(peer: Peer) -> float:
    """CPU seconds of the server process alone, without its workers, for a job that does nothing."""
    load = Load(script="post.lua", path="/noop", connections=16, seconds=2)
    warm_up(peer, dataclasses.replace(load, seconds=1))
    before = read_process(peer.process.pid)
    found = put_under_load(peer, load)
    after = read_process(peer.process.pid)
    assert before is not None
    assert after is not None
    return (after.cpu - before.cpu) / (found.rate * load.seconds)


def simulated(loop: float) -> str:
    rows = []
    for job in (0.001, JOB):
        for cores, counts in SHAPES.items():
            for processes in counts:
                machine = Machine(cores, processes, job, loop)
                rate = BUSY * machine.cores_limit
                cells = ["-"] * len(SHARES)
                if rate < 0.95 * machine.limit:
                    times = response_times(machine, rate)
                    cells = [f"{percentile(times, share) * 1e3:.1f}" for share in SHARES]
                rows.append([f"{job * 1e3:.0f} ms, {cores} cores", str(processes), f"{machine.limit:,.0f}", *cells])
    columns = ["job", "server processes", "jobs/s at most", *(f"p{share * 100:.0f}, ms" for share in SHARES)]
    return table(columns, rows)


def check(peer: Peer, loop: float, options: Options) -> str:
    """The model beside a measurement, with the same random arrivals."""
    cores = min(2, os.cpu_count() or 1)
    rows, bars = [], []
    for rate in RATES:
        off = []
        for seed in range(options.choose(5, 3)):
            seconds = options.choose(20, 8)
            asked = found_by("open_loop.py", peer, rate, seconds, "POST", "/burn", '{"name":"ada"}', seed)
            measured = sorted(asked["latencies"])
            times = response_times(Machine(cores, 1, JOB, loop), rate, int(rate * seconds), seed)
            off.append(percentile(measured, 0.9) / percentile(times, 0.9))
            cells = [f"{percentile(each, share) * 1e3:.0f}" for each in (measured, times) for share in SHARES]
            rows.append([f"{rate}/s", *cells])
        bars.append(bar(f"measured to simulated p90 at {rate}/s", off, most=1.3))
    columns = [f"{JOB * 1e3:.0f} ms a job, {cores} workers, ms"]
    columns += [f"{kind} p{share * 100:.0f}" for kind in ("measured", "simulated") for share in SHARES]
    lines = "\n".join(bars)
    return f"{table(columns, rows)}\n\nOne line a round; the arrivals of both are the same.\n\n{lines}\n"
