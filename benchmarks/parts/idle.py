"""Idle connections: the memory of each, and their effect on busy connections."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from harness import (
    CannotMeasureError,
    Options,
    Peer,
    bar,
    granian,
    installed,
    median,
    ratios,
    say,
    spread,
    started,
    table,
    tinysvc,
    tree,
    uvicorn,
    wait_until,
)

from .cpu import ASKED_PER_SECOND, Steady, ask_steadily, awake

TITLE = "idle: 10,000 connections that ask for nothing"
COUNT = 10_000

WARMING = 200
"""Connections that open and close before memory is measured first."""

SOURCES = (f"127.0.{number // 256}.{number % 256}" for number in itertools.count(2))
"""Connections per client address: Linux has about 28,000 ports for each, and keeps used ones for a minute."""

REQUEST = b"GET /json HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: idle\r\nAccept: */*\r\n\r\n"

COLUMNS = ["", "KiB each", "spread", "p99 ms", "p99 ms with them", "ratio", "spread", "p99 client late, ms", "failed"]


@dataclasses.dataclass
class Found:
    """The values of one peer, one for each round."""

    each: list[float] = dataclasses.field(default_factory=list)  # bytes
    alone: list[Steady] = dataclasses.field(default_factory=list)
    beside: list[Steady] = dataclasses.field(default_factory=list)


def peers() -> list[Peer]:
    patient = ["--max-connections", "12000", "--keep-alive-timeout", "600"]
    found = [
        Peer(name="tinysvc", command=tinysvc("tinysvc_io.py", *patient)),
        Peer(name="raw ASGI on uvicorn", command=[*uvicorn("raw_asgi:app"), "--timeout-keep-alive", "600"]),
    ]
    if installed("granian"):
        many = ["--backlog", "16384", "--backpressure", "16384"]  # the default is 1024
        found.append(Peer(name="Granian, RSGI", command=granian("granian_rsgi:app", *many)))
    return found


def measure(options: Options) -> str:
    seconds, count = options.choose(5, 2), options.choose(9, 3)
    with many_descriptors(COUNT + 1000), started(servers := peers()):
        found = {peer.name: Found() for peer in servers}
        empty = {peer.name: warmed(peer) for peer in servers}
        for number in range(count):
            for peer in servers:
                with awake(peer):
                    one_round(peer, found[peer.name], empty[peer.name], seconds, idle_first=bool(number % 2))
            last = ", ".join(f"{name} {each.each[-1] / 1024:.1f} KiB" for name, each in found.items())
            say(f"  round {number + 1} of {count}: {last}")
    return shown(found, seconds)


@contextlib.contextmanager
def many_descriptors(wanted: int) -> Iterator[None]:
    """Raise the descriptor limit for us and for the peers that we start."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CannotMeasureError(f"{wanted} descriptors are needed, but `ulimit -Hn` says {hard}; raise it")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def warmed(peer: Peer) -> int:
    """The memory before the first round, after all one-time allocations."""
    with awake(peer):
        with idle(peer, WARMING):
            pass
        ask_steadily(peer, 1)
        return memory(peer)


def one_round(peer: Peer, found: Found, empty: int, seconds: int, *, idle_first: bool) -> None:
    """The same load without and with idle connections, in alternating order."""
    if not idle_first:
        found.alone.append(ask_steadily(peer, seconds))
    with idle(peer, COUNT):
        found.each.append((memory(peer) - empty) / COUNT)
        found.beside.append(ask_steadily(peer, seconds))
    if idle_first:
        found.alone.append(ask_steadily(peer, seconds))


@contextlib.contextmanager
def idle(peer: Peer, count: int) -> Iterator[None]:
    """Hold this many connections open, each after one request. After the block, the peer has closed its ends, too.

    They are closed, not reset: uvicorn keeps a connection that was reset until its keep-alive time is over.
    """
    before, source = descriptors(peer), next(SOURCES)
    connections: list[socket.socket] = []
    try:
        connections.extend(connected(peer.port, source) for _ in range(count))
        yield
        if any(map(has_ended, connections)):
            raise CannotMeasureError(f"{peer.name} has closed some of its idle connections")
    finally:
        for connection in connections:
            connection.close()
    if not wait_until(lambda: descriptors(peer) <= before + WARMING, 30):
        raise CannotMeasureError(f"{peer.name} still has {descriptors(peer)} descriptors, and had {before} before")


def connected(port: int, source: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
    connection.sendall(REQUEST)
    try:
        answer = connection.recv(65536)
    except TimeoutError:
        raise CannotMeasureError(f"an idle connection to port {port} got no answer in 10 s") from None
    if not answer.startswith(b"HTTP/1.1 200"):
        raise CannotMeasureError(f"an idle connection was answered {answer[:200]!r}")
    connection.setblocking(False)
    return connection


def has_ended(connection: socket.socket) -> bool:
    """Close all sockets, with unread bytes, too."""
    try:
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def memory(peer: Peer) -> int:
    """Bytes of its processes (RSS)."""
    total = 0
    for process in tree(peer.process.pid):
        status = Path(f"/proc/{process.pid}/status").read_text()
        held = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        total += int(held[1]) * 1024 if held else 0
    return total


def descriptors(peer: Peer) -> int:
    return sum(len(list(Path(f"/proc/{process.pid}/fd").iterdir())) for process in tree(peer.process.pid))


def shown(found: dict[str, Found], seconds: int) -> str:
    rows, ours = [row(name, each) for name, each in found.items()], found["tinysvc"]
    return (
        f"{COUNT:,} keep-alive connections, each of which has made one request with four header fields: how much more "
        f"memory (RSS) all processes of the server hold than before the first of them, divided by their number; and an "
        f"io route asked {ASKED_PER_SECOND} times a second (open loop, {seconds} s) without and with them, in turns. "
        f"Nothing is pinned.\n\n{table(COLUMNS, rows)}\n\n"
        f"{bar('an idle connection, KiB', [each / 1024 for each in ours.each], most=6)}\n"
        f"{bar('p99 of the others, with them to without', p99_ratios(ours), most=1.2)}\n"
    )


def p99_ratios(found: Found) -> list[float]:
    return ratios([one["p99"] for one in found.beside], [one["p99"] for one in found.alone])


def row(name: str, found: Found) -> list[str]:
    alone, beside = ([one["p99"] for one in each] for each in (found.alone, found.beside))
    compared = p99_ratios(found)
    sizes = [each / 1024 for each in found.each]
    late = [one["late"] for one in found.beside]
    return [
        *(name, median(sizes, "{:.1f}"), spread(sizes, "{:.1f}")),
        *(median(alone, "{:.2f}"), median(beside, "{:.2f}"), median(compared, "{:.2f}"), spread(compared, "{:.2f}")),
        *(median(late, "{:.2f}"), f"{sum(one['failed'] for one in (*found.alone, *found.beside)):.0f}"),
    ]
