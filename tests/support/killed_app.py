"""A service with durable jobs that is killed at named steps (kill_points.py). Its handlers note each step in a file."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import kill_points
from tinysvc import HTTPError, Job, Pool, Retry, Service, io_route, job_route

kill_points.install()

NOTES = kill_points.FOLDER / "notes"
GATE = kill_points.FOLDER / "gate"
"""While this file is there, jobs wait at their gate."""


def note(*words: object) -> None:
    """One line with the time. A write of a few bytes with O_APPEND is whole, also if the process is killed."""
    descriptor = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, " ".join(map(str, (time.monotonic(), *words, "\n"))).encode())
    os.close(descriptor)


@dataclass
class Order:
    steps: int = 2
    size: int = 0
    """Bytes of the result."""
    fails: int = 0
    """Attempts that raise."""
    pause: float = 0.0
    """Seconds for each step."""
    gated: bool = False
    """Whether it waits at the gate after its first step."""


@job_route("/works", pool="works", timeout=120, retry=Retry(attempts=20, wait=0.02), keep="7d")
def work(order: Order, job: Job) -> dict[str, Any]:
    note("start", job.id, job.attempt)
    for step in range(job.saved or 0, order.steps):
        note("step", job.id, job.attempt, step)
        kill_points.reach("worker:in-step")
        time.sleep(order.pause)
        job.progress((step + 1) / order.steps, step=step)
        job.save(step + 1)
        note("saved", job.id, job.attempt, step)
        kill_points.reach("worker:after-save")
        while order.gated and GATE.exists():
            time.sleep(0.005)
    if job.attempt <= order.fails:
        raise HTTPError(503, "it fails as it was asked to")
    kill_points.reach("worker:before-return")
    return {"id": job.id, "attempt": job.attempt, "filling": "x" * order.size}


@job_route("/refusals", pool="works", retry=Retry(attempts=1))
def refuse(job: Job) -> None:
    note("start", job.id, job.attempt)
    if job.attempt == 1:
        raise HTTPError(409, "not now")


@io_route("/pid")
async def pid() -> int:
    return os.getpid()


service = Service(sys.modules[__name__], pools={"works": Pool(workers=2)})
