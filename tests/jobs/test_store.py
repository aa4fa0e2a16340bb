"""store.py: the interface is what the store in memory has."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from memory_store import MemoryStore
from store_contract import OwnerView, StoreContract
from tinysvc.jobs.store import LocalStore


def test_store_in_memory_has_every_method_of_the_interface() -> None:
    store: LocalStore = MemoryStore()  # checked by mypy
    for name, method in inspect.getmembers(LocalStore, inspect.isfunction):
        if not name.startswith("_"):
            wanted = list(inspect.signature(method).parameters)
            assert ["self", *inspect.signature(getattr(store, name)).parameters] == wanted, name


class MemoryHarness:
    """The store in memory, which all server processes share."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def server(self, owner: str) -> Any:
        return OwnerView(self.store, owner)

    async def kill(self, owner: str) -> None:
        await self.store.died(owner)

    async def restart(self) -> None:
        await self.store.aclose()


@pytest.fixture
def harness() -> MemoryHarness:
    return MemoryHarness()


class TestMemoryStore(StoreContract):
    """The suite is right about a store without a disk, so its failures are those of the disk."""
