"""A client disconnects from a chain of three services: when does the job at its end stop?"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import (
    CannotMeasureError,
    Options,
    Peer,
    bar,
    bentoml,
    installed,
    say,
    started,
    table,
    tinysvc,
    uvicorn,
    wait_until,
    with_environment,
)

WATCHED = 2.0
"""Seconds after which a job counts as still running."""

MINE = "tinysvc, three services"


def disconnects(options: Options) -> str:
    chains = {MINE: (tinysvc_chain, options.choose(1000, 100)), "FastAPI + httpx, three services": (fastapi_chain, 0)}
    if installed("bentoml"):
        chains["FastAPI + httpx twice, then BentoML"] = (bentoml_chain, 0)
    rows, found = [], {}
    for name, (chain, rounds) in chains.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, chain(folder) as port:
            times = found[name] = [
                stopped_after(port, Path(folder), f"job{number}") for number in range(rounds or options.choose(5, 2))
            ]
        rows.append([name, str(len(times)), *times_shown([each for each in times if each is not None])])
        rows[-1].append(str(sum(each is None for each in times)))
        say(f"  {', '.join(rows[-1])}")
    ended = [each * 1e3 for each in found[MINE] if each is not None] or [WATCHED * 1e3]
    columns = ["Disconnect to the end of the job", "rounds", "median, ms", "p99, ms", "longest, ms", "still running"]
    return (
        "A client disconnects from the first of three services, each of which is a process; the job of the last one is "
        "in C code that ignores signals and cancellation (PBKDF2, at least four seconds). The time from the disconnect "
        f"to the end of the job's process, or of the job; after {WATCHED:g} s it counts as still running.\n\n"
        f"{table(columns, rows)}\n\n"
        f"{bar('disconnect to the end of the job, ms, p99', [percentile(ended, 0.99)], most=100)}\n"
        f"{bar('jobs that still run after a disconnect', [sum(each is None for each in found[MINE])], most=0.5)}\n"
    )


def times_shown(seconds: list[float]) -> list[str]:
    if not seconds:
        return ["-", "-", "-"]
    numbers = (statistics.median(seconds), percentile(seconds, 0.99), max(seconds))
    return [f"{number * 1e3:.1f}" for number in numbers]


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def stopped_after(port: int, folder: Path, key: str) -> float | None:
    """Seconds from the disconnect to the end of the job; None if it still runs after WATCHED seconds."""
    mark = folder / key
    with socket.create_connection(("127.0.0.1", port)) as client:
        fields = "host: a\r\ncontent-length: 0\r\nrequest-timeout: 60s"
        client.sendall(f"POST /compute?key={key} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
        if not wait_until(mark.exists, 10):
            raise CannotMeasureError(f"the job at the end of the chain did not start: {client.recv(1000)!r}")
        process = os.pidfd_open(int(mark.read_text()))
        time.sleep(random.uniform(0.05, 0.15))
        begin = time.perf_counter()
    try:
        while time.perf_counter() - begin < WATCHED:
            if select.select([process], [], [], 0.001)[0]:
                return time.perf_counter() - begin
            if not mark.exists():
                raise CannotMeasureError("the job has ended by itself: it is too short for this machine")
        wait_until(lambda: not mark.exists(), 20)  # the next round needs the cores
        return None
    finally:
        os.close(process)


@contextlib.contextmanager
def tinysvc_chain(folder: str) -> Iterator[int]:
    third = tinysvc("tinysvc_chain_third.py", "--cpu-workers", "2")
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(running("third", with_environment("CHAIN_FOLDER", folder, third)))
        for name, callee in (("second", "third"), ("first", "second")):
            services = f"tinysvc_chain_{callee}=http://127.0.0.1:{port}"
            command = tinysvc(f"tinysvc_chain_{name}.py", "--services", services, "--cpu-workers", "1")
            port = stack.enter_context(running(name, command))
        yield port


@contextlib.contextmanager
def fastapi_chain(folder: str) -> Iterator[int]:
    app = uvicorn("fastapi_chain:app")
    with running("third", with_environment("CHAIN_FOLDER", folder, app)) as port, two_before(port) as first:
        yield first


@contextlib.contextmanager
def bentoml_chain(folder: str) -> Iterator[int]:
    command = with_environment("CHAIN_FOLDER", folder, bentoml("bentoml_chain:Last"))
    probe = ("POST", "/json", b"{}")
    with running("third", command, probe) as port, two_before(port, reads="body") as first:
        yield first


@contextlib.contextmanager
def two_before(port: int, *, reads: str = "query") -> Iterator[int]:
    """FastAPI and httpx, twice, before the service with this port."""
    app = with_environment("CALLEE_READS", reads, uvicorn("fastapi_chain:app"))
    with running("second", with_environment("CALLEE", f"http://127.0.0.1:{port}", app)) as second:
        first = with_environment("CALLEE", f"http://127.0.0.1:{second}", uvicorn("fastapi_chain:app"))
        with running("first", first) as port:
            yield port


@contextlib.contextmanager
def running(name: str, command: list[str], probe: tuple[str, str, bytes] = ("GET", "/json", b"")) -> Iterator[int]:
    peer = Peer(name=name, command=command, probe=probe)
    with started([peer]):
        peer.thaw()
        yield peer.port
