"""The SQLite store for the contract of store_contract.py and the model of store_model.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from store_contract import OwnerView
from tinysvc.jobs.sqlite.store import SqliteStore


class FileHarness:
    """One file, opened by a keeper in the name of all server processes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock
        self.keeper: SqliteStore | None = None

    async def server(self, owner: str) -> Any:
        if self.keeper is None:
            self.keeper = SqliteStore(self.path, self.clock)
            await self.keeper.open("keeper", "service")
        return OwnerView(self.keeper, owner)

    async def kill(self, owner: str) -> None:
        assert self.keeper
        await self.keeper.died(owner)

    async def restart(self) -> None:
        if self.keeper is not None:
            await self.keeper.aclose()
            self.keeper = None
