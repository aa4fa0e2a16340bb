"""sqlite_store.py: the contract of a store, and what only a file can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from store_contract import OwnerView, StoreContract
from tinysvc.jobs.sqlite_store import SqliteStore


class FileHarness:
    """One file, opened by a keeper in the name of all server processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keeper: SqliteStore | None = None

    async def server(self, owner: str) -> Any:
        if self.keeper is None:
            self.keeper = SqliteStore(self.path)
            await self.keeper.open("keeper", "service")
        return OwnerView(self.keeper, owner)

    async def kill(self, owner: str) -> None:
        assert self.keeper
        await self.keeper.died(owner)

    async def restart(self) -> None:
        if self.keeper is not None:
            await self.keeper.aclose()
            self.keeper = None


@pytest_asyncio.fixture
async def harness(tmp_path: Path) -> AsyncIterator[FileHarness]:
    harness = FileHarness(tmp_path / "jobs.db")
    yield harness
    await harness.restart()


class TestSqliteStore(StoreContract):
    pass
