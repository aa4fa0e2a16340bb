"""Scrapes under load, paths of a scanner, and the counts of jobs whose workers are killed."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time

from harness import (
    LOAD_CORE,
    SERVER_CORE,
    CannotMeasureError,
    Load,
    Options,
    Peer,
    bar,
    median,
    request,
    say,
    spread,
    started,
    table,
    tinysvc,
    where,
)

UNKNOWN = 20_000
PIPELINED = 100
"""Requests that are sent in one piece."""


def scrape(peer: Peer) -> str:
    status, text = request(peer.port, "GET", "/metrics", timeout=20)
    if status != 200:
        raise CannotMeasureError(f"{peer.name}: /metrics was answered by {status}")
    return text.decode()


def value(text: str, name: str, *labels: str) -> float:
    """The sum of the series that have these labels."""
    lines = [line for line in text.splitlines() if re.match(rf"{name}[ {{]", line)]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))


def counted(*options: str) -> Peer:
    command = tinysvc("tinysvc_telemetry.py", "--metrics", "/metrics", *options)
    return Peer(name="tinysvc", command=command, pin=SERVER_CORE)


def scrapes(options: Options) -> str:
    """How long scrapes hold the event loop, which has as much to do as it can."""
    peer = counted("--cpu-workers", "1")
    load = Load(script="get.lua", path="/json", connections=64, seconds=options.choose(4, 2), pin=LOAD_CORE)
    found: dict[str, list[dict[str, float]]] = {"without scrapes": [], "a scrape every 0.2 s": []}
    sizes, times = [], []
    with started([peer]):
        peer.thaw()
        for number in range(100):
            request(peer.port, "GET", f"/many/{number}")
            request(peer.port, "GET", f"/sell/{number}")
        for _ in range(options.choose(9, 2)):
            for name, each in found.items():
                wrk = subprocess.Popen(load.command(peer.port), stdout=subprocess.DEVNULL)
                time.sleep(0.2)
                json.loads(request(peer.port, "GET", "/held")[1])
                end = time.monotonic() + load.seconds - 0.7
                while time.monotonic() < end:
                    if name != "without scrapes":
                        begin = time.perf_counter()
                        sizes.append(scrape(peer).count("\n"))
                        times.append((time.perf_counter() - begin) * 1e3)
                    time.sleep(0.2)
                each.append(json.loads(request(peer.port, "GET", "/held")[1]))
                wrk.wait()
            say("  " + ", ".join(f"{name}: {each[-1]['used']:.2f} ms" for name, each in found.items()))
    rows = [
        [name, *(cell for key in ("used", "held") for cell in milliseconds([one[key] for one in each]))]
        for name, each in found.items()
    ]
    shown = table(["in a round", "longest work of the loop, ms", "spread", "longest delay, ms", "spread"], rows)
    before, after = ([one["used"] for one in each] for each in found.values())
    added = [max(0.0, late - early) for early, late in zip(before, after, strict=True)]
    return (
        f"Scrapes under load, `{load}`, {median(sizes)} lines each, {median(times, '{:.0f}')} ms until their response. "
        f"The loop's work is its thread's CPU time between two beats of a millisecond; a delay also contains the time "
        f"of other processes and threads. {where()}\n\n{shown}\n\n"
        f"{bar('ms of work of the event loop that a scrape adds', added, most=5)}\n"
    )


def milliseconds(values: list[float]) -> list[str]:
    return [median(values, "{:.2f}"), spread(values, "{:.2f}")]


def unknown_paths(_: Options) -> str:
    """A scanner asks for paths that do not exist."""
    peer = counted("--cpu-workers", "1")
    with started([peer]):
        peer.thaw()
        send_unknown(peer, range(PIPELINED))
        scrape(peer)  # which makes the series of /metrics itself
        before = scrape(peer)
        send_unknown(peer, range(PIPELINED, UNKNOWN))
        after = scrape(peer)
    series = after.count("\n") - before.count("\n")
    missed = UNKNOWN - value(after, "http_server_request_duration_seconds_count", '"404"')
    return "\n".join(
        [
            f"{UNKNOWN:,} requests, each for another path that does not exist:\n",
            bar("new lines in a scrape", [float(series)], most=0),
            bar("requests that are not counted", [missed], most=0),
            "",
        ]
    )


def send_unknown(peer: Peer, numbers: range) -> None:
    for first in range(numbers.start, numbers.stop, PIPELINED):
        heads = [f"GET /unknown/{first + each} HTTP/1.1\r\nhost: a\r\n" for each in range(PIPELINED)]
        heads[-1] += "connection: close\r\n"
        with socket.create_connection(("127.0.0.1", peer.port)) as connection, connection.makefile("rb") as answers:
            connection.sendall("".join(f"{head}\r\n" for head in heads).encode())
            if (count := answers.read().count(b"HTTP/1.1 404 ")) != PIPELINED:
                raise CannotMeasureError(f"{peer.name}: {count} of {PIPELINED} requests were answered by 404")


def killed_workers(options: Options) -> str:
    """Each job counts in its handler and kills its worker with SIGKILL: all counts must be exact."""
    kills = options.choose(1000, 30)
    peer = counted("--cpu-workers", "2", "--workers", "1")
    begin = time.monotonic()
    with started([peer]):
        peer.thaw()
        for number in range(kills):
            status, _ = request(peer.port, "GET", f"/crash/{number}", timeout=30)
            if status != 500:
                raise CannotMeasureError(f"{peer.name}: a killed job was answered by {status}")
        took = time.monotonic() - begin
        text = scrape(peer)
    names = {
        "the author's counter in the handler": ("bench_crashed_total",),
        "jobs whose worker died": ("tinysvc_pool_jobs_total", '"worker_died"'),
        "ends of workers": ("tinysvc_pool_worker_ends_total",),
        "responses with 500": ("http_server_request_duration_seconds_count", '"500"'),
    }
    found = {shown: value(text, *wanted) for shown, wanted in names.items()}
    rows = [[shown, f"{kills:,}", f"{each:,.0f}"] for shown, each in found.items()]
    wrong = sum(abs(each - kills) for each in found.values())
    return (
        f"{kills:,} jobs that count, and then kill their worker, in {took:.0f} s:\n\n"
        f"{table(['', 'were', 'are counted'], rows)}\n\n{bar('wrong counts', [wrong], most=0)}\n"
    )
