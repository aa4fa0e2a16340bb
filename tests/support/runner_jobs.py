"""Job routes for the tests of the runner: jobs that end in many ways."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jobs
from tinysvc import Job, Request, Retry, Service, cpu_route, io_route, job_route

SOON = Retry(attempts=3, wait=0.01)


@job_route("/sums", retry=SOON)
def add(a: int, b: int) -> int:
    return a + b


@job_route("/crashes", retry=SOON)
def crash(until: int, job: Job) -> int:
    """Kill the worker in each attempt before the attempt `until`."""
    if job.attempt < until:
        os.kill(os.getpid(), signal.SIGKILL)
    return job.attempt


@job_route("/segfaults", retry=SOON)
def segfault(job: Job) -> int:
    """Crash in C code in the first attempt."""
    if job.attempt == 1:
        ctypes.string_at(0)
    return job.attempt


@job_route("/allocations", retry=SOON)
def allocate(job: Job) -> int:
    """Take more memory than the worker may have, in the first attempt."""
    return len(bytearray(1 << 40)) if job.attempt == 1 else job.attempt


@job_route("/errors", retry=SOON)
def fail() -> None:
    raise RuntimeError("no luck")


@job_route("/late", retry=Retry(attempts=1), timeout=0.1)
def be_late() -> None:
    jobs.spin()


@job_route("/waits", retry=SOON)
def wait(started: str, go: str) -> int:
    """Wait for the file `go`."""
    return jobs.touch_and_wait(started, go)


@job_route("/stuck", retry=SOON)
def block_in_c(started: str) -> None:
    """Block in C code, beside a child process; `started` gets both process ids."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(f"{started}.tmp").write_text(f"{os.getpid()} {child.pid}")
    os.rename(f"{started}.tmp", started)
    jobs.sleep_in_c()


@job_route("/epochs", retry=SOON)
def count_epochs(epochs: int, folder: str, job: Job) -> list[int]:
    """Save each epoch, and wait at the second one until the file `go` exists."""
    done: list[int] = job.saved or []
    for epoch in range(len(done), epochs):
        done.append(job.attempt)
        job.save(done)
        job.progress((epoch + 1) / epochs, epoch=epoch)
        if epoch == 1:
            jobs.touch_and_wait(f"{folder}/started", f"{folder}/go")
    return done


@cpu_route("/pid")
def pid() -> int:
    return os.getpid()


@cpu_route("/sleep")
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@io_route("/break", methods=["POST"])
async def break_store(request: Request) -> None:
    """Do what a store does that closes itself for good."""
    request.served_by._break()


@io_route("/hello")
async def hello() -> str:
    return "hello"


ONLY_JOBS = Service(
    add, crash, segfault, allocate, fail, be_late, wait, block_in_c, count_epochs, hello, break_store, name="runner"
)
"""The pool runs durable jobs only."""

SHARED = Service(wait, add, pid, sleep, name="shared")
"""The pool serves cpu routes, too."""


@job_route("/minutes", every="* * * * *")
def each_minute() -> None: ...


SCHEDULED = Service(each_minute)
