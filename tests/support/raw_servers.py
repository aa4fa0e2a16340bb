"""Servers of raw bytes for the tests of the client: each connection follows a script, well or badly."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

from http_ends import reset_on_close
from tinysvc.client.address import Address, parse_address
from tinysvc.client.messages import Incoming, Outgoing
from tinysvc.client.services import Services
from tinysvc.core.settings import Settings

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """One whole request, kept in `server.requests`. IncompleteReadError at the end of the connection."""
        head = await self.head()
        length = re.search(rb"(?i)content-length: ([0-9]+)", head)
        body = b""
        if length:
            body = await self.reader.readexactly(int(length[1]))
        elif b"transfer-encoding: chunked" in head:
            while not body.endswith(b"0\r\n\r\n"):
                body += await self.reader.readuntil(b"\r\n")
        self.server.requests.append(head + body)
        return head + body

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionError("the client has closed the connection")
        self.writer.write(data)

    def reset(self) -> None:
        reset_on_close(self.writer.get_extra_info("socket"))
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Wait until the client has closed the connection."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Peer], Awaitable[None]]


class RawServer:
    """A server on 127.0.0.1 whose n-th connection follows the n-th script, and further ones the last."""

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._scripts = scripts
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.faults: list[BaseException] = []

    async def start(self, port: int = 0) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port, reuse_address=True)
        self.port = self._listener.sockets[0].getsockname()[1]

    @property
    def address(self) -> Address:
        return parse_address(f"http://127.0.0.1:{self.port}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self._scripts[min(self.connections, len(self._scripts) - 1)]
        self.connections += 1
        self.open += 1
        try:
            await script(Peer(self, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self.faults.append(error)
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def stop(self) -> None:
        self._listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not self.faults, self.faults


@asynccontextmanager
async def raw_server(*scripts: Script) -> AsyncIterator[RawServer]:
    server = RawServer(scripts)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


# Scripts


async def good(peer: Peer) -> None:
    """Answer each request."""
    while True:
        await peer.request()
        peer.send(OK)


def answers(*responses: bytes, then: str = "wait") -> Script:
    """Answer one request after the other with these bytes; then close, reset, or wait for the client's end."""

    async def script(peer: Peer) -> None:
        for response in responses:
            await peer.request()
            peer.send(response)
            await peer.writer.drain()
        if then == "reset":
            peer.reset()
        elif then == "wait":
            await peer.closed()

    return script


async def resets_unanswered(peer: Peer) -> None:
    """Read one request and reset the connection."""
    await peer.request()
    peer.reset()


async def is_silent(peer: Peer) -> None:
    """Read requests and never answer."""
    await peer.request()
    await peer.closed()


def problem(code: int, *lines: str, **members: Any) -> bytes:
    """A response with a problem document."""
    body = json.dumps({"type": "about:blank", "status": code, **members}).encode()
    head = [f"HTTP/1.1 {code} X", "content-type: application/problem+json", f"content-length: {len(body)}", *lines]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


NOT_STARTED = problem(503, "retry-after: 1", type="urn:tinysvc:queue-full", started=False)


# Callers


class Caller:
    """Calls of one service, `callee`."""

    def __init__(self, services: Services) -> None:
        self.services = services

    async def send(
        self,
        method: str = "GET",
        body: Any = b"",
        *,
        within: float | None = 10.0,
        idempotent: bool | None = None,
        hedge: float | None = None,
        headers: list[tuple[str, str]] | None = None,
        can_repeat: bool = True,
    ) -> Incoming:
        deadline = None if within is None else monotonic() + within
        safe = method == "GET" if idempotent is None else idempotent
        outgoing = Outgoing(method, "/path", headers or [], body, can_repeat)
        return await self.services.send("callee", outgoing, deadline=deadline, idempotent=safe, hedge=hedge)

    async def text(self, method: str = "GET", body: Any = b"", **options: Any) -> str:
        incoming = await self.send(method, body, **options)
        return (await incoming.body(10_000_000)).decode()

    def open(self) -> None:
        """Make the replicas, as the first call does."""
        self.services._opened("callee")

    @property
    def replicas(self) -> Any:
        return self.services._replicas["callee"]


@asynccontextmanager
async def calling(*addresses: Address | RawServer, tls: Any = None, **options: Any) -> AsyncIterator[Caller]:
    found = [each.address if isinstance(each, RawServer) else each for each in addresses]
    services = Services({"callee": found}, Settings(**options), tls=tls)
    try:
        yield Caller(services)
    finally:
        await services.aclose()
        assert_idle(services)
        await asyncio.sleep(0)  # transports close


def assert_idle(services: Services) -> None:
    """No slot, deadline or sender is left."""
    for replicas in services._replicas.values():
        for replica in replicas.every:
            assert replica.in_flight == 0, replica
