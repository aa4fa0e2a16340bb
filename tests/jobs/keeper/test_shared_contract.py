"""A store that is asked over the keeper's socket keeps the same contract as the store itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest_asyncio

from keepers import Processes, processes
from store_contract import StoreContract
from system import until
from tinysvc.jobs.keeper.shared_store import SharedStore
from tinysvc.jobs.sqlite.store import SqliteStore
from tinysvc.jobs.store import Store


class AskingHarness:
    """Server processes beside a keeper, which no test sees."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = AsyncExitStack()
        self._servers: dict[str, SharedStore] = {}
        self._keeper: SharedStore | None = None
        self._processes: Processes

    async def server(self, owner: str) -> Store:
        if self._keeper is None:
            self._processes = await self._stack.enter_async_context(processes(self._path, SqliteStore))
            self._keeper = await self._processes.start(owner="keeper")
        if owner not in self._servers:
            self._servers[owner] = await self._processes.start(owner=owner)
        return self._servers[owner]

    async def kill(self, owner: str) -> None:
        await self._processes.kill(self._servers.pop(owner))
        locks = self._path.with_name("jobs.db-servers")
        await until(lambda: not (locks / owner).exists())

    async def restart(self) -> None:
        await self._stack.aclose()
        self._servers.clear()
        self._keeper = None


class TestAskedStore(StoreContract):
    @pytest_asyncio.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[AskingHarness]:
        harness = AskingHarness(tmp_path / "jobs.db")
        yield harness
        await harness.restart()
