"""The keeper ends the attempts of server processes that are dead with all their workers. Locks show their deaths."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic

from ...core.job_errors import JobError
from ..records import State
from ..store import LocalStore
from .locks import holders, is_held, owners_in, pid_in, remove_unfinished

log = logging.getLogger("tinysvc.jobs")

FIRST_LOOK, LAST_LOOK = 0.02, 1.0
"""Seconds between two looks at the lock of an owner that is not connected. Workers die within milliseconds after their
server process; a process that a job has forked may live for hours."""

SUSPICIOUS = 1.0
"""Seconds after which the keeper searches the process that holds such a lock. The pause to the next search doubles."""


class OwnerWatch:
    """Looks at the locks of the owners that are not connected to the keeper.

    Args:
        store: The keeper's store.
        folder: The folder of the lock files.
        own: The owner that the keeper's process itself is.
        is_connected: Whether an owner is connected, and therefore alive.
    """

    def __init__(self, store: LocalStore, folder: Path, own: str, is_connected: Callable[[str], bool]) -> None:
        self._store = store
        self._folder = folder
        self._own = own
        self._is_connected = is_connected
        self._wake = asyncio.Event()
        self._suspicious: dict[str, tuple[float, float]] = {}  # owner -> next search for its holders, and the pause
        self._named: set[tuple[str, int]] = set()  # owners and processes that a warning has named

    def wake(self) -> None:
        """Look at once: the connection of an owner was lost."""
        self._wake.set()

    async def run(self) -> None:
        """Look at the locks until the task is cancelled."""
        pause: float | None = FIRST_LOOK
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
                self._wake.clear()
                pause = FIRST_LOOK
            except TimeoutError:
                pause = min(2 * (pause or FIRST_LOOK), LAST_LOOK)
            try:
                if not await self.look():
                    pause = None
            except (JobError, OSError) as error:
                log.error("the attempts of dead server processes cannot be ended now: %s", error)

    async def look(self) -> bool:
        """End the attempts of dead owners, once. Returns whether owners are left whose locks must be watched."""
        remove_unfinished(self._folder)
        owners = (await self._store.owners() | owners_in(self._folder)) - {self._own, ""}
        held = set()
        for owner in owners:
            if self._is_connected(owner):
                continue
            if is_held(self._folder / owner):
                held.add(owner)
                continue
            if ended := await self._store.died(owner):
                log.warning(
                    "a server process has died (%s): %d attempts of durable jobs ended with it", owner, len(ended)
                )
            (self._folder / owner).unlink(missing_ok=True)
        now = monotonic()
        self._suspicious = {owner: self._suspicious.get(owner, (now + SUSPICIOUS, SUSPICIOUS)) for owner in held}
        for owner, (due, pause) in self._suspicious.items():
            if now >= due:
                self._suspicious[owner] = now + 2 * pause, 2 * pause
                await self._name_holders(owner)
        return bool(held)

    async def _name_holders(self, owner: str) -> None:
        """Warn of processes that hold the lock of a dead server process: its jobs wait for them."""
        path = self._folder / owner
        found = await asyncio.to_thread(holders, path)
        if any(holder.pid == pid_in(path) for holder in found):
            return  # the server process lives, and will connect again
        for pid, holder in [(holder.pid, str(holder)) for holder in found] or [(0, "a process that cannot be seen")]:
            if (owner, pid) not in self._named:
                self._named.add((owner, pid))
                log.warning(
                    "%s was started by a job, and still holds the lock of a server process that has ended (%s): the "
                    "jobs of that process start again when it ends; to end it: kill %s",
                    holder,
                    owner,
                    pid or "PID",
                )


async def release_unknown(store: LocalStore, owner: str, held: Collection[tuple[str, int]]) -> None:
    """End the attempts of a living owner that it does not know: the keeper died between the claim and its answer."""
    for record in await store.attempts_of(owner):
        if (record.id, record.attempt) in held:
            continue
        if record.state == State.RUNNING:
            await store.release(record.id, record.attempt, "shutdown")
        else:
            await store.stopped(record.id, record.attempt)
