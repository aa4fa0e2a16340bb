"""A file beside nginx, a WebSocket echo beside the websockets library, and the cost of a thousand open streams."""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import time

from harness import (
    LOAD_CORE,
    PYTHON,
    SERVER_CORE,
    SETTLE,
    CannotMeasureError,
    Load,
    Options,
    Peer,
    bar,
    found_by,
    median,
    rate_table,
    rates_to,
    ratios,
    rounds,
    say,
    served_files,
    spread,
    started,
    table,
    tinysvc,
    where,
)

from .cpu import awake
from .idle import many_descriptors, memory

TITLE = "web: files, WebSocket, open streams"
FILE_SIZE = 1024 * 1024
SOCKETS, STREAMS = 32, 1000
SHARED = (
    "Most of a message's time is the kernel's and uvloop's, which both use, and both have their frames from the "
    "websockets library: little is left in which they could differ."
)
HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n"
)


def measure(options: Options) -> str:
    with served_files({"mebibyte": os.urandom(FILE_SIZE)}), many_descriptors(STREAMS + 1000):
        parts = [files(options), sockets(options), streams(options)]
    return "\n".join(parts)


def files(options: Options) -> str:
    if shutil.which("nginx") is None:
        return "Files were not measured: nginx is missing (apt-get install nginx).\n"
    peers = [
        Peer(name="tinysvc, StaticFiles", command=tinysvc("tinysvc_web.py"), pin=SERVER_CORE),
        Peer(name="nginx, sendfile", command=[PYTHON, "nginx_files.py", "{port}"], pin=SERVER_CORE),
    ]
    load = Load(
        script="get.lua",
        path="/files/mebibyte",
        connections=16,
        seconds=options.choose(5, 2),
        pin=LOAD_CORE,
    )
    with started(peers):
        results = rounds(peers, load, options.choose(9, 3))
    shown = rate_table(results, {"nginx, sendfile": "of nginx"})
    reached = bar("a file of 1 MiB, tinysvc to nginx", rates_to(results, peers[0].name, peers[1].name), least=0.5)
    return f"A file of 1 MiB, `{load}`. {where()}\n\n{shown}\n\n{reached}\n"


def sockets(options: Options) -> str:
    peers = [
        Peer(name="tinysvc, WebSocket", command=tinysvc("tinysvc_web.py"), pin=SERVER_CORE),
        Peer(name="websockets on uvloop", command=[PYTHON, "websockets_echo.py", "{port}"], pin=SERVER_CORE),
    ]
    seconds, rates = options.choose(5, 2), {peer.name: list[float]() for peer in peers}
    with started(peers):
        for number in range(options.choose(9, 3) + 1):
            for peer in peers:
                with awake(peer):
                    rate = echoed(peer, seconds)
                if number:
                    rates[peer.name].append(rate)
            say("  " + ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items() if found))
    base = rates["websockets on uvloop"]
    rows = [
        [
            name,
            median(found),
            spread(found),
            median(ratios(found, base), "{:.2f}"),
            spread(ratios(found, base), "{:.2f}"),
        ]
        for name, found in rates.items()
    ]
    shown = table(["", "messages/s", "spread", "of websockets", "spread"], rows)
    reached = bar("an echo, tinysvc to websockets", ratios(rates["tinysvc, WebSocket"], base), least=1.3, why=SHARED)
    return f"An echo of 64 bytes, {SOCKETS} sockets, each sends when the last has come back.\n\n{shown}\n\n{reached}\n"


def echoed(peer: Peer, seconds: int) -> float:
    python = [*LOAD_CORE, PYTHON]  # the client needs uvloop
    found = found_by("socket_load.py", peer, "/echo", SOCKETS, seconds, python=python)
    time.sleep(SETTLE)
    return float(found["messages"] / found["seconds"])


def streams(options: Options) -> str:
    rows, bars = [], []
    for name, path, fields in (("event streams", "/events", ""), ("WebSockets", "/socket", HANDSHAKE)):
        peer = Peer(name=f"tinysvc, {name}", command=tinysvc("tinysvc_web.py"))
        cores, each = list[float](), list[float]()
        with started([peer]), awake(peer):
            empty = warmed(peer, path, fields)
            for _ in range(options.choose(5, 2)):
                core, size = held_open(peer, request(path, fields), empty, options.choose(10, 5))
                cores.append(100 * core)
                each.append(size / 1024)
                say(f"  {name}: {core:.1%} of a core, {size / 1024:.1f} KiB each")
        rows.append(
            [name, median(cores, "{:.1f} %"), spread(cores, "{:.1f}"), median(each, "{:.1f}"), spread(each, "{:.1f}")]
        )
        bars += [bar(f"{name}, % of one core", cores, most=15), bar(f"{name}, KiB each", each, most=30)]
    shown = table([f"{STREAMS:,} open", "of one core", "spread", "KiB each", "spread"], rows)
    head = f"A message a second on each of {STREAMS:,} connections, all of them read.\n"
    return "\n".join([head, shown + "\n", *bars, ""])


def request(path: str, fields: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()


def warmed(peer: Peer, path: str, fields: str) -> int:
    """The memory after all one-time allocations."""
    few = opened(peer, request(path, fields), 20)
    read_for(few, 1)
    for connection in few:
        connection.close()
    time.sleep(SETTLE)
    return memory(peer)


def held_open(peer: Peer, asked: bytes, empty: int, seconds: int) -> tuple[float, float]:
    """The share of a core for all streams, and the bytes of the server's memory for each."""
    connections = opened(peer, asked, STREAMS)
    try:
        read_for(connections, 2)
        begin, cpu = time.monotonic(), peer.cpu()
        came = read_for(connections, seconds)
        used, took = peer.cpu() - cpu, time.monotonic() - begin
        expected = STREAMS * took
        if not 0.8 * expected < came < 1.2 * expected:
            raise CannotMeasureError(f"{came} messages came in {took:.1f} s, not some {expected:.0f}")
        return used / took, (memory(peer) - empty) / STREAMS
    finally:
        for connection in connections:
            connection.close()


def opened(peer: Peer, asked: bytes, count: int) -> list[socket.socket]:
    found = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", peer.port), 10)
        connection.sendall(asked)
        connection.setblocking(False)
        found.append(connection)
    return found


def read_for(connections: list[socket.socket], seconds: float) -> int:
    """Read all streams for this many seconds; return the number of messages."""
    came, end = 0, time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not data:
                    raise CannotMeasureError("the server has closed a stream")
                came += data.count(b'"number"')
    return came
