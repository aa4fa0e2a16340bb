"""sqlite/store.py: the contract of a store, and what only a file can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from sqlite_harness import FileHarness
from store_contract import StoreContract
from store_edges import StoreEdges


@pytest_asyncio.fixture
async def harness(tmp_path: Path) -> AsyncIterator[FileHarness]:
    harness = FileHarness(tmp_path / "jobs.db")
    yield harness
    await harness.restart()


class TestSqliteStore(StoreContract):
    pass


class TestEdges(StoreEdges):
    @pytest_asyncio.fixture
    async def store(self, harness: FileHarness) -> Any:
        return await harness.server("server")
