"""Both ends of a WebSocket for the tests: a served handler, and a client that sends and reads raw frames."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from http_ends import Client, Server, get, serving
from tinysvc import Service, WebSocket, io_route
from tinysvc.core.settings import Settings
from tinysvc.runtime.running_service import at_work

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
Frame = tuple[int, bytes]
KEY = ("Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
VERSION = "Sec-WebSocket-Version: 13"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame, valid or invalid (RFC 6455, 5.2)."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2) if size < 65536 else b"\x7f" + size.to_bytes(8)
    head = bytes([fin << 7 | rsv << 4 | opcode]) + bytes([length[0] | masked << 7]) + length[1:]
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close(code: int | None = 1000, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2) + reason)


class RawSocket:
    """A client that checks each byte of the handshake and of each frame."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.head = b""

    async def open(self, path: str = "/echo", *fields: str, behind: bytes = b"") -> None:
        self.client.send(get(path, *KEY, VERSION, *fields) + behind)
        self.head = await self.client.reader.readuntil(b"\r\n\r\n")
        assert self.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n"), self.head
        assert b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in self.head  # RFC 6455, 1.3

    def send(self, *frames: bytes) -> None:
        self.client.send(b"".join(frames))

    async def frame(self) -> Frame:
        first, second = await self.client.reader.readexactly(2)
        assert not second & 0x80, "a server must not mask its frames"
        assert first & 0xF0 == (0xC0 if b"permessage-deflate" in self.head and first & 15 < 8 else 0x80)
        size = second
        if size > 125:
            size = int.from_bytes(await self.client.reader.readexactly(2 if size == 126 else 8))
            assert size > 125
        return first & 0xF, await self.client.reader.readexactly(size)

    async def all(self) -> list[Frame]:
        """All frames until the server closes the connection."""
        found = []
        while True:
            try:
                found.append(await self.frame())
            except (asyncio.IncompleteReadError, ConnectionResetError):
                return found

    async def closed(self) -> tuple[int | None, list[Frame]]:
        """The code of the server's close frame, and the frames before it."""
        *before, (opcode, payload) = await self.all()
        assert opcode == CLOSE
        payload[2:].decode()
        return int.from_bytes(payload[:2]) if payload else None, before


@asynccontextmanager
async def served(*handlers: Any, **options: Any) -> AsyncIterator[Server]:
    settings = Settings(**options)
    async with at_work(Service(*handlers), settings) as running, serving(running.handle, **options) as server:
        yield server


@asynccontextmanager
async def open_socket(
    handler: Any = None, path: str = "/echo", *fields: str, **options: Any
) -> AsyncIterator[RawSocket]:
    """A client whose WebSocket is open; the default handler echoes."""
    async with served(handler or echo, **options) as server, server.client() as client:
        peer = RawSocket(client)
        await peer.open(path, *fields)
        yield peer


@io_route("/echo")
async def echo(socket: WebSocket) -> None:
    async for message in socket:
        await socket.send(message)
