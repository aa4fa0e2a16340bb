"""Calls from one service to another: how fast, and what they cost."""

from __future__ import annotations

import json

from harness import (
    LOAD_CORE,
    SERVER_CORE,
    Load,
    Options,
    Peer,
    bar,
    installed,
    median,
    rate_table,
    rates_to,
    ratios,
    request,
    rounds,
    say,
    spread,
    started,
    table,
    tinysvc,
    uvicorn,
    where,
    with_environment,
)

from .calls_disconnects import disconnects
from .calls_replicas import overload, rolling_restart, stopped_replica

TITLE = "calls: one service calls another"
IN_FLIGHT = 32


def measure(options: Options) -> str:
    parts = (clients, local_calls, gateways, disconnects, rolling_restart, stopped_replica, overload)
    return "\n".join(part(options) for part in parts)


def callee() -> Peer:
    return Peer(name="the callee", command=tinysvc("tinysvc_callee.py", "--cpu-workers", "1"), pin=LOAD_CORE)


def clients(options: Options) -> str:
    """Calls a second of three clients to the same callee."""
    kinds = ["tinysvc", *(["aiohttp"] if installed("aiohttp") else []), "httpx"]
    seconds = options.choose(4, 1)
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    loads: dict[str, list[float]] = {kind: [] for kind in kinds}
    called = callee()
    with started([called]):
        called.thaw()
        services = f"tinysvc_callee=http://127.0.0.1:{called.port}"
        command = tinysvc("tinysvc_callers.py", "--services", services, "--cpu-workers", "1")
        callers = Peer(name="the callers", command=command, pin=SERVER_CORE)
        with started([callers]):
            callers.thaw()
            for _ in range(options.choose(7, 3)):
                for kind in kinds:
                    before = called.cpu()
                    found = called_by(kind, callers, called, seconds)
                    rates[kind].append(found["count"] / found["seconds"])
                    costs[kind].append(found["cpu"] / found["count"] * 1e6)
                    loads[kind].append((called.cpu() - before) / (1.1 * found["seconds"]) * 100)
                say("  " + ", ".join(f"{kind} {rates[kind][-1]:,.0f}/s" for kind in kinds))
    bars = [
        bar(f"calls a second of one core, tinysvc to {kind}", ratios(costs[kind], costs["tinysvc"]), least=least)
        for kind, least in (("aiohttp", 2.5), ("httpx", 8.0))
        if kind in kinds
    ]
    rows = [[kind, *cells(rates, kind), *cost_cells(costs, kind), median(loads[kind])] for kind in kinds]
    columns = ["", "calls/s", "spread", "tinysvc to it", "spread", "caller CPU µs/call", "spread", "it to tinysvc"]
    columns.append("callee, % of a core")
    intro = (
        f"A `POST` of a small typed order in JSON, {IN_FLIGHT} in flight; the price in the response is decoded into "
        "its type, and checked. All clients run in the same kind of process, on uvloop, with the same encoder and "
        f"decoder. Caller and callee {'each have a core' if SERVER_CORE else 'share all cores'}. The bars look at "
        "the calls that one core of the caller could make, which is its CPU time for each: near 100 % of a core, the "
        "callee limits the calls a second."
    )
    return "\n".join([f"{intro}\n", table(columns, rows), "", *bars, ""])


def called_by(kind: str, callers: Peer, called: Peer, seconds: int) -> dict[str, float]:
    path = f"/rate/{kind}?port={called.port}&seconds={seconds}&flight={IN_FLIGHT}"
    status, body = request(callers.port, "GET", path, timeout=seconds + 60)
    if status != 200:
        raise SystemExit(f"{kind}: {status} {body!r}")
    found: dict[str, float] = json.loads(body)
    return found


def cells(rates: dict[str, list[float]], kind: str) -> list[str]:
    of_it = ratios(rates["tinysvc"], rates[kind])
    return [median(rates[kind]), spread(rates[kind]), median(of_it, "{:.2f}"), spread(of_it, "{:.2f}")]


def cost_cells(costs: dict[str, list[float]], kind: str) -> list[str]:
    return [*microseconds(costs[kind]), median(ratios(costs[kind], costs["tinysvc"]), "{:.2f}")]


def local_calls(options: Options) -> str:
    """The cost of `call` if the handler runs in the same process."""
    peer = Peer(name="tinysvc", command=tinysvc("tinysvc_local_calls.py", "--cpu-workers", "1"), pin=SERVER_CORE)
    with started([peer]):
        peer.thaw()
        found = [
            json.loads(request(peer.port, "GET", "/cost?count=20000", timeout=60)[1])
            for _ in range(options.choose(9, 3))
        ]
    costs = [each["call"] - each["await"] for each in found]
    rows = [[name, *microseconds([each[key] for each in found])] for name, key in ROWS.items()]
    shown = table(["An io handler of the same process", "CPU µs", "spread"], rows)
    return f"{shown}\n\n{bar('CPU µs that `call` adds in the same process', costs, most=5)}\n"


ROWS = {"`await call(price, order)`": "call", "`await price(order)`": "await"}


def microseconds(values: list[float]) -> list[str]:
    return [median(values, "{:.1f}"), spread(values, "{:.1f}")]


def gateways(options: Options) -> str:
    """A route that makes one call, under load."""
    called = callee()
    with started([called]):
        called.thaw()
        url = f"http://127.0.0.1:{called.port}"
        mine = tinysvc("tinysvc_gateway.py", "--services", f"tinysvc_callee={url}", "--cpu-workers", "1")
        theirs = with_environment("CALLEE", url, uvicorn("fastapi_gateway:app"))
        peers = [
            Peer(name="tinysvc, call", command=mine, pin=SERVER_CORE),
            Peer(name="FastAPI + httpx", command=theirs, pin=SERVER_CORE),
        ]
        load = Load(
            script="price.lua",
            path="/price",
            connections=IN_FLIGHT,
            seconds=options.choose(4, 2),
            pin=LOAD_CORE,
        )
        with started(peers):
            results = rounds(peers, load, options.choose(7, 3))
    shown = rate_table(results, {"FastAPI + httpx": "of FastAPI + httpx"})
    reached = bar("a route with one call, tinysvc to FastAPI + httpx", rates_to(results, *GATEWAYS), least=3)
    return f"A route that makes one call to the same callee, `{load}`. {where()}\n\n{shown}\n\n{reached}\n"


GATEWAYS = ("tinysvc, call", "FastAPI + httpx")
