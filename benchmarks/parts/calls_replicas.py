"""Two replicas of a called service: a rolling restart, a replica that hangs, an overload."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from harness import (
    HERE,
    CannotMeasureError,
    Load,
    Options,
    Peer,
    bar,
    own_python,
    put_under_load,
    request,
    say,
    started,
    table,
    tinysvc,
)

from .calls_disconnects import percentile

ORDER = '{"number":1,"lines":[1.5,2.25,1.0]}'

RATE = 200
"""Requests a second to the gateway, beside a restart or a replica that hangs."""

UNTIL_STOPPED = 4.0
"""Seconds before a replica is stopped; their p99 is the normal one."""

WINDOW, STEP = 1.0, 0.1
"""Seconds whose p99 is compared with the normal one, and seconds between the beginnings of two windows."""

NORMAL = 3.0
"""The p99 is back to normal at this multiple of the one before, or below LEAST."""

LEAST = 0.010

BUDGET_WINDOW = 10
"""Seconds over which a caller counts its retries: a tenth of its calls, and one a second."""

OVERLOAD = 5
"""The offered load, as a multiple of the capacity."""

JOB_SECONDS = 0.02
"""Of /busy in peers/tinysvc_callee.py; each replica has two workers for it."""


def rolling_restart(options: Options) -> str:
    """Restart both replicas, one after the other, again and again."""
    seconds = options.choose(60, 8)
    with gateway_of(2) as (gateway, replicas):
        restarts = 0
        with asking(gateway, RATE, seconds, "/price") as (found, is_over):
            time.sleep(1)
            while not is_over():
                restart(replicas[restarts % 2])
                restarts += 1
                time.sleep(1)
    failures = found["failures"]
    rows = [
        [f"{seconds} s", f"{found['asked']:,}", str(restarts), f"{sum(failures.values())} {failures or ''}".strip()]
    ]
    rows[0] += [f"{percentile(found['latencies'], part) * 1e3:.1f}" for part in (0.5, 0.99, 1.0)]
    say(f"  {', '.join(rows[0])}")
    columns = ["Rolling restart", "requests", "restarts", "failed", "median, ms", "p99, ms", "longest, ms"]
    return (
        f"A route makes one call to two replicas, {RATE} requests a second. One replica after the other gets SIGTERM, "
        "drains, ends, and is started again, all the time.\n\n"
        f"{table(columns, rows)}\n\n"
        f"{bar('failed requests in a rolling restart', [sum(failures.values())], most=0.5)}\n"
    )


def stopped_replica(options: Options) -> str:
    """Stop one of two replicas by SIGSTOP: its connections stay open and it does not respond."""
    seconds = UNTIL_STOPPED + options.choose(16, 6)
    backs, rows = [], []
    for number in range(options.choose(5, 1)):
        with gateway_of(2) as (gateway, replicas):
            with asking(gateway, RATE, seconds, "/patient") as (found, is_over):
                time.sleep(UNTIL_STOPPED)
                replicas[0].freeze()
                while not is_over():
                    time.sleep(0.1)
            replicas[0].thaw()
        usual, back, worst = recovery(found)
        backs.append(back)
        cells = [f"{value:.1f}" for value in (usual * 1e3, worst * 1e3, back)]
        rows.append([f"round {number + 1}", *cells, f"{sum(found['failures'].values())} of {found['asked']:,}"])
        say(f"  {', '.join(rows[-1])}")
    columns = ["One of two replicas gets SIGSTOP", "p99 before, ms", "longest after, ms", "back to normal, s", "failed"]
    return (
        f"A route with a `timeout` of 0.5 s makes one call, {RATE} requests a second. Back to normal: the first "
        f"moment from which on the p99 of each second is at most {NORMAL:g} times the one before, or {LEAST * 1e3:g} "
        "ms. A request fails if its call was sent to the stopped replica and its time is over.\n\n"
        f"{table(columns, rows)}\n\n"
        f"{bar('seconds until the p99 is back to normal', backs, most=2)}\n"
    )


def recovery(found: dict[str, Any]) -> tuple[float, float, float]:
    """The normal p99, the seconds from the stop until it is back, and the longest time after the stop.

    A request that failed counts with a second.
    """
    times = list(zip(found["due"], found["latencies"], strict=True))
    usual = percentile([latency for due, latency in times if due < UNTIL_STOPPED], 0.99)
    limit = max(NORMAL * usual, LEAST)
    after = [(due - UNTIL_STOPPED, latency) for due, latency in times if due >= UNTIL_STOPPED]
    back, begin, end = 0.0, 0.0, max(due for due, _ in after) - WINDOW
    while begin <= end:
        inside = [latency for due, latency in after if begin <= due < begin + WINDOW]
        inside += [WINDOW] * (round(RATE * WINDOW) - len(inside))
        begin += STEP
        if percentile(inside, 0.99) > limit:
            back = begin
    return usual, back, max(latency for _, latency in after)


def overload(options: Options) -> str:
    """Send a multiple of what two replicas can do."""
    seconds = options.choose(15, 4)
    with gateway_of(2) as (gateway, replicas):
        load = Load(script="price.lua", path="/busy", connections=4, seconds=options.choose(5, 2))
        capacity = 2 * put_under_load(replicas[0], load).rate
        before = [calls_of(replica) for replica in replicas]
        with asking(gateway, OVERLOAD * capacity, seconds, "/busy") as (found, is_over):
            while not is_over():
                time.sleep(0.1)
        sent = sum(map(calls_of, replicas)) - sum(before)
    goodput = len(found["latencies"]) / seconds / capacity
    retries = sent / found["asked"] - 1
    counted = max(0.0, retries - (seconds + BUDGET_WINDOW) / found["asked"])
    rows = [[f"{OVERLOAD} x {capacity:.0f}/s", f"{found['asked']:,}", f"{len(found['latencies']):,}"]]
    rows[0] += [f"{goodput * 100:.1f}", f"{retries * 100:.1f}", f"{percentile(found['latencies'], 0.99) * 1e3:.0f}"]
    rows[0].append(", ".join(f"{count:,} x {kind}" for kind, count in found["failures"].items()))
    say(f"  {', '.join(rows[0])}")
    columns = [
        "Overload",
        "requests",
        "served",
        "goodput, % of capacity",
        "retries, %",
        "p99 of the served, ms",
        "failed",
    ]
    return (
        f"Two replicas with two workers each and jobs of {JOB_SECONDS * 1e3:g} ms, behind a route that makes one "
        "idempotent call. Capacity is what wrk reaches with as many connections as fit into workers and queue. The bar "
        "of the retries leaves out the one a second that is always allowed.\n\n"
        f"{table(columns, rows)}\n\n"
        f"{bar('goodput at 5 times the capacity', [goodput], least=0.9)}\n"
        f"{bar('calls that are retries at 5 times the capacity', [counted], most=0.1)}\n"
    )


def calls_of(replica: Peer) -> int:
    """Requests for /busy that this replica has got."""
    return int(json.loads(request(replica.port, "GET", "/counts")[1]).get("/busy", 0))


@contextlib.contextmanager
def gateway_of(count: int) -> Iterator[tuple[Peer, list[Peer]]]:
    """A gateway with replicas of its callee."""
    command = tinysvc("tinysvc_callee.py", "--cpu-workers", "1")
    replicas = [Peer(name=f"replica {number}", command=command) for number in range(count)]
    with started(replicas):
        for replica in replicas:
            replica.thaw()
        services = "tinysvc_callee=" + ",".join(f"http://127.0.0.1:{replica.port}" for replica in replicas)
        options = ["--services", services, "--cpu-workers", "1"]
        gateway = Peer(name="gateway", command=tinysvc("tinysvc_gateway.py", *options))
        with started([gateway]):
            gateway.thaw()
            yield gateway, replicas


@contextlib.contextmanager
def asking(peer: Peer, rate: float, seconds: float, path: str) -> Iterator[tuple[dict[str, Any], Callable[[], bool]]]:
    """Ask at a fixed rate while the block runs; the findings are in the dictionary after it."""
    arguments = [str(peer.port), f"{rate:.0f}", str(seconds), "POST", path, ORDER]
    command = [own_python(), str(HERE / "open_loop.py"), *arguments]
    found: dict[str, Any] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        output: list[bytes] = []
        assert client.stdout is not None
        end = time.monotonic() + seconds
        yield found, lambda: time.monotonic() >= end
        output.append(client.communicate(timeout=60)[0])
        if client.returncode:
            raise CannotMeasureError(f"open_loop.py ended with status {client.returncode}")
        found.update(json.loads(output[0]))


def restart(replica: Peer) -> None:
    """End the replica as a deployment does, and start it again on the same port."""
    port = replica.port
    replica.stop()
    replica.start(port)
