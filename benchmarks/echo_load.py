"""Send big bodies and read them back, over and over: one thread per connection, blocking sockets.

    python echo_load.py PORT PATH SIZE CONNECTIONS SECONDS      prints one JSON object

It needs no more CPU time per byte than wrk: it reads and writes sockets by the MiB without the GIL. Unlike wrk, it
waits for the last responses (8 of about 50 would be lost). It compares the body of the first response on each
connection with the sent one, and the status and length of all others.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time

READ = 2**20
"""Bytes per read."""

PATIENCE = 60.0
"""Seconds without a byte before a connection counts as failed."""


class Client(threading.Thread):
    """One keep-alive connection. `done` counts the bodies until `end`; `failure` is the reason of a failure."""

    def __init__(self, port: int, path: str, body: bytes, end: float) -> None:
        super().__init__()
        self.channel = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        self.body = body
        self.buffer = memoryview(bytearray(READ))
        self.end = end
        self.done = 0
        self.failure = ""

    def run(self) -> None:
        try:
            with self.channel:
                while not self.done or time.perf_counter() < self.end:
                    self.exchange()
                    self.done += 1
        except (OSError, ValueError) as error:
            self.failure = f"{type(error).__name__}: {error}"

    def exchange(self) -> None:
        self.channel.sendall(self.head)
        self.channel.sendall(self.body)
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.read(READ)
        head, _, begin = head.partition(b"\r\n\r\n")
        if head[9:12] != b"200" or b"content-length: %d" % len(self.body) not in head.lower():
            raise ValueError(f"not 200 with as many bytes as sent, but: {head[:300]!r}")
        self.take(begin, compare=not self.done)

    def take(self, begin: bytes, *, compare: bool) -> None:
        """Read the rest of the body."""
        left, kept = len(self.body) - len(begin), [begin]
        while left:
            piece = self.read(min(READ, left))
            left -= len(piece)
            if compare:
                kept.append(bytes(piece))
        if compare and b"".join(kept) != self.body:
            raise ValueError("other bytes came back than were sent")

    def read(self, size: int) -> memoryview:
        count = self.channel.recv_into(self.buffer, size)
        if not count:
            raise ValueError("the server closed the connection")
        return self.buffer[:count]


def main(port: str, path: str, size: str, connections: str, seconds: str) -> None:
    body = os.urandom(int(size))
    begin, used = time.perf_counter(), time.process_time()
    clients = [Client(int(port), path, body, begin + float(seconds)) for _ in range(int(connections))]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    found = {
        "done": sum(client.done for client in clients),
        "took": time.perf_counter() - begin,
        "used": time.process_time() - used,  # CPU time of this client
        "failures": [client.failure for client in clients if client.failure],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
