"""Durable jobs: how many are accepted, how soon they start, and how soon a cancelled one is dead."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness import (
    ENVIRON,
    HERE,
    LOAD_CORE,
    PYTHON,
    SERVER_CORE,
    CannotMeasureError,
    Load,
    Measured,
    Options,
    Peer,
    bar,
    found_by,
    installed,
    median,
    own_python,
    put_under_load,
    rate_table,
    ratios,
    read_process,
    request,
    say,
    spread,
    started,
    table,
    tinysvc,
    uvicorn,
    wait_until,
    warm_up,
    where,
)

from .jobs_postgres import postgres

TITLE = "jobs: durable jobs"
SQLITE, POSTGRES = "tinysvc, SQLite", "tinysvc, PostgreSQL"
QUEUES = {
    "celery": ("Celery, Redis (fsync always)", "queue_celery"),
    "rq": ("RQ, Redis (fsync always)", "queue_rq"),
    "huey": ("Huey, SQLite (fsync)", "queue_huey"),
    "procrastinate": ("Procrastinate, PostgreSQL", "queue_procrastinate"),
}
"""Peers: package -> name, module."""

STORES = {"SQLite": "sqlite"}
"""Stores for jobs_backlog.py."""

CLIENTS = 32
JOB = {"sent": 0.0, "path": ""}


def measure(options: Options) -> str:
    with postgres() as url:
        if url:
            ENVIRON["BENCH_POSTGRES"] = url.replace("{name}", "bench")
            STORES["PostgreSQL"] = url
        parts = (accepted, starts, cancels, waiting, io_beside_jobs)
        return "\n".join(part(options) for part in parts)


def servers() -> list[Peer]:
    """The stores of tinysvc; that on PostgreSQL where there is one."""
    command = tinysvc("tinysvc_jobs.py", "--cpu-workers", "1", "--jobs")
    found = [Peer(name=SQLITE, command=[*command, "{folder}/jobs.db"], pin=SERVER_CORE)]
    if "BENCH_POSTGRES" in ENVIRON:
        found.append(Peer(name=POSTGRES, command=[*command, ENVIRON["BENCH_POSTGRES"]], pin=SERVER_CORE))
    return found


def queues() -> list[Peer]:
    """The other queues that are installed, each behind the same small HTTP server, with one worker."""
    peers = []
    for package, (name, module) in QUEUES.items():
        if installed(package) and (package != "procrastinate" or "BENCH_POSTGRES" in ENVIRON):
            peers.append(Peer(name=name, command=uvicorn(f"{module}:app"), pin=SERVER_CORE))
    return peers


# Accepted jobs a second


def accepted(options: Options) -> str:
    """POST by 32 clients, while the worker runs the jobs."""
    peers = [*servers(), *queues()]
    seconds = options.choose(5, 2)
    load = Load(script="job.lua", path="/jobs", connections=CLIENTS, seconds=seconds, pin=LOAD_CORE)
    bare: list[float] = []
    found: dict[str, list[Measured]] = {peer.name: [] for peer in peers}
    with started(peers):
        for number in range(options.choose(7, 3)):
            bare.append(bare_commits(seconds))
            for peer in peers:
                peer.thaw()
                if not number:
                    warm_up(peer, dataclasses.replace(load, seconds=1))
                found[peer.name].append(put_under_load(peer, load))
                peer.freeze()
            so_far = ", ".join(f"{name} {values[-1].rate:,.0f}/s" for name, values in found.items())
            say(f"  round {number + 1}: bare commits {bare[-1]:,.0f}/s, {so_far}")
    rates = {name: [each.rate for each in values] for name, values in found.items()}
    of_bare = ratios(rates[SQLITE], bare)
    if statistics.median(rates[SQLITE]) >= 1000:
        bars = [bar("accepted jobs/s on SQLite", rates[SQLITE], least=1000)]
    else:
        bars = [bar("accepted jobs/s on SQLite, of bare group commits", of_bare, least=0.7)]
    if POSTGRES in rates:
        bars.append(bar("accepted jobs/s on PostgreSQL", rates[POSTGRES], least=1500))
    return (
        f"Accepted jobs, each on disk before its response: `{load}`. One worker runs the jobs meanwhile. {where()}\n\n"
        f"{rate_table(found, {SQLITE: 'of tinysvc, SQLite'})}\n\n"
        f"Bare loop on the same disk, 32 rows a commit, no HTTP and no worker: {median(bare)} rows/s ({spread(bare)}); "
        f"tinysvc on SQLite reaches {median(of_bare, '{:.2f}')} of it ({spread(of_bare, '{:.2f}')}).\n\n"
        + "\n".join(bars)
        + "\n"
    )


def bare_commits(seconds: int) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        command = [*SERVER_CORE, PYTHON, str(HERE / "peers" / "bare_commits.py"), folder, str(seconds)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# From the request to the start of the job


def starts(options: Options) -> str:
    """One job at a time for an idle worker."""
    rows, bars = [], []
    for peer in [*servers(), *queues()]:
        with started([peer]):
            peer.thaw()
            file = Path(peer.folder.name) / "starts"
            for number in range(options.choose(200, 30) + 3):  # the first three warm up
                body = json.dumps({"sent": time.time(), "path": str(file)}).encode()
                check(request(peer.port, "POST", "/jobs", body), 202)
                if not wait_until(lambda file=file, number=number: len(lines_of(file)) > number, 10):
                    raise CannotMeasureError(f"{peer.name}: a job did not start")
            waits = [float(line) * 1e3 for line in lines_of(file)[3:]]
        rows.append([peer.name, *percentiles(waits)])
        say(f"  {peer.name}: {rows[-1][1]} ms to the start")
        most = {SQLITE: 5.0, POSTGRES: 15.0}.get(peer.name)
        if most:
            bars.append(bar(f"request to start, ms, {peer.name}", waits, most=most))
    shown = table(["From sending the request to the start of the job, ms", "median", "p99"], rows)
    return (
        f"{shown}\n\nThe worker is idle, and the time contains the request and the commit.\n\n" + "\n".join(bars) + "\n"
    )


def section(shown: str, about: str, bars: Sequence[str]) -> str:
    lines = "\n".join(bars)
    return f"{shown}\n\n{about}\n\n{lines}\n"


def lines_of(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def percentiles(values: Sequence[float]) -> list[str]:
    ordered = sorted(values)
    return [median(values, "{:.1f}"), f"{ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]:.1f}"]


def check(response: tuple[int, bytes], expected: int) -> bytes:
    status, body = response
    if status != expected:
        raise CannotMeasureError(f"{status} instead of {expected}: {body[:300]!r}")
    return body


# Cancelling a job that runs in C code


def cancels(options: Options) -> str:
    rows, bars = [], []
    for peer in servers():
        with started([peer]):
            peer.thaw()
            times = [cancelled_after(peer, number) for number in range(options.choose(200, 30))]
        rows.append([peer.name, *percentiles(times)])
        say(f"  {peer.name}: {rows[-1][1]} ms to the death")
        bars.append(bar(f"DELETE to the death of the process, p99, ms, {peer.name}", [float(rows[-1][2])], most=100))
    shown = table(["DELETE of a job in C code, until the response, ms", "median", "p99"], rows)
    return (
        f"{shown}\n\nAt each response the process of the job was dead. The other queues do not wait for a death.\n\n"
        + ("\n".join(bars) + "\n")
    )


def cancelled_after(peer: Peer, number: int) -> float:
    """Milliseconds from DELETE to its response. CannotMeasureError if the process of the job still runs then."""
    file = Path(peer.folder.name) / f"pid-{number}"
    job = json.loads(check(request(peer.port, "POST", f"/endless?path={file}"), 202))
    if not wait_until(lambda: file.exists() and file.read_text().endswith("\n"), 10):
        raise CannotMeasureError(f"{peer.name}: the job did not start")
    pid = int(file.read_text())
    begin = time.perf_counter()
    check(request(peer.port, "DELETE", f"/endless/{job['id']}"), 200)
    took = time.perf_counter() - begin
    if read_process(pid) is not None:
        raise CannotMeasureError(f"{peer.name}: the process of the cancelled job still runs")
    return took * 1e3


# Many waiting jobs


def waiting(options: Options) -> str:
    """The store itself with few and with many waiting jobs."""
    few, many = 100, options.choose(100_000, 20_000)
    rows, bars = [], []
    for name, store in STORES.items():
        command = [*SERVER_CORE, PYTHON, str(HERE / "jobs_backlog.py"), store, str(few), str(many)]
        ran = subprocess.run(
            [*command, str(options.choose(15, 5))], capture_output=True, text=True, check=False, env=ENVIRON
        )
        if ran.returncode:
            raise CannotMeasureError(f"{name}: {ran.stderr[-1000:]}")
        found = json.loads(ran.stdout)
        for step, times in found.items():
            slower = ratios(times["many"], times["few"])
            cells = [median([each * 1e3 for each in times[size]], "{:.2f}") for size in ("few", "many")]
            rows.append([f"{name}, {step}", *cells, median(slower, "{:.2f}"), spread(slower, "{:.2f}")])
            bars.append(bar(f"{name}, {step} with {many:,} waiting jobs, to {few}", slower, most=1.2))
            say(f"  {rows[-1][0]}: {rows[-1][3]}")
    columns = ["ms", f"{few} waiting", f"{many:,} waiting", "ratio", "spread"]
    return (
        f"{table(columns, rows)}\n\n32 submissions at a time; claims of one job; pages of 50.\n\n"
        + "\n".join(bars)
        + "\n"
    )


# An io route beside jobs

JOBS_RATE, IO_RATE = 500, 200


def io_beside_jobs(options: Options) -> str:
    """p99 of an io route, idle and with 500 jobs a second."""
    seconds = options.choose(10, 4)
    rows, bars = [], []
    for peer in servers():
        with started([peer]):
            peer.thaw()
            idle, busy = [], []
            for _ in range(options.choose(7, 3)):
                idle.append(io_p99(peer, seconds))
                command = [*LOAD_CORE, own_python(), str(HERE / "open_loop.py"), str(peer.port), str(JOBS_RATE)]
                jobs = subprocess.Popen(
                    [*command, str(seconds + 0.5), "POST", "/jobs", json.dumps(JOB)], stdout=subprocess.PIPE
                )
                busy.append(io_p99(peer, seconds))
                failures = json.loads(jobs.communicate(timeout=60)[0])["failures"]
                if failures:
                    raise CannotMeasureError(f"{peer.name}: {failures}")
                say(f"  {peer.name}: p99 {idle[-1]:.2f} ms idle, {busy[-1]:.2f} ms with jobs")
        slower = ratios(busy, idle)
        cells = [median(values, "{:.2f}") for values in (idle, busy, slower)]
        rows.append([peer.name, *cells, spread(slower, "{:.2f}")])
        bars.append(bar(f"io p99 with {JOBS_RATE} jobs/s, to idle, {peer.name}", slower, most=2))
    columns = [f"GET of an io route at {IO_RATE}/s, p99, ms", "idle", f"{JOBS_RATE} jobs/s", "ratio", "spread"]
    return section(table(columns, rows), where(), bars)


def io_p99(peer: Peer, seconds: float) -> float:
    """Milliseconds. The server and its one worker share a core, as on a machine with one."""
    found = found_by("open_loop.py", peer, IO_RATE, seconds, "GET", "/json", python=[*LOAD_CORE, own_python()])
    if found["failures"]:
        raise CannotMeasureError(f"{peer.name}: {found['failures']}")
    ordered = sorted(found["latencies"])
    return float(ordered[int(len(ordered) * 0.99)]) * 1e3
