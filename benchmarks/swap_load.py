"""An open loop of requests while a model is swapped: each response says which version computed it.

Requests are due at random instants (Poisson), whatever the server does; time counts from the instant at which a request
is due. Each request that gets no 200, or no version, is a failure. The loop ends when its standard input closes. All
instants are those of CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import time
from contextlib import suppress

from open_loop import content_length, go_first

PATIENCE = 10.0
"""Seconds after which a request has failed."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SwapLoad:
    """Requests on kept connections. A request for which no connection is idle opens one."""

    def __init__(self, port: int, rate: float, message: bytes, version: str, seed: int) -> None:
        self.port, self.rate, self.message = port, rate, message
        self.pattern = re.compile(version.encode())
        self.random = random.Random(seed)
        self.idle: list[Streams] = []
        self.responses: list[tuple[float, float, int]] = []  # due, response, version
        self.failures: list[tuple[float, str]] = []  # due, reason
        self.lateness: list[float] = []

    async def run(self) -> dict[str, object]:
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        due, requests = time.monotonic() + 0.05, set[asyncio.Task[None]]()
        while True:
            await asyncio.sleep(due - time.monotonic())
            self.lateness.append(time.monotonic() - due)
            task = asyncio.create_task(self.request(due))
            requests.add(task)
            task.add_done_callback(requests.discard)
            due += self.random.expovariate(self.rate)
            if ended.done():
                break
        await asyncio.gather(*requests)
        for _, writer in self.idle:
            writer.close()
        return {"responses": self.responses, "failures": self.failures, "lateness": self.lateness}

    async def request(self, due: float) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                version = await self.version()
        except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
            self.failures.append((due, f"{type(error).__name__} {error}".strip()[:80]))
        else:
            self.responses.append((due, time.monotonic(), version))

    async def version(self) -> int:
        """Send one request; return the version of its response. A connection that the server has closed is not used."""
        while self.idle:
            streams = self.idle.pop()
            if not streams[0].at_eof():
                break
            streams[1].close()
        else:
            streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = streams
        try:
            writer.write(self.message)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(content_length(head))
        except BaseException:
            writer.close()
            raise
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self.idle.append(streams)
        found = self.pattern.search(body)
        if head[9:12] != b"200" or found is None:
            raise ValueError(f"status {head[9:12].decode()}")
        return int(found[1])


def main(port: str, rate: str, path: str, body: str, version: str, seed: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
    message = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()
    urgent = go_first()
    found = asyncio.run(SwapLoad(int(port), float(rate), message, version, int(seed)).run())
    with suppress(BrokenPipeError):
        print(json.dumps({**found, "urgent": urgent}))


if __name__ == "__main__":
    main(*sys.argv[1:])
