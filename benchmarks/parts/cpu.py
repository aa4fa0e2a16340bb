"""CPU routes: what the way to a worker and back costs, what is left of two cores, and what others feel of it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence

from harness import (
    ENVIRON,
    HERE,
    PYTHON,
    RATE_COLUMNS,
    CannotMeasureError,
    Load,
    Measured,
    Options,
    Peer,
    own_python,
    put_under_load,
    rate_rows,
    rounds,
    say,
    started,
    table,
    tinysvc,
    uvicorn,
)

TITLE = "cpu: work in processes"
TINYSVC, POOL, THREADS = "tinysvc, 2 workers", "Starlette + ProcessPoolExecutor(2)", "FastAPI, `def` in threads"
BARE = "two processes, no server"

ASKED_PER_SECOND = 500

BARE_LOOP = """
import sys, time, work
count, end = 0, time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    work.burn({})
    count += 1
print(count)
"""


def peers() -> list[Peer]:
    return [
        Peer(name=TINYSVC, command=tinysvc("tinysvc_cpu.py", "--cpu-workers", "2")),
        Peer(name=POOL, command=uvicorn("starlette_app:app")),
        Peer(name=THREADS, command=uvicorn("fastapi_app:app")),
    ]


def measure(options: Options) -> str:
    servers = peers()
    with started(servers):
        return "\n".join(
            [
                "Nothing is pinned: server, workers and load share all cores.\n",
                no_op(servers, options),
                twenty_milliseconds(servers, options),
                neighbours(servers, options),
            ]
        )


def no_op(servers: Sequence[Peer], options: Options) -> str:
    """POST a small JSON body to a route that does nothing."""
    load = Load(script="post.lua", path="/noop", connections=16, seconds=options.choose(2, 1))
    results = rounds(servers, load, options.choose(7, 3))
    shown = table(RATE_COLUMNS, rate_rows(results, POOL))
    return f"No-op POST with a small JSON body, 16 connections:\n\n{shown}\n\n`{load}`\n"


def twenty_milliseconds(servers: Sequence[Peer], options: Options) -> str:
    """20 ms of CPU time a request, against two processes that do the same and serve nobody."""
    load = Load(script="post.lua", path="/burn", connections=16, seconds=options.choose(3, 2))
    results: dict[str, list[Measured]] = {BARE: [], **{peer.name: [] for peer in servers}}
    count = options.choose(5, 2)
    for number in range(count):
        results[BARE].append(two_bare_processes(load.seconds))
        for peer in servers:
            peer.thaw()
            results[peer.name].append(put_under_load(peer, load))
            peer.freeze()
        so_far = ", ".join(f"{name} {values[-1].rate:,.1f}/s" for name, values in results.items())
        say(f"  round {number + 1} of {count}: {so_far}")
    shown = table(RATE_COLUMNS, rate_rows(results, BARE))
    return f"20 ms of CPU time per request, 16 connections:\n\n{shown}\n\n`{load}`\n"


def two_bare_processes(seconds: float) -> Measured:
    command = [PYTHON, "-c", BARE_LOOP, str(seconds)]
    before = os.times()
    running = [subprocess.Popen(command, cwd=HERE / "peers", env=ENVIRON, stdout=subprocess.PIPE) for _ in range(2)]
    count = sum(int(process.communicate()[0]) for process in running)
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return Measured(count / seconds, used / count)


def neighbours(servers: Sequence[Peer], options: Options) -> str:
    """An io route of the same server, asked at a fixed rate, while nothing happens and while all workers are busy."""
    seconds, count = options.choose(3, 2), options.choose(5, 1)
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(count):
        for peer in servers:
            peer.thaw()
            found.setdefault((peer.name, "idle"), []).append(ask_steadily(peer, seconds))
            load = Load(script="post.lua", path="/burn", connections=16, seconds=seconds + 1)
            wrk = subprocess.Popen(load.command(peer.port), stdout=subprocess.DEVNULL)
            try:
                time.sleep(0.4)
                found.setdefault((peer.name, "saturated"), []).append(ask_steadily(peer, seconds))
            finally:
                wrk.kill()
                wrk.wait()
            time.sleep(0.5)
            peer.freeze()
        worst = ", ".join(f"{name} {when} {each[-1]['p99']:.1f} ms" for (name, when), each in found.items())
        say(f"  p99 in round {number + 1} of {count}: {worst}")
    rows = []
    for (name, when), each in found.items():
        cells = [f"{statistics.median(one[key] for one in each):.1f}" for key in ("p50", "p99")]
        p99 = [one["p99"] for one in each]
        late = statistics.median(one["late"] for one in each)
        failed = sum(one["failed"] for one in each)
        rows.append([name, when, *cells, f"{min(p99):.1f}-{max(p99):.1f}", f"{late:.1f}", f"{failed:.0f}"])
    columns = ["", "cpu route", "p50 ms", "p99 ms", "spread of p99", "p99 client late, ms", "failed"]
    return (
        f"An io route asked {ASKED_PER_SECOND} times a second (open loop, {seconds} s a round) while the cpu route is "
        f"idle, and while 16 connections keep it saturated with 20 ms jobs:\n\n{table(columns, rows)}\n\n"
        f"`python benchmarks/open_loop.py PORT {ASKED_PER_SECOND} {seconds} GET /json`\n"
    )


def ask_steadily(peer: Peer, seconds: float) -> dict[str, float]:
    command = [own_python(), str(HERE / "open_loop.py"), str(peer.port), str(ASKED_PER_SECOND), str(seconds)]
    output = subprocess.run([*command, "GET", "/json"], capture_output=True, text=True, check=True).stdout
    found = json.loads(output)
    if len(found["latencies"]) < 100:
        raise CannotMeasureError(f"{peer.name} answered {len(found['latencies'])} of {found['asked']} requests")
    return {
        "p50": percentile(found["latencies"], 50) * 1e3,
        "p99": percentile(found["latencies"], 99) * 1e3,
        "late": percentile(found["lateness"], 99) * 1e3,
        "failed": sum(found["failures"].values()),
    }


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
