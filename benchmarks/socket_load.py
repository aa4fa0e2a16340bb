"""Load for a WebSocket echo: each connection sends its next message when the last one has come back.

    socket_load.py PORT PATH CONNECTIONS SECONDS      prints JSON: messages, seconds

A message is 64 bytes of text. Frames are made once; echoes are counted, not parsed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import uvloop

TEXT = b"x" * 64
MASK = os.urandom(4)
FRAME = bytes([0x81, 0x80 | len(TEXT)]) + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(TEXT))
ECHOED = len(TEXT) + 2
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Client(asyncio.Protocol):
    """One connection."""

    messages = 0

    def __init__(self, path: str) -> None:
        self._path = path
        self._open = False
        self._came = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(HANDSHAKE.format(path=self._path).encode())

    def data_received(self, data: bytes) -> None:
        if not self._open:
            if not data.startswith(b"HTTP/1.1 101 ") or not data.endswith(b"\r\n\r\n"):
                sys.exit(f"the handshake was answered {data[:200]!r}")
            self._open = True
            self._transport.write(FRAME)
            return
        self._came += len(data)
        while self._came >= ECHOED:
            self._came -= ECHOED
            Client.messages += 1
            self._transport.write(FRAME)

    def connection_lost(self, exc: Exception | None) -> None:
        if not _over:
            sys.exit(f"the server has closed a socket: {exc}")


_over = False


async def main(port: str, path: str, connections: str, seconds: str) -> None:
    global _over
    loop = asyncio.get_running_loop()
    for _ in range(int(connections)):
        await loop.create_connection(lambda: Client(path), "127.0.0.1", int(port))
    await asyncio.sleep(0.2)  # all are open
    begin, before = time.perf_counter(), Client.messages
    await asyncio.sleep(float(seconds))
    print(json.dumps({"messages": Client.messages - before, "seconds": time.perf_counter() - begin}))
    _over = True


uvloop.run(main(*sys.argv[1:]))
