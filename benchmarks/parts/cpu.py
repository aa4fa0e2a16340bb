"""CPU routes: the cost of the way to a worker and back, the use of two cores, and the delay of io routes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence

from harness import (
    ANSWER,
    ENVIRON,
    HERE,
    PYTHON,
    CannotMeasureError,
    Load,
    Measured,
    Options,
    Peer,
    bar,
    bentoml,
    children_cpu,
    found_by,
    installed,
    median,
    mosec,
    put_under_load,
    rate_table,
    rates_to,
    ratios,
    rounds_of,
    say,
    spread,
    started,
    table,
    tinysvc,
    uvicorn,
)

TITLE = "cpu: work in processes"
TINYSVC, POOL, THREADS = "tinysvc, 2 workers", "Starlette + ProcessPoolExecutor(2)", "FastAPI, `def` in threads"
MOSEC, LITSERVE, BENTOML = "mosec, 2 workers", "LitServe, 2 workers", "BentoML, 2 workers"
BARE = "two processes, no server"

QUICK = (TINYSVC, POOL, MOSEC)

IO_PATH = {MOSEC: "/", LITSERVE: "/health", BENTOML: "/livez"}
"""The health page, in place of an io route for peers without one: it calls no model."""

ASKED_PER_SECOND = 500

BARE_LOOP = """
import sys, time, work
count, begin = 0, time.perf_counter()
while time.perf_counter() < begin + float(sys.argv[1]):
    work.burn({})
    count += 1
