"""gRPC: the speed beside a plain grpc.aio server, and the memory of a server that has it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

from harness import (
    HERE,
    LOAD_CORE,
    PYTHON,
    SERVER_CORE,
    CannotMeasureError,
    Options,
    Peer,
    bar,
    installed,
    median,
    ratios,
    say,
    spread,
    started,
    table,
    tinysvc,
    tree,
)

TITLE = "grpc: the same handlers by gRPC"
IN_FLIGHT = 32
TINYSVC, PLAIN = "tinysvc", "grpc.aio"
CASES = {
    "Nothing": ("io, no argument", 0.9, ""),
    "Receipt": ("io, a typed message of 1 KiB", 0.9, ""),
    "Compute": (
        *("cpu, no argument", 2.0),
        "grpcio, which both use, is half of a call. The job is the other half, where three processes share a core.",
    ),
}
"""What a method does, the least rate beside the plain server, and the reason if that is missed."""

MOST_MEMORY = {"server": 15.0, "forkserver": None, "worker": 0.5}
"""MB that gRPC may add to these processes of an idle service. The forkserver holds what all workers share."""


class RpcPeer(Peer):
    """A server that speaks gRPC at its port."""

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def served(*, pin: list[str], extra: tuple[str, ...] = ()) -> RpcPeer:
    words = [
        word for word in tinysvc("tinysvc_rpc.py", "--cpu-workers", "2", *extra) if word not in ("--port", "{port}")
    ]
    return RpcPeer(name=TINYSVC, command=[*words, "--port", "0", "--grpc", "127.0.0.1:{port}"], pin=pin)


def measure(options: Options) -> str:
    for library in ("grpc", "grpc_tools", "grpc_health", "grpc_reflection"):
        if not installed(library):
            raise CannotMeasureError(f"{library} is not installed: benchmarks/requirements-optional.txt")
    return "\n".join([speed(options), memory(options)])


def speed(options: Options) -> str:
    """Calls a second of both servers, in turns."""
    rows, bars = [], []
    peers = [served(pin=SERVER_CORE), RpcPeer(name=PLAIN, command=[PYTHON, "grpc_plain.py", "{port}"], pin=SERVER_CORE)]
    with started(peers):
        for method, (about, least, why) in CASES.items():
            rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
            costs: dict[str, list[float]] = {peer.name: [] for peer in peers}
            for _ in range(options.choose(7, 2)):
                for peer in peers:
                    peer.thaw()
                    before = peer.cpu()
                    found = loaded(peer, method, options.choose(4, 1))
                    used = peer.cpu() - before
                    rates[peer.name].append(found["count"] / found["seconds"])
                    costs[peer.name].append(used / found["count"] * found["seconds"] / (found["seconds"] + 0.5) * 1e6)
                    peer.freeze()
            say(f"  {method}: " + ", ".join(f"{name} {values[-1]:,.0f}/s" for name, values in rates.items()))
            for name in rates:
                cells = [median(rates[name]), spread(rates[name]), median(costs[name]), spread(costs[name])]
                rows.append([f"{about}, {name}", *cells])
            rate = ratios(rates[TINYSVC], rates[PLAIN])
            bars.append(bar(f"calls a second, {about}, tinysvc to grpc.aio", rate, least=least, why=why))
    columns = ["", "calls/s", "spread", "server CPU µs/call", "spread"]
    intro = (
        f"{IN_FLIGHT} calls in flight on one connection; the server has one core with its workers, and the load the "
        "other. The plain server has protoc's classes, and a ProcessPoolExecutor of two processes for the cpu route.\n"
    )
    return "\n".join([intro, table(columns, rows), *bars, ""])


def loaded(peer: Peer, method: str, seconds: int) -> dict[str, float]:
    command = [*LOAD_CORE, PYTHON, "rpc_load.py", str(peer.port), method, str(IN_FLIGHT), str(seconds)]
    ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120, check=False)
    if ran.returncode:
        raise CannotMeasureError(f"the load on {peer.name} failed:\n{ran.stderr[-2000:]}")
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def memory(options: Options) -> str:
    """Memory of an idle server and of its workers, with gRPC and without."""
    with_grpc, without = [], []
    for _ in range(options.choose(3, 1)):
        for peer, found in ((served(pin=[]), with_grpc), (plain_http(), without)):
            with started([peer]):
                peer.thaw()
                time.sleep(1.0)
                found.append(memory_of(peer))
    rows, bars = [], []
    for kind, most in MOST_MEMORY.items():
        own = [each[kind] for each in with_grpc]
        other = [each[kind] for each in without]
        added = [one - two for one, two in zip(own, other, strict=True)]
        rows.append([kind, *(median(each, "{:.2f}") for each in (other, own, added))])
        if most is not None:
            bars.append(bar(f"MB that gRPC adds to the {kind}", added, most=most))
    return "\n".join([table(["private memory, MB", "without gRPC", "with", "more"], rows), *bars, ""])


def plain_http() -> Peer:
    return Peer(
        name="tinysvc without gRPC",
        command=tinysvc("tinysvc_rpc.py", "--cpu-workers", "2"),
        probe=("POST", "/receipt", b'{"number": 1, "customer": "", "lines": []}'),
        answer={"number": 1, "total": 0.0},
    )


def memory_of(peer: Peer) -> dict[str, float]:
    """MB of private memory of the server, of its forkserver, and of a worker on average."""
    server, forkserver, *workers = [private_memory(process.pid) for process in tree(peer.process.pid)]
    return {"server": server, "forkserver": forkserver, "worker": sum(workers) / len(workers)}


def private_memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
