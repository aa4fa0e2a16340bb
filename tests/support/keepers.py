"""Several server processes with one store, played in one process; and the sudden death of one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from memory_store import MemoryStore
from tinysvc.jobs.keeper.shared_store import SharedStore
from tinysvc.jobs.records import NewJob
from tinysvc.jobs.store import LocalStore

ROUTE = "/trainings"
CAPACITY = {ROUTE: 10}


def new_job(**options: Any) -> NewJob:
    return NewJob(**{"route": ROUTE, "request": b"request", "keep": 60.0, "max_attempts": 3, **options})


class Processes:
    """Makes open stores; each is closed at the end. Their keeper's store is `memory`, unless `local` makes another."""

    def __init__(self, path: Path, local: Callable[[Path], LocalStore] | None = None) -> None:
        self.path = path
        self.memory = MemoryStore()
        self._local = local or self._shared_memory
        self._numbers = count(1)
        self.stores: list[SharedStore] = []

    async def start(self, service: str = "shop", owner: str | None = None) -> SharedStore:
        """One more server process."""
        store = SharedStore(self.path, self._local)
        self.stores.append(store)
        await store.open(f"owner-{next(self._numbers)}" if owner is None else owner, service)
        return store

    async def kill(self, store: SharedStore) -> None:
        """What the kernel does for a process that is killed: its connections and locks are closed, and nothing else."""
        self.stores.remove(store)
        store._closed = True
        for task in store._tasks:
            task.cancel()
        store._watchers._functions.clear()
        if store._link is not None:
            store._link.close()
        if store._keeper is not None:
            if store._keeper._server is not None:
                store._keeper._server.close()
            for connection in list(store._keeper.connections):
                connection.frames.abort()
        for lock in (store._owner_lock, store._keeper_lock):
            if lock is not None:
                lock.close()

    def _shared_memory(self, path: Path) -> LocalStore:
        return self.memory


@asynccontextmanager
async def processes(path: Path, local: Callable[[Path], LocalStore] | None = None) -> AsyncIterator[Processes]:
    all_of_them = Processes(path, local)
    try:
        yield all_of_them
    finally:
        for store in all_of_them.stores:
            await store.aclose()
