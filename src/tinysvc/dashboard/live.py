"""Reads the metrics at regular times, and sends documents to the pages that are open.

    no page open    a reading each STEP seconds, for the charts
    a page open     a reading each second, one document for all pages

A page that does not read misses documents: nothing is queued.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress

import orjson

from ..core.sse import Event
from ..telemetry.snapshots import Snapshot
from .history import STEP, History
from .page_document import RouteAbout, charts_of, document_of
from .reading import Reading, reading_of

log = logging.getLogger("tinysvc")

INTERVAL = 1.0
"""Seconds between two documents."""

MAX_VIEWERS = 20
"""Open pages; a page more gets a 503. Each one costs a connection, and a few kilobytes a second."""

Read = Callable[[Callable[[Snapshot], Reading]], Awaitable[Reading]]
"""Collects the metrics of all server processes, and calls the function in a thread."""


class Live:
    """The history, and its pages.

    Args:
        read: See `Read`.
        about: The routes, as in "GET /items/{name}".
        process: The id of this process.
    """

    def __init__(self, read: Read, about: Mapping[str, RouteAbout], process: int) -> None:
        self.history = History()
        self.viewers = 0
        self._read = read
        self._about = about
        self._process = process
        self._is_closed = False
        self._came = asyncio.Event()  # a page was opened, or the server drains
        self._news = asyncio.Event()  # of the next document; each one has its own
        self._document = b""
        self._charts = b""
        self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        """The server drains: end all streams."""
        self._is_closed = True
        self._publish()
        self._came.set()

    async def aclose(self) -> None:
        self.close()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while not self._is_closed:
            try:
                await self.look()
            except Exception:  # the dashboard must not end because one reading fails
                log.exception("the dashboard could not read the metrics")
            self._came.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL if self.viewers else STEP):
                    await self._came.wait()

    async def look(self) -> None:
        """Take one reading; make the document, if a page is open."""
        charted = self.history.charted
        self.history.add(await self._read(lambda snapshot: reading_of(snapshot, time.time())))
        if not self.viewers:
            self._document = self._charts = b""
            return
        if not self._charts or self.history.charted != charted:
            self._charts = _encoded("charts", charts_of(self.history))
        document = document_of(self.history, self._about, self._process)
        if document is not None:
            self._document = _encoded("now", document)
            self._publish()

    def _publish(self) -> None:
        """Wake all pages."""
        self._news.set()
        self._news = asyncio.Event()

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The documents, and the charts when they have another point, as server-sent events."""
        self.viewers += 1
        try:
            self._came.set()
            charts = b""
            while not self._is_closed:
                news = self._news
                if self._charts and charts is not self._charts:
                    charts = self._charts
                    yield charts
                if self._document:
                    yield self._document
                if not self._is_closed:
                    await news.wait()
        finally:
            self.viewers -= 1


class EncodedEvents(AsyncIterator[bytes]):
    """The stream of one page: its items are encoded already, so middleware leaves them as they are."""

    def __init__(self, live: Live) -> None:
        self._events = live.events()

    async def __anext__(self) -> bytes:
        return await anext(self._events)

    async def aclose(self) -> None:
        """The client has disconnected."""
        await self._events.aclose()


def _encoded(event: str, data: object) -> bytes:
    return Event(orjson.dumps(data).decode(), event=event).encode()
