"""Durable jobs in PostgreSQL, for several servers on several machines.

    writes     one connection, group commit: writer.py, batch.py, operations.py
    reads      up to four connections: connection.py
    the lease  one connection, which also listens: lease.py, changes.py

No transaction is open while a durable job runs. states.py decides every change.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from msgspec.structs import replace

from ...core.errors import ConfigurationError
from ...core.job_errors import StoreError
from .. import states
from ..callbacks import Callbacks
from ..records import (
    MISSED,
    CancelOutcome,
    Change,
    Claimed,
    Failure,
    NewJob,
    Page,
    Progress,
    Record,
    ResultHead,
    State,
    Submitted,
)
from ..states import Refusal
from .batch import NOW, Answer, Operation, decode, is_id
from .changes import Changes
from .connection import Again, Link, Lost, Readers, safe_url
from .lease import Lease, boot_time
from .operations import Accept, AttemptWrite, Cancel, Claim, Lapse, Leave, Register, Retry, Stopped, Sweep, Tick
from .pages import read_page
from .schema import prepare
from .writer import Writer

LEASE = 30.0
"""Seconds. A dead server's attempts start again after this time. A longer one outlives a longer restart of PostgreSQL:
a server that cannot renew for 25 s kills its attempts."""
PATIENCE = 5.0
"""Seconds that a client waits while PostgreSQL does not answer; then it gets 503."""
OPEN_SECONDS = 10.0

_GET = "SELECT record FROM tinysvc_jobs WHERE id = $1"
_RESULT = "SELECT content FROM tinysvc_job_contents WHERE id = $1 AND kind = 'result'"
_NEXT_DUE = f"""SELECT due - {NOW} AS seconds FROM tinysvc_jobs WHERE state = 'scheduled' ORDER BY due LIMIT 1"""
_LAST_TICK = "SELECT tick FROM tinysvc_job_ticks WHERE name = $1 AND tick > '-Infinity'"

log = logging.getLogger("tinysvc.jobs")


class PostgresStore:
    """A `Store` in the database `url`."""

    inherited: Sequence[int] = ()

    def __init__(self, url: str, *, lease: float = LEASE) -> None:
        self.problem = ""
        self.clock = boot_time
        self.url = url
        self._seconds = lease
        self._owner = ""
        self._changes = Changes()
        self._lost: Callbacks[list[tuple[str, int]]] = Callbacks()
        self._running: dict[str, int] = {}  # the attempts of this process, by id
        self._channel = ""
        self._is_unsure = False  # the database may have attempts that no caller of `claim` knows
        self._given_back: set[asyncio.Future[bool]] = set()
        self._stack = AsyncExitStack()
        self._is_open = False

    def __repr__(self) -> str:
        return f"<PostgresStore {safe_url(self.url)}, {len(self._running)} running>"

    # Opening and closing

    async def open(self, owner: str, service: str) -> None:
        self._owner = owner
        link = Link(self.url)
        self._channel = await self._prepare(link, service)
        self._readers = Readers(self.url)
        self._stack.push_async_callback(self._readers.aclose)
        self._writer = Writer(link, owner, self._changes, self._report)
        self._writer.start(self._channel)
        self._stack.push_async_callback(self._writer.aclose)
        self._lease = Lease(
            Link(self.url, self._listen),
            owner,
            self._seconds,
            register=lambda: self._writer.do(Register(owner, self._seconds), PATIENCE),
            lapse=lambda dead: self._writer.do(Lapse(dead), PATIENCE),
            lost=self._kill_all,
            clock=lambda: self.clock(),
        )
        try:
            await self._lease.begin()
        except (StoreError, Lost, Again) as error:
            await self._lease.aclose()
            await self._stack.aclose()
            raise ConfigurationError(f"{safe_url(self.url)} cannot be used for durable jobs: {error}") from error
        self._is_open = True

    async def _prepare(self, link: Link, service: str) -> str:
        """Connect and make the tables. A database that starts at the same moment gets some seconds."""
        where = safe_url(self.url)
        end = time.monotonic() + OPEN_SECONDS
        while True:
            try:
                async with link.session(OPEN_SECONDS) as connection:
                    return await prepare(connection, service, where)
            except (Lost, Again) as error:
                if time.monotonic() > end:
                    raise ConfigurationError(f"{where} cannot be reached for durable jobs: {error}") from error
            except (StoreError, ValueError) as error:
                raise ConfigurationError(f"{where} cannot be used for durable jobs: {error}") from error
            await asyncio.sleep(0.2)

    async def _listen(self, connection: Any) -> None:
        """Listen for notifications on a new connection. Those that came while there was none are lost."""

        def received(_connection: Any, pid: int, _channel: str, payload: object) -> None:
            if pid != self._writer.pid:  # our own changes are reported at once
                self._changes.receive(str(payload))

        await connection.add_listener(self._channel, received)
        connection.add_termination_listener(lambda _connection: self._lease.hurry())
        if self._is_open:
            self._changes.report([MISSED])

    async def aclose(self) -> None:
        if self._is_open:
            self._is_open = False
            await self._lease.aclose()
            try:
                if self._owner:
                    await self._writer.do(Leave(self._owner), PATIENCE)
            except StoreError:
                log.warning("the lease in PostgreSQL could not be returned; it ends by itself")
            await self._stack.aclose()

    # The lease

    def lost(self, callback: Callable[[list[tuple[str, int]]], None]) -> Callable[[], None]:
        return self._lost.add(callback)

    def broken(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Never calls: PostgreSQL itself closes the files, and starts again."""
        return lambda: None

    def _kill_all(self) -> None:
        attempts = list(self._running.items())
        self._running.clear()
        if attempts:
            log.error(
                "the lease in PostgreSQL could not be renewed within %.0f s: %d running attempts are killed",
                self._seconds,
                len(attempts),
            )
            self._lost.call(attempts)

    def _report(self, problem: str) -> None:
        if problem and not self.problem:
            log.warning("%s", problem)
        elif self.problem and not problem:
            log.warning("PostgreSQL answers again")
        self.problem = problem

    # Reads

    async def get(self, job_id: str) -> Record | None:
        rows = await self._readers.fetch(_GET, job_id) if is_id(job_id) else []
        return decode(rows[0]["record"]) if rows else None

    async def result(self, job_id: str) -> bytes | None:
        rows = await self._readers.fetch(_RESULT, job_id) if is_id(job_id) else []
        return rows[0]["content"] if rows else None

    async def page(
        self, route: str | None, state: State | None, limit: int, cursor: str, path: str | None = None
    ) -> Page:
        return await read_page(self._readers, route, state, limit, cursor, path)

    async def next_due(self) -> float | None:
        """In the clock of this machine."""
        rows = await self._readers.fetch(_NEXT_DUE)
        return time.time() + rows[0]["seconds"] if rows else None

    async def last_tick(self, name: str) -> float | None:
        rows = await self._readers.fetch(_LAST_TICK, name)
        return rows[0]["tick"] if rows else None

    # Changes of any durable job

    async def submit(self, new: NewJob) -> Submitted:
        return await self._do(Accept(new), size=len(new.request) + len(new.body))

    async def cancel(self, job_id: str) -> CancelOutcome:
        return await self._do(Cancel(job_id))

    async def retry(self, job_id: str) -> Record | Refusal | None:
        return await self._do(Retry(job_id))

    async def schedule(self, name: str, tick: float, new: NewJob | None) -> bool:
        return await self._do(Tick(name, tick, new))

    async def sweep(self, now: float) -> int:
        removed, more = 0, True
        while more:
            number, more = await self._do(Sweep(now))
            removed += number
        return removed

    async def _do(self, operation: Operation[Answer], size: int = 0) -> Answer:
        return await self._writer.do(operation, PATIENCE, size)

    # Attempts of this process

    async def claim(self, capacity: Mapping[str, int], total: int) -> list[Claimed]:
        if not self._lease.holds() or total <= 0:
            return []
        number = self._lease.number
        claim = Claim(capacity, total, self._running)
        claim.repeated, self._is_unsure = self._is_unsure, True
        task = asyncio.ensure_future(self._do(claim))
        try:
            claimed: list[Claimed] = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._give_back)
            raise
        if not self._lease.holds() or self._lease.number != number:
            return []  # the lease of the claim has ended; the next claim finds the attempts that are left
        self._is_unsure = False
        self._running.update((each.record.id, each.record.attempt) for each in claimed)
        return [replace(each, start_by=self._lease.deadline) for each in claimed]

    def _give_back(self, claim: asyncio.Future[list[Claimed]]) -> None:
        """Release the attempts of a claim whose caller was cancelled."""
        if not claim.cancelled() and claim.exception() is None:
            for each in claim.result():
                task = asyncio.ensure_future(self.release(each.record.id, each.record.attempt, "shutdown"))
                self._given_back.add(task)
                task.add_done_callback(self._given_back.discard)

    async def progress(self, job_id: str, attempt: int, value: Progress) -> bool:
        """Durable, as all changes: no two records of a job may have one version."""
        return await self._attempt(job_id, attempt, _with(states.progress, attempt, value), patience=PATIENCE)

    async def save(self, job_id: str, attempt: int, value: bytes) -> bool:
        change = _with(states.save, attempt)
        return await self._attempt(job_id, attempt, change, content=("saved", value))

    async def finish(self, job_id: str, attempt: int, head: ResultHead, body: bytes) -> bool:

        def change(record: Record, now: float) -> Record | Refusal:
            return states.finish(record, attempt, head, now)

        return await self._attempt(job_id, attempt, change, cause="succeeded", content=("result", body))

    async def fail(self, job_id: str, attempt: int, failure: Failure) -> bool:

        def change(record: Record, now: float) -> Record | Refusal:
            return states.fail(record, attempt, failure, now)

        return await self._attempt(job_id, attempt, change, cause=failure.cause)

    async def release(self, job_id: str, attempt: int, cause: str) -> bool:

        def change(record: Record, now: float) -> Record | Refusal:
            return states.release(record, attempt, cause, now)

        return await self._attempt(job_id, attempt, change, cause=cause)

    async def stopped(self, job_id: str, attempt: int) -> bool:
        answer: bool = await self._writer.do(Stopped(job_id, attempt), self._seconds)
        self._forget(job_id, attempt)
        return answer

    async def _attempt(
        self,
        job_id: str,
        attempt: int,
        change: Callable[[Record, float], Record | Refusal],
        *,
        cause: str = "",
        content: tuple[str, bytes] | None = None,
        patience: float | None = None,
    ) -> bool:
        """Write for an attempt. While the database is away, wait as long as the lease lasts."""
        self._lease.holds()  # kills first if it has just ended
        write = AttemptWrite(job_id, attempt, change, cause=cause, content=content)
        size = len(content[1]) if content else 0
        answer: bool = await self._writer.do(write, patience or self._seconds, size)
        if cause:
            self._forget(job_id, attempt)
        return answer

    def _forget(self, job_id: str, attempt: int) -> None:
        if self._running.get(job_id) == attempt:
            del self._running[job_id]

    def watch(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        return self._changes.watch(callback)


def _with(change: Callable[..., Record | Refusal], *values: Any) -> Callable[[Record, float], Record | Refusal]:
    """A transition that does not depend on the time."""
    return lambda record, _now: change(record, *values)
