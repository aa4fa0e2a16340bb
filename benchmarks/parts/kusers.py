"""K users send requests at the same instant: the wait of the k-th user, for handlers that wait and that compute."""

from __future__ import annotations

import dataclasses
import statistics

from harness import (
    Line,
    Options,
    Panel,
    Peer,
    draw,
    found_by,
    say,
    started,
    table,
    tinysvc,
    uvicorn,
)

from .cpu import awake, model_servers

TITLE = "kusers: the k-th of 64 users who come at once"
USERS = 64
SHOWN = (1, 2, 4, 8, 16, 32, 64)
CHART = "kusers.svg"


@dataclasses.dataclass(frozen=True)
class Case:
    """The work of a request."""

    title: str
    asks: tuple[str, ...]
    """A path, and the path of the other users."""


WAITING = Case("each waits 50 ms", ("wait",))
COMPUTING = Case("each computes 50 ms", ("compute",))
MIXED = Case("each waits 50 ms, while 64 others compute", ("wait", "compute"))
CASES = (WAITING, COMPUTING, MIXED)

THREADS, LOOP = "FastAPI, `def`", "FastAPI, `async def`"
PREFIX = {LOOP: "/async/"}
METHOD = {"wait": "GET", "compute": "POST"}


def peers() -> list[Peer]:
    commands = {
        "tinysvc, 2 workers": tinysvc("tinysvc_kusers.py", "--cpu-workers", "2"),
        "Starlette + ProcessPoolExecutor(2)": uvicorn("starlette_kusers:app"),
        THREADS: uvicorn("fastapi_kusers:app"),
        LOOP: uvicorn("fastapi_kusers:app"),
    }
    probes = {name: (PREFIX.get(name, "/") + "wait") for name in commands}
    return [
        Peer(name=name, command=command, probe=("GET", probes[name], b""), answer={"waited": True})
        for name, command in commands.items()
    ]


def who_compute() -> list[Peer]:
    """Peers that serve models only: they have no handler that waits."""
    probe, answer = ("POST", "/compute", b"{}"), {"computed": True}
    return [Peer(name=name, command=command, probe=probe, answer=answer) for name, command in model_servers().items()]


def measure(options: Options) -> str:
    servers, models, count = peers(), who_compute(), options.choose(7, 3)
    asked = {case: servers + models if case is COMPUTING else servers for case in CASES}
    found = {(case.title, peer.name): list[list[float]]() for case in CASES for peer in asked[case]}
    with started(servers + models):
        for number in range(count):
            for case in CASES:
                for peer in asked[case]:
                    with awake(peer):
                        found[case.title, peer.name].append(burst(peer, case))
            last = ", ".join(f"{peer.name} {found[MIXED.title, peer.name][-1][-1] * 1e3:,.0f} ms" for peer in servers)
            say(f"  round {number + 1} of {count}: the last waiting user while others compute: {last}")
    typical = {key: [statistics.median(kth) * 1e3 for kth in zip(*each, strict=True)] for key, each in found.items()}
    text = [f"{USERS} connections are open, then all ask at once. Milliseconds until the k-th has the answer.\n"]
    panels = []
    for case in CASES:
        curves = {peer.name: typical[case.title, peer.name] for peer in asked[case]}
        rows = [[name, *(f"{curve[k - 1]:,.0f}" for k in SHOWN)] for name, curve in curves.items()]
        text += [f"{case.title.capitalize()}:\n", table(["", *(f"k = {k}" for k in SHOWN)], rows) + "\n"]
        panels.append(
            Panel(case.title, [Line(name, list(range(1, USERS + 1)), curve) for name, curve in curves.items()])
        )
    image = draw(CHART, panels, x="the k-th of 64 users", y="milliseconds until the answer", options=options)
    return "\n".join(
        [*text, f"`python benchmarks/burst.py PORT {USERS} METHOD PATH [METHOD BESIDE]`; nothing is pinned.\n", image]
    )


def burst(peer: Peer, case: Case) -> list[float]:
    """Seconds of each user, the fastest first."""
    prefix = PREFIX.get(peer.name, "/")
    asks = [word for path in case.asks for word in (METHOD[path], prefix + path)]
    latencies: list[float] = found_by("burst.py", peer, USERS, *asks)["latencies"]
    return latencies
