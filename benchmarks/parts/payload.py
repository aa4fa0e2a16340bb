"""Big bodies: 16 MiB to a worker and back; bytes per second, and the time for which they block the event loop."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Sequence

from harness import (
    ANSWER,
    PYTHON,
    CannotMeasureError,
    Options,
    Peer,
    bar,
    found_by,
    installed,
    median,
    mosec,
    ratios,
    request,
    say,
    spread,
    started,
    table,
    tinysvc,
    uvicorn,
)

TITLE = "payload: 16 MiB in, 16 MiB out"
TINYSVC, POOL = "tinysvc", "Starlette + ProcessPoolExecutor(2)"

SIZE, CONNECTIONS = 16 * 2**20, 8

COPIES = (
    "A body is copied in and out of the sockets, and each way once more for the worker; Starlette without any pool is "
    "itself not far above the bar."
)
TURNS = "Each step is short, 256 KiB at most, but in one turn of the loop all eight connections may have theirs."

COLUMNS = [
    *("", "MB/s", "spread", "ratio", "spread"),
    *("loop held, ms", "by CPU, ms", "spread", "server CPU s/GB"),
]


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table: peer, route, and whether its event loop can be measured."""

    name: str
    peer: Peer
    path: str = "/echo"
    has_heartbeat: bool = True


@dataclasses.dataclass(frozen=True)
class Echoed:
    """One case in one round."""

    rate: float  # MB per second: the bytes of the requests' bodies; as many came back
    cpu: float  # seconds of CPU time of the server and its workers per GB
    client: float  # the same, of the load generator
    held: float  # ms
    used: float  # ms


def cases() -> list[Case]:
    mine = Peer(name=TINYSVC, command=tinysvc("tinysvc_payload.py", "--cpu-workers", "2"))
    starlette = Peer(name="Starlette", command=uvicorn("starlette_app:app"))
    bare = Peer(name="blocking sockets", command=[PYTHON, "bare_echo.py", "{port}"])
    found = [
        Case("tinysvc, 2 workers, `body: bytes`", mine),
        Case("tinysvc, 2 workers, `body: memoryview`", mine, path="/echo-view"),
        Case(POOL, starlette),
        Case("Starlette, no pool: the loop echoes", starlette, path="/echo-here"),
        Case("blocking sockets, no loop, no pool", bare, has_heartbeat=False),
    ]
    if installed("mosec"):
        room = ["--max-request-size", str(SIZE), "--timeout", "60000"]
        probe = ("POST", "/noop", json.dumps(ANSWER).encode())
        theirs = Peer(name="mosec", command=mosec("mosec_app.py", *room), probe=probe)
        found.append(Case("mosec, 2 workers", theirs, has_heartbeat=False))
    return found


def measure(options: Options) -> str:
    asked = cases()
    seconds, count = options.choose(4, 2), options.choose(7, 2)
    results: dict[str, list[Echoed]] = {case.name: [] for case in asked}
    with started(list({id(case.peer): case.peer for case in asked}.values())):
        for number in range(count + 1):  # the first one warms up
            for case in asked:
                echoed = echo(case, seconds if number else 1)
                if number:
                    results[case.name].append(echoed)
            last = ", ".join(f"{name} {each[-1].rate:,.0f} MB/s" for name, each in results.items() if each)
            say(f"  round {number} of {count}: {last}")
    command = f"benchmarks/echo_load.py PORT PATH {SIZE} {CONNECTIONS} {seconds}"
    return "\n".join([shown(asked, results), f"\n`python {command}`\n", *bars(asked, results), ""])


def echo(case: Case, seconds: int) -> Echoed:
    case.peer.thaw()
    try:
        take_heartbeat(case)
        before = case.peer.cpu()
        found = found_by("echo_load.py", case.peer, case.path, SIZE, CONNECTIONS, seconds)
        held = take_heartbeat(case)
        if found["failures"]:
            raise CannotMeasureError(f"{case.name}: {'; '.join(set(found['failures']))}")
        moved = found["done"] * SIZE
        cpu = (case.peer.cpu() - before) / moved
        return Echoed(moved / found["took"] / 1e6, cpu * 1e9, found["used"] / moved * 1e9, **held)
    finally:
        case.peer.freeze()


def take_heartbeat(case: Case) -> dict[str, float]:
    if not case.has_heartbeat:
        return {"held": math.nan, "used": math.nan}
    return dict(json.loads(request(case.peer.port, "GET", "/held")[1]))


def shown(asked: Sequence[Case], results: dict[str, list[Echoed]]) -> str:
    by_rate = sorted(asked, key=lambda case: -statistics.median(one.rate for one in results[case.name]))
    rows = [row(case, results[case.name], results[POOL]) for case in by_rate]
    client = median([one.client for each in results.values() for one in each], "{:.1f}")
    return (
        f"POST of 16 MiB to a route that returns them, {CONNECTIONS} connections. MB are the bytes that came in; as "
        f"many went out. Nothing is pinned; the client used {client} s of CPU time per GB.\n\n{table(COLUMNS, rows)}"
    )


def bars(asked: Sequence[Case], results: dict[str, list[Echoed]]) -> Iterator[str]:
    for case in asked:
        if case.peer.name == TINYSVC:
            each = results[case.name]
            of_pool = ratios([one.rate for one in each], [one.rate for one in results[POOL]])
            yield bar(f"bytes a second, {case.name} to {POOL}", of_pool, least=2.5, why=COPIES)
            used = [one.used for one in each]
            yield bar(f"loop held by its own CPU time at most, ms, {case.name}", used, most=5, why=TURNS)


def row(case: Case, each: list[Echoed], baseline: list[Echoed]) -> list[str]:
    rates, held, used = ([getattr(one, name) for one in each] for name in ("rate", "held", "used"))
    of_base = ratios(rates, [one.rate for one in baseline])
    cells = [median(rates), spread(rates), median(of_base, "{:.2f}"), spread(of_base, "{:.2f}")]
    loop = [median(held, "{:.1f}"), median(used, "{:.1f}"), spread(used, "{:.1f}")] if case.has_heartbeat else [""] * 3
    return [case.name, *cells, *loop, median([one.cpu for one in each], "{:.1f}")]
