"""Requests that wait for changes of durable jobs: live streams, `Prefer: wait`, and calls.

    store ──Change──> Watchers ──> one Followed for each watched durable job ──> its watchers

A watcher never slows a durable job. All watchers of one share one read of its record for each change, and at most
`READS` reads a second; a slow watcher misses records between two reads, and sees the newest one. No record is queued.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from time import monotonic

from ...core.job_errors import StoreError
from ...core.requests import Request
from ..records import ENDED, Change, Record
from ..store import Store

READS = 10
"""Reads of one record a second at most, while it only makes progress. A worker reports its progress as often."""

LOOK = 5.0
"""Seconds after which a record is read without a report of a change: a report may be lost with its connection."""

PAUSE = 0.5
"""Seconds until the next try while the store is not available, for example during a change of the keeper."""


class Watchers:
    """All watchers of one server process.

    Args:
        store: Where the records are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followed: dict[str, Followed] = {}
        self._stop_watching: Callable[[], None] | None = None
        self._waits: set[asyncio.Timeout] = set()
        self._is_paused = False

    def pause(self) -> None:
        """The server drains: requests that wait for an end get their response now, and can ask another server."""
        self._is_paused = True
        for limit in self._waits:
            _expire(limit)

    def _on_change(self, change: Change) -> None:
        if change.id:
            if followed := self._followed.get(change.id):
                followed.changed(is_urgent=change.state != followed.state)
        else:  # changes may have been missed
            for followed in self._followed.values():
                followed.changed(is_urgent=True)

    @asynccontextmanager
    async def _watching(self, job_id: str) -> AsyncIterator[Followed]:
        """The record of one durable job, followed as long as it has a watcher."""
        followed = self._followed.get(job_id)
        if followed is None:
            followed = self._followed[job_id] = Followed(self._store, job_id)
        followed.watchers += 1
        if self._stop_watching is None:
            self._stop_watching = self._store.watch(self._on_change)
        try:
            yield followed
        finally:
            followed.watchers -= 1
            if not followed.watchers:
                del self._followed[job_id]
                followed.stop()
            if not self._followed and self._stop_watching is not None:
                self._stop_watching()
                self._stop_watching = None

    async def changes(self, job_id: str, version: int) -> AsyncGenerator[Record, None]:
        """The records of a durable job that are newer than `version`, as they change, up to the one that has ended."""
        async with self._watching(job_id) as followed:
            while True:
                record = await followed.newer_than(version)
                if record is None:
                    return
                yield record
                if record.state in ENDED:
                    return
                version = record.version

    async def until_ended(self, record: Record, seconds: float, request: Request) -> Record:
        """The record of a durable job when it has ended; else the newest one after some seconds.

        A disconnect of the request ends the wait, and so does a drain.
        """
        if record.state in ENDED or self._is_paused:
            return record
        outer = request.on_disconnect
        try:
            async with asyncio.timeout(seconds) as limit:
                self._waits.add(limit)
                request.on_disconnect = partial(_expire, limit)
                async with aclosing(self.changes(record.id, record.version)) as changes:
                    async for newer in changes:
                        record = newer
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._waits.discard(limit)
            request.on_disconnect = outer
        return record


def _expire(limit: asyncio.Timeout) -> None:
    """End a wait now."""
    limit.reschedule(asyncio.get_running_loop().time())


class Followed:
    """The newest record of one durable job; a task reads it after each change.

    Args:
        store: Where the record is.
        job_id: Id of the durable job.
    """

    def __init__(self, store: Store, job_id: str) -> None:
        self.watchers = 0
        self.state = ""
        """Of the newest record; "" before the first one."""
        self._store = store
        self._job_id = job_id
        self._record: Record | None = None
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._news = asyncio.Event()  # of the next record; each one has its own
        self._task = asyncio.create_task(self._follow())
        self._task.add_done_callback(self._publish)

    def changed(self, *, is_urgent: bool) -> None:
        """The record has changed. It is read at once if that is urgent."""
        self._changed.set()
        if is_urgent:
            self._urgent.set()

    def stop(self) -> None:
        """It has no watcher any more."""
        self._task.cancel()

    async def newer_than(self, version: int) -> Record | None:
        """The newest record, as soon as it is newer than `version`. None: the durable job does not exist any more."""
        while self._record is None or self._record.version <= version:
            if self._task.done():
                return None
            await self._news.wait()
        return self._record

    async def _follow(self) -> None:
        """Read the record after each change, until it is removed."""
        while True:
            self._changed.clear()
            self._urgent.clear()
            read_at = monotonic()
            try:
                record = await self._store.get(self._job_id)
            except StoreError:
                await asyncio.sleep(PAUSE)
                continue
            if record is None or record.expired:
                return
            if record != self._record:
                self._record, self.state = record, record.state
                self._publish()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._changed.wait()
                    async with asyncio.timeout(max(0.0, read_at + 1 / READS - monotonic())):
                        await self._urgent.wait()

    def _publish(self, _: object = None) -> None:
        """Wake all watchers: there is a record, or there is none any more."""
        self._news.set()
        self._news = asyncio.Event()
