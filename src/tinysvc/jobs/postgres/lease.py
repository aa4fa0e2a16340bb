"""The lease of a server process: for how long it may run attempts.

    database    tinysvc_job_servers.lease_end, by the clock of the database
    here        a deadline by CLOCK_BOOTTIME, which also counts while the machine is suspended

The lease begins when a renewal is *sent*, for our deadline, and when it *arrives*, for the database. Our deadline is a
sixth of the lease earlier. So a server process that cannot renew kills its attempts before another one starts them.

A process that was suspended, or stopped by SIGSTOP, finds the deadline passed when it wakes, and kills first. A write
that it sends before that names an attempt that another server has ended: the write matches no row.

The same connection listens for notifications, and finds servers whose lease is over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from ...core.job_errors import StoreError
from .connection import Again, Link, Lost

RENEWALS = 6
"""A lease is renewed so many times before it ends: some may fail, as while PostgreSQL restarts."""
MARGIN = 6
"""One part in so many of the lease is left for the kill, and for clocks of different speed."""

_RENEW = """UPDATE tinysvc_job_servers SET lease_end = clock_timestamp() + make_interval(secs => $2)
    WHERE owner = $1 AND lease_end > clock_timestamp()"""
_DEAD = """SELECT owner FROM tinysvc_job_servers WHERE owner <> $1 AND lease_end < clock_timestamp()
    UNION SELECT owner FROM tinysvc_jobs AS jobs WHERE owner <> ''
    AND NOT EXISTS (SELECT FROM tinysvc_job_servers AS servers WHERE servers.owner = jobs.owner)"""


def boot_time() -> float:
    """Seconds since the boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The lease of the server process `owner`.

    Args:
        link: A connection of its own: writes that wait must not delay a renewal.
        owner: The server process. "": a tool, which runs no attempts: it only listens.
        seconds: How long a lease lasts.
        register: Begins a lease in the database, and ends the attempts of an earlier one.
        lapse: Ends the attempts of another server process, whose lease is over.
        lost: Is called when the deadline passes: it kills the attempts.
        clock: CLOCK_BOOTTIME; tests replace it.
    """

    def __init__(
        self,
        link: Link,
        owner: str,
        seconds: float,
        *,
        register: Callable[[], Awaitable[Any]],
        lapse: Callable[[str], Awaitable[Any]],
        lost: Callable[[], None],
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self._link = link
        self._owner = owner
        self._seconds = seconds
        self._register = register
        self._lapse = lapse
        self._lost = lost
        self._clock = clock
        self._deadline = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self.number = 0
        """Grows with each lease: an attempt belongs to one."""

    @property
    def deadline(self) -> float:
        """When it ends, by its clock."""
        return self._deadline

    def holds(self) -> bool:
        """Whether attempts may run. If the deadline has just passed, they are killed first."""
        if self._deadline != float("-inf") and self._clock() >= self._deadline:
            self._end()
        return self._deadline != float("-inf")

    async def begin(self) -> None:
        """Register, listen, and renew from now on."""
        if self._owner:
            await self._begin_lease()
        await self._renew(self._seconds / RENEWALS)
        self._watch()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="durable jobs: lease")

    async def aclose(self) -> None:
        """Stop the renewals."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._link.aclose()

    async def _begin_lease(self) -> None:
        sent = self._clock()
        await self._register()
        self.number += 1
        self._extend(sent)

    def _extend(self, sent: float) -> None:
        self._deadline = sent + self._seconds * (1 - 1 / MARGIN)

    def hurry(self) -> None:
        """Renew now, as after the loss of the connection."""
        self._wake.set()

    def _end(self) -> None:
        self._deadline = float("-inf")
        self._lost()
        self.hurry()

    def _watch(self) -> None:
        """Read the clock repeatedly: a timer of the event loop does not count suspended time."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(self._seconds / 60, 0.5), self._watch)
        self.holds()

    async def _run(self) -> None:
        step = self._seconds / RENEWALS
        while True:
            self._wake.clear()
            try:
                if self.holds() or not self._owner:
                    await self._renew(step)
                else:
                    await self._begin_lease()
                await self._pause(step)
            except (Lost, Again, StoreError):
                await asyncio.sleep(min(step, 0.5))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass  # it is time for the next renewal

    async def _renew(self, step: float) -> None:
        sent = self._clock()
        async with self._link.session(2 * step) as connection:  # a lost connection is made again, and listens again
            if not self._owner:
                await connection.fetchval("SELECT 1")
                return
            answer = await connection.execute(_RENEW, self._owner, self._seconds)
            dead = [] if answer == "UPDATE 0" else await connection.fetch(_DEAD, self._owner)
        if answer == "UPDATE 0":  # another server has ended it, or has noticed its end first
            self._end()
            await self._begin_lease()
        elif self.holds():
            self._extend(sent)
        for row in dead:
            await self._lapse(row["owner"])
