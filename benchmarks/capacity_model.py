"""A queueing model of a server with cpu routes: how long requests take on a machine that is not here.

    arrivals ──> event loop of a process ──> queue of its pool ──> worker ──> event loop ──> response

Requests come at random instants (a Poisson process). Each goes to one of the server processes at random, as the kernel
distributes connections. The loop of a process handles one thing at a time: it spends half of its time for a job before
the job, and half after it. A job takes a worker for a fixed time. Loops and workers share the cores, so jobs take
longer by the part of the cores that the loops use.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from typing import NamedTuple


class Machine(NamedTuple):
    """A machine to simulate. Times are in seconds."""

    cores: int
    processes: int
    """Server processes; the CPU workers, one for each core, are divided among them."""
    job: float
    """CPU time of a job."""
    loop: float
    """CPU time of the event loop for a job."""

    @property
    def cores_limit(self) -> float:
        """Jobs a second at which all cores are busy."""
        return self.cores / (self.job + self.loop)

    @property
    def limit(self) -> float:
        """Jobs a second at which the cores, or the event loops, are busy."""
        return min(self.cores_limit, self.processes / self.loop)


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """The instants of `count` random arrivals, in seconds from the start."""
    chance = random.Random(seed)
    times, now = [], 0.0
    for _ in range(count):
        now += chance.expovariate(rate)
        times.append(now)
    return times


class Process:
    """The state of one server process."""

    def __init__(self, workers: int) -> None:
        self.idle = workers
        self.loop_free = 0.0
        self.waiting: deque[float] = deque()


ARRIVES, QUEUED, COMPUTED, ANSWERED = range(4)


def response_times(machine: Machine, rate: float, count: int = 20_000, seed: int = 1) -> list[float]:
    """The seconds from arrival to response of each request, in ascending order."""
    chance = random.Random(seed + 1)
    workers = max(1, -(-machine.cores // machine.processes))
    job = machine.job * machine.cores / (machine.cores - min(rate * machine.loop, machine.cores * 0.9))
    processes = [Process(workers) for _ in range(machine.processes)]
    events = [
        (at, number, ARRIVES, chance.randrange(machine.processes), at)
        for number, at in enumerate(arrivals(rate, count, seed))
    ]
    heapq.heapify(events)
    number, found = count, []

    def later(at: float, kind: int, which: int, arrived: float) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (at, number, kind, which, arrived))

    while events:
        now, _, kind, which, arrived = heapq.heappop(events)
        process = processes[which]
        if kind in (ARRIVES, COMPUTED):
            process.loop_free = max(now, process.loop_free) + machine.loop / 2
            later(process.loop_free, QUEUED if kind == ARRIVES else ANSWERED, which, arrived)
            continue
        if kind == ANSWERED:
            found.append(now - arrived)
            process.idle += 1
        else:
            process.waiting.append(arrived)
        if process.idle and process.waiting:
            process.idle -= 1
            later(now + job, COMPUTED, which, process.waiting.popleft())
    return sorted(found)


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
