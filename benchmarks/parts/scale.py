"""The cost of more routes, connections, workers and queued jobs."""

from __future__ import annotations

import statistics

from harness import (
    LOAD_CORE,
    SERVER_CORE,
    Line,
    Load,
    Options,
    Panel,
    Peer,
    draw,
    found_by,
    median,
    ratios,
    rounds_of,
    say,
    started,
    table,
    tinysvc,
    uvicorn,
    with_environment,
)

from .cpu import awake
from .idle import many_descriptors, memory

TITLE = "scale: more routes, connections, workers, waiting jobs"

ROUTES = (10, 100, 1_000, 10_000)
CONNECTIONS = (1, 10, 100, 1_000, 10_000)
WORKERS = (1, 2, 4, 8, 16)
JOBS = (1, 10, 100, 1_000, 10_000)
ROOM = 12_000
"""The limits of connections and queued jobs that peers are started with."""

POOL = "Starlette + ProcessPoolExecutor"

Rates = dict[str, dict[int, list[float]]]
"""Peer -> count -> requests per second, round by round."""


def measure(options: Options) -> str:
    text, panels = [], []
    with many_descriptors(ROOM + 1_000):
        for title, subject in SUBJECTS.items():
            say(f"  {title}")
            introduction, rates = subject(options)
            text += [f"{introduction}\n", shown(title, rates) + "\n"]
            panels.append(Panel(title, [relative(name, each) for name, each in rates.items()]))
    x, y = "how many", "rate, 1 = with the fewest"
    return "\n".join([*text, draw("scale.svg", panels, x=x, y=y, options=options, log_x=True)])


def shown(title: str, rates: Rates) -> str:
    """Requests per second; in brackets the share of the rate at the smallest count."""
    counts = list(next(iter(rates.values())))
    rows = []
    for name, each in rates.items():
        left = {count: median(ratios(each[count], each[counts[0]]), "{:.2f}") for count in counts}
        rows.append([name, *(f"{median(each[count])} ({left[count]})" for count in counts)])
    return table([title, *(f"{count:,}" for count in counts)], rows)


def relative(name: str, each: dict[int, list[float]]) -> Line:
    fewest = next(iter(each.values()))
    return Line(name, list(each), [statistics.median(ratios(rates, fewest)) for rates in each.values()])


def closed_loops(cases: dict[tuple[str, int], tuple[Peer, Load]], options: Options) -> Rates:
    """Run rounds over all cases."""
    keys = {f"{name}, {count:,}": (name, count) for name, count in cases}
    measured = rounds_of({f"{name}, {count:,}": case for (name, count), case in cases.items()}, options.choose(5, 2))
    rates: Rates = {}
    for key, (name, count) in keys.items():
        rates.setdefault(name, {})[count] = [each.rate for each in measured[key]]
    return rates


def routes(options: Options) -> tuple[str, Rates]:
    cases, seconds = {}, options.choose(2, 1)
    for count in ROUTES:
        path = f"/part{count - 1}/items/7"
        load = Load(script="get.lua", path=path, connections=16, seconds=seconds, pin=LOAD_CORE)
        for name, command in (
            ("tinysvc", tinysvc("tinysvc_many.py")),
            ("Starlette on uvicorn", uvicorn("starlette_many:app")),
        ):
            peer = Peer(
                name=f"{name} with {count:,} routes",
                command=with_environment("ROUTES", count, command),
                pin=SERVER_CORE,
                probe=("GET", path, b""),
                answer={"item": 7},
            )
            cases[name, count] = (peer, load)
    with started([peer for peer, _ in cases.values()]):
        rates = closed_loops(cases, options)
    return "`GET` of the last of so many routes, each with a parameter in its path; 16 connections.", rates


def connections(options: Options) -> tuple[str, Rates]:
    ours = tinysvc("tinysvc_io.py", "--max-connections", str(ROOM), "--backlog", "16384")
    theirs = [*uvicorn("raw_asgi:app"), "--backlog", "16384"]
    servers = [
        Peer(name="tinysvc", command=ours, pin=SERVER_CORE),
        Peer(name="raw ASGI on uvicorn", command=theirs, pin=SERVER_CORE),
    ]
    cases = {}
    for count in CONNECTIONS:
        seconds = options.choose(3, 1) + (3 if count > 1_000 else 0)  # time to connect
        load = Load(script="get.lua", path="/json", connections=count, seconds=seconds, pin=LOAD_CORE)
        cases |= {(peer.name, count): (peer, load) for peer in servers}
    with started(servers):
        rates = closed_loops(cases, options)
    return "`GET` of small JSON over so many connections, all of them busy.", rates


def workers(options: Options) -> tuple[str, Rates]:
    cases, held = {}, []
    load = Load(script="post.lua", path="/noop", connections=16, seconds=options.choose(2, 1))
    for count in WORKERS:
        ours = tinysvc("tinysvc_cpu.py", "--cpu-workers", str(count))
        theirs = with_environment("WORKERS", count, uvicorn("starlette_app:app"))
        for name, command in (("tinysvc", ours), (POOL, theirs)):
            cases[name, count] = (Peer(name=f"{name}, {count} workers", command=command), load)
    with started([peer for peer, _ in cases.values()]):
        rates = closed_loops(cases, options)
        for (name, count), (peer, _) in cases.items():
            with awake(peer):
                held.append(f"{name} {count}: {memory(peer) / 2**20:,.0f}")
    return (
        "No-op `POST` to so many workers over 16 connections; more workers than cores can only cost. "
        f"MiB held by all processes then (RSS, shared pages counted in each): {'; '.join(held)}."
    ), rates


def jobs(options: Options) -> tuple[str, Rates]:
    """Without wrk, whose new requests would keep the queue at its length."""
    full = ["--cpu-workers", "2", "--queue-size", str(ROOM), "--max-connections", str(ROOM), "--backlog", "16384"]
    servers = [
        Peer(name="tinysvc", command=tinysvc("tinysvc_small.py", *full)),
        Peer(name=f"{POOL}(2)", command=[*uvicorn("starlette_app:app"), "--backlog", "16384"]),
    ]
    rates: Rates = {peer.name: {count: [] for count in JOBS} for peer in servers}
    with started(servers):
        for number in range(options.choose(5, 2) + 1):
            for peer in servers:
                for count in JOBS:
                    with awake(peer):
                        rate = count / burst(peer, count)
                    if number:
                        rates[peer.name][count].append(rate)
    return (
        "So many ask for a no-op job of 2 workers at the same instant, each on a connection of its own, and all are "
        "answered: jobs per second until the last answer."
    ), rates


def burst(peer: Peer, users: int) -> float:
    """Seconds until the last response."""
    return float(found_by("burst.py", peer, users, "GET", "/square/7")["latencies"][-1])


SUBJECTS = {
    "routes": routes,
    "connections": connections,
    "workers": workers,
    "jobs in the queue": jobs,
}
