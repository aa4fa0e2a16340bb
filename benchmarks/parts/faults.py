"""The cost of a fault: a worker that is killed during its job, a client that disconnects from an endless one."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from harness import (
    HERE,
    CannotMeasureError,
    Options,
    Peer,
    bar,
    command_line,
    median,
    own_python,
    request,
    say,
    spread,
    started,
    table,
    tinysvc,
    tree,
    uvicorn,
    wait_until,
)

TITLE = "faults: a killed worker, a client that left"
POOL = "Starlette + ProcessPoolExecutor(2)"

STEADY = {"GET": ("/json", 200, ""), "POST": ("/noop", 100, '{"name":"ada"}')}
"""Requests of other clients meanwhile: method -> path, requests per second, body."""

GIVE_UP = 2.0
"""Seconds after which a pool counts as broken."""

WATCHED = 3.0
"""Seconds of measurement after the disconnect."""


def measure(options: Options) -> str:
    return f"{killed_workers(options)}\n{gone_client(options)}"


def killed_workers(options: Options) -> str:
    mine = Peer(name="tinysvc, 2 workers, numpy", command=tinysvc("tinysvc_numpy.py", "--cpu-workers", "2"))
    theirs = Peer(name=POOL, command=uvicorn("starlette_app:app"))
    with started([mine]):
        mine.thaw()
        kills = [kill_once(mine, check_pool=True) for _ in range(options.choose(15, 4))]
    outcomes = {mine.name: kills, theirs.name: []}
    for _ in range(options.choose(3, 1)):  # this peer does not survive a kill: start it each time
        with started([theirs]):
            theirs.thaw()
            outcomes[theirs.name].append(kill_once(theirs, check_pool=False))
    rows = []
    for name, each in outcomes.items():
        times = [kill.recovery * 1e3 for kill in each if kill.recovery is not None]
        recovery = [median(times), spread(times)] if times else [f"not within {GIVE_UP:.0f} s", ""]
        asked, failed = sum(kill.asked for kill in each), sum(kill.failed for kill in each)
        rows.append([name, str(len(each)), *recovery, f"{failed:,} of {asked:,}"])
        say(f"  {name}: {', '.join(rows[-1][1:])}")
    recoveries = [kill.recovery * 1e3 for kill in kills if kill.recovery is not None]
    columns = ["`kill -9` of a busy worker", "kills", "kill to ready, ms", "spread", "requests of others that failed"]
    return table(columns, rows) + (
        "\n\nReady: `/readyz` says so with all workers (tinysvc), or a no-op job is answered again (the other). "
        "Others: an io route at 200/s and a no-op cpu route at 100/s, on connections of their own. The request whose "
        "worker is killed is not among them; it cannot succeed.\n\n"
        f"{bar('kill to ready, ms', recoveries, most=50)}\n"
    )


class Kill:
    """The effects of one kill."""

    def __init__(self, recovery: float | None, asked: int, failed: int) -> None:
        self.recovery = recovery
        self.asked = asked
        self.failed = failed


def kill_once(peer: Peer, *, check_pool: bool) -> Kill:
    with tempfile.TemporaryDirectory() as folder:
        pid_file = Path(folder) / "pid"
        victim = socket.create_connection(("127.0.0.1", peer.port))
        victim.sendall(f"POST /hold?pid_file={pid_file} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".encode())
        with victim:
            if not wait_until(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"), 5):
                raise CannotMeasureError(f"{peer.name} did not start the job that is to be killed")
            pid = int(pid_file.read_text())
            if pid not in {process.pid for process in tree(peer.process.pid)[1:]}:
                raise CannotMeasureError(f"process {pid} is no worker of {peer.name}")
            if check_pool and "tinysvc.pool.forkserver_main" not in command_line(pid):
                raise CannotMeasureError(f"process {pid} does not look like a worker: {command_line(pid)}")
            others = [ask_meanwhile(peer, method) for method in STEADY]
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
            recovery = until_ready(peer, victim) if check_pool else until_answered(peer)
            asked = failed = 0
            for process in others:
                found = json.loads(process.communicate(timeout=30)[0])
                asked += found["asked"]
                failed += sum(found["failures"].values())
            if check_pool and b" 500 " not in victim.recv(65536):
                raise CannotMeasureError("the request whose worker was killed was not answered 500")
        return Kill(recovery, asked, failed)


def ask_meanwhile(peer: Peer, method: str) -> subprocess.Popen[bytes]:
    path, rate, body = STEADY[method]
    command = [own_python(), str(HERE / "open_loop.py"), str(peer.port), str(rate), "1.5", method, path, body]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def until_ready(peer: Peer, victim: socket.socket) -> float:
    """Seconds from the response of the victim until /readyz, requested every millisecond, is 200."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", peer.port, timeout=5)
    try:
        while time.perf_counter() < begin + 10:
            death_is_known = select.select([victim], [], [], 0)[0]
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            response.read()
            if response.status == 200 and death_is_known:
                return time.perf_counter() - begin
            time.sleep(0.001)
    finally:
        connection.close()
    raise CannotMeasureError("not ready again, or the victim not answered, ten seconds after a kill")


def until_answered(peer: Peer) -> float | None:
    """Seconds until a no-op job succeeds; None after GIVE_UP seconds."""
    begin = time.perf_counter()
    time.sleep(0.05)  # let the server notice the death
    while time.perf_counter() < begin + GIVE_UP:
        if request(peer.port, "POST", "/noop", b"{}")[0] == 200:
            return time.perf_counter() - begin
        time.sleep(0.02)
    return None


def gone_client(options: Options) -> str:
    """GET an endless route, disconnect, and measure the CPU time that the server still uses."""
    peers = [
        Peer(name="tinysvc, 2 workers", command=tinysvc("tinysvc_cpu.py", "--cpu-workers", "2")),
        Peer(name=POOL, command=uvicorn("starlette_app:app")),
    ]
    rows = []
    for peer in peers:
        burnt = []
        for _ in range(options.choose(5, 1)):
            with started([peer]):
                peer.thaw()
                burnt.append(burnt_after_leaving(peer))
        shown = [f"{statistics.median(burnt):.2f}", spread(burnt, "{:.2f}")]
        rows.append([peer.name, *shown])
        say(f"  {peer.name}: {shown[0]} s of CPU time in the {WATCHED:.0f} s after the client had left")
    columns = [f"CPU time burnt in the {WATCHED:.0f} s after the client left", "s", "spread"]
    return table(columns, rows) + "\n\nA GET of a cpu route with an endless loop, left after half a second.\n"


def burnt_after_leaving(peer: Peer) -> float:
    with socket.create_connection(("127.0.0.1", peer.port)) as client:
        client.sendall(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n")
        before = peer.cpu()
        time.sleep(0.5)
        if peer.cpu() - before < 0.1:
            raise CannotMeasureError(f"{peer.name}: the endless job does not seem to run")
        left = peer.cpu()
    time.sleep(WATCHED)
    return peer.cpu() - left
