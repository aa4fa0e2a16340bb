"""Send requests at a fixed rate; measure each from the instant at which it was *due*.

A client that waits for each response sends fewer requests to a slow server, and so hides its delays (coordinated
omission). This client does not: a request that finds every connection busy waits, and its waiting time counts.

    python open_loop.py PORT RATE SECONDS METHOD PATH [BODY [SEED]]      prints one JSON object

With a seed, the requests are due at random instants, as independent clients send them, instead of at equal distances.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import selectors
import sys
import time

from capacity_model import arrivals

CONNECTIONS = 64

LAST_ANSWERS = 2.0
"""Seconds after the end until the last requests count as failed."""


class Client(asyncio.Protocol):
    """One keep-alive connection, at most one request at a time."""

    def __init__(self, loop: OpenLoop) -> None:
        self.loop = loop
        self.intended: float | None = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, intended: float) -> None:
        self.intended = intended
        self.transport.write(self.loop.message)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, body = self.buffer.partition(b"\r\n\r\n")
        if not end or len(body) < content_length(head):
            return
        assert self.intended is not None
        self.loop.answered(int(head[9:12]), self.intended)
        self.buffer, self.intended = b"", None
        if b"connection: close" in head.lower():
            self.transport.close()
        else:
            self.loop.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.loop.lost(self)


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


class OpenLoop:
    """The schedule, and its results."""

    def __init__(self, port: int, message: bytes) -> None:
        self.port = port
        self.message = message
        self.idle: collections.deque[Client] = collections.deque()
        self.waiting: collections.deque[float] = collections.deque()
        self.start = 0.0
        self.latencies: list[float] = []
        self.due: list[float] = []  # the instants of `latencies`, in seconds from the start
        self.lateness: list[float] = []
        self.failures: collections.Counter[str] = collections.Counter()
        self.connecting: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        try:
            _, client = await asyncio.get_running_loop().create_connection(lambda: Client(self), "127.0.0.1", self.port)
        except OSError as error:
            self.failures[type(error).__name__] += 1
        else:
            self.free(client)

    def free(self, client: Client) -> None:
        if self.waiting:
            client.ask(self.waiting.popleft())
        else:
            self.idle.append(client)

    def answered(self, status: int, intended: float) -> None:
        if status < 300:
            self.latencies.append(time.perf_counter() - intended)
            self.due.append(intended - self.start)
        else:
            self.failures[f"status {status}"] += 1

    def lost(self, client: Client) -> None:
        if client.intended is not None:
            self.failures["connection lost"] += 1
        if client in self.idle:
            self.idle.remove(client)
        task = asyncio.get_running_loop().create_task(self.connect())
        self.connecting.add(task)
        task.add_done_callback(self.connecting.discard)

    async def run(self, due: list[float]) -> dict[str, object]:
        """Send a request at each of these instants, in seconds from the start."""
        await asyncio.gather(*(self.connect() for _ in range(CONNECTIONS)))
        self.start, count = time.perf_counter() + 0.05, len(due)
        for instant in due:
            intended = self.start + instant
            delay = intended - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            self.lateness.append(time.perf_counter() - intended)
            if self.idle:
                self.idle.popleft().ask(intended)
            else:
                self.waiting.append(intended)
        deadline = time.perf_counter() + LAST_ANSWERS
        while self.finished() < count and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        if self.finished() < count:
            self.failures["no answer"] += count - self.finished()
        return {
            "asked": count,
            "latencies": self.latencies,
            "due": self.due,
            "lateness": self.lateness,
            "failures": dict(self.failures),
        }

    def finished(self) -> int:
        return len(self.latencies) + self.failures.total()


def go_first() -> bool:
    """Take precedence over all other processes, as on a separate machine; needs root."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (OSError, AttributeError):
        return False
    return True


def main(port: str, rate: str, seconds: str, method: str, path: str, body: str = "", seed: str = "") -> None:
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    message = f"{head}\r\n{body}".encode()
    # select() waits exactly to the microsecond; epoll, as asyncio uses it, rounds up to milliseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    urgent, count = go_first(), int(float(rate) * float(seconds))
    due = arrivals(float(rate), count, int(seed)) if seed else [number / float(rate) for number in range(count)]
    try:
        found = loop.run_until_complete(OpenLoop(int(port), message).run(due))
        print(json.dumps({**found, "urgent": urgent}))
    finally:
        loop.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
