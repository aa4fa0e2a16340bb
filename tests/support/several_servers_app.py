"""A service with one durable job, whose attempts sleep, for several server processes."""

from __future__ import annotations

import os
import time

from tinysvc import Job, job_route


@job_route("/sleeps", timeout=60)
def sleep(seconds: float, job: Job, *, forks: bool = False) -> int:
    job.progress(0.5, worker=os.getpid(), left_behind=left_behind() if forks else 0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)
    return job.attempt


def left_behind() -> int:
    """A forked child that outlives its worker."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    for stream in (0, 1, 2):
        os.close(stream)
    time.sleep(60)
    os._exit(0)
