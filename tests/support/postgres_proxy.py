"""A proxy in front of a PostgreSQL server, on a Unix socket, that a test can make fail at a chosen message."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from postgres import PORT, Postgres


class PostgresProxy:
    """Passes bytes on. Faults hit connections that have sent `COMMIT`, or any."""

    def __init__(self, server: Postgres) -> None:
        self._target = server.folder / f".s.PGSQL.{PORT}"
        self._folder = Path(tempfile.mkdtemp(prefix="tinysvc-proxy-"))
        self._writers: set[asyncio.StreamWriter] = set()
        self._listener: asyncio.Server | None = None
        self.cut_before_commit = 0
        """So many commits are not passed on: their connections are cut instead."""
        self.cut_after_commit = 0
        """So many commits are passed on, and their connections cut before the answer."""
        self.frozen = False
        """Pass nothing on, and accept connections all the same."""
        self.cuts = 0

    def url(self, url: str) -> str:
        """The same database, through the proxy."""
        parts = urlsplit(url)
        query = parts.query.replace(str(self._target.parent), str(self._folder))
        assert query != parts.query
        return parts._replace(query=query).geturl()

    async def start(self) -> None:
        path = self._folder / f".s.PGSQL.{PORT}"
        path.unlink(missing_ok=True)
        self._listener = await asyncio.start_unix_server(self._serve, path)

    async def stop(self) -> None:
        """Refuse new connections and cut the others, as a network or a server that is down does."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            (self._folder / f".s.PGSQL.{PORT}").unlink(missing_ok=True)
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ours = [writer]
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            ours.append(far_writer)
            self._writers.update(ours)
            has_committed = asyncio.Event()
            directions = [
                asyncio.ensure_future(self._to_server(reader, far_writer, has_committed)),
                asyncio.ensure_future(self._to_client(far_reader, writer, has_committed)),
            ]
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
        for each in ours:
            self._writers.discard(each)
            each.transport.abort()

    async def _to_server(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_committed: asyncio.Event
    ) -> None:
        while data := await self._read(reader):
            if b"COMMIT\0" in data and self.cut_before_commit:
                self.cut_before_commit -= 1
                self.cuts += 1
                return
            if b"COMMIT\0" in data and self.cut_after_commit:
                self.cut_after_commit -= 1
                self.cuts += 1
                has_committed.set()
            writer.write(data)

    async def _to_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, has_committed: asyncio.Event
    ) -> None:
        while (data := await self._read(reader)) and not has_committed.is_set():
            writer.write(data)

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        with contextlib.suppress(OSError):
            data = await reader.read(1 << 16)
            while self.frozen:
                await asyncio.sleep(0.01)
            return data
        return b""


@contextlib.asynccontextmanager
async def proxied(server: Postgres) -> AsyncIterator[PostgresProxy]:
    proxy = PostgresProxy(server)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
        proxy.remove()