print(count / (time.perf_counter() - begin))
"""


def peers() -> list[Peer]:
    found = [
        Peer(name=TINYSVC, command=tinysvc("tinysvc_cpu.py", "--cpu-workers", "2")),
        Peer(name=POOL, command=uvicorn("starlette_app:app")),
        Peer(name=THREADS, command=uvicorn("fastapi_app:app")),
    ]
    probe = ("POST", "/noop", json.dumps(ANSWER).encode())
    return found + [Peer(name=name, command=command, probe=probe) for name, command in model_servers().items()]


def model_servers() -> dict[str, list[str]]:
    """The commands of the installed peers."""
    commands = {
        MOSEC: mosec("mosec_app.py", "--timeout", "60000"),  # ms; its default of 3 s is short for the k-th user
        LITSERVE: [PYTHON, "litserve_app.py", "{port}"],
        BENTOML: bentoml("bentoml_app:App"),
    }
    return {name: command for name, command in commands.items() if is_installed(name)}


def is_installed(name: str) -> bool:
    return installed(name.partition(",")[0])


def measure(options: Options) -> str:
    servers = [peer for peer in peers() if not options.quick or peer.name in QUICK]
    text = ["Nothing is pinned: server, workers and load share all cores.\n"]
    with started(servers):
        text += [part(servers, options) for part in (no_op, twenty_milliseconds, neighbours)]
    missing = [name.partition(",")[0] for name in (MOSEC, LITSERVE, BENTOML) if not is_installed(name)]
    if missing:
        text.append(f"Not installed here and left out: {', '.join(missing)}.\n")
    return "\n".join(text)


LOOP = "FastAPI, `async def`"
"""The same server as THREADS; it computes on its event loop."""

RUST = (
    "Its server is written in Rust and has several threads; tinysvc's is one event loop in Python, which is busy "
    "nearly all the time here. The rest is the kernel's: for both, a request wakes two processes."
)


def no_op(servers: Sequence[Peer], options: Options) -> str:
    """POST a small JSON body to a route that does nothing."""
    text = []
    baselines = {POOL: "ratio to Starlette", **({MOSEC: "ratio to mosec"} if is_installed(MOSEC) else {})}
    for connections in (16,) if options.quick else (1, 16):
        load = Load(script="post.lua", path="/noop", connections=connections, seconds=options.choose(2, 1))
        results = rounds_of(on_the_loop_too(servers, load), options.choose(7, 3))
        many = f"{connections} connection{'s' * (connections > 1)}"
        text += [f"No-op POST with a small JSON body, {many}:\n", rate_table(results, baselines), f"\n`{load}`\n"]
        if connections > 1:
            text.append(bar(f"no-op, tinysvc to {POOL}", rates_to(results, TINYSVC, POOL), least=3.5))
            if MOSEC in results:
                text.append(bar("no-op, tinysvc to mosec", rates_to(results, TINYSVC, MOSEC), least=1.7, why=RUST))
    return "\n".join([*text, ""])


def on_the_loop_too(servers: Sequence[Peer], load: Load) -> dict[str, tuple[Peer, Load]]:
    """Put this load on all peers, and once more on FastAPI with a handler that blocks its event loop."""
    cases = {peer.name: (peer, load) for peer in servers}
    if THREADS not in cases:
        return cases
    return cases | {LOOP: (cases[THREADS][0], dataclasses.replace(load, path=f"{load.path}-here"))}


def twenty_milliseconds(servers: Sequence[Peer], options: Options) -> str:
    """20 ms of CPU time per request, against two processes that do the same without a server."""
    load = Load(script="post.lua", path="/burn", connections=16, seconds=options.choose(5, 2))
    cases = on_the_loop_too(servers, load)
    results: dict[str, list[Measured]] = {BARE: [], **{name: [] for name in cases}}
    count = options.choose(5, 2)
    for number in range(count):
        results[BARE].append(two_bare_processes(load.seconds))
        for name, (peer, own_load) in cases.items():
            with awake(peer):
                results[name].append(put_under_load(peer, own_load))
        so_far = ", ".join(f"{name} {values[-1].rate:,.1f}/s" for name, values in results.items())
        say(f"  round {number + 1} of {count}: {so_far}")
    shown = rate_table(results, {BARE: "ratio"})
    reached = bar("20 ms, tinysvc to two processes without a server", rates_to(results, TINYSVC, BARE), least=0.95)
    return f"20 ms of CPU time per request, 16 connections:\n\n{shown}\n\n`{load}`\n\n{reached}\n"


def two_bare_processes(seconds: float) -> Measured:
    command = [PYTHON, "-c", BARE_LOOP, str(seconds)]
    before = children_cpu()
    running = [subprocess.Popen(command, cwd=HERE / "peers", env=ENVIRON, stdout=subprocess.PIPE) for _ in range(2)]
    rate = sum(float(process.communicate()[0]) for process in running)
    return Measured(rate, (children_cpu() - before) / (rate * seconds))


STEADY_COLUMNS = [
    *("", "cpu route", "p50 ms", "p99 ms", "spread"),
    *("p99 to idle p99", "spread", "p99 client late, ms", "failed"),
]

Steady = dict[str, float]
"""One round on an io route at a fixed rate: p50, p99 and p99 of the client's own delay in ms, the number of failures,
and whether the client had precedence."""


def neighbours(servers: Sequence[Peer], options: Options) -> str:
    """Requests to an io route at a fixed rate, while the workers are idle and while they are busy."""
    seconds, count = options.choose(3, 2), options.choose(7, 2)
    idle: dict[str, list[Steady]] = {peer.name: [] for peer in servers}
    busy: dict[str, list[Steady]] = {peer.name: [] for peer in servers}
    for number in range(count):
        for peer in servers:
            with awake(peer):
                idle[peer.name].append(ask_steadily(peer, seconds))
                with saturated(peer, seconds + 1):
                    busy[peer.name].append(ask_steadily(peer, seconds))
        last = ", ".join(f"{name} {idle[name][-1]['p99']:.1f} and {busy[name][-1]['p99']:.1f} ms" for name in idle)
        say(f"  p99 idle and saturated in round {number + 1} of {count}: {last}")
    shown = table(STEADY_COLUMNS, [row for name in idle for row in steady_rows(name, idle[name], busy[name])])
    others = ", ".join(f"`{IO_PATH[name]}` of {name.partition(',')[0]}" for name in idle if name in IO_PATH)
    urgent = all(one["urgent"] for each in (*idle.values(), *busy.values()) for one in each)
    compared = ratios([one["p99"] for one in busy[TINYSVC]], [one["p99"] for one in idle[TINYSVC]])
    return (
        f"An io route asked {ASKED_PER_SECOND} times a second (open loop, {seconds} s a round) while the cpu route is "
        f"idle, and while 16 connections keep it saturated with 20 ms jobs:\n\n{shown}\n\n"
        f"`python benchmarks/open_loop.py PORT {ASKED_PER_SECOND} {seconds} GET /json`"
        f"{others and f', in its place {others}'}; "
        f"{'the client went before all others (SCHED_FIFO)' if urgent else 'the client had no priority'}.\n\n"
        f"{bar('p99 of an io route, tinysvc saturated to idle', compared, most=5)}\n"
    )


def steady_rows(name: str, idle: list[Steady], busy: list[Steady]) -> Iterator[list[str]]:
    """A table for each state; a ratio compares the two p99 of one peer in one round."""
    base = [one["p99"] for one in idle]
    for when, each in (("idle", idle), ("saturated", busy)):
        p50, p99, late = ([one[key] for one in each] for key in ("p50", "p99", "late"))
        compared = ratios(p99, base)
        cells = [median(p50, "{:.2f}"), median(p99, "{:.2f}"), spread(p99, "{:.2f}")]
        cells += [median(compared, "{:.1f}"), spread(compared, "{:.1f}"), median(late, "{:.2f}")]
        yield [name, when, *cells, f"{sum(one['failed'] for one in each):.0f}"]


@contextlib.contextmanager
def awake(peer: Peer) -> Iterator[None]:
    peer.thaw()
    try:
        yield
    finally:
        peer.freeze()


@contextlib.contextmanager
def saturated(peer: Peer, seconds: int) -> Iterator[None]:
    load = Load(script="post.lua", path="/burn", connections=16, seconds=seconds)
    wrk = subprocess.Popen(load.command(peer.port), stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.4)
        yield
    finally:
        wrk.kill()
        wrk.wait()
        time.sleep(0.5)  # threads cannot drop the remaining jobs


def ask_steadily(peer: Peer, seconds: float) -> Steady:
    path = IO_PATH.get(peer.name, "/json")
    found = found_by("open_loop.py", peer, ASKED_PER_SECOND, seconds, "GET", path)
    if len(found["latencies"]) < 100:
        raise CannotMeasureError(f"{peer.name} answered {len(found['latencies'])} of {found['asked']} requests")
    return {
        "p50": percentile(found["latencies"], 50) * 1e3,
        "p99": percentile(found["latencies"], 99) * 1e3,
        "late": percentile(found["lateness"], 99) * 1e3,
        "failed": sum(found["failures"].values()),
        "urgent": found["urgent"],
    }


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
